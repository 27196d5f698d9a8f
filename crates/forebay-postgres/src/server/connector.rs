//! The engine's side of PostgreSQL: opens, probes and resets server connections.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use forebay_pool::{ConnectFailure, Connector, FailureKind};

use super::capacity::Surveyor;
use super::catalogue::Catalogues;
use super::login::{Login, Target};
use super::proof::Proof;
use super::{Server, ServerFailure};
use crate::auth::brought::Brought;
use crate::census::{Census, Replication};

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
#[derive(Clone)]
pub(crate) struct Credentials {
    pub(crate) user: String,
    pub(crate) proof: Option<Proof>,
}

/// Where the server is, and as whom our users log in there: what a reload may change.
pub(crate) struct Access {
    pub(crate) target: Target,
    pub(crate) credentials: HashMap<Arc<str>, Credentials>,
    /// Of the databases behind `target`.
    pub(crate) catalogues: Arc<Catalogues>,
}

pub(crate) struct Postgres {
    access: ArcSwap<Access>,
    /// What clients brought, where `credentials` has no proof.
    pub(crate) brought: Brought,
    pub(crate) surveyor: Surveyor,
    pub(crate) listed: Listed,
}

/// Where connections are listed, and under which server's name.
pub(crate) struct Listed {
    pub(crate) name: Arc<str>,
    pub(crate) census: Arc<Census>,
}

impl Postgres {
    pub(crate) fn new(access: Access, surveyor: Surveyor, listed: Listed) -> Self {
        let brought = Brought::default();
        Self { access: ArcSwap::from_pointee(access), brought, surveyor, listed }
    }

    /// How connections are opened now.
    pub(crate) fn access(&self) -> Arc<Access> {
        self.access.load_full()
    }

    /// Connections are opened like this from now on; those that are open stay as they are.
    pub(crate) fn set_access(&self, access: Access) {
        self.access.store(Arc::new(access));
    }

    /// A connection as a user of ours, counted among our connections.
    pub(crate) async fn open(&self, identity: &Identity) -> Result<Server, ServerFailure> {
        let parameters = [("application_name".to_owned(), "forebay".to_owned())];
        let access = self.access();
        let card = self.listed.census.opens(&self.listed.name, identity, Replication::None);
        let mut server = access.login(identity, &self.brought, &parameters).await?;
        server.is_listed(card);
        server.catalogue = access.catalogues.of(&identity.database);
        self.surveyor.survey(&mut server).await?;
        Ok(server)
    }

    /// A connection for one client that replicates: with its own startup parameters, and not
    /// counted, since the server does not count it among ordinary ones.
    pub(crate) async fn replicate(
        &self,
        identity: &Identity,
        parameters: &[(String, String)],
        replication: Replication,
    ) -> Result<Server, ServerFailure> {
        let card = self.listed.census.opens(&self.listed.name, identity, replication);
        let mut server = self.access().login(identity, &self.brought, parameters).await?;
        server.is_listed(card);
        Ok(server)
    }

    /// A connection for questions of our own, which no client gets.
    pub(crate) async fn log_in(&self, login: &Login<'_>) -> Result<Server, ServerFailure> {
        self.access().target.connect(login).await
    }
}

impl Access {
    async fn login(
        &self,
        identity: &Identity,
        brought: &Brought,
        parameters: &[(String, String)],
    ) -> Result<Server, ServerFailure> {
        let credentials = self.credentials.get(&identity.user);
        let user = credentials.map_or(&*identity.user, |c| c.user.as_str());
        // What proves one user says nothing of another.
        let brought = (*user == *identity.user).then(|| brought.of(user)).flatten();
        let login = Login {
            user,
            database: &identity.database,
            proof: credentials.and_then(|c| c.proof.as_ref()).or(brought.as_ref()),
            parameters,
        };
        self.target.connect(&login).await
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
        connection.shows_test();
        let server = connection.probe().await?;
        server.shows_rest();
        Some(Box::new(server))
    }

    async fn reset(&self, connection: Box<Server>) -> Option<Box<Server>> {
        connection.shows_test();
        let server = connection.reset().await?;
        server.shows_rest();
        Some(Box::new(server))
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
