//! One picture of the whole program, which every view renders: metrics, API, readiness.
//!
//! Counts nothing itself; asks each room for its own picture.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use forebay_http::HttpSnapshot;
use forebay_pool::Snapshot;
use forebay_pool::overlap::{FeatureHolds, OverlapCount, OverlapSpread, Overlaps};
use forebay_postgres::PostgresSnapshot;
use forebay_seam::time;
use serde::Serialize;

use crate::holds::HoldsPage;
use crate::logging::Lines;
use crate::reload::{ConfigurationSnapshot, Record};
use crate::suspects::{Suspects, SuspicionCount};

/// The version of the program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The program at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct ProgramSnapshot {
    /// Its version.
    pub version: &'static str,
    /// How long it has run, seconds.
    pub uptime: f64,
    /// Whether it takes work.
    pub phase: Phase,
    /// Why new work should go elsewhere; empty when the program is ready for it.
    pub not_ready: Vec<String>,
    /// The PostgreSQL gateway, where one is configured.
    pub postgres: Option<PostgresSnapshot>,
    /// The HTTP gateway, where one is configured.
    pub http: Option<HttpSnapshot>,
    /// What it runs with, and what became of reloads.
    pub configuration: ConfigurationSnapshot,
    /// Transactions that idled beside an outbound call of their request.
    pub overlaps: Vec<OverlapCount>,
    /// How long they lasted.
    pub overlaps_lasted: Vec<OverlapSpread>,
    /// What they took of connections, by feature.
    pub holds: Vec<FeatureHolds>,
    /// Clients that idled in a transaction, of which no more is proven.
    pub suspected_holds: Vec<SuspicionCount>,
    /// Log lines that were not written, because nobody reads them or the output is closed.
    pub log_lines_lost: u64,
}

/// Where the program is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It takes work.
    Running,
    /// It was told to stop, and finishes what runs.
    Draining,
}

/// Takes pictures of a running program. Cheap to clone.
#[derive(Clone)]
pub struct Viewer {
    inside: Arc<Inside>,
}

struct Inside {
    started: Instant,
    draining: AtomicBool,
    postgres: Option<forebay_postgres::Gateway>,
    http: Option<forebay_http::Gateway>,
    overlaps: Arc<Overlaps>,
    suspects: Arc<Suspects>,
    record: Arc<Record>,
    log: Lines,
}

impl Viewer {
    /// A viewer of these rooms; the program starts now.
    pub fn new(
        postgres: Option<forebay_postgres::Gateway>,
        http: Option<forebay_http::Gateway>,
        suspects: Arc<Suspects>,
        record: Arc<Record>,
        log: Lines,
    ) -> Self {
        let draining = AtomicBool::new(false);
        let started = time::now();
        let overlaps = Arc::clone(suspects.overlaps());
        Self {
            inside: Arc::new(Inside {
                started,
                draining,
                postgres,
                http,
                overlaps,
                suspects,
                record,
                log,
            }),
        }
    }

    /// From now on the program drains.
    pub fn drains(&self) {
        self.inside.draining.store(true, Ordering::Relaxed);
    }

    /// Holds of now, proven and suspected, and what those of the last hour cost.
    pub fn holds(&self) -> HoldsPage {
        HoldsPage::of(&self.inside.overlaps, &self.inside.suspects)
    }

    /// One picture.
    pub fn snapshot(&self) -> ProgramSnapshot {
        let inside = &*self.inside;
        let phase = match inside.draining.load(Ordering::Relaxed) {
            true => Phase::Draining,
            false => Phase::Running,
        };
        let postgres = inside.postgres.as_ref().map(|gateway| gateway.snapshot());
        let http = inside.http.as_ref().map(|gateway| gateway.snapshot());
        let mut not_ready = Vec::new();
        if phase == Phase::Draining {
            not_ready.push("the program is stopping".to_owned());
        }
        if let (Some(gateway), Some(snapshot)) = (&inside.postgres, &postgres)
            && !gateway.is_ready()
        {
            not_ready.extend(cold("postgres", &snapshot.pools));
        }
        if let (Some(gateway), Some(snapshot)) = (&inside.http, &http)
            && !gateway.is_ready()
        {
            not_ready.extend(cold("http", &snapshot.pools));
        }
        ProgramSnapshot {
            version: VERSION,
            uptime: time::now().saturating_duration_since(inside.started).as_secs_f64(),
            phase,
            not_ready,
            postgres,
            http,
            configuration: inside.record.snapshot(),
            overlaps: inside.overlaps.counts(),
            overlaps_lasted: inside.overlaps.spreads(),
            holds: inside.overlaps.features(),
            suspected_holds: inside.suspects.counts(),
            log_lines_lost: inside.log.lost(),
        }
    }
}

/// Why a gateway that is not ready is not. Never empty.
fn cold(gateway: &str, pools: &[Snapshot]) -> Vec<String> {
    let mut reasons: Vec<_> = pools
        .iter()
        .filter(|pool| !pool.warm)
        .map(|pool| {
            let open = pool.idle + pool.leased + pool.cleaning;
            let error = pool.last_error.as_ref().map(|error| format!(": {error}"));
            format!(
                "{gateway} `{}` is not warm: {open} connections open, {} opening{}",
                pool.destination,
                pool.opening,
                error.unwrap_or_default()
            )
        })
        .collect();
    if reasons.is_empty() {
        reasons.push(format!("{gateway} is not ready"));
    }
    reasons
}
