//! The gateway: accepts clients, knows the pools, and comes to an orderly end.

mod additions;
mod backend;
mod bell;
mod client;
mod control;
mod doors;
mod lookups;
mod pairs;
mod plan;
mod reload;
mod roll;
mod stillness;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use forebay_pool::event::Told;
use forebay_pool::overlap::Overlaps;
use forebay_pool::stats::OperationSnapshot;
use forebay_pool::{Roster, Snapshot};
use forebay_seam::net::{Address, Listener, Peer, Socket};
use forebay_seam::sync::Mutex;
use forebay_seam::task::Stop;
use forebay_seam::time;
use forebay_seam::time::Instant;
use serde::Serialize;
use tokio::sync::{Notify, broadcast};

use crate::auth::Doorkeeper;
use crate::cancel::Registry;
use crate::census::Census;
use crate::console::{self, Office};
use crate::held;
use crate::idlers::{self, IdleClient};
use crate::listener::NotificationCounts;
use crate::operations::Operations;
use crate::parking::ParkingSnapshot;
use crate::pins::{Board, Pinned};
use crate::prepared::Statements;
use crate::server::hosts::HostsSnapshot;
use crate::settings::PostgresSettings;
use crate::timeouts::{Counter, TimeoutCounts};
use crate::welcome::Welcomes;

pub(crate) use bell::{Bell, Course};
pub use control::ControlError;
pub use doors::{ControlSnapshot, Flow};
pub(crate) use pairs::Pairs;
pub(crate) use plan::Plan;
pub use reload::Changes;
pub(crate) use roll::Entry;
use stillness::Stillness;

/// Pause after a failed accept: usually no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The log hears of failed accepts so often; each of them is counted.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(10);

/// What is said again and again, and seldom.
#[derive(Default)]
struct Complaint {
    last: Option<Instant>,
}

impl Complaint {
    /// Is it time to say it again?
    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.last.is_none_or(|last| now >= last + COMPLAINT_PAUSE);
        if is_due {
            self.last = Some(now);
        }
        is_due
    }
}

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
    /// Connections that could not be accepted since start, usually because no file descriptor
    /// was left.
    pub accept_failures: u64,
    /// Cancel requests received since start.
    pub cancels: u64,
    /// What lasted too long, since start.
    pub timeouts: TimeoutCounts,
    /// Logins that were turned away because too many like them failed, since start.
    pub throttled: u64,
    /// Iterations of hashing that clients' passwords have cost since start.
    pub hash_iterations: u64,
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
    /// What an operator has closed.
    pub control: ControlSnapshot,
    /// The hosts of each server.
    pub hosts: Vec<HostsSnapshot>,
    /// What parking came to, by server; only where a class parks, or has parked.
    pub parking: BTreeMap<String, ParkingSnapshot>,
    /// Pools, one for each server.
    pub pools: Vec<Snapshot>,
}

/// What all sessions share.
pub(crate) struct Inner {
    plan: ArcSwap<Plan>,
    /// What each pair of a database and a user may have; outlives plans.
    pub(crate) pairs: Arc<Pairs>,
    /// A pause was ended.
    resumed: Notify,
    pub(crate) stillness: Stillness,
    /// Held while the next plan is made: one at a time.
    changing: Mutex<()>,
    /// Rung when there is another plan, and when sessions should end.
    bell: bell::Ringer,
    pub(crate) statements: Statements,
    pub(crate) welcomes: Welcomes,
    pub(crate) overlaps: Arc<Overlaps>,
    /// The requests under way in this process.
    pub(crate) roster: Arc<Roster>,
    pub(crate) operations: Operations,
    /// Memory of messages that are not whole yet.
    pub(crate) held: Arc<held::Account>,
    /// What all logins share.
    pub(crate) door: Doorkeeper,
    registry: Arc<Registry>,
    pub(crate) census: Arc<Census>,
    /// What the program does for the console.
    pub(crate) office: OnceLock<Arc<dyn Office>>,
    clients: AtomicU32,
    /// Clients that the system has room for.
    room: AtomicU32,
    /// Those beyond the limit, while it is not known what they want.
    beyond: AtomicU32,
    refused: AtomicU64,
    cancels: AtomicU64,
    accept_failures: AtomicU64,
    pub(crate) pins: Arc<Board>,
    pub(crate) timeouts: Counter,
    hints_ignored: AtomicU64,
    left: Notify,
}

impl Inner {
    /// A statement's tag could not be read.
    pub(crate) fn count_ignored_hint(&self) {
        self.hints_ignored.fetch_add(1, Ordering::Relaxed);
    }

    /// Clients that are here and have not logged in yet, if `known` have.
    pub(crate) fn greeting(&self, known: usize) -> usize {
        let all = usize::try_from(self.clients.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        all.saturating_sub(known)
    }

    /// The configuration in force.
    pub(crate) fn plan(&self) -> Arc<Plan> {
        self.plan.load_full()
    }

    /// The configuration in force, unless it is `known`.
    pub(crate) fn plan_beside(&self, known: &Arc<Plan>) -> Option<Arc<Plan>> {
        let plan = self.plan.load();
        (!Arc::ptr_eq(&plan, known)).then(|| Arc::clone(&plan))
    }
}

impl Gateway {
    /// All that cannot be carried out of `settings`, found without opening a connection; files
    /// of certificates are read, secrets are not.
    pub fn check(settings: &PostgresSettings) -> Vec<SettingsError> {
        plan::check(settings)
    }

    /// A gateway for `settings`; starts warming up. Inside a runtime. `overlaps` and `roster`
    /// are shared by all gateways of the process; `default_tenant` is the tenant of users that
    /// name none.
    ///
    /// # Errors
    /// The first of [`Gateway::check`]; also a secret that cannot be read.
    pub fn new(
        settings: PostgresSettings,
        overlaps: Arc<Overlaps>,
        roster: Arc<Roster>,
        default_tenant: Option<Arc<str>>,
    ) -> Result<Self, SettingsError> {
        let held = held::Account::new(settings.max_message_memory);
        let pairs = Arc::new(Pairs::new(&settings));
        let census = Arc::new(Census::default());
        let (plan, _) = Plan::new(settings, &roster, &pairs, &census, default_tenant, None)?;
        plan.warm_up();
        let inner = Arc::new(Inner {
            plan: ArcSwap::from_pointee(plan),
            pairs,
            resumed: Notify::new(),
            stillness: Stillness::default(),
            changing: Mutex::default(),
            bell: bell::Ringer::default(),
            statements: Statements::default(),
            welcomes: Welcomes::default(),
            overlaps,
            roster,
            operations: Operations::default(),
            held,
            door: Doorkeeper::default(),
            registry: Arc::new(Registry::default()),
            census,
            office: OnceLock::new(),
            clients: AtomicU32::new(0),
            room: AtomicU32::new(u32::MAX),
            beyond: AtomicU32::new(0),
            refused: AtomicU64::new(0),
            cancels: AtomicU64::new(0),
            accept_failures: AtomicU64::new(0),
            pins: Arc::default(),
            timeouts: Counter::default(),
            hints_ignored: AtomicU64::new(0),
            left: Notify::new(),
        });
        drop(tokio::spawn(console::sample(Arc::downgrade(&inner))));
        Ok(Self { inner })
    }

    /// What the console shows and does beyond this gateway is `office`'s from now on; the first
    /// that opens it stays.
    pub fn open_office(&self, office: Arc<dyn Office>) {
        if self.inner.office.set(office).is_err() {
            tracing::error!("the console has an office already");
        }
    }

    pub(crate) fn of(inner: &Arc<Inner>) -> Self {
        Self { inner: Arc::clone(inner) }
    }

    /// Serves the clients that `listener` accepts, until `stop` is told; then accepts no
    /// more. Sessions go on; see [`Gateway::drain`]. Called once for each listener.
    pub async fn serve(&self, listener: impl Into<Listener>, stop: Stop) {
        self.serve_all(&listener.into(), stop).await;
    }

    /// As [`Gateway::serve`]; also stops to accept when `close` is told, and those who had
    /// connected by then are let in.
    pub async fn serve_until_closed(&self, listener: Listener, mut close: Stop, stop: Stop) {
        tokio::select! {
            () = self.serve_all(&listener, stop.clone()) => return,
            () = close.told() => {}
        }
        match listener.last() {
            Ok(waiting) => waiting.into_iter().for_each(|(client, from)| {
                self.receive(client, from, stop.clone());
            }),
            Err(error) => tracing::warn!(%error, "who had just connected is refused"),
        }
    }

    async fn serve_all(&self, listener: &Listener, mut stop: Stop) {
        let (mut complaint, mut tuned) = (Complaint::default(), None);
        loop {
            let tuning = self.inner.plan.load().settings.tuning();
            if tuned != Some(tuning) {
                tuned = Some(tuning);
                if let Err(error) = listener.tune(&tuning) {
                    tracing::warn!(%error, "cannot set how clients' connections are watched over");
                }
            }
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.told() => {
                    self.inner.bell.ring(Course::Stopping);
                    return;
                }
            };
            match accepted {
                Ok((client, from)) => {
                    if self.inner.stillness.round().is_some() {
                        tokio::select! {
                            () = self.inner.stillness.until(|round| round.is_none()) => {}
                            () = stop.told() => {}
                        }
                    }
                    self.receive(client, from, stop.clone());
                }
                Err(error) => {
                    let failures = self.inner.accept_failures.fetch_add(1, Ordering::Relaxed) + 1;
                    if complaint.is_due(time::now()) {
                        tracing::warn!(%error, failures, "cannot accept clients");
                    }
                    time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn receive(&self, client: Socket, from: Peer, stop: Stop) {
        drop(tokio::spawn(client::serve(Arc::clone(&self.inner), client, from, stop)));
    }

    /// Sends idle clients away with 57P01 and waits until the others have finished what runs, at
    /// most until `deadline`; then closes every pool.
    pub async fn drain(&self, deadline: Instant) {
        self.inner.bell.ring(Course::Stopping);
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
        for backend in self.inner.plan().backends.values() {
            backend.listeners.close();
            if let Some(parking) = &backend.parking {
                parking.prover.ends();
            }
            backend.pool.drain(deadline).await;
        }
    }

    /// Clients that have idled in a transaction for `beyond` or longer, with a server
    /// connection.
    pub fn idle_clients(&self, beyond: Duration) -> Vec<IdleClient> {
        idlers::of(&self.inner.census, beyond, time::now())
    }

    /// Cancel requests with keys that nobody here has are sent on to the process that listens at
    /// the Unix socket `before`, which had our place; to nobody, where it is gone.
    pub fn send_cancels_on(&self, before: Option<&Path>) {
        self.inner.registry.send_on(before.map(|path| Address::Unix(path.into())));
    }

    /// There is room for so many clients, whatever `max_clients` says.
    pub fn set_room(&self, clients: u32) {
        self.inner.room.store(clients, Ordering::Relaxed);
    }

    /// Sets the budget of `server` by hand ([`Pool::set_budget`](forebay_pool::Pool::set_budget)); `false`: there is none of
    /// that name.
    pub fn set_budget(&self, server: &str, budget: Option<u32>) -> bool {
        let plan = self.inner.plan();
        plan.backends.get(server).map(|backend| backend.pool.set_budget(budget)).is_some()
    }

    /// Replaces all connections to `server` ([`Pool::renew`](forebay_pool::Pool::renew)) and judges its hosts anew; `false`: there is none of that
    /// name.
    pub fn renew(&self, server: &str) -> bool {
        let plan = self.inner.plan();
        let Some(backend) = plan.backends.get(server) else { return false };
        backend.pool.connector().access().hosts.forget();
        backend.pool.renew();
        true
    }

    /// What happens in each pool, from now on ([`Pool::events`](forebay_pool::Pool::events)).
    pub fn events(&self) -> Vec<broadcast::Receiver<Told>> {
        self.inner.plan().backends.values().map(|backend| backend.pool.events()).collect()
    }

    /// What happens in the pool of `server`, from now on; `None`: there is none of that name.
    pub fn events_of(&self, server: &str) -> Option<broadcast::Receiver<Told>> {
        self.inner.plan().backends.get(server).map(|backend| backend.pool.events())
    }

    /// What operations were learnt to take, by server ([`Pool::operations`](forebay_pool::Pool::operations)).
    pub fn operations(&self) -> Vec<(String, Vec<OperationSnapshot>)> {
        let plan = self.inner.plan();
        let backends = plan.backends.iter();
        backends.map(|(name, backend)| (name.clone(), backend.pool.operations())).collect()
    }

    /// Is every pool warm, and did every server answer?
    pub fn is_ready(&self) -> bool {
        self.inner
            .plan()
            .backends
            .values()
            .all(|backend| backend.answers.load(Ordering::Relaxed) && backend.pool.snapshot().warm)
    }

    /// One picture.
    pub fn snapshot(&self) -> PostgresSnapshot {
        let plan = self.inner.plan();
        let backends = &plan.backends;
        PostgresSnapshot {
            clients: self.inner.clients.load(Ordering::Relaxed),
            refused: self.inner.refused.load(Ordering::Relaxed),
            cancels: self.inner.cancels.load(Ordering::Relaxed),
            accept_failures: self.inner.accept_failures.load(Ordering::Relaxed),
            timeouts: self.inner.timeouts.counts(),
            throttled: self.inner.door.throttled(),
            hash_iterations: self.inner.door.hash_iterations(),
            pins: self.inner.pins.counts(),
            pinned: self.inner.pins.pinned(),
            hints_ignored: self.inner.hints_ignored.load(Ordering::Relaxed),
            notifications: backends.iter().map(|(name, b)| b.listeners.counts(name)).collect(),
            replications: backends
                .iter()
                .map(|(name, backend)| (name.clone(), backend.replications.count()))
                .collect(),
            control: self.inner.pairs.doors.snapshot(),
            hosts: backends
                .iter()
                .map(|(name, b)| b.pool.connector().access().hosts.snapshot(name))
                .collect(),
            parking: backends
                .iter()
                .map(|(name, backend)| (name.clone(), backend.book.snapshot()))
                .filter(|(_, parking)| !parking.classes.is_empty())
                .collect(),
            pools: backends.values().map(|backend| backend.pool.snapshot()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_hears_of_failed_accepts_once_in_ten_seconds() {
        let (mut complaint, begin) = (Complaint::default(), time::now());
        let heard = (0..1_000).filter(|n| complaint.is_due(begin + *n * ACCEPT_PAUSE)).count();
        assert_eq!(heard, 5);
    }
}
