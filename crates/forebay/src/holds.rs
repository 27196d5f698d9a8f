//! Holds of now, as the admin port and the console show them: what is proven and what is
//! suspected, apart from each other.
//!
//! Counts nothing itself.

use std::sync::Arc;
use std::time::Instant;

use forebay_pool::ClassName;
use forebay_pool::overlap::{Hold, HoldKind, HoldReport, Overlaps, Subject};
use forebay_seam::time;
use serde::Serialize;

use crate::suspects::{SuspectedHold, Suspects};

/// `/api/v1/holds`.
#[derive(Debug, Clone, Serialize)]
pub struct HoldsPage {
    /// Transactions of requests that idle now, the longest first.
    pub holds: Vec<HoldView>,
    /// Clients that idle in a transaction, of which no more is proven, the longest first.
    pub suspected: Vec<SuspectedHold>,
    /// What holds of the last hour cost, the worst feature first.
    pub report: HoldReport,
}

/// A transaction of a request that idles now.
#[derive(Debug, Clone, Serialize)]
pub struct HoldView {
    /// On whose account.
    pub tenant: Arc<str>,
    /// The trace id.
    pub trace: String,
    /// What it occupies.
    pub kind: HoldKind,
    /// Its workload class.
    pub class: ClassName,
    /// The endpoint, agent or tool.
    pub feature: Arc<str>,
    /// The last statement, without literals.
    pub statement: Arc<str>,
    /// The database.
    pub database: Arc<str>,
    /// The database user.
    pub user: Arc<str>,
    /// What the client calls itself (`application_name`).
    pub application: Arc<str>,
    /// The number of the client's connection.
    pub client: u64,
    /// For how long it has had connections, seconds.
    pub held: f64,
    /// For how long it has idled, seconds.
    pub idle: f64,
    /// Calls of the same request that are under way: with these it overlaps.
    pub calls: Vec<CallView>,
}

/// A call that is under way now.
#[derive(Debug, Clone, Serialize)]
pub struct CallView {
    /// Where to.
    pub destination: Arc<str>,
    /// What is called there: method and path template.
    pub operation: Arc<str>,
    /// The model or tool, where it is known.
    #[serde(flatten)]
    pub subject: Option<Subject>,
}

impl CallView {
    /// `openai POST /v1/chat/completions (gpt-5)`.
    pub fn shown(&self) -> String {
        let subject = self.subject.as_ref().map(|subject| format!(" ({})", subject.name()));
        format!("{} {}{}", self.destination, self.operation, subject.unwrap_or_default())
    }
}

impl HoldsPage {
    /// What is known now.
    pub fn of(overlaps: &Overlaps, suspects: &Suspects) -> Self {
        Self { holds: holds(overlaps), suspected: suspects.now(), report: overlaps.report() }
    }
}

/// Transactions of requests that idle now, the longest first.
pub fn holds(overlaps: &Overlaps) -> Vec<HoldView> {
    let now = time::now();
    overlaps.holds().into_iter().map(|hold| view(hold, now)).collect()
}

fn view(hold: Hold, now: Instant) -> HoldView {
    let Hold { request, transaction, idle_since, held, calls } = hold;
    HoldView {
        tenant: request.tenant().into(),
        trace: request.trace().to_string(),
        kind: transaction.kind,
        class: transaction.class,
        feature: transaction.feature,
        statement: transaction.statement,
        database: transaction.database,
        user: transaction.user,
        application: transaction.application,
        client: transaction.client,
        held: held.as_secs_f64(),
        idle: now.saturating_duration_since(idle_since).as_secs_f64(),
        calls: calls
            .into_iter()
            .map(|call| CallView {
                destination: call.destination,
                operation: call.operation,
                subject: call.subject,
            })
            .collect(),
    }
}
