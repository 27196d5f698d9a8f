//! The engine's side of PostgreSQL: opens, probes and resets server connections.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use forebay_pool::{ConnectFailure, Connector, FailureKind};
use forebay_seam::secret::SecretString;
use tokio::sync::watch;

use super::login::{Login, Target};
use super::{Server, ServerFailure};

/// A database and a user, as the server knows the database and as our configuration knows
/// the user.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) database: Arc<str>,
    pub(crate) user: Arc<str>,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.user, self.database)
    }
}

/// How a user logs in to the server.
pub(crate) struct Credentials {
    pub(crate) user: String,
    pub(crate) password: Option<SecretString>,
}

pub(crate) struct Postgres {
    pub(crate) target: Target,
    pub(crate) credentials: HashMap<Arc<str>, Credentials>,
    /// Connections that the server leaves to ordinary users; told once it is known.
    pub(crate) capacity: watch::Sender<Option<u32>>,
    pub(crate) capacity_asked: AtomicBool,
}

/// `max_connections` less those kept for superusers and (since 16) for reserved roles.
const CAPACITY: &str = "SELECT pg_catalog.sum(CASE name WHEN 'max_connections' THEN setting::int \
     ELSE -setting::int END) FROM pg_catalog.pg_settings WHERE name IN \
     ('max_connections', 'superuser_reserved_connections', 'reserved_connections')";

impl Postgres {
    async fn open(&self, identity: &Identity) -> Result<Server, ServerFailure> {
        let credentials = self.credentials.get(&identity.user);
        let login = Login {
            user: credentials.map_or(&*identity.user, |c| c.user.as_str()),
            database: &identity.database,
            password: credentials.and_then(|c| c.password.as_ref()),
        };
        let mut server = self.target.connect(&login).await?;
        if !self.capacity_asked.swap(true, Ordering::Relaxed) {
            let answer = server.ask(CAPACITY).await?;
            if let Some(capacity) = answer.and_then(|text| text.parse().ok()) {
                self.capacity.send_replace(Some(capacity));
            }
        }
        Ok(server)
    }
}

impl Connector for Postgres {
    type Identity = Identity;
    type Connection = Box<Server>;

    async fn connect(&self, identity: &Identity) -> Result<Box<Server>, ConnectFailure> {
        match self.open(identity).await {
            Ok(server) => Ok(Box::new(server)),
            Err(failure) => Err(ConnectFailure::new(kind(&failure), failure)),
        }
    }

    fn is_open(&self, connection: &mut Box<Server>) -> bool {
        connection.is_open()
    }

    async fn probe(&self, connection: Box<Server>) -> Option<Box<Server>> {
        connection.probe().await.map(Box::new)
    }

    async fn reset(&self, connection: Box<Server>) -> Option<Box<Server>> {
        connection.reset().await.map(Box::new)
    }
}

fn kind(failure: &ServerFailure) -> FailureKind {
    match failure {
        ServerFailure::Refused(said) => match said.code.as_str() {
            // Too many connections: it is there, and full.
            "53300" => FailureKind::Busy,
            // Starting, stopping or recovering: as good as not there.
            "57P01" | "57P02" | "57P03" => FailureKind::Unreachable,
            _ => FailureKind::Denied,
        },
        ServerFailure::Auth(_) => FailureKind::Denied,
        ServerFailure::Io(_) | ServerFailure::Protocol(_) | ServerFailure::Tls(_) => {
            FailureKind::Unreachable
        }
    }
}
