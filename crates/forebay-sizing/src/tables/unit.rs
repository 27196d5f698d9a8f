//! What is admitted: queries, or the requests that they belong to?
//!
//! Requests of ten queries in turn, under more load than there are connections for. Who
//! bounds the queue of queries and does not know requests spends its connections on requests
//! that fail later.

use std::time::Duration;

use forebay_pool::{ClassSettings, Kind, Mode};

use crate::simulate::{
    Arrivals, Client, Figures, Naming, Queries, Scenario, Server, Stream, Times,
};

use super::{Table, millis, percent, plain_class, plain_pool, rate, seconds};

const CONNECTIONS: u32 = 15;
const QUERIES: u32 = 10;
const QUERY: Duration = millis_of(50);
/// Requests a second that the connections can do at the most: 15 / (10 × 50 ms).
pub const CAPACITY: f64 = 30.0;

const fn millis_of(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// How the pool admits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Queries wait in one line without a bound, until their timeout.
    EndlessQueue,
    /// As many queries wait as twice the connections.
    BoundedQueue,
    /// The same bound counts requests, and started requests go first.
    StartedFirst,
    /// That, and every policy of the class enforced.
    Enforced,
}

impl Policy {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 4] =
        [Self::EndlessQueue, Self::BoundedQueue, Self::StartedFirst, Self::Enforced];

    fn naming(self) -> Naming {
        match self {
            Self::EndlessQueue | Self::BoundedQueue => Naming::Unnamed,
            Self::StartedFirst | Self::Enforced => Naming::ByTry,
        }
    }

    fn class(self) -> ClassSettings {
        let kind = match self {
            // Only AI classes have a bounded queue.
            Self::EndlessQueue => Kind::Core,
            Self::BoundedQueue | Self::StartedFirst | Self::Enforced => Kind::Ai,
        };
        let mode = match self {
            Self::EndlessQueue | Self::BoundedQueue | Self::StartedFirst => Mode::Off,
            Self::Enforced => Mode::Enforce,
        };
        ClassSettings { kind, checkout_timeout: seconds(5), mode, ..plain_class() }
    }
}

/// One load.
#[derive(Debug, Clone)]
pub struct Row {
    /// Requests that come, over those that could be done.
    pub load: f64,
    /// What each policy came to, as [`Policy::ALL`].
    pub figures: [Figures; 4],
}

/// The table.
#[derive(Debug, Clone)]
pub struct Unit {
    /// By load.
    pub rows: Vec<Row>,
}

/// Plays it.
pub fn play() -> Unit {
    let rows = [0.8, 1.2, 2.0, 3.0];
    let rows =
        rows.map(|load| Row { load, figures: Policy::ALL.map(|p| scenario(p, load).play()) });
    Unit { rows: rows.into() }
}

fn scenario(policy: Policy, load: f64) -> Scenario {
    Scenario {
        pool: plain_pool(CONNECTIONS, vec![("ai", policy.class())]),
        server: Server::well(millis(20)),
        streams: vec![Stream {
            name: "requests",
            class: "ai",
            arrivals: Arrivals::Poisson { rate: load * CAPACITY },
            queries: Queries::InTurn { count: QUERIES, pause: Times::Always(millis(100)) },
            service: Times::Always(QUERY),
            naming: policy.naming(),
            client: Client {
                tries: 4,
                backoff: Times::Between(millis(500), millis(1_500)),
                patience: None,
            },
        }],
        length: seconds(150),
        settle: seconds(90),
        slice: seconds(1),
        seed: 11,
    }
}

impl Row {
    /// Requests done a second, as [`Policy::ALL`].
    pub fn done(&self) -> [f64; 4] {
        self.figures.each_ref().map(|f| rate(f.streams[0].completed, f.seconds))
    }
}

impl Unit {
    /// In rows.
    pub fn table(&self) -> Table {
        let mut table = Table::new([
            "load",
            "queries, no bound",
            "queries, bound 2x",
            "**started requests first**",
            "**all policies**",
            "connection time wasted",
        ]);
        for row in &self.rows {
            let [endless, bounded, started, enforced] = row.done();
            let wasted = row.figures.each_ref().map(|f| percent(f.streams[0].wasted_part()));
            table.push([
                format!("{:.1}", row.load),
                format!("{endless:.1}"),
                format!("{bounded:.1}"),
                format!("**{started:.1}**"),
                format!("**{enforced:.1}**"),
                wasted.join(", "),
            ]);
        }
        table
    }
}
