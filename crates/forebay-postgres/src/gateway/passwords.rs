//! The secrets of configured users: read once, when a configuration is applied.

use std::collections::HashMap;
use std::sync::Arc;

use forebay_seam::secret::{ExposeSecret, SecretRef, SecretString};

use super::SettingsError;
use crate::scram::Verifier;
use crate::server::connector::{Addition, Credentials};
use crate::server::proof::Proof;
use crate::settings::{PostgresSettings, UserSettings};

/// A user's secrets, read once.
pub(super) struct Password {
    /// What a client's proof is checked against.
    pub(super) verifier: Option<String>,
    /// What the server is told.
    pub(super) at_server: Option<SecretString>,
}

pub(super) fn read(
    settings: &PostgresSettings,
) -> Result<HashMap<String, Password>, SettingsError> {
    let mut passwords = HashMap::new();
    for (name, user) in &settings.users {
        let read = |key: &str, secret: &Option<SecretRef>| {
            let read = secret.as_ref().map(SecretRef::read).transpose();
            read.map_err(|error| SettingsError {
                at: format!("postgres.users.{name}.{key}"),
                reason: error.to_string(),
            })
        };
        let own = read("password", &user.password)?;
        let at_server = read("server_password", &user.server_password)?;
        passwords.insert(name.clone(), password(name, user, own, at_server)?);
    }
    Ok(passwords)
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
        // Each has its own, or those of all others would count.
        additions.insert(Arc::from(name.as_str()), Addition { credentials, query });
    }
    Ok(additions)
}

fn password(
    name: &str,
    user: &UserSettings,
    own: Option<SecretString>,
    at_server: Option<SecretString>,
) -> Result<Password, SettingsError> {
    let Some(own) = own else {
        return Ok(Password { verifier: None, at_server });
    };
    let text = own.expose_secret();
    if text.starts_with("SCRAM-SHA-256$") {
        if Verifier::parse(text).is_none() {
            let at = format!("postgres.users.{name}.password");
            let reason = "it begins like a SCRAM verifier, and is none: write \
                          SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY";
            return Err(SettingsError { at, reason: reason.into() });
        }
        return Ok(Password { verifier: Some(text.to_owned()), at_server });
    }
    let verifier = postgres_protocol::password::scram_sha_256(text.as_bytes());
    let at_server = at_server.or_else(|| user.server_user.is_none().then_some(own.clone()));
    Ok(Password { verifier: Some(verifier), at_server })
}
