//! The engine's side of PostgreSQL: opens, probes and resets server connections.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use forebay_pool::{ConnectFailure, Connector, FailureKind, Terms};
use forebay_seam::sync::Mutex;
use forebay_seam::time;

use super::capacity::Surveyor;
use super::catalogue::Catalogues;
use super::hosts::Hosts;
use super::login::{Login, Target};
use super::proof::Proof;
use super::role::Role;
use super::{Server, ServerFailure};
use crate::auth::brought::Brought;
use crate::census::{Census, Replication, ServerEntry};
use crate::gateway::Pairs;
use crate::params::RoleNews;
use crate::settings::{BoundedBy, DatabaseSettings};

/// A database and a user: the database as applications call it and as the server does, the
/// user as our configuration does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    /// The database as applications call it.
    pub(crate) name: Arc<str>,
    /// As the server calls it.
    pub(crate) database: Arc<str>,
    pub(crate) user: Arc<str>,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.user, self.name)
    }
}

/// How a user logs in to the server.
#[derive(Clone)]
pub(crate) struct Credentials {
    pub(crate) user: String,
    pub(crate) proof: Option<Proof>,
}

/// What a database's configuration adds to each of its connections.
#[derive(Default)]
pub(crate) struct Addition {
    /// As whom to log in, whoever the client is.
    pub(crate) credentials: Option<Credentials>,
    /// What is run first.
    pub(crate) query: Option<Arc<str>>,
    /// What its sessions begin with.
    pub(crate) parameters: Arc<[(String, String)]>,
}

/// Where the server is, and as whom our users log in there: what a reload may change.
pub(crate) struct Access {
    /// How to speak to each of `hosts`, in their order.
    pub(crate) targets: Vec<Target>,
    pub(crate) hosts: Arc<Hosts>,
    /// How long a login may take at each.
    pub(crate) patience: Duration,
    pub(crate) credentials: HashMap<Arc<str>, Credentials>,
    /// By the name of the database as applications call it; `*` for all that are not there.
    pub(crate) additions: HashMap<Arc<str>, Addition>,
    /// What each pair may have.
    pub(crate) pairs: Arc<Pairs>,
    pub(crate) bounded_by: BoundedBy,
    /// How long a connection lasts at the most, but for chance.
    pub(crate) lifetime: Duration,
    /// How long one rests before it is closed.
    pub(crate) idle_ttl: Duration,
    /// Of the databases behind `targets`.
    pub(crate) catalogues: Arc<Catalogues>,
}

pub(crate) struct Postgres {
    access: ArcSwap<Access>,
    /// What clients brought, where `credentials` has no proof.
    pub(crate) brought: Brought,
    pub(crate) surveyor: Surveyor,
    /// Who logged in last, where hosts are looked at.
    last: Mutex<Option<Identity>>,
    pub(crate) listed: Listed,
}

/// Where connections are listed, and under which server's name.
pub(crate) struct Listed {
    pub(crate) name: Arc<str>,
    pub(crate) census: Arc<Census>,
}

impl Postgres {
    pub(crate) fn new(access: Access, surveyor: Surveyor, listed: Listed) -> Self {
        let (brought, last) = (Brought::default(), Mutex::default());
        Self { access: ArcSwap::from_pointee(access), brought, surveyor, last, listed }
    }

    /// How connections are opened now.
    pub(crate) fn access(&self) -> Arc<Access> {
        self.access.load_full()
    }

    /// Connections are opened like this from now on; those that are open stay as they are.
    pub(crate) fn set_access(&self, access: Access) {
        self.access.swap(Arc::new(access)).hosts.are_left();
    }

    /// A connection as a user of ours, counted among our connections.
    pub(crate) async fn open(&self, identity: &Identity) -> Result<Server, ServerFailure> {
        let access = self.access();
        let own = access.addition(identity).map(|addition| &*addition.parameters);
        let mut parameters = own.unwrap_or_default().to_vec();
        if !parameters.iter().any(|(name, _)| name == "application_name") {
            parameters.push(("application_name".to_owned(), "forebay".to_owned()));
        }
        let card = self.listed.census.opens(&self.listed.name, identity, Replication::None);
        self.last.lock().get_or_insert_with(|| identity.clone());
        let mut server = access.login(identity, &self.brought, &parameters).await?;
        server.is_listed(card);
        server.catalogue = access.catalogues.of(&identity.database);
        self.surveyor.survey(&mut server).await?;
        server.connect_query =
            access.addition(identity).and_then(|addition| addition.query.clone());
        server.run_connect_query().await?;
        // What it set is what clients find.
        server.settings.settle();
        if access.hosts.is_choosy() {
            *self.last.lock() = Some(identity.clone());
        }
        Ok(server)
    }

    /// Is there a host that can be used, as far as anybody knows?
    pub(crate) fn is_usable(&self) -> bool {
        self.access.load().hosts.is_usable()
    }

    /// Ends when there is none.
    pub(crate) async fn unusable(&self) {
        let hosts = Arc::clone(&self.access().hosts);
        hosts.unusable().await;
    }

    /// Does `server` still lead where connections should?
    pub(crate) fn leads_right(&self, server: &mut Server) -> bool {
        let Server { berth: Some(berth), settings, .. } = server else { return true };
        let access = self.access.load();
        if settings.role_news() == RoleNews::Some {
            access.hosts.hear(berth, Role::reported(settings));
        }
        access.hosts.is_current(berth)
    }

    /// Logs in to host `number` as who logged in last, only to see what it is.
    pub(crate) async fn look(&self, number: usize) {
        let Some(identity) = self.last.lock().clone() else { return };
        let parameters = [("application_name".to_owned(), "forebay".to_owned())];
        let access = self.access();
        let Some(target) = access.targets.get(number) else { return };
        let proof = access.proof(&identity, &self.brought);
        let login = access.login_of(&identity, proof.as_ref(), &parameters);
        access.hosts.look(number, target, access.patience, &login).await;
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
        // It may read nothing for long: it writes what it got to a disk.
        server.stream.set_user_timeout(None);
        Ok(server)
    }

    /// Why we close a connection that is open, in PgBouncer's words.
    fn why_closed(&self, card: &ServerEntry) -> &'static str {
        let (access, now) = (self.access(), time::now());
        // Lifetimes vary by a tenth.
        if card.age(now) >= access.lifetime.mul_f64(0.9) {
            "server lifetime over"
        } else if card.unused(now) >= access.idle_ttl {
            "server idle timeout"
        } else {
            "not needed"
        }
    }

    /// A connection for questions of our own, which no client gets.
    pub(crate) async fn log_in(&self, login: &Login<'_>) -> Result<Server, ServerFailure> {
        self.access().connect(login).await
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.access.load().hosts.are_left();
    }
}

impl Access {
    fn addition(&self, identity: &Identity) -> Option<&Addition> {
        let all_others = || self.additions.get(DatabaseSettings::ALL_OTHERS);
        self.additions.get(&identity.name).or_else(all_others)
    }

    async fn login(
        &self,
        identity: &Identity,
        brought: &Brought,
        parameters: &[(String, String)],
    ) -> Result<Server, ServerFailure> {
        let proof = self.proof(identity, brought);
        self.connect(&self.login_of(identity, proof.as_ref(), parameters)).await
    }

    /// A connection to the host that fits.
    async fn connect(&self, login: &Login<'_>) -> Result<Server, ServerFailure> {
        self.hosts.connect(&self.targets, self.patience, login).await
    }

    /// How `identity` logs in: as its database forces it, or as its user does.
    fn credentials_of(&self, identity: &Identity) -> Option<&Credentials> {
        let forced = self.addition(identity).and_then(|addition| addition.credentials.as_ref());
        forced.or_else(|| self.credentials.get(&identity.user))
    }

    /// As whom a user of ours logs in.
    fn user<'a>(&'a self, identity: &'a Identity) -> &'a str {
        self.credentials_of(identity).map_or(&*identity.user, |c| c.user.as_str())
    }

    fn proof(&self, identity: &Identity, brought: &Brought) -> Option<Proof> {
        let ours = self.credentials_of(identity).and_then(|c| c.proof.clone());
        let user = self.user(identity);
        // What proves one user says nothing of another.
        ours.or_else(|| (*user == *identity.user).then(|| brought.of(user)).flatten())
    }

    fn login_of<'a>(
        &'a self,
        identity: &'a Identity,
        proof: Option<&'a Proof>,
        parameters: &'a [(String, String)],
    ) -> Login<'a> {
        Login { user: self.user(identity), database: &identity.database, proof, parameters }
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

    fn terms(&self, identity: &Identity) -> Terms {
        self.access.load().pairs.terms(identity)
    }

    async fn close(&self, mut connection: Box<Server>) {
        let is_open = connection.is_open();
        if let Some(card) = &connection.card
            && is_open
        {
            card.is_closed(self.why_closed(card));
        }
        connection.close().await;
    }

    fn is_open(&self, connection: &mut Box<Server>) -> bool {
        connection.is_open()
    }

    fn is_current(&self, connection: &mut Box<Server>) -> bool {
        self.leads_right(connection)
    }

    async fn probe(&self, connection: Box<Server>) -> Option<Box<Server>> {
        connection.shows_test();
        let access = self.access();
        let probed = time::timeout(access.patience, connection.probe()).await.ok().flatten();
        match &probed {
            Some(server) => server.shows_rest(),
            None => access.hosts.look_soon(),
        }
        probed.map(Box::new)
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
        ServerFailure::Moving(_) => FailureKind::Moving,
        ServerFailure::Io(_)
        | ServerFailure::Protocol(_)
        | ServerFailure::Tls(_)
        | ServerFailure::Unfit(_) => FailureKind::Unreachable,
    }
}
