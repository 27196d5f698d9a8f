//! The gateway: accepts clients, knows the pools, and comes to an orderly end.

mod client;

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use forebay_pool::event::Told;
use forebay_pool::overlap::Overlaps;
use forebay_pool::{
    Budget, ClassName, ClassSettings, Kind, Pool, PoolSettings, Roster, Snapshot, Timetable,
    timetable,
};
use forebay_seam::net::{self, TcpListener};
use forebay_seam::secret::{ExposeSecret, SecretString};
use forebay_seam::task::Stop;
use forebay_seam::time::Instant;
use forebay_seam::{random, time};
use serde::Serialize;
use tokio::sync::{Notify, broadcast, watch};
use tokio_rustls::TlsAcceptor;

use crate::cancel::Registry;
use crate::held;
use crate::listener::{Listeners, NotificationCounts};
use crate::operations::Operations;
use crate::pins::{Board, Pinned};
use crate::prepared::Statements;
use crate::replication::Replications;
use crate::route::Backend;
use crate::scram::Verifier;
use crate::server::capacity::{Capacity, Surveyor};
use crate::server::catalogue::Catalogues;
use crate::server::connector::{Credentials, Identity, Postgres};
use crate::server::login::Target;
use crate::settings::{ClientAuth, PoolMode, PostgresSettings, ServerSettings, UserSettings};
use crate::tls;
use crate::welcome::Welcomes;

/// The budget until the first login has read what the server can take.
const BUDGET_UNTIL_KNOWN: u32 = 10;
/// Percent of what the server can take that is ours by default.
const BUDGET_PERCENT: u8 = 70;
/// How long a server may take to accept the connection that shows that it is there, and how
/// long until it is asked again.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
const ANSWER_PAUSE: Duration = Duration::from_secs(1);
/// Pause after a failed accept: usually no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Speaks PostgreSQL to applications, and to the servers behind. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

/// Why the settings cannot be carried out. `at` is the path of the key in the configuration
/// (`postgres.servers.main.address`), so that the program can say the line.
#[derive(Debug, thiserror::Error)]
#[error("{at}: {reason}")]
pub struct SettingsError {
    /// Path of the key.
    pub at: String,
    /// What is wrong and what would be right.
    pub reason: String,
}

/// The gateway at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct PostgresSnapshot {
    /// Applications connected.
    pub clients: u32,
    /// Logins refused since start.
    pub refused: u64,
    /// Cancel requests received since start.
    pub cancels: u64,
    /// Clients that kept a server connection beyond a transaction, since start, by reason.
    pub pins: BTreeMap<&'static str, u64>,
    /// Clients that keep a server connection now, the longest first.
    pub pinned: Vec<Pinned>,
    /// Tags of statements (`forebay_cost`, …) that could not be read, since start.
    pub hints_ignored: u64,
    /// What became of notifications, for each server.
    pub notifications: Vec<NotificationCounts>,
    /// Replication connections, by server.
    pub replications: BTreeMap<String, u32>,
    /// Pools, one for each server.
    pub pools: Vec<Snapshot>,
}

/// A database name and what is behind it.
pub(crate) struct Route {
    pub(crate) backend: Arc<Backend>,
    /// Its name on the server.
    pub(crate) database: Arc<str>,
    pub(crate) mode: PoolMode,
}

enum Routes {
    /// These names only.
    Named(HashMap<String, Route>),
    /// Every name, on one server.
    Any(Arc<Backend>),
}

/// What all sessions share.
pub(crate) struct Inner {
    pub(crate) settings: PostgresSettings,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) statements: Statements,
    pub(crate) welcomes: Welcomes,
    pub(crate) overlaps: Arc<Overlaps>,
    /// The requests under way in this process.
    pub(crate) roster: Arc<Roster>,
    pub(crate) operations: Operations,
    /// Memory of messages that are not whole yet.
    pub(crate) held: Arc<held::Account>,
    /// Makes the salt of users who do not exist.
    pub(crate) nobody: [u8; 32],
    backends: BTreeMap<String, Arc<Backend>>,
    routes: Routes,
    verifiers: HashMap<String, String>,
    default_tenant: Option<Arc<str>>,
    registry: Arc<Registry>,
    clients: AtomicU32,
    refused: AtomicU64,
    cancels: AtomicU64,
    pub(crate) pins: Arc<Board>,
    hints_ignored: AtomicU64,
    left: Notify,
}

impl Inner {
    /// A statement's tag could not be read.
    pub(crate) fn count_ignored_hint(&self) {
        self.hints_ignored.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn verifier(&self, user: &str) -> Option<Verifier> {
        Verifier::parse(self.verifiers.get(user)?)
    }

    pub(crate) fn route(&self, database: &str) -> Option<Route> {
        match &self.routes {
            Routes::Named(named) => named.get(database).map(|route| Route {
                backend: Arc::clone(&route.backend),
                database: Arc::clone(&route.database),
                mode: route.mode,
            }),
            Routes::Any(backend) => Some(Route {
                backend: Arc::clone(backend),
                database: Arc::from(database),
                mode: self.settings.pool_mode,
            }),
        }
    }

    /// The tenant whose requests a user's work belongs to.
    pub(crate) fn tenant(&self, user: &str) -> Option<Arc<str>> {
        let own = self.settings.users.get(user).and_then(|user| user.tenant.as_deref());
        own.map(Arc::from).or_else(|| self.default_tenant.clone())
    }
}

impl Gateway {
    /// Checks `settings` without opening a connection; files of certificates are read,
    /// secrets are not.
    ///
    /// # Errors
    /// The first setting that cannot be carried out.
    pub fn check(settings: &PostgresSettings) -> Result<(), SettingsError> {
        let error = |at: String, reason: String| SettingsError { at, reason };
        if settings.servers.is_empty() {
            let reason = "no server: add [postgres.servers.NAME] with its `address`";
            return Err(error("postgres.servers".into(), reason.into()));
        }
        if settings.auth == ClientAuth::ScramSha256 && settings.users.is_empty() {
            let reason = "nobody may log in: add [postgres.users.NAME] with a `password`, or set \
                          `auth = \"trust\"`";
            return Err(error("postgres.users".into(), reason.into()));
        }
        if let Some(client_tls) = &settings.tls {
            tls::acceptor(client_tls).map_err(|reason| error("postgres.tls".into(), reason))?;
        }
        for (name, server) in &settings.servers {
            let at = |key: &str| format!("postgres.servers.{name}.{key}");
            address(&server.address).map_err(|reason| error(at("address"), reason))?;
            tls::connector(server.sslmode, server.sslrootcert.as_deref())
                .map_err(|reason| error(at("sslrootcert"), reason))?;
            if let Some(budget) = server.budget {
                let classes = classes(server);
                forebay_pool::class::check(&classes, budget, server.ai_share)
                    .map_err(|reason| error(at("classes"), reason.to_string()))?;
            }
            let known = classes(server);
            let unknown = |name: &&ClassName| !known.iter().any(|(class, _)| class == *name);
            if let Some(name) = server.name_unnamed.iter().find(unknown) {
                let reason = format!("there is no class `{name}` in `classes`");
                return Err(error(at("name_unnamed"), reason));
            }
            timetable::check(&server.timetable, &classes(server), server.ai_share)
                .map_err(|wrong| error(at(&wrong.place()), wrong.reason))?;
        }
        for (name, database) in &settings.databases {
            let at = format!("postgres.databases.{name}.server");
            server_of(settings, database.server.as_deref()).map_err(|reason| error(at, reason))?;
        }
        if settings.databases.is_empty() {
            server_of(settings, None)
                .map_err(|reason| error("postgres.databases".into(), reason))?;
        }
        Ok(())
    }

    /// A gateway for `settings`; starts warming up. Inside a runtime. `overlaps` and `roster`
    /// are shared by all gateways of the process; `default_tenant` is the tenant of users that
    /// name none.
    ///
    /// # Errors
    /// As [`Gateway::check`]; also a secret that cannot be read.
    pub fn new(
        settings: PostgresSettings,
        overlaps: Arc<Overlaps>,
        roster: Arc<Roster>,
        default_tenant: Option<Arc<str>>,
    ) -> Result<Self, SettingsError> {
        Self::check(&settings)?;
        let tls = settings.tls.as_ref().map(tls::acceptor).transpose();
        let tls = tls.map_err(|reason| SettingsError { at: "postgres.tls".into(), reason })?;
        let passwords = read_passwords(&settings)?;
        let mut backends = BTreeMap::new();
        for (name, server) in &settings.servers {
            let backend = backend(name, server, &settings, &passwords)?;
            backend.pool.join(&roster);
            backends.insert(name.clone(), Arc::new(backend));
        }
        let mut named = HashMap::new();
        for (name, database) in &settings.databases {
            let at = format!("postgres.databases.{name}.server");
            let server = server_of(&settings, database.server.as_deref())
                .map_err(|reason| SettingsError { at, reason })?;
            let Some(backend) = backends.get(server) else { continue };
            let route = Route {
                backend: Arc::clone(backend),
                database: Arc::from(database.database.as_deref().unwrap_or(name)),
                mode: database.pool_mode.unwrap_or(settings.pool_mode),
            };
            named.insert(name.clone(), route);
        }
        let routes = match backends.values().next() {
            Some(only) if named.is_empty() => Routes::Any(Arc::clone(only)),
            _ => Routes::Named(named),
        };
        let verifiers = passwords
            .iter()
            .filter_map(|(user, password)| Some((user.clone(), password.verifier.clone()?)))
            .collect();
        let inner = Arc::new(Inner {
            tls,
            statements: Statements::default(),
            welcomes: Welcomes::default(),
            overlaps,
            roster,
            operations: Operations::default(),
            held: held::Account::new(settings.max_message_memory),
            nobody: random::bytes(),
            backends,
            routes,
            verifiers,
            default_tenant,
            registry: Arc::new(Registry::default()),
            clients: AtomicU32::new(0),
            refused: AtomicU64::new(0),
            cancels: AtomicU64::new(0),
            pins: Arc::default(),
            hints_ignored: AtomicU64::new(0),
            left: Notify::new(),
            settings,
        });
        inner.warm_up();
        Ok(Self { inner })
    }

    /// Serves the clients that `listener` accepts, until `stop` is told; then accepts no
    /// more. Sessions go on; see [`Gateway::drain`].
    pub async fn serve(&self, listener: TcpListener, mut stop: Stop) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.told() => return,
            };
            match accepted {
                Ok((client, from)) => {
                    let session =
                        client::serve(Arc::clone(&self.inner), client, from, stop.clone());
                    drop(tokio::spawn(session));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a client");
                    time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Waits until clients have finished what runs (idle ones are sent away with 57P01 by the
    /// stop), at most until `deadline`; then closes every pool.
    pub async fn drain(&self, deadline: Instant) {
        let mut timer = std::pin::pin!(time::sleep_until(deadline));
        loop {
            let mut left = std::pin::pin!(self.inner.left.notified());
            left.as_mut().enable();
            if self.inner.clients.load(Ordering::Acquire) == 0 {
                break;
            }
            tokio::select! {
                () = left => {}
                () = &mut timer => break,
            }
        }
        for backend in self.inner.backends.values() {
            backend.listeners.close();
            backend.pool.drain(deadline).await;
        }
    }

    /// Sets the budget of `server` by hand ([`Pool::set_budget`]); `false`: there is none of
    /// that name.
    pub fn set_budget(&self, server: &str, budget: Option<u32>) -> bool {
        let backend = self.inner.backends.get(server);
        backend.map(|backend| backend.pool.set_budget(budget)).is_some()
    }

    /// Replaces all connections to `server` ([`Pool::renew`]); `false`: there is none of that
    /// name.
    pub fn renew(&self, server: &str) -> bool {
        self.inner.backends.get(server).map(|backend| backend.pool.renew()).is_some()
    }

    /// What happens in each pool, from now on ([`Pool::events`]).
    pub fn events(&self) -> Vec<broadcast::Receiver<Told>> {
        self.inner.backends.values().map(|backend| backend.pool.events()).collect()
    }

    /// Is every pool warm, and did every server answer?
    pub fn is_ready(&self) -> bool {
        self.inner
            .backends
            .values()
            .all(|backend| backend.answers.load(Ordering::Relaxed) && backend.pool.snapshot().warm)
    }

    /// One picture.
    pub fn snapshot(&self) -> PostgresSnapshot {
        let backends = &self.inner.backends;
        PostgresSnapshot {
            clients: self.inner.clients.load(Ordering::Relaxed),
            refused: self.inner.refused.load(Ordering::Relaxed),
            cancels: self.inner.cancels.load(Ordering::Relaxed),
            pins: self.inner.pins.counts(),
            pinned: self.inner.pins.pinned(),
            hints_ignored: self.inner.hints_ignored.load(Ordering::Relaxed),
            notifications: backends.iter().map(|(name, b)| b.listeners.counts(name)).collect(),
            replications: backends
                .iter()
                .map(|(name, backend)| (name.clone(), backend.replications.count()))
                .collect(),
            pools: backends.values().map(|backend| backend.pool.snapshot()).collect(),
        }
    }
}

impl Inner {
    /// Warms what is known before anybody asks: configured databases of configured users.
    fn warm_up(&self) {
        if let Routes::Named(named) = &self.routes {
            for route in named.values() {
                let users = self.settings.users.keys().filter(|user| {
                    route.backend.pool.connector().credentials.contains_key(user.as_str())
                });
                route.backend.pool.warm_up(users.map(|user| Identity {
                    database: Arc::clone(&route.database),
                    user: Arc::from(user.as_str()),
                }));
            }
        }
    }
}

/// A user's secrets, read once.
struct Password {
    /// What a client's proof is checked against.
    verifier: Option<String>,
    /// What the server is told.
    at_server: Option<SecretString>,
}

fn read_passwords(settings: &PostgresSettings) -> Result<HashMap<String, Password>, SettingsError> {
    let mut passwords = HashMap::new();
    for (name, user) in &settings.users {
        let read = |key: &str, secret: &Option<forebay_seam::secret::SecretRef>| {
            let read = secret.as_ref().map(forebay_seam::secret::SecretRef::read).transpose();
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

/// The classes of a server: those configured, or the three of the design.
fn classes(server: &ServerSettings) -> Vec<(ClassName, ClassSettings)> {
    if server.classes.is_empty() {
        return ClassSettings::defaults();
    }
    let mut classes: Vec<_> = server.classes.clone().into_iter().collect();
    // Where a budget shrinks below what is promised, the first are served first.
    classes.sort_by_key(|(_, class)| class.kind != Kind::Core);
    classes
}

fn backend(
    name: &str,
    server: &ServerSettings,
    settings: &PostgresSettings,
    passwords: &HashMap<String, Password>,
) -> Result<Backend, SettingsError> {
    let at = |key: &str, reason: String| SettingsError {
        at: format!("postgres.servers.{name}.{key}"),
        reason,
    };
    let (host, port) = address(&server.address).map_err(|reason| at("address", reason))?;
    let tls = tls::connector(server.sslmode, server.sslrootcert.as_deref())
        .map_err(|reason| at("sslrootcert", reason))?;
    let max_prepared =
        NonZeroUsize::new(settings.max_prepared_statements).unwrap_or(NonZeroUsize::MIN);
    let address_of_target = (host.clone(), port);
    let target = Target { host, port, sslmode: server.sslmode, tls, max_prepared };
    let credentials = settings
        .users
        .iter()
        .map(|(user, configured)| {
            let password = passwords.get(user).and_then(|password| password.at_server.clone());
            let at_server = configured.server_user.clone().unwrap_or_else(|| user.clone());
            (Arc::from(user.as_str()), Credentials { user: at_server, password })
        })
        .collect();
    let budget = match server.budget {
        Some(budget) => Budget::Fixed(budget),
        None => Budget::OfCapacity { percent: BUDGET_PERCENT, until_known: BUDGET_UNTIL_KNOWN },
    };
    let mut pool_settings = PoolSettings::new(name, budget);
    pool_settings.timetable =
        Timetable::new(&server.timetable).map_err(|error| at(&error.place(), error.reason))?;
    pool_settings.forecast = server.forecast;
    pool_settings.evidence = server.evidence;
    pool_settings.ai_share = server.ai_share;
    pool_settings.warm_up = server.warm_up;
    pool_settings.idle_ttl = server.idle_ttl;
    pool_settings.lifetime = server.lifetime;
    pool_settings.connect_timeout = server.connect_timeout;
    pool_settings.probe_interval = server.probe_interval;
    pool_settings.queue_factor = server.queue_factor;
    pool_settings.shed_from = server.shed_from;
    pool_settings.hold_limit = server.hold_limit;
    pool_settings.lend_max_hold = server.lend_max_hold;
    pool_settings.classes = classes(server);
    let class_settings = pool_settings.classes.clone();
    let (capacity, mut told) = watch::channel(None);
    let connector = Postgres {
        target,
        credentials,
        surveyor: Surveyor::new(capacity),
        catalogues: Catalogues::default(),
    };
    let pool = Pool::new(connector, pool_settings);
    let ids: HashMap<_, _> = class_settings
        .iter()
        .filter_map(|(class, s)| {
            Some((class.as_str().to_owned(), (pool.class(class.as_str())?, s.kind)))
        })
        .collect();
    let default_class = ids.get(ClassName::CORE).map(|(id, _)| *id).ok_or_else(|| {
        at("classes", "there must be a class `core`: work that nobody names belongs to it".into())
    })?;
    let named = server.name_unnamed.iter().filter_map(|class| pool.class(class.as_str()));
    let named = named.collect();
    let resized = pool.clone();
    drop(tokio::spawn(async move {
        while told.changed().await.is_ok() {
            let capacity = *told.borrow_and_update();
            if let Some(capacity) = capacity {
                resized.set_capacity(capacity.all);
                look_for_room(capacity, &resized.snapshot());
            }
        }
    }));
    let answers = Arc::new(AtomicBool::new(false));
    drop(tokio::spawn(await_answer(address_of_target, Arc::clone(&answers))));
    let listeners = Listeners::new(pool.clone(), server, settings.notifications.clone());
    let replications = Replications::new(server.replication_connections, server.connect_timeout);
    let rules = settings.rules.clone().into();
    Ok(Backend {
        pool,
        listeners,
        replications,
        classes: ids,
        default_class,
        rules,
        named,
        answers,
    })
}

/// A budget that others leave no room for cannot be reached, and its owner should know.
fn look_for_room(Capacity { all, others }: Capacity, pool: &Snapshot) {
    if pool.budget.saturating_add(others) > all {
        tracing::warn!(
            server = %pool.destination, budget = pool.budget, capacity = all, others,
            "the server has less room than the budget: it leaves so many connections to \
             ordinary users, and others have some of them; lower `budget`, or the others"
        );
    }
}

/// Tries the server until it accepts a connection: where nothing can be warmed up, because
/// databases are not configured, that is what readiness means.
async fn await_answer((host, port): (String, u16), answers: Arc<AtomicBool>) {
    loop {
        let attempt = async {
            let addresses = net::resolve(&host, port).await?;
            net::connect(&addresses).await
        };
        if let Ok(Ok(_)) = time::timeout(ANSWER_PATIENCE, attempt).await {
            return answers.store(true, Ordering::Relaxed);
        }
        time::sleep(ANSWER_PAUSE).await;
    }
}

/// `host`, `host:port` or `[v6]:port`.
fn address(text: &str) -> Result<(String, u16), String> {
    let wrong = || format!("`{text}` is no address: write `host`, `host:port` or `[v6]:port`");
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(wrong)?;
            (host, port.strip_prefix(':'))
        }
        None => match text.split_once(':') {
            Some((_, port)) if port.contains(':') => (text, None),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?,
        None => 5432,
    };
    if host.is_empty() || host.contains(char::is_whitespace) || host.contains('/') {
        return Err(wrong());
    }
    Ok((host.to_owned(), port))
}

/// The server called `name`, or the only one.
fn server_of<'a>(settings: &'a PostgresSettings, name: Option<&str>) -> Result<&'a str, String> {
    let known: Vec<_> = settings.servers.keys().map(String::as_str).collect();
    match (name, known.as_slice()) {
        (Some(name), known) => {
            known.iter().copied().find(|k| *k == name).ok_or_else(|| {
                format!("no server is called `{name}`: there are {}", known.join(", "))
            })
        }
        (None, [only]) => Ok(only),
        (None, known) => Err(format!(
            "there are several servers ({}): say which with `server`",
            known.join(", ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hosts_with_or_without_a_port() {
        assert_eq!(address("db").unwrap(), ("db".into(), 5432));
        assert_eq!(address("127.0.0.1:5433").unwrap(), ("127.0.0.1".into(), 5433));
        assert_eq!(address("[::1]:5433").unwrap(), ("::1".into(), 5433));
        assert_eq!(address("::1").unwrap(), ("::1".into(), 5432));
        for bad in ["", ":5432", "db:", "db:0", "db:x", "[::1", "postgres://db/x", "a b"] {
            assert!(address(bad).unwrap_err().contains("is no address"), "{bad}");
        }
    }
}
