//! One picture of the egress gateway: every view renders this one, so they cannot disagree.

use std::sync::Arc;

use forebay_pool::Snapshot;
use forebay_pool::rate::RateSnapshot;
use forebay_pool::stats::SpreadSnapshot;
use serde::Serialize;

/// The gateway at one moment. Carries no secret.
#[derive(Debug, Clone, Serialize)]
pub struct HttpSnapshot {
    /// Connections from agents.
    pub clients: u32,
    /// Connections from agents that were turned away, because `max_clients` were there.
    pub clients_refused: u64,
    /// Calls that were refused before they had a destination, by reason.
    pub refusals: Vec<RefusalCount>,
    /// Tokens held now.
    pub cached_tokens: u32,
    /// Calls, one entry for each destination, in the order of their names.
    pub destinations: Vec<DestinationSnapshot>,
    /// Pools, one for each destination, in the same order.
    pub pools: Vec<Snapshot>,
    /// Connections, one entry for each destination, in the same order.
    pub connections: Vec<ConnectionsSnapshot>,
}

/// The calls to one destination.
#[derive(Debug, Clone, Serialize)]
pub struct DestinationSnapshot {
    /// Its name.
    pub destination: Arc<str>,
    /// Calls between their arrival and the end of their answer.
    pub in_flight: u32,
    /// Answers of the service, by the first digit of their status.
    pub answers: AnswerCounts,
    /// Calls that Forebay answered itself, by reason.
    pub refusals: Vec<RefusalCount>,
    /// Calls whose client left before the answer ended.
    pub abandoned: u64,
    /// Answers that broke off, or paused for longer than `chunk_timeout`.
    pub cut_short: u64,
    /// Calls sent again on a fresh connection, because nothing of them had been sent.
    pub resent: u64,
    /// Token exchanges that gave a token, counted where they were first needed.
    pub token_exchanges: u64,
    /// Token exchanges that failed.
    pub token_failures: u64,
    /// Answers of the service that say "too many" (429).
    pub throttled: u64,
    /// Hints of agents (cost, attempt, deadline, tokens) that could not be read.
    pub hints_ignored: u64,
    /// Its rate limits.
    pub limits: RateSnapshot,
    /// From sending the call to the first byte of its answer.
    pub first_byte: SpreadSnapshot,
    /// From the call's arrival to the end of its answer.
    pub duration: SpreadSnapshot,
    /// Calls by feature. After 100 features the others are counted as `other`.
    pub features: Vec<FeatureCount>,
}

/// The connections to one destination. The pools count seats: with HTTP/1.1 connections, with
/// HTTP/2 streams.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConnectionsSnapshot {
    /// The destination's name.
    pub destination: Arc<str>,
    /// Sockets open now.
    pub open: u32,
    /// Of these, the ones without a call.
    pub resting: u32,
    /// Calls on them now.
    pub in_use: u32,
    /// Sockets open now that speak HTTP/2.
    pub http2: u32,
    /// Streams of these that the pool has: in use, or ready.
    pub streams: u32,
    /// Seats of the pool that one connection stands for: 1 with HTTP/1.1.
    pub seats_per_connection: u32,
    /// Connections opened that speak HTTP/1.1.
    pub opened_http1: u64,
    /// Connections opened that speak HTTP/2.
    pub opened_http2: u64,
    /// TLS handshakes in full.
    pub tls_full: u64,
    /// TLS handshakes that resumed a session.
    pub tls_resumed: u64,
    /// Connections that have ended, by reason.
    pub closed: Vec<(&'static str, u64)>,
    /// How long the service lets a connection rest, in seconds, where that was learnt.
    pub idle_learnt: Option<f64>,
    /// Addresses that its name leads to.
    pub addresses: u32,
    /// Of these, left out now because they fail.
    pub ejected: u32,
    /// How often an address was left out.
    pub ejections: u64,
    /// How often its name was resolved.
    pub resolved: u64,
    /// How often its name could not be resolved.
    pub resolve_failures: u64,
    /// Addresses that its name led to and that may not be used.
    pub forbidden: u64,
}

/// Answers by the first digit of their status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct AnswerCounts {
    /// 2xx.
    pub success: u64,
    /// 3xx.
    pub redirect: u64,
    /// 4xx.
    pub client_error: u64,
    /// 5xx, and whatever is no HTTP status of an answer.
    pub server_error: u64,
}

/// How often Forebay itself answered for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefusalCount {
    /// The reason, as in the problem's `type`: `queue-full`, `unreachable`, …
    pub reason: &'static str,
    /// How often.
    pub count: u64,
}

/// The calls of one feature.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FeatureCount {
    /// The endpoint, agent or tool; empty where none was named.
    pub feature: Arc<str>,
    /// Its calls that ended.
    pub calls: u64,
    /// Their durations, summed, in seconds.
    pub seconds: f64,
}
