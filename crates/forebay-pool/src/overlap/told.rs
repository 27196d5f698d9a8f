//! What is known of both sides, and what is told of an overlap.
//!
//! Knows no counters and no locks. Times are seconds where they are written down.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize, Serializer};

use crate::class::ClassName;
use crate::request::{Request, TraceId};

/// What the waiting transaction occupies meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HoldKind {
    /// A server connection.
    Held,
    /// Nothing: its connection was given back (parking).
    Parked,
    /// Nothing yet: its BEGIN had not been sent.
    Deferred,
}

impl HoldKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Held, Self::Parked, Self::Deferred];

    /// Its name in logs, metrics and views.
    pub fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Parked => "parked",
            Self::Deferred => "deferred",
        }
    }
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
    /// What the client calls itself (`application_name`).
    pub application: Arc<str>,
    /// The number of the client's connection, as the console shows it.
    pub client: u64,
    /// When the connection was taken.
    pub since: Instant,
}

/// What a call asks for by name, where its head or the beginning of its body says so.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// A model.
    Model(Arc<str>),
    /// An MCP tool.
    Tool(Arc<str>),
}

impl Subject {
    /// The name of the model or tool.
    pub fn name(&self) -> &Arc<str> {
        match self {
            Self::Model(name) | Self::Tool(name) => name,
        }
    }
}

/// An outbound call in flight.
#[derive(Debug, Clone)]
pub struct OutboundCall {
    /// On whose account.
    pub tenant: Arc<str>,
    /// The endpoint, agent or tool that calls; empty where it does not say.
    pub feature: Arc<str>,
    /// The destination's name.
    pub destination: Arc<str>,
    /// What is called there: method and path template.
    pub operation: Arc<str>,
    /// The model or tool, where it is known.
    pub subject: Option<Subject>,
    /// Where the caller's connection comes from.
    pub peer: Option<SocketAddr>,
}

impl OutboundCall {
    /// A call of `operation` at `destination`; nothing else is known of it.
    pub fn new(destination: impl Into<Arc<str>>, operation: impl Into<Arc<str>>) -> Self {
        Self {
            tenant: Arc::from(""),
            feature: Arc::from(""),
            destination: destination.into(),
            operation: operation.into(),
            subject: None,
            peer: None,
        }
    }
}

/// A transaction that idles now.
#[derive(Debug, Clone)]
pub struct Hold {
    /// Of which request.
    pub request: Request,
    /// The transaction.
    pub transaction: IdleTransaction,
    /// Since when it idles.
    pub idle_since: Instant,
    /// How long it has occupied a connection so far.
    pub held: Duration,
    /// Outbound calls of the same request that are under way: with each of them it overlaps.
    pub calls: Vec<OutboundCall>,
}

/// A call that is under way now.
#[derive(Debug, Clone)]
pub struct Call {
    /// Of which request, where it says so.
    pub request: Option<Request>,
    /// The call.
    pub call: OutboundCall,
    /// Since when.
    pub since: Instant,
}

/// How far an overlap has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Both sides are there.
    Begins,
    /// The transaction occupies something else than before: it was parked, or came back.
    Changes,
    /// One side has ended, or the transaction goes on.
    Ends,
    /// The transaction is over: what it held after the call is known.
    Released,
}

/// One overlap: told when it begins, when its kind changes, when it ends, and when its
/// transaction is over.
#[derive(Debug, Clone, Serialize)]
pub struct Overlap {
    /// Its number, the same whenever it is told.
    pub id: u64,
    /// What is told.
    pub phase: Phase,
    /// The tenant of the request.
    pub tenant: Arc<str>,
    /// The trace id of the request.
    #[serde(serialize_with = "shown")]
    pub trace: TraceId,
    /// What the transaction occupies; at the end, what it occupied last.
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
    /// What the client calls itself (`application_name`).
    pub application: Arc<str>,
    /// The number of the client's connection, as the console shows it.
    pub client: u64,
    /// Which destination is called meanwhile.
    pub destination: Arc<str>,
    /// What is called there: method and path template.
    pub operation: Arc<str>,
    /// The model or tool, where it is known.
    #[serde(flatten)]
    pub subject: Option<Subject>,
    /// How long the transaction had held a connection before the overlap began.
    #[serde(serialize_with = "seconds")]
    pub held_before: Duration,
    /// How long both have lasted together so far.
    #[serde(serialize_with = "seconds")]
    pub duration: Duration,
    /// How much of that occupied a connection.
    #[serde(serialize_with = "seconds")]
    pub held_during: Duration,
    /// How long the transaction held a connection after the call: told when it is over.
    #[serde(serialize_with = "perhaps_seconds")]
    pub held_after: Option<Duration>,
}

/// As seconds.
pub(super) fn seconds<S: Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

fn perhaps_seconds<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => serializer.serialize_some(&duration.as_secs_f64()),
        None => serializer.serialize_none(),
    }
}

fn shown<S: Serializer>(trace: &TraceId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(trace)
}
