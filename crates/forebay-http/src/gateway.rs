//! The gateway: agents' connections, from the accept to the last answer.
//!
//! Owns the listener's loop and the count of agents. Always true: at most `max_clients`
//! connections are served; each is one task that ends with its connection, with the
//! deadline of a drain at the latest.

mod reload;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use forebay_pool::Roster;
use forebay_pool::event::Told;
use forebay_pool::overlap::Overlaps;
use forebay_seam::net::{Listener, Peer, Socket};
use forebay_seam::sync::Mutex;
use forebay_seam::task::{Spawner, Stop, Stopper};
use forebay_seam::time::{self, Instant};
use tokio::io::AsyncWrite;
use tokio::sync::{Semaphore, broadcast};

use crate::SettingsError;
use crate::agent::{self, Certified, Visit};
use crate::call::Desk;
use crate::credential::Registry;
use crate::destination;
use crate::doorstep;
use crate::meter::Refusals;
use crate::problem::{Problem, Reason, Retry};
use crate::routes;
use crate::settings::HttpSettings;
use crate::stats::HttpSnapshot;
use crate::tenant::{self, RollError};
use crate::tls::Trust;
use crate::wallet;

/// Rest after an accept that failed, which means that the machine is out of something.
const ACCEPT_REST: Duration = Duration::from_millis(50);
/// When an agent that was turned away may come again.
const CROWDED_REST: Duration = Duration::from_secs(1);

pub use reload::{Changes, Revision};
use reload::{Draft, Shared};

/// Forwards the calls of agents to the services behind. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    house: Arc<House>,
}

struct House {
    desk: Arc<ArcSwap<Desk>>,
    tls: ArcSwapOption<Certified>,
    /// The settings in force; held while they change.
    settings: Mutex<HttpSettings>,
    registry: Registry,
    seats: Arc<Semaphore>,
    max_clients: u32,
    turned_away: AtomicU64,
    spawner: Spawner,
    /// Told when calls on their way are cut off; taken by the drain.
    cut: Mutex<Option<Stopper>>,
    cut_heard: Stop,
    /// Told when connections should end with the call that they serve.
    leave: Mutex<Option<Stopper>>,
    leave_heard: Stop,
}

impl Gateway {
    /// Checks `settings` without opening anything (files of certificates are read).
    ///
    /// # Errors
    /// The first setting that cannot be carried out.
    pub fn check(settings: &HttpSettings) -> Result<(), SettingsError> {
        check(settings, &mut Trust::default())
    }

    /// Everything that is wrong with the keys and credentials in `settings`, which are read
    /// for that and forgotten.
    pub fn check_secrets(settings: &HttpSettings) -> Vec<SettingsError> {
        let mut trust = Trust::default();
        let tenants = tenant::problems(&settings.tenants).into_iter().map(at_tenants);
        let mut problems: Vec<_> = tenants.collect();
        for (name, destination) in &settings.destinations {
            let found = wallet::problems(destination, &settings.tenants, &mut trust);
            problems.extend(found.into_iter().map(|(key, reason)| SettingsError {
                at: format!("http.destinations.{name}.{key}"),
                reason,
            }));
        }
        problems
    }

    /// A gateway for `settings`; reads the secrets and starts warming up. Inside a runtime.
    /// `overlaps` and `roster` are shared by all gateways of the process.
    ///
    /// # Errors
    /// As [`Gateway::check`], and when a secret cannot be read.
    pub fn new(
        settings: HttpSettings,
        overlaps: Arc<Overlaps>,
        roster: Arc<Roster>,
    ) -> Result<Self, SettingsError> {
        let mut trust = Trust::default();
        check(&settings, &mut trust)?;
        let registry = Registry::new();
        let refusals = Arc::<Refusals>::default();
        let shared = Shared { overlaps, roster, refusals };
        let draft = Draft::new(&settings, None, &registry, &mut trust)?;
        let (desk, tls) = draft.stand(&settings, shared);
        let max_clients = settings.max_clients;
        let seats = usize::try_from(max_clients).unwrap_or(usize::MAX);
        let (cut, cut_heard) = Stopper::new();
        let (leave, leave_heard) = Stopper::new();
        let house = House {
            desk: Arc::new(ArcSwap::from_pointee(desk)),
            tls: ArcSwapOption::new(tls),
            settings: Mutex::new(settings),
            registry,
            seats: Arc::new(Semaphore::new(seats.min(Semaphore::MAX_PERMITS))),
            max_clients,
            turned_away: AtomicU64::new(0),
            spawner: Spawner::current(),
            cut: Mutex::new(Some(cut)),
            cut_heard,
            leave: Mutex::new(Some(leave)),
            leave_heard,
        };
        Ok(Self { house: Arc::new(house) })
    }

    /// Serves the agents that `listener` accepts, until `stop` is told; then accepts no more,
    /// and connections end with the call that they serve.
    ///
    /// # Cancel safety
    /// Dropped, no more are accepted; those that were are served on.
    pub async fn serve(&self, listener: Listener, mut stop: Stop) {
        let tls = |listener: &Listener| match listener {
            Listener::Tcp(_) => self.house.tls.load_full(),
            Listener::Unix(_) => None,
        };
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.told() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, peer)) => {
                    self.receive(socket, peer, tls(&listener), stop.clone());
                }
                Err(error) => {
                    tracing::warn!(%error, "an agent's connection cannot be accepted");
                    time::sleep(ACCEPT_REST).await;
                }
            }
        }
    }

    fn receive(&self, socket: Socket, peer: Peer, tls: Option<Arc<Certified>>, stop: Stop) {
        let house = &self.house;
        match Arc::clone(&house.seats).try_acquire_owned() {
            Ok(seat) => {
                let (leave, cut) = (house.leave_heard.clone(), house.cut_heard.clone());
                let desk = Arc::clone(&house.desk);
                let visit = Visit { desk, tls, peer, seat, stop, leave, cut };
                house.spawner.spawn(visit.run(socket));
            }
            Err(_) => {
                house.turned_away.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%peer, "an agent was turned away: `max_clients` are connected");
                turn_away(socket, house.max_clients);
            }
        }
    }

    /// Waits until agents have been served what runs, at most until `deadline`; then closes
    /// every connection.
    pub async fn drain(&self, deadline: Instant) {
        let house = &self.house;
        drop(house.leave.lock().take());
        let left = deadline.saturating_duration_since(time::now());
        let everybody = house.seats.acquire_many(house.max_clients);
        if time::timeout(left, everybody).await.is_err() {
            tracing::warn!(clients = house.clients(), "calls are cut off: the drain is over");
        }
        drop(house.cut.lock().take());
        let desk = house.desk.load_full();
        for destination in desk.routes.destinations() {
            destination.pool.close();
        }
        for destination in desk.routes.destinations() {
            destination.pool.drain(deadline).await;
        }
    }

    /// Sets the budget of `destination`, in connections, by hand
    /// ([`forebay_pool::Pool::set_budget`]); `false`: there is none of that name.
    pub fn set_budget(&self, destination: &str, budget: Option<u32>) -> bool {
        let desk = self.house.desk.load();
        desk.routes.named(destination).map(|named| named.set_budget(budget)).is_some()
    }

    /// Replaces all connections to `destination` ([`forebay_pool::Pool::renew`]): streams that
    /// are under way end where they began. `false`: there is none of that name.
    pub fn renew(&self, destination: &str) -> bool {
        let desk = self.house.desk.load();
        desk.routes.named(destination).map(|named| named.renew()).is_some()
    }

    /// What operations were learnt to take, by destination ([`forebay_pool::Pool::operations`]).
    pub fn operations(&self) -> Vec<(String, Vec<forebay_pool::stats::OperationSnapshot>)> {
        let desk = self.house.desk.load();
        desk.routes.destinations().map(|d| (d.name.to_string(), d.pool.operations())).collect()
    }

    /// What happens in each pool, from now on ([`forebay_pool::Pool::events`]).
    pub fn events(&self) -> Vec<broadcast::Receiver<Told>> {
        self.house.desk.load().routes.destinations().map(|d| d.pool.events()).collect()
    }

    /// Is every pool warm?
    pub fn is_ready(&self) -> bool {
        self.house.desk.load().routes.destinations().all(|d| d.pool.snapshot().warm)
    }

    /// One picture.
    pub fn snapshot(&self) -> HttpSnapshot {
        let house = &self.house;
        let desk = house.desk.load();
        let destinations = desk.routes.destinations();
        HttpSnapshot {
            clients: house.clients(),
            clients_refused: house.turned_away.load(Ordering::Relaxed),
            refusals: desk.refusals.snapshot(),
            cached_tokens: house.registry.cached_tokens(),
            destinations: destinations
                .clone()
                .map(|d| d.meter.snapshot(Arc::clone(&d.name), d.toll.snapshot()))
                .collect(),
            pools: destinations.clone().map(|d| d.pool.snapshot()).collect(),
            connections: destinations.map(|d| d.connections()).collect(),
        }
    }
}

impl House {
    fn clients(&self) -> u32 {
        let free = u32::try_from(self.seats.available_permits()).unwrap_or(u32::MAX);
        self.max_clients.saturating_sub(free)
    }
}

/// Says why, as far as the socket takes it at once, and closes.
fn turn_away(mut socket: Socket, max_clients: u32) {
    let detail = format!("{max_clients} clients are connected, as many as may be");
    let problem =
        Problem::new(Reason::TooManyClients, detail).with_retry(Retry::After(CROWDED_REST));
    let mut cx = Context::from_waker(Waker::noop());
    let bytes = doorstep::on_the_wire(problem);
    if let Poll::Ready(Err(error)) = Pin::new(&mut socket).poll_write(&mut cx, &bytes) {
        tracing::debug!(%error, "an agent could not be told that it was turned away");
    }
}

fn check(settings: &HttpSettings, trust: &mut Trust) -> Result<(), SettingsError> {
    if settings.max_clients == 0 {
        let reason = "at least one agent must be able to connect".to_owned();
        return Err(SettingsError { at: "http.max_clients".to_owned(), reason });
    }
    if settings.max_concurrent_streams == 0 {
        let reason = "a connection of HTTP/2 must be able to carry at least one call".to_owned();
        return Err(SettingsError { at: "http.max_concurrent_streams".to_owned(), reason });
    }
    if let Some(tls) = &settings.tls {
        agent::check_tls(tls)
            .map_err(|reason| SettingsError { at: "http.tls".to_owned(), reason })?;
    }
    tenant::check(&settings.tenants).map_err(at_tenants)?;
    for (name, destination) in &settings.destinations {
        destination::check(name, destination, settings, trust)?;
    }
    routes::check(&settings.destinations)
}

fn at_tenants(error: RollError) -> SettingsError {
    let at = match error.key.as_str() {
        "" => "http.tenants".to_owned(),
        key => format!("http.tenants.{key}"),
    };
    SettingsError { at, reason: error.reason }
}
