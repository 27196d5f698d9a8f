//! What the configuration of each database adds to its server connections: a user whoever the
//! client is, and what is run first.

use std::collections::HashMap;
use std::sync::Arc;

use forebay_seam::secret::SecretRef;

use super::SettingsError;
use crate::server::connector::{Addition, Credentials};
use crate::server::proof::Proof;
use crate::settings::PostgresSettings;

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
