//! Where the users of each database are looked up, as the configuration says.

use std::collections::HashMap;
use std::sync::Arc;

use forebay_seam::secret::SecretRef;

use super::SettingsError;
use crate::auth::Secrets;
use crate::auth::lookup::{Inquirer, Lookup, Lookups, Place};
use crate::route::Backend;
use crate::server::connector::Credentials;
use crate::server::proof::Proof;
use crate::settings::{AuthQuerySettings, PostgresSettings};

/// Where to ask if databases have no names of ours: it is there on every server.
const ANY_DATABASE: &str = "postgres";

/// What leads from a database's name to its server and its name there.
pub(super) type Leads<'a> = dyn Fn(&str) -> Option<(Arc<Backend>, Arc<str>)> + 'a;

/// The look-ups of `settings`; databases that are asked alike share one.
///
/// # Errors
/// A database that is not there, or a password that cannot be read.
pub(super) fn lookups(
    settings: &PostgresSettings,
    secrets: &Secrets,
    leads: &Leads<'_>,
) -> Result<Lookups, SettingsError> {
    let general = settings.auth_query.as_ref();
    let password = general.and_then(|query| query.password.as_ref()).map(SecretRef::read);
    let password = password.transpose().map_err(|error| SettingsError {
        at: "postgres.auth_query.password".into(),
        reason: error.to_string(),
    })?;
    let inquirer = |user: &str| {
        let own = general.filter(|query| query.user == user).and(password.clone());
        let listed = || secrets.credentials_of(user).cloned();
        let of_own = |own| Credentials { user: user.to_owned(), proof: Some(Proof::Password(own)) };
        let nothing = || Credentials { user: user.to_owned(), proof: None };
        Inquirer::configured(own.map(of_own).or_else(listed).unwrap_or_else(nothing))
    };
    let ttl = general.map_or(AuthQuerySettings::TTL, |query| query.cache_ttl);
    let mut lookups = Lookups::default();
    if settings.databases.is_empty() {
        let Some(general) = general else { return Ok(lookups) };
        let database = general.database.as_deref().unwrap_or(ANY_DATABASE);
        if let Some((backend, database)) = leads(database) {
            let place = Place { backend, database };
            let query = general.query.clone();
            let lookup = Lookup::new(place, inquirer(&general.user), query, ttl);
            lookups.any = Some(Arc::new(lookup));
        }
        return Ok(lookups);
    }
    let mut shared = HashMap::new();
    for (name, database) in &settings.databases {
        let user = database.auth_user.as_deref().or(general.map(|query| &*query.user));
        let Some(user) = user else { continue };
        let query = database.auth_query.as_deref().or(general.map(|query| &*query.query));
        let query = query.map_or_else(AuthQuerySettings::default_query, str::to_owned);
        let (asked, key) = match (&database.auth_database, general) {
            (Some(asked), _) => {
                (asked.as_str(), format!("postgres.databases.{name}.auth_database"))
            }
            (None, Some(AuthQuerySettings { database: Some(asked), .. })) => {
                (asked.as_str(), "postgres.auth_query.database".to_owned())
            }
            (None, _) => (name.as_str(), format!("postgres.databases.{name}")),
        };
        let (backend, there) = leads(asked).ok_or_else(|| SettingsError {
            at: key,
            reason: format!("there is no database `{asked}` in [postgres.databases]"),
        })?;
        let alike = (Arc::as_ptr(&backend), Arc::clone(&there), user.to_owned(), query.clone());
        let lookup = shared.entry(alike).or_insert_with(|| {
            let place = Place { backend, database: there };
            Arc::new(Lookup::new(place, inquirer(user), query, ttl))
        });
        lookups.named.insert(name.clone(), Arc::clone(lookup));
    }
    Ok(lookups)
}
