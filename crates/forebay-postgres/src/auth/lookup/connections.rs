//! The connections that questions go over: few, kept for a minute after the last question.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use forebay_seam::sync::Mutex;
use forebay_seam::task::Spawner;
use forebay_seam::time::{self, Instant};
use tokio::sync::Semaphore;

use crate::route::Backend;
use crate::server::connector::Credentials;
use crate::server::inquiry::Row;
use crate::server::login::Login;
use crate::server::{Server, ServerFailure};

/// Connections to one place.
pub(super) const CONNECTIONS: usize = 2;
/// How long one question may take, with opening a connection for it.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a connection is kept that nobody needs.
const IDLE: Duration = Duration::from_secs(60);

/// As whom users are looked up. Only the configuration makes one: no client's name is ever here.
pub(crate) struct Inquirer(Credentials);

impl Inquirer {
    /// The user of the configuration.
    pub(crate) fn configured(credentials: Credentials) -> Self {
        Self(credentials)
    }
}

/// Where users are looked up.
pub(crate) struct Place {
    pub(crate) backend: Arc<Backend>,
    /// Its name on the server.
    pub(crate) database: Arc<str>,
}

/// Connections to one place.
pub(super) struct Connections {
    place: Place,
    inquirer: Inquirer,
    places: Semaphore,
    idle: Mutex<Vec<(Server, Instant)>>,
    /// Somebody closes those that nobody needs.
    watched: AtomicBool,
}

impl Connections {
    pub(super) fn new(place: Place, inquirer: Inquirer) -> Self {
        Self {
            place,
            inquirer,
            places: Semaphore::new(CONNECTIONS),
            idle: Mutex::default(),
            watched: AtomicBool::new(false),
        }
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn user(&self) -> &str {
        &self.inquirer.0.user
    }

    /// The rows of `query` for `value`.
    pub(super) async fn ask(
        self: &Arc<Self>,
        query: &str,
        value: &str,
    ) -> Result<Vec<Row>, ServerFailure> {
        let late = |_| ServerFailure::Io(std::io::ErrorKind::TimedOut.into());
        let asked = async {
            let Ok(_place) = self.places.acquire().await else { return Ok(Vec::new()) };
            self.ask_now(query, value).await
        };
        time::timeout(PATIENCE, asked).await.unwrap_or_else(|elapsed| Err(late(elapsed)))
    }

    async fn ask_now(
        self: &Arc<Self>,
        query: &str,
        value: &str,
    ) -> Result<Vec<Row>, ServerFailure> {
        if let Some(mut server) = self.take() {
            match server.inquire(query, value).await {
                // It may have died at rest: another one will know.
                Err(ServerFailure::Io(_) | ServerFailure::Protocol(_)) => {}
                Err(ServerFailure::Refused(said)) if said.ends_the_connection() => {}
                answer => return self.answered(server, answer),
            }
        }
        let mut server = self.open().await?;
        let answer = server.inquire(query, value).await;
        self.answered(server, answer)
    }

    fn answered(
        self: &Arc<Self>,
        server: Server,
        answer: Result<Vec<Row>, ServerFailure>,
    ) -> Result<Vec<Row>, ServerFailure> {
        if answer.is_ok() {
            self.keep(server);
        }
        answer
    }

    async fn open(&self) -> Result<Server, ServerFailure> {
        // An empty search_path leaves pg_catalog alone: nothing that anybody put elsewhere is
        // taken for what the query names (CVE-2025-12819).
        let parameters = [("application_name", "forebay auth_query"), ("search_path", "")];
        let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let login = Login {
            user: &self.inquirer.0.user,
            database: &self.place.database,
            proof: self.inquirer.0.proof.as_ref(),
            parameters: &parameters,
        };
        self.place.backend.pool.connector().log_in(&login).await
    }

    /// One that is open.
    fn take(&self) -> Option<Server> {
        loop {
            let (mut server, _) = self.idle.lock().pop()?;
            if server.is_open() {
                return Some(server);
            }
        }
    }

    fn keep(self: &Arc<Self>, server: Server) {
        self.idle.lock().push((server, time::now()));
        if !self.watched.swap(true, Ordering::AcqRel) {
            Spawner::current().spawn(close_idle(Arc::downgrade(self)));
        }
    }
}

/// Closes connections that nobody needed for a while, until there are none.
async fn close_idle(connections: Weak<Connections>) {
    loop {
        time::sleep(IDLE).await;
        let Some(connections) = connections.upgrade() else { return };
        let now = time::now();
        let mut idle = connections.idle.lock();
        idle.retain(|(_, since)| now < *since + IDLE);
        if idle.is_empty() {
            connections.watched.store(false, Ordering::Release);
            return;
        }
    }
}
