//! What the configuration of each database adds to its server connections: a user whoever the
//! client is, what is run first, and what sessions begin with.

use std::collections::HashMap;
use std::sync::Arc;

use forebay_seam::secret::SecretRef;

use super::SettingsError;
use crate::server::connector::{Addition, Credentials};
use crate::server::proof::Proof;
use crate::settings::{DatabaseSettings, PostgresSettings};

/// Parameters of a startup packet that are no settings.
const NO_SETTINGS: [&str; 4] = ["user", "database", "replication", "options"];

/// What the sessions of the database `name` begin with.
///
/// # Errors
/// The first that is no setting of PostgreSQL's.
pub(super) fn parameters(
    name: &str,
    database: &DatabaseSettings,
) -> Result<Arc<[(String, String)]>, SettingsError> {
    let parameters = database.parameters.iter().map(|(key, value)| {
        let key = key.to_ascii_lowercase();
        let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
        let reason = if NO_SETTINGS.contains(&key.as_str()) || !key.chars().all(letters) {
            "expected a setting of PostgreSQL, such as `timezone`"
        } else if value.contains('\0') {
            "no value has a zero byte"
        } else {
            return Ok((key, value.clone()));
        };
        let at = format!("postgres.databases.{name}.parameters.{key}");
        Err(SettingsError { at, reason: reason.to_owned() })
    });
    parameters.collect()
}

/// What the configuration of each database adds to its connections.
pub(super) fn additions(
    settings: &PostgresSettings,
) -> Result<HashMap<Arc<str>, Addition>, SettingsError> {
    let mut additions = HashMap::new();
    for (name, database) in &settings.databases {
        let password = database.password.as_ref().map(SecretRef::read).transpose();
        let password = password.map_err(|error| SettingsError {
            at: format!("postgres.databases.{name}.password"),
            reason: error.to_string(),
        })?;
        // Without a password of its own it is what is configured for that user.
        let credentials = password.zip(database.force_user.clone());
        let credentials = credentials
            .map(|(password, user)| Credentials { user, proof: Some(Proof::Password(password)) });
        let query = database.connect_query.as_deref().map(Arc::from);
        let parameters = parameters(name, database)?;
        // Each has its own, or those of all others would count.
        let addition = Addition { credentials, query, parameters };
        additions.insert(Arc::from(name.as_str()), addition);
    }
    Ok(additions)
}
