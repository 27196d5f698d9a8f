//! Suspected holds: clients that idle in a transaction although nothing says that their request
//! waits for a call.
//!
//! A look now and then, off the path of any statement or call: over the clients that idle for
//! longer than the limit, and, while there are such, over the calls under way. Where a client
//! and a caller are one program, the suspicion names the call. Always true: a suspicion is
//! never counted as an overlap; what is proven to overlap is not suspected.

mod naming;
mod owner;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_pool::overlap::{Call, Hold, Overlaps, Subject};
use forebay_postgres::IdleClient;
use forebay_seam::sync::Mutex;
use forebay_seam::task::Spawner;
use forebay_seam::time;
use serde::Serialize;
use tokio::sync::broadcast;

use crate::config::HoldSettings;
use crate::reload::Reloader;

pub use naming::Basis;
use naming::Caller;

/// Programs and destinations told apart in counters; what comes after is `other`.
const APART: usize = 200;
/// Calls that are compared with those who idle.
const CALLS: usize = 4_096;
/// Suspects that are followed at once.
const MOST: usize = 1_024;
/// Events kept for a slow reader before it misses the oldest.
const EVENTS: usize = 256;
/// The longest and the shortest time between two looks; between them, a quarter of the limit.
const LONGEST: Duration = Duration::from_secs(2);
const SHORTEST: Duration = Duration::from_millis(100);
/// How often is asked whether there is a limit while there is none.
const OFF: Duration = Duration::from_secs(2);

/// A client that idles in a transaction: a suspicion, nothing proven.
#[derive(Debug, Clone, Serialize)]
pub struct SuspectedHold {
    /// The number of the client's connection, as the console shows it.
    pub client: u64,
    /// The database.
    pub database: Arc<str>,
    /// The database user.
    pub user: Arc<str>,
    /// What the client calls itself (`application_name`).
    pub application: Arc<str>,
    /// The statement that its transaction began with, without literals, where it is known.
    pub statement: Option<Arc<str>>,
    /// The server whose connection it keeps.
    pub server: Arc<str>,
    /// For how long it had idled when it was looked at last, seconds.
    pub seconds: f64,
    /// The call that it may wait for.
    pub call: Option<SuspectedCall>,
}

/// A call that a transaction may wait for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SuspectedCall {
    /// Where to.
    pub destination: Arc<str>,
    /// What is called there: method and path template.
    pub operation: Arc<str>,
    /// The model or tool, where it is known.
    #[serde(flatten)]
    pub subject: Option<Subject>,
    /// The endpoint, agent or tool that calls, as far as it says so.
    pub feature: Arc<str>,
    /// Why client and caller are thought to be one program.
    pub basis: Basis,
    /// Calls of that program that are under way: with more than one it may be another.
    pub candidates: usize,
}

/// What is told of a suspicion.
#[derive(Debug, Clone)]
pub enum Suspicion {
    /// A client has idled for longer than the limit.
    Begins(SuspectedHold),
    /// A call was found that it may wait for.
    Named(SuspectedHold),
    /// It idles no longer, or what it waits for is proven by now.
    Ends(SuspectedHold),
}

/// Suspicions since the start.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SuspicionCount {
    /// What the client calls itself.
    pub application: Arc<str>,
    /// The destination called; `unknown` where no call was found.
    pub destination: Arc<str>,
    /// Suspicions that are over.
    pub count: u64,
    /// Seconds for which the clients had idled.
    pub seconds: f64,
}

/// Who is suspected now, and what was counted.
pub struct Suspects {
    overlaps: Arc<Overlaps>,
    state: Mutex<State>,
    events: broadcast::Sender<Suspicion>,
}

#[derive(Default)]
struct State {
    /// By client.
    now: BTreeMap<u64, Suspect>,
    counts: HashMap<(Arc<str>, Arc<str>), (u64, Duration)>,
}

struct Suspect {
    since: Instant,
    hold: SuspectedHold,
}

impl Suspects {
    /// Nobody so far.
    pub fn new(overlaps: Arc<Overlaps>) -> Self {
        Self { overlaps, state: Mutex::default(), events: broadcast::channel(EVENTS).0 }
    }

    /// Where proven overlaps are found.
    pub fn overlaps(&self) -> &Arc<Overlaps> {
        &self.overlaps
    }

    /// Suspicions as they begin, find their call, and end. A reader that falls 256 behind
    /// misses the oldest.
    pub fn events(&self) -> broadcast::Receiver<Suspicion> {
        self.events.subscribe()
    }

    /// Who is suspected now, the longest first.
    pub fn now(&self) -> Vec<SuspectedHold> {
        let mut now: Vec<_> = self.state.lock().now.values().map(|one| one.hold.clone()).collect();
        now.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        now
    }

    /// What was counted so far, by program and destination.
    pub fn counts(&self) -> Vec<SuspicionCount> {
        let state = self.state.lock();
        let counts = state.counts.iter().map(|((application, destination), (count, time))| {
            let (application, destination) = (Arc::clone(application), Arc::clone(destination));
            SuspicionCount { application, destination, count: *count, seconds: time.as_secs_f64() }
        });
        let mut counts: Vec<_> = counts.collect();
        counts.sort_by(|a, b| {
            (&a.application, &a.destination).cmp(&(&b.application, &b.destination))
        });
        counts
    }

    /// Looks now and then, as the settings in force say, as long as the runtime lives.
    pub async fn watch(self: Arc<Self>, gateway: forebay_postgres::Gateway, reloader: Reloader) {
        let spawner = Spawner::current();
        loop {
            let settings = reloader.in_force().config.holds.clone();
            let limit = settings.suspect_after;
            if limit.is_zero() {
                self.look(&[], &settings, &spawner).await;
                time::sleep(OFF).await;
                continue;
            }
            time::sleep((limit / 4).clamp(SHORTEST, LONGEST)).await;
            self.look(&gateway.idle_clients(limit), &settings, &spawner).await;
        }
    }

    /// `idle` are those who idle for longer than the limit.
    pub async fn look(&self, idle: &[IdleClient], settings: &HoldSettings, spawner: &Spawner) {
        let now = time::now();
        if idle.is_empty() && self.state.lock().now.is_empty() {
            return;
        }
        let holds = self.overlaps.holds();
        let proven: HashSet<_> = holds
            .iter()
            .filter(|hold| !hold.calls.is_empty())
            .map(|hold| hold.transaction.client)
            .collect();
        let idle: Vec<_> = idle.iter().filter(|one| !proven.contains(&one.client)).collect();
        let nameless = self.follow(&idle, now);
        if nameless.is_empty() {
            return;
        }
        let callers = unexplained(self.overlaps.calls(CALLS), &holds);
        if callers.is_empty() {
            return;
        }
        let nameless: Vec<_> =
            idle.into_iter().filter(|one| nameless.contains(&one.client)).cloned().collect();
        let callers = recognise(callers, &nameless, spawner).await;
        for one in &nameless {
            if let Some(call) = naming::call_of(one, &callers, &settings.programs) {
                self.name(one.client, call);
            }
        }
    }

    /// Who has come is suspected, who is gone is not any more; clients whose call is not known.
    fn follow(&self, idle: &[&IdleClient], now: Instant) -> HashSet<u64> {
        let mut tell = Vec::new();
        let mut state = self.state.lock();
        let still: HashMap<_, _> = idle.iter().map(|one| (one.client, one.since)).collect();
        let over: Vec<_> = state
            .now
            .iter()
            .filter(|(client, suspect)| still.get(client) != Some(&suspect.since))
            .map(|(client, _)| *client)
            .collect();
        for client in over {
            let Some(suspect) = state.now.remove(&client) else { continue };
            state.count(&suspect.hold, Duration::from_secs_f64(suspect.hold.seconds));
            tell.push(Suspicion::Ends(suspect.hold));
        }
        for one in idle {
            let seconds = now.saturating_duration_since(one.since).as_secs_f64();
            if let Some(known) = state.now.get_mut(&one.client) {
                known.hold.seconds = seconds;
            } else if state.now.len() < MOST {
                let hold = SuspectedHold {
                    client: one.client,
                    database: Arc::clone(&one.database),
                    user: Arc::clone(&one.user),
                    application: Arc::clone(&one.application),
                    statement: one.statement.clone(),
                    server: Arc::clone(&one.server),
                    seconds,
                    call: None,
                };
                tell.push(Suspicion::Begins(hold.clone()));
                state.now.insert(one.client, Suspect { since: one.since, hold });
            }
        }
        let nameless = state.now.iter().filter(|(_, suspect)| suspect.hold.call.is_none());
        let nameless = nameless.map(|(client, _)| *client).collect();
        drop(state);
        for one in tell {
            // No reader is no error: the counters have it.
            drop(self.events.send(one));
        }
        nameless
    }

    fn name(&self, client: u64, call: SuspectedCall) {
        let mut state = self.state.lock();
        let Some(suspect) = state.now.get_mut(&client) else { return };
        suspect.hold.call = Some(call);
        let hold = suspect.hold.clone();
        drop(state);
        drop(self.events.send(Suspicion::Named(hold)));
    }
}

impl State {
    fn count(&mut self, hold: &SuspectedHold, lasted: Duration) {
        let destination =
            hold.call.as_ref().map_or("unknown".into(), |call| Arc::clone(&call.destination));
        let mut key = (Arc::clone(&hold.application), destination);
        if self.counts.len() >= APART && !self.counts.contains_key(&key) {
            key = ("other".into(), "other".into());
        }
        let (count, seconds) = self.counts.entry(key).or_default();
        *count += 1;
        *seconds += lasted;
    }
}

/// Calls that no transaction is known to wait for: those of a request that has one are that
/// one's.
fn unexplained(calls: Vec<Call>, holds: &[Hold]) -> Vec<Call> {
    let known: HashSet<_> = holds.iter().map(|hold| &hold.request).collect();
    calls
        .into_iter()
        .filter(|call| call.request.as_ref().is_none_or(|request| !known.contains(request)))
        .collect()
}

/// Whose `calls` are; and whose the clients are, where their sockets are of this machine.
async fn recognise(
    calls: Vec<Call>,
    clients: &[IdleClient],
    spawner: &Spawner,
) -> naming::Recognised {
    let sockets: HashSet<SocketAddr> = calls
        .iter()
        .filter_map(|call| call.call.peer)
        .chain(clients.iter().filter_map(|client| client.peer))
        .collect();
    let owners = spawner.block(move || owner::of(&sockets)).await.unwrap_or_default();
    naming::Recognised {
        callers: calls
            .into_iter()
            .map(|call| {
                let process = call.call.peer.and_then(|peer| owners.get(&peer).copied());
                Caller { call, process }
            })
            .collect(),
        owners,
    }
}

#[cfg(test)]
mod tests;
