//! What stands behind a configured server: its pool, its classes, its listeners; and what of it
//! goes on when the configuration changes.
//!
//! Always true: what can fail has failed before anything that runs is changed; a server that
//! keeps its name keeps its pool, so that its budget holds during the change.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forebay_pool::{
    Budget, ClassId, ClassName, ClassSettings, Kind, Mode, Parting, Pool, PoolSettings, Snapshot,
    Timetable, WeakPool,
};
use forebay_seam::time;
use tokio::sync::{Notify, watch as channel};

use super::SettingsError;
use super::additions::additions;
use super::pairs::Pairs;
use crate::auth::Secrets;
use crate::census::Census;
use crate::listener::Listeners;
use crate::parking::{Book, Parking};
use crate::replication::Replications;
use crate::route::Backend;
use crate::server::capacity::{Capacity, Surveyor};
use crate::server::connector::{Access, Addition, Listed, Postgres};
use crate::server::emptiness::Prover;
use crate::server::entrance::Entrance;
use crate::server::hosts::{Choice, Hosts, Watched, watch};
use crate::server::login::Target;
use crate::server::names::{self, Name};
use crate::server::place::Place;
use crate::settings::{BoundedBy, LoadBalance, ParkingSettings, PostgresSettings, ServerSettings};
use crate::tls::Encryption;

/// The budget until the first login has read what the server can take.
const BUDGET_UNTIL_KNOWN: u32 = 10;
/// Percent of what the server can take that is ours by default.
const BUDGET_PERCENT: u8 = 70;
/// A server that restarts is back after this, mostly: its clients wait as long as their classes
/// let them, and are not told at once that nobody is there.
const RESTART_PATIENCE: Duration = Duration::from_secs(5);
/// How long a server may take to accept the connection that shows that it is there, and how
/// long until it is asked again.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
const ANSWER_PAUSE: Duration = Duration::from_secs(1);

/// The classes of a server: those configured, or the three of the design.
pub(super) fn classes(server: &ServerSettings) -> Vec<(ClassName, ClassSettings)> {
    if server.classes.is_empty() {
        return ClassSettings::defaults();
    }
    let mut classes: Vec<_> = server.classes.clone().into_iter().collect();
    // Where a budget shrinks below what is promised, the first are served first.
    classes.sort_by_key(|(_, class)| class.kind != Kind::Core);
    classes
}

/// A server as it is configured, carried out as far as that can fail: nothing that runs knows
/// of it yet.
pub(super) struct Draft<'a> {
    server: &'a ServerSettings,
    settings: &'a PostgresSettings,
    access: Access,
    pool: PoolSettings,
    census: &'a Arc<Census>,
}

/// What a draft made of a server.
pub(super) enum Carried {
    /// A pool of its own, which is new.
    Opened(Backend),
    /// The pool that there was, with all its connections.
    Kept(Backend),
    /// The pool that there was; its connections are replaced, idle ones at once, leased ones
    /// when they come home, all within the budget.
    Reconnected(Backend),
}

impl<'a> Draft<'a> {
    /// # Errors
    /// The first setting that cannot be carried out, or file that cannot be read.
    pub(super) fn new(
        name: &'a str,
        server: &'a ServerSettings,
        settings: &'a PostgresSettings,
        secrets: &Secrets,
        pairs: &Arc<Pairs>,
        census: &'a Arc<Census>,
    ) -> Result<Self, SettingsError> {
        let at = |key: &str, reason: String| SettingsError {
            at: format!("postgres.servers.{name}.{key}"),
            reason,
        };
        let encryption = Encryption::new(name, server).map_err(|(key, reason)| at(key, reason))?;
        let max_prepared =
            NonZeroUsize::new(settings.max_prepared_statements).unwrap_or(NonZeroUsize::MIN);
        let news = Arc::new(Notify::new());
        let (mut targets, mut names) = (Vec::new(), Vec::new());
        for (key, text) in server.written_hosts() {
            let place = Place::parse(text).map_err(|reason| at(&key, reason))?;
            let ttl = settings.dns_max_ttl;
            let host = Name::new(place.clone(), ttl, names::system, Arc::clone(&news));
            names.push((text.to_owned(), host));
            let (encryption, protocol) = (encryption.clone(), server.max_protocol_version);
            let tuning = settings.tuning();
            let entrance = Arc::new(Entrance { place, encryption, tuning });
            targets.push(Target { entrance, protocol, max_prepared });
        }
        let choice = Choice {
            attrs: server.target_session_attrs,
            spread: server.load_balance_hosts,
            max_lag: server.max_lag,
            rhythm: server.watch_interval,
            watched: watched(name, settings),
        };
        let hosts = Arc::new(Hosts::new(names, choice, news));
        let (patience, catalogues) = (server.connect_timeout, Arc::default());
        let credentials = secrets.credentials();
        let additions = additions(settings)?;
        let pairs = Arc::clone(pairs);
        let access = Access {
            targets,
            hosts,
            patience,
            credentials,
            additions,
            pairs,
            bounded_by: server.bounded_by,
            lifetime: server.lifetime,
            idle_ttl: server.idle_ttl,
            catalogues,
        };
        let timetable =
            Timetable::new(&server.timetable).map_err(|error| at(&error.place(), error.reason))?;
        let pool = pool_settings(name, server, timetable, settings.query_wait_timeout);
        if !pool.classes.iter().any(|(class, _)| class.as_str() == ClassName::CORE) {
            let reason = "there must be a class `core`: work that nobody names belongs to it";
            return Err(at("classes", reason.into()));
        }
        Ok(Self { server, settings, access, pool, census })
    }

    /// Changes what runs, or opens a pool; its connections come when somebody asks.
    pub(super) fn carry_out(self, before: Option<&Backend>) -> Carried {
        let Some(before) = before else { return Carried::Opened(self.open()) };
        if before.pool.apply(self.pool.clone()).is_err() {
            return Carried::Opened(self.open());
        }
        let Self { server, settings, mut access, .. } = self;
        let connector = before.pool.connector();
        let access_before = connector.access();
        let reconnects =
            before.origin != origin(server) || logs_in_differently(&access_before, &access);
        before.listeners.change(server, settings.notifications.clone());
        let mut answers = Arc::clone(&before.answers);
        if reconnects {
            if !answers.load(Ordering::Relaxed) {
                answers = await_answer(&access.hosts);
            }
            connector.set_access(access);
            access_before.hosts.retire();
            connector.surveyor.forget();
            before.pool.start_over();
            before.listeners.start_over();
        } else {
            access.catalogues = Arc::clone(&access_before.catalogues);
            access.hosts = Arc::clone(&access_before.hosts);
            connector.set_access(access);
        }
        let replications =
            before.replications.under(server.replication_connections, server.connect_timeout);
        let (pool, listeners) = (before.pool.clone(), before.listeners.clone());
        let prover = before.parking.as_ref().map(|parking| &parking.prover);
        let kept = prover.filter(|prover| !reconnects && prover.goes_on_with(&server.parking));
        if kept.is_none()
            && let Some(prover) = prover
        {
            prover.ends();
        }
        let parked = Parked { book: Arc::clone(&before.book), prover: kept.map(Arc::clone) };
        let backend = assemble(server, settings, pool, listeners, replications, answers, parked);
        if reconnects { Carried::Reconnected(backend) } else { Carried::Kept(backend) }
    }

    fn open(self) -> Backend {
        let Self { server, settings, access, pool, census } = self;
        let answers = await_answer(&access.hosts);
        let (capacity, told) = channel::channel(None);
        let listed = Listed { name: Arc::clone(&pool.name), census: Arc::clone(census) };
        let pool = Pool::new(Postgres::new(access, Surveyor::new(capacity), listed), pool);
        drop(tokio::spawn(follow_capacity(told, pool.downgrade())));
        watch::start(&pool);
        let listeners = Listeners::new(pool.clone(), server, settings.notifications.clone());
        let replications =
            Replications::new(server.replication_connections, server.connect_timeout);
        let parked = Parked { book: Arc::default(), prover: None };
        assemble(server, settings, pool, listeners, replications, answers, parked)
    }
}

/// What of parking goes on when the configuration changes.
struct Parked {
    book: Arc<Book>,
    prover: Option<Arc<Prover>>,
}

fn assemble(
    server: &ServerSettings,
    settings: &PostgresSettings,
    pool: Pool<Postgres>,
    listeners: Listeners,
    replications: Replications,
    answers: Arc<AtomicBool>,
    Parked { book, prover }: Parked,
) -> Backend {
    let parking = parking(server, &pool, &book, prover);
    let classes: HashMap<_, _> = classes(server)
        .into_iter()
        .filter_map(|(class, s)| {
            Some((class.as_str().to_owned(), (pool.class(class.as_str())?, s.kind)))
        })
        .collect();
    let named = server.name_unnamed.iter().filter_map(|class| pool.class(class.as_str()));
    Backend {
        default_class: classes.get(ClassName::CORE).map_or(ClassId::FIRST, |(id, _)| *id),
        named: named.collect(),
        rules: settings.rules.clone().into(),
        origin: origin(server),
        replicas: None,
        parking,
        book,
        pool,
        listeners,
        replications,
        classes,
        answers,
    }
}

/// What parks at `server`, if any class does.
fn parking(
    server: &ServerSettings,
    pool: &Pool<Postgres>,
    book: &Arc<Book>,
    prover: Option<Arc<Prover>>,
) -> Option<Parking> {
    let classes = classes(server);
    if !server.parks() {
        if let Some(prover) = prover {
            prover.ends();
        }
        return None;
    }
    let new = || Arc::new(Prover::new(pool.destination(), &server.parking, book));
    let prover = prover.unwrap_or_else(new);
    let known =
        classes.iter().filter_map(|(name, class)| Some((pool.class(name.as_str())?, name, class)));
    Some(Parking::new(known, prover, Arc::clone(book)))
}

/// `server` without what a running pool takes over as it is. Where two of these differ,
/// connections that are open are not what would be opened now: also for a setting that nobody
/// thought of here.
fn origin(server: &ServerSettings) -> ServerSettings {
    ServerSettings {
        budget: None,
        bounded_by: BoundedBy::default(),
        replication_connections: 0,
        timetable: Vec::new(),
        forecast: Mode::Off,
        evidence: Mode::Off,
        ai_share: 0,
        warm_up: 0,
        idle_ttl: Duration::ZERO,
        lifetime: Duration::ZERO,
        probe_interval: Duration::ZERO,
        connect_timeout: Duration::ZERO,
        queue_factor: 0,
        shed_from: 0,
        hold_limit: Duration::ZERO,
        lend_max_hold: Duration::ZERO,
        name_unnamed: Vec::new(),
        replicas: None,
        parking: ParkingSettings::default(),
        classes: BTreeMap::new(),
        ..server.clone()
    }
}

/// Does a user of both log in to the server as somebody else?
fn logs_in_differently(before: &Access, now: &Access) -> bool {
    let other_users = now.credentials.iter().any(|(user, credentials)| {
        before.credentials.get(user).is_some_and(|before| before.user != credentials.user)
    });
    let differ = |one: &Addition, other: &Addition| {
        one.query != other.query || one.parameters != other.parameters
    };
    other_users
        || now.additions.iter().any(|(database, addition)| {
            before.additions.get(database).is_some_and(|before| differ(before, addition))
        })
}

fn pool_settings(
    name: &str,
    server: &ServerSettings,
    timetable: Timetable,
    query_wait_timeout: Duration,
) -> PoolSettings {
    let budget = match server.budget {
        Some(budget) => Budget::Fixed(budget),
        None => Budget::OfCapacity { percent: BUDGET_PERCENT, until_known: BUDGET_UNTIL_KNOWN },
    };
    let mut pool = PoolSettings::new(name, budget);
    pool.beside = if server.parks() { server.parking.connections } else { 0 };
    pool.timetable = timetable;
    pool.forecast = server.forecast;
    pool.evidence = server.evidence;
    pool.ai_share = server.ai_share;
    pool.warm_up = server.warm_up;
    pool.idle_ttl = server.idle_ttl;
    pool.lifetime = server.lifetime;
    // Each host gets its time.
    let hosts = u32::try_from(server.hosts.len()).unwrap_or(u32::MAX).max(1);
    pool.connect_timeout = server.connect_timeout.saturating_mul(hosts);
    pool.restart_patience = RESTART_PATIENCE;
    pool.probe_interval = server.probe_interval;
    pool.queue_factor = server.queue_factor;
    pool.shed_from = server.shed_from;
    pool.hold_limit = server.hold_limit;
    pool.lend_max_hold = server.lend_max_hold;
    pool.classes = classes(server);
    pool.parting = Parting::Awaited;
    if !query_wait_timeout.is_zero() {
        for (_, class) in &mut pool.classes {
            class.checkout_timeout = query_wait_timeout;
        }
    }
    pool
}

/// The budget follows what the server says it can take, as long as there is a pool.
async fn follow_capacity(mut told: channel::Receiver<Option<Capacity>>, pool: WeakPool<Postgres>) {
    while told.changed().await.is_ok() {
        let capacity = *told.borrow_and_update();
        if let (Some(capacity), Some(pool)) = (capacity, pool.upgrade()) {
            pool.set_capacity(capacity.all);
            if pool.connector().access().bounded_by == BoundedBy::Budget {
                look_for_room(capacity, &pool.snapshot());
            }
        }
    }
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
fn await_answer(hosts: &Arc<Hosts>) -> Arc<AtomicBool> {
    let hosts = Arc::clone(hosts);
    let answers = Arc::new(AtomicBool::new(false));
    let asked = Arc::downgrade(&answers);
    drop(tokio::spawn(async move {
        // Nobody waits for the answer of a server that is configured no more.
        while asked.strong_count() > 0 {
            for host in hosts.list() {
                let attempt = host.name.connect(LoadBalance::Disable, ANSWER_PATIENCE);
                if let Ok(Ok(_)) = time::timeout(ANSWER_PATIENCE, attempt).await {
                    if let Some(answers) = asked.upgrade() {
                        answers.store(true, Ordering::Relaxed);
                    }
                    return;
                }
            }
            time::sleep(ANSWER_PAUSE).await;
        }
    }));
    answers
}

/// Whether work depends on what is known of the hosts of `server` beside their pool.
fn watched(server: &str, settings: &PostgresSettings) -> Watched {
    let names = |other: &ServerSettings| {
        other.replicas.as_ref().is_some_and(|replicas| replicas.server == server)
    };
    match settings.servers.values().any(names) {
        true => Watched::Always,
        false => Watched::IfChoosy,
    }
}
