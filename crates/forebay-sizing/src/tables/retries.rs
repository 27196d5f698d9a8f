//! The server is slow for ten seconds: does the load go back to what it was?
//!
//! Clients that lose patience try again, so that less capacity meets more load; where their
//! tries use it up, the trouble outlives its cause.

use std::ops::Range;

use forebay_pool::{ClassSettings, Kind, Mode, Policies};

use crate::simulate::{
    Arrivals, Client, Disorder, Figures, Naming, Queries, Scenario, Server, Slice, Stream, Times,
    Trouble,
};

use super::{Table, millis, percent, plain_class, plain_pool, seconds};

const CONNECTIONS: u32 = 20;
/// Requests a second; the connections could do 400.
const LOAD: f64 = 300.0;
/// The seconds in which everything takes five times as long.
pub const SLOW: Range<usize> = 60..70;
/// The seconds that are compared, well after it.
pub const AFTER: Range<usize> = 100..130;

/// What is done about retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Clients do not try again.
    NoRetries,
    /// They do, as often as they like.
    NoBudget,
    /// They do, and what retries cost is limited to a tenth of what first tries cost.
    Budget,
}

/// One way.
#[derive(Debug, Clone)]
pub struct Row {
    /// Which.
    pub policy: Policy,
    /// What it came to.
    pub figures: Figures,
}

/// The table.
#[derive(Debug, Clone)]
pub struct Retries {
    /// By policy.
    pub rows: Vec<Row>,
}

/// Plays it.
pub fn play() -> Retries {
    let policies = [Policy::NoRetries, Policy::NoBudget, Policy::Budget];
    let rows = policies.map(|policy| Row { policy, figures: scenario(policy).play() });
    Retries { rows: rows.into() }
}

fn scenario(policy: Policy) -> Scenario {
    let retries = match policy {
        Policy::NoRetries | Policy::NoBudget => None,
        Policy::Budget => Some(Mode::Enforce),
    };
    let class = ClassSettings {
        kind: Kind::Core,
        checkout_timeout: seconds(5),
        policies: Policies { retries, ..Policies::default() },
        ..plain_class()
    };
    let tries = match policy {
        Policy::NoRetries => 1,
        Policy::NoBudget | Policy::Budget => 3,
    };
    Scenario {
        pool: plain_pool(CONNECTIONS, vec![("core", class)]),
        server: Server {
            connect: Times::Always(millis(20)),
            troubles: vec![Trouble {
                from: seconds(60),
                until: seconds(70),
                what: Disorder::Slow(5.0),
            }],
        },
        streams: vec![Stream {
            name: "core",
            class: "core",
            arrivals: Arrivals::Poisson { rate: LOAD },
            queries: Queries::ONE,
            service: Times::Exponential { mean: millis(50) },
            naming: Naming::ByRequest,
            client: Client {
                tries,
                backoff: Times::Between(millis(50), millis(150)),
                patience: Some(millis(500)),
            },
        }],
        length: seconds(130),
        settle: seconds(20),
        slice: seconds(1),
        seed: 13,
    }
}

impl Row {
    /// Tries for each request that came in these seconds, but those that the budget barred.
    pub fn amplification(&self, seconds: Range<usize>) -> f64 {
        1.0 + self.per_request(seconds, |slice| slice.retries)
    }

    /// Of the requests that came in these seconds, so many were done, 0 to 1.
    pub fn done(&self, seconds: Range<usize>) -> f64 {
        self.per_request(seconds, |slice| slice.completed)
    }

    fn per_request(&self, seconds: Range<usize>, of: fn(&Slice) -> u32) -> f64 {
        let slices = &self.figures.timeline[seconds];
        let sum = |of: fn(&Slice) -> u32| -> u32 { slices.iter().map(of).sum() };
        f64::from(sum(of)) / f64::from(sum(|slice| slice.arrived))
    }
}

impl Retries {
    /// In rows.
    pub fn table(&self) -> Table {
        let mut table = Table::new([
            "retries",
            "tries per request: before",
            "while slow",
            "30 s later",
            "done: while slow",
            "30 s later",
            "connection time wasted",
        ]);
        for row in &self.rows {
            let policy = match row.policy {
                Policy::NoRetries => "none",
                Policy::NoBudget => "up to 2, no budget",
                Policy::Budget => "**up to 2, with the budget**",
            };
            table.push([
                policy.to_owned(),
                format!("{:.2}", row.amplification(20..60)),
                format!("{:.2}", row.amplification(SLOW)),
                format!("{:.2}", row.amplification(AFTER)),
                percent(row.done(SLOW)),
                percent(row.done(AFTER)),
                percent(row.figures.streams[0].wasted_part()),
            ]);
        }
        table
    }
}
