//! Where the users of each database are looked up, as the configuration says.

use std::collections::HashMap;
use std::sync::Arc;

use super::SettingsError;
use crate::auth::Authentication;
use crate::auth::lookup::{Inquirer, Lookup, Lookups, Place};
use crate::route::Backend;
use crate::server::connector::Credentials;
use crate::server::proof::Proof;
use crate::settings::{AuthQuerySettings, DatabaseSettings, PostgresSettings};

/// Where to ask if databases have no names of ours: it is there on every server.
const ANY_DATABASE: &str = "postgres";

/// What leads from a database's name to its server and its name there.
pub(super) type Leads<'a> = dyn Fn(&str) -> Option<(Arc<Backend>, Arc<str>)> + 'a;

/// Checks that the databases to ask are there.
///
/// # Errors
/// The first that is not.
pub(super) fn check(settings: &PostgresSettings) -> Result<(), SettingsError> {
    let there = |key: String, asked: &str| {
        let is_there = settings.databases.is_empty() || settings.database(asked).is_some();
        let reason = || format!("there is no database `{asked}` in [postgres.databases]");
        is_there.then_some(()).ok_or_else(|| SettingsError { at: key, reason: reason() })
    };
    if let Some(asked) = settings.auth_query.as_ref().and_then(|query| query.database.as_ref()) {
        there("postgres.auth_query.database".into(), asked)?;
    }
    for (name, database) in &settings.databases {
        if let Some(asked) = &database.auth_database {
            there(format!("postgres.databases.{name}.auth_database"), asked)?;
        }
    }
    Ok(())
}

/// The look-ups of `settings`, which were checked; databases that are asked alike share one.
pub(super) fn lookups(
    settings: &PostgresSettings,
    auth: &Authentication,
    leads: &Leads<'_>,
) -> Lookups {
    let general = settings.auth_query.as_ref();
    let inquirer = |user: &str| {
        let own = general.filter(|query| query.user == user).and(auth.password_of_query());
        let credentials = |proof| Credentials { user: user.to_owned(), proof };
        let own = own.map(|password| credentials(Some(Proof::Password(password.clone()))));
        let listed = || auth.secrets().credentials_of(user).cloned();
        Inquirer::configured(own.or_else(listed).unwrap_or_else(|| credentials(None)))
    };
    let ttl = general.map_or(AuthQuerySettings::TTL, |query| query.cache_ttl);
    let mut lookups = Lookups::default();
    if settings.databases.is_empty() {
        let Some(general) = general else { return lookups };
        let database = general.database.as_deref().unwrap_or(ANY_DATABASE);
        if let Some((backend, database)) = leads(database) {
            let place = Place { backend, database };
            let query = general.query.clone();
            let lookup = Lookup::new(place, inquirer(&general.user), query, ttl);
            lookups.any = Some(Arc::new(lookup));
        }
        return lookups;
    }
    let mut shared = HashMap::new();
    for (name, database) in &settings.databases {
        let user = database.auth_user.as_deref().or(general.map(|query| &*query.user));
        let Some(user) = user else { continue };
        let query = database.auth_query.as_deref().or(general.map(|query| &*query.query));
        let query = query.map_or_else(AuthQuerySettings::default_query, str::to_owned);
        let asked = database.auth_database.as_ref();
        let asked = asked.or(general.and_then(|query| query.database.as_ref()));
        let is_of_others = name == DatabaseSettings::ALL_OTHERS;
        let own = if is_of_others { ANY_DATABASE } else { name };
        let asked = asked.map_or(own, String::as_str);
        let Some((backend, there)) = leads(asked) else { continue };
        let alike = (Arc::as_ptr(&backend), Arc::clone(&there), user.to_owned(), query.clone());
        let lookup = shared.entry(alike).or_insert_with(|| {
            let place = Place { backend, database: there };
            Arc::new(Lookup::new(place, inquirer(user), query, ttl))
        });
        if is_of_others && general.is_some() {
            // Every database with a table has one of its own, too.
            lookups.any = Some(Arc::clone(lookup));
        }
        lookups.named.insert(name.clone(), Arc::clone(lookup));
    }
    lookups
}
