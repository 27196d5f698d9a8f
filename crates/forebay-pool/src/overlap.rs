//! Connections held while the same request waits for an outbound call.
//!
//! Both gateways tell this room what they see: a transaction of a request went idle, a call
//! of a request began. Where both are true at once, that is an overlap: a connection that
//! serves nobody because a model is thinking. Always true: an overlap ends with the first
//! of its two sides, is counted once, and a guard dropped anywhere ends its side.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_seam::sync::Mutex;
use forebay_seam::time;
use serde::Serialize;
use slotmap::{DefaultKey, SlotMap};
use smallvec::SmallVec;
use tokio::sync::broadcast;

use crate::class::ClassName;
use crate::request::Request;

/// Told apart by feature and destination up to here; what comes after is counted as `other`.
const FAMILIES: usize = 1_000;
/// Calls and transactions of one request that are compared with each new one, so that a
/// client that uses one trace id for everything costs no more than others.
const COMPARED: usize = 32;
/// Events kept for a slow reader before it misses the oldest.
const EVENTS: usize = 1_024;

/// What the waiting transaction occupied meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HoldKind {
    /// A server connection.
    Held,
    /// Nothing: its connection was given back (parking).
    Parked,
    /// Nothing yet: its BEGIN had not been sent.
    Deferred,
}

/// A transaction that is open and idle: no answer is owed to its client.
#[derive(Debug, Clone)]
pub struct IdleTransaction {
    /// What it occupies.
    pub kind: HoldKind,
    /// Its workload class.
    pub class: ClassName,
    /// The endpoint, agent or tool it works for.
    pub feature: Arc<str>,
    /// The last statement, without literals.
    pub statement: Arc<str>,
    /// The database it is open in.
    pub database: Arc<str>,
    /// The database user.
    pub user: Arc<str>,
    /// When the connection was taken.
    pub since: Instant,
}

/// A transaction that idles now.
#[derive(Debug, Clone)]
pub struct Hold {
    /// Of which request.
    pub request: Request,
    /// The transaction.
    pub transaction: IdleTransaction,
    /// Outbound calls of the same request that are under way.
    pub calls: usize,
}

/// An outbound call in flight.
#[derive(Debug, Clone)]
pub struct OutboundCall {
    /// The destination's name.
    pub destination: Arc<str>,
    /// What is called there: method and path template, tool name, model.
    pub operation: Arc<str>,
}

/// One overlap, at its end.
#[derive(Debug, Clone, Serialize)]
pub struct Overlap {
    /// The tenant of the request.
    pub tenant: String,
    /// The trace id of the request.
    pub trace: String,
    /// What the transaction occupied.
    pub kind: HoldKind,
    /// Its workload class.
    pub class: ClassName,
    /// The endpoint, agent or tool.
    pub feature: Arc<str>,
    /// The last statement before the call, without literals.
    pub statement: Arc<str>,
    /// The database.
    pub database: Arc<str>,
    /// The database user.
    pub user: Arc<str>,
    /// Which destination was called meanwhile.
    pub destination: Arc<str>,
    /// What was called there.
    pub operation: Arc<str>,
    /// How long both lasted together.
    #[serde(serialize_with = "seconds")]
    pub duration: Duration,
    /// How long the connection had been held before the call began.
    #[serde(serialize_with = "seconds")]
    pub held_before: Duration,
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

/// Counters of one feature calling one destination.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OverlapCount {
    /// The endpoint, agent or tool.
    pub feature: Arc<str>,
    /// The destination called.
    pub destination: Arc<str>,
    /// What the transaction occupied.
    pub kind: HoldKind,
    /// Overlaps that began.
    pub begun: u64,
    /// Overlaps that ended.
    pub ended: u64,
    /// Connection-seconds spent so, of those that ended.
    pub seconds: f64,
}

#[derive(Default)]
struct Sides {
    idle: Vec<DefaultKey>,
    calls: Vec<DefaultKey>,
}

impl Sides {
    /// The oldest of a side, at most [`COMPARED`].
    fn compared(&self, side: Side) -> SmallVec<[DefaultKey; 2]> {
        let keys = match side {
            Side::Idle => &self.idle,
            Side::Call => &self.calls,
        };
        keys.iter().copied().take(COMPARED).collect()
    }
}

/// Feature, destination, kind.
type Family = (Arc<str>, Arc<str>, HoldKind);

#[derive(Default)]
struct Count {
    begun: u64,
    ended: u64,
    spent: Duration,
}

#[derive(Default)]
struct State {
    requests: HashMap<Request, Sides>,
    idle: SlotMap<DefaultKey, (Request, IdleTransaction)>,
    calls: SlotMap<DefaultKey, (Request, OutboundCall)>,
    /// Since when an idle transaction and a call have been beside each other.
    running: HashMap<(DefaultKey, DefaultKey), Instant>,
    counts: HashMap<Family, Count>,
}

/// Finds overlaps. One per process, shared by the gateways.
pub struct Overlaps {
    state: Mutex<State>,
    events: broadcast::Sender<Overlap>,
}

impl Default for Overlaps {
    fn default() -> Self {
        Self { state: Mutex::default(), events: broadcast::channel(EVENTS).0 }
    }
}

/// A transaction idles until this is dropped.
#[must_use = "dropped at once, the transaction never idled"]
pub struct Idling {
    overlaps: Arc<Overlaps>,
    key: DefaultKey,
}

/// A call is in flight until this is dropped.
#[must_use = "dropped at once, the call never happened"]
pub struct Calling {
    overlaps: Arc<Overlaps>,
    key: DefaultKey,
}

impl Drop for Idling {
    fn drop(&mut self) {
        self.overlaps.end(self.key, Side::Idle);
    }
}

impl Drop for Calling {
    fn drop(&mut self) {
        self.overlaps.end(self.key, Side::Call);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Idle,
    Call,
}

impl Overlaps {
    /// A transaction of `request` is open, and its client is owed nothing.
    pub fn transaction_idles(self: &Arc<Self>, request: &Request, what: IdleTransaction) -> Idling {
        let now = time::now();
        let mut state = self.state.lock();
        let key = state.idle.insert((request.clone(), what));
        let sides = state.requests.entry(request.clone()).or_default();
        sides.idle.push(key);
        for call in sides.compared(Side::Call) {
            state.begin(key, call, now);
        }
        Idling { overlaps: Arc::clone(self), key }
    }

    /// An outbound call of `request` begins.
    pub fn call_begins(self: &Arc<Self>, request: &Request, what: OutboundCall) -> Calling {
        let now = time::now();
        let mut state = self.state.lock();
        let key = state.calls.insert((request.clone(), what));
        let sides = state.requests.entry(request.clone()).or_default();
        sides.calls.push(key);
        for idle in sides.compared(Side::Idle) {
            state.begin(idle, key, now);
        }
        Calling { overlaps: Arc::clone(self), key }
    }

    /// Overlaps as they end. A reader that falls 1,024 behind misses the oldest.
    pub fn events(&self) -> broadcast::Receiver<Overlap> {
        self.events.subscribe()
    }

    /// What was counted so far, by feature and destination.
    pub fn counts(&self) -> Vec<OverlapCount> {
        let state = self.state.lock();
        let mut counts: Vec<_> = state
            .counts
            .iter()
            .map(|((feature, destination, kind), count)| OverlapCount {
                feature: Arc::clone(feature),
                destination: Arc::clone(destination),
                kind: *kind,
                begun: count.begun,
                ended: count.ended,
                seconds: count.spent.as_secs_f64(),
            })
            .collect();
        counts.sort_by(|a, b| (&a.feature, &a.destination).cmp(&(&b.feature, &b.destination)));
        counts
    }

    /// Transactions of requests that idle now, the longest first.
    pub fn holds(&self) -> Vec<Hold> {
        let state = self.state.lock();
        let holds = state.idle.values().map(|(request, transaction)| Hold {
            request: request.clone(),
            transaction: transaction.clone(),
            calls: state.requests.get(request).map_or(0, |sides| sides.calls.len()),
        });
        let mut holds: Vec<_> = holds.collect();
        drop(state);
        holds.sort_by_key(|hold| hold.transaction.since);
        holds
    }

    fn end(&self, key: DefaultKey, side: Side) {
        let now = time::now();
        let ended = self.state.lock().end(key, side, now);
        for overlap in ended {
            // No reader is no error: the counters have it.
            drop(self.events.send(overlap));
        }
    }
}

impl State {
    fn begin(&mut self, idle: DefaultKey, call: DefaultKey, now: Instant) {
        let key = self.family(idle, call);
        self.counts.entry(key).or_default().begun += 1;
        self.running.insert((idle, call), now);
    }

    fn family(&self, idle: DefaultKey, call: DefaultKey) -> Family {
        let (what, called) = (&self.idle[idle].1, &self.calls[call].1);
        let key = (Arc::clone(&what.feature), Arc::clone(&called.destination), what.kind);
        if self.counts.len() < FAMILIES || self.counts.contains_key(&key) {
            return key;
        }
        ("other".into(), "other".into(), what.kind)
    }

    fn end(&mut self, key: DefaultKey, side: Side, now: Instant) -> Vec<Overlap> {
        let request = match side {
            Side::Idle => self.idle[key].0.clone(),
            Side::Call => self.calls[key].0.clone(),
        };
        let pairs: Vec<_> = match (self.requests.get(&request), side) {
            (Some(sides), Side::Idle) => sides.calls.iter().map(|call| (key, *call)).collect(),
            (Some(sides), Side::Call) => sides.idle.iter().map(|idle| (*idle, key)).collect(),
            (None, _) => Vec::new(),
        };
        let mut ended = Vec::new();
        for (idle, call) in pairs {
            let Some(since) = self.running.remove(&(idle, call)) else { continue };
            let family = self.family(idle, call);
            let duration = now.saturating_duration_since(since);
            let count = self.counts.entry(family).or_default();
            count.ended += 1;
            count.spent += duration;
            let ((request, what), (_, called)) = (&self.idle[idle], &self.calls[call]);
            ended.push(Overlap {
                tenant: request.tenant().to_owned(),
                trace: request.trace().to_string(),
                kind: what.kind,
                class: what.class.clone(),
                feature: Arc::clone(&what.feature),
                statement: Arc::clone(&what.statement),
                database: Arc::clone(&what.database),
                user: Arc::clone(&what.user),
                destination: Arc::clone(&called.destination),
                operation: Arc::clone(&called.operation),
                duration,
                held_before: since.saturating_duration_since(what.since),
            });
        }
        match side {
            Side::Idle => drop(self.idle.remove(key)),
            Side::Call => drop(self.calls.remove(key)),
        }
        if let Some(sides) = self.requests.get_mut(&request) {
            match side {
                Side::Idle => sides.idle.retain(|k| *k != key),
                Side::Call => sides.calls.retain(|k| *k != key),
            }
            if sides.idle.is_empty() && sides.calls.is_empty() {
                self.requests.remove(&request);
            }
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::TraceId;

    fn request(tenant: &str) -> Request {
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        Request::new(tenant.into(), TraceId::from_traceparent(trace).unwrap())
    }

    fn idle(kind: HoldKind) -> IdleTransaction {
        IdleTransaction {
            kind,
            class: ClassName::new("ai-read"),
            feature: "answer".into(),
            statement: "SELECT ?".into(),
            database: "app".into(),
            user: "agent".into(),
            since: time::now(),
        }
    }

    fn call() -> OutboundCall {
        OutboundCall { destination: "llm".into(), operation: "POST /v1/chat".into() }
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_transaction_beside_a_call_of_the_same_request_is_one_overlap() {
        let overlaps = Arc::new(Overlaps::default());
        let mut events = overlaps.events();
        let idling = overlaps.transaction_idles(&request("a"), idle(HoldKind::Held));
        time::sleep(Duration::from_secs(1)).await;
        let calling = overlaps.call_begins(&request("a"), call());
        time::sleep(Duration::from_secs(2)).await;
        drop(calling);
        drop(idling);
        let seen = events.try_recv().unwrap();
        assert_eq!(
            (seen.duration, seen.held_before),
            (Duration::from_secs(2), Duration::from_secs(1))
        );
        assert_eq!(&*seen.destination, "llm");
        assert!(events.try_recv().is_err(), "it is told once");
        let [count] = &overlaps.counts()[..] else { panic!("one family") };
        assert_eq!((count.begun, count.ended, count.seconds), (1, 1, 2.0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_query_beside_a_call_is_no_overlap() {
        let overlaps = Arc::new(Overlaps::default());
        drop(overlaps.transaction_idles(&request("a"), idle(HoldKind::Held)));
        let calling = overlaps.call_begins(&request("a"), call());
        drop(calling);
        assert!(overlaps.counts().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_trace_of_another_tenant_is_another_request() {
        let overlaps = Arc::new(Overlaps::default());
        let idling = overlaps.transaction_idles(&request("a"), idle(HoldKind::Held));
        let calling = overlaps.call_begins(&request("b"), call());
        drop((idling, calling));
        assert!(overlaps.counts().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_with_a_thousand_calls_is_compared_with_the_oldest_of_them() {
        let overlaps = Arc::new(Overlaps::default());
        let calls: Vec<_> =
            (0..1_000).map(|_| overlaps.call_begins(&request("a"), call())).collect();
        let idling: Vec<_> = (0..10)
            .map(|_| overlaps.transaction_idles(&request("a"), idle(HoldKind::Held)))
            .collect();
        assert_eq!(overlaps.state.lock().running.len(), 10 * COMPARED);
        drop((calls, idling));
        assert!(overlaps.state.lock().running.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_kept_of_requests_that_are_over() {
        let overlaps = Arc::new(Overlaps::default());
        for _ in 0..100 {
            let idling = overlaps.transaction_idles(&request("a"), idle(HoldKind::Deferred));
            let calls = [
                overlaps.call_begins(&request("a"), call()),
                overlaps.call_begins(&request("a"), call()),
            ];
            drop(idling);
            drop(calls);
        }
        let state = overlaps.state.lock();
        assert!(state.requests.is_empty() && state.idle.is_empty());
        assert!(state.calls.is_empty() && state.running.is_empty());
    }
}
