//! The engine's side of PostgreSQL: opens, probes and resets server connections.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use forebay_pool::{ConnectFailure, Connector, FailureKind};
use forebay_seam::secret::SecretString;
use forebay_seam::sync::Mutex;
use forebay_seam::time;

use super::capacity::Surveyor;
use super::catalogue::Catalogues;
use super::hosts::Hosts;
use super::login::Login;
use super::role::Role;
use super::{Server, ServerFailure};
use crate::params::RoleNews;

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
    pub(crate) hosts: Hosts,
    pub(crate) credentials: HashMap<Arc<str>, Credentials>,
    pub(crate) surveyor: Surveyor,
    pub(crate) catalogues: Catalogues,
    /// Who logged in last.
    pub(crate) last: Mutex<Option<Identity>>,
    /// How long one login may take.
    pub(crate) patience: Duration,
}

impl Postgres {
    /// A connection as a user of ours, counted among our connections.
    pub(crate) async fn open(&self, identity: &Identity) -> Result<Server, ServerFailure> {
        let parameters = [("application_name".to_owned(), "forebay".to_owned())];
        let mut server = self.login(identity, &parameters).await?;
        server.catalogue = self.catalogues.of(&identity.database);
        self.surveyor.survey(&mut server).await?;
        if self.hosts.is_choosy() {
            *self.last.lock() = Some(identity.clone());
        }
        Ok(server)
    }

    /// A connection for one client that replicates: with its own startup parameters, and not
    /// counted, since the server does not count it among ordinary ones.
    pub(crate) async fn replicate(
        &self,
        identity: &Identity,
        parameters: &[(String, String)],
    ) -> Result<Server, ServerFailure> {
        self.login(identity, parameters).await
    }

    async fn login(
        &self,
        identity: &Identity,
        parameters: &[(String, String)],
    ) -> Result<Server, ServerFailure> {
        self.hosts.connect(&self.login_of(identity, parameters)).await
    }

    fn login_of<'a>(
        &'a self,
        identity: &'a Identity,
        parameters: &'a [(String, String)],
    ) -> Login<'a> {
        let credentials = self.credentials.get(&identity.user);
        Login {
            user: credentials.map_or(&*identity.user, |c| c.user.as_str()),
            database: &identity.database,
            password: credentials.and_then(|c| c.password.as_ref()),
            parameters,
        }
    }

    /// Does `server` still lead where connections should?
    pub(crate) fn leads_right(&self, server: &mut Server) -> bool {
        let Server { place: Some(place), settings, .. } = server else { return true };
        if settings.role_news() == RoleNews::Some {
            self.hosts.hear(place, Role::reported(settings));
        }
        self.hosts.is_current(place)
    }

    /// Logs in to host `number` as who logged in last, only to see what it is.
    pub(crate) async fn look(&self, number: usize) {
        let Some(identity) = self.last.lock().clone() else { return };
        let parameters = [("application_name".to_owned(), "forebay".to_owned())];
        self.hosts.look(number, &self.login_of(&identity, &parameters)).await;
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

    fn is_current(&self, connection: &mut Box<Server>) -> bool {
        self.leads_right(connection)
    }

    async fn probe(&self, connection: Box<Server>) -> Option<Box<Server>> {
        let probed = time::timeout(self.patience, connection.probe()).await.ok().flatten();
        if probed.is_none() {
            self.hosts.look_soon();
        }
        probed.map(Box::new)
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
        ServerFailure::Moving(_) => FailureKind::Moving,
        ServerFailure::Io(_)
        | ServerFailure::Protocol(_)
        | ServerFailure::Tls(_)
        | ServerFailure::Unfit(_) => FailureKind::Unreachable,
    }
}
