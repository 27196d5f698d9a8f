//! Who may borrow: `core` in bursts, and agents that ask for more than there is.
//!
//! A lease is not taken back, so what agents hold when a burst comes is away for as long as
//! their queries run. A guarantee that covers the peak of `core` is the price of its latency.

use std::time::Duration;

use forebay_pool::{ClassSettings, Kind, Mode, PoolSettings, Share};

use crate::simulate::{
    Arrivals, Client, Figures, Naming, Queries, Scenario, Server, Stream, Times,
};

use super::{Table, in_millis, millis, percent, plain_class, plain_pool, rate, seconds};

const CONNECTIONS: u32 = 20;
/// Agents' queries a second that all connections together could do: 20 / 0.5 s.
const AI_CAPACITY: f64 = 40.0;

/// How the connections are shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// One class for all, first come, first served.
    Shared,
    /// `core` is guaranteed so many; the rest can be borrowed both ways.
    Guarantee(u32),
    /// The defaults: `core` is guaranteed half, agents never have more than 35 %.
    Defaults,
    /// The same, every policy enforced, and agents are guaranteed a tenth.
    Enforced,
}

/// One way to share, under one load.
#[derive(Debug, Clone)]
pub struct Row {
    /// How.
    pub policy: Policy,
    /// What agents ask for, over what all connections could do for them alone.
    pub overload: f64,
    /// What it came to: `core`, then `ai`.
    pub figures: Figures,
}

/// The table.
#[derive(Debug, Clone)]
pub struct Borrowing {
    /// `core` without agents.
    pub alone: Figures,
    /// By policy and load.
    pub rows: Vec<Row>,
}

/// Plays it.
pub fn play() -> Borrowing {
    let policies = [
        Policy::Shared,
        Policy::Guarantee(5),
        Policy::Guarantee(8),
        Policy::Guarantee(12),
        Policy::Guarantee(16),
        Policy::Defaults,
        Policy::Enforced,
    ];
    let rows = [1.5, 3.0].into_iter().flat_map(|overload| {
        policies.map(|policy| Row {
            policy,
            overload,
            figures: scenario(policy, Some(overload)).play(),
        })
    });
    Borrowing { rows: rows.collect(), alone: scenario(Policy::Guarantee(0), None).play() }
}

fn scenario(policy: Policy, overload: Option<f64>) -> Scenario {
    let agents = ClassSettings { checkout_timeout: seconds(2), ..plain_class() };
    let guaranteed = |guarantee| ClassSettings {
        kind: Kind::Core,
        guarantee,
        checkout_timeout: seconds(5),
        weight: 4,
        ..plain_class()
    };
    let (core, ai_share, classes) = match policy {
        Policy::Shared => ("ai", 100, vec![("ai", agents)]),
        Policy::Guarantee(seats) => {
            let core = guaranteed(Share::Seats(seats));
            ("core", 100, vec![("core", core), ("ai", agents)])
        }
        Policy::Defaults => {
            let core = guaranteed(Share::OfBudget(50));
            ("core", 35, vec![("core", core), ("ai", agents)])
        }
        Policy::Enforced => {
            let mode = Mode::Enforce;
            let core = ClassSettings { mode, ..guaranteed(Share::OfBudget(50)) };
            let agents = ClassSettings { mode, guarantee: Share::OfBudget(10), ..agents };
            ("core", 35, vec![("core", core), ("ai", agents)])
        }
    };
    let mut streams = vec![Stream {
        name: "core",
        class: core,
        arrivals: Arrivals::Bursts {
            rate: 200.0,
            factor: 10.0,
            every: seconds(10),
            length: seconds(1),
        },
        queries: Queries::ONE,
        service: Times::Exponential { mean: millis(5) },
        naming: Naming::Unnamed,
        client: Client::CALM,
    }];
    streams.extend(overload.map(|overload| Stream {
        name: "ai",
        class: "ai",
        arrivals: Arrivals::Poisson { rate: overload * AI_CAPACITY },
        queries: Queries::ONE,
        service: Times::LogNormal { mean: millis(500), p95: millis(1_750) },
        naming: Naming::Unnamed,
        client: Client::CALM,
    }));
    Scenario {
        pool: PoolSettings { ai_share, ..plain_pool(CONNECTIONS, classes) },
        server: Server::well(millis(20)),
        streams,
        length: seconds(85),
        settle: seconds(5),
        slice: seconds(1),
        seed: 12,
    }
}

impl Row {
    /// The 99th percentile of what `core` sees, wait and query together.
    pub fn core_p99(&self) -> Duration {
        core_p99(&self.figures)
    }
}

/// The 99th percentile of what `core` sees, wait and query together.
pub fn core_p99(figures: &Figures) -> Duration {
    figures.streams[0].duration.quantile(0.99)
}

impl Borrowing {
    /// In rows.
    pub fn table(&self) -> Table {
        let mut table = Table::new([
            "agents ask for",
            "policy",
            "core: wait p99",
            "core: wait + query p99",
            "against alone",
            "core refused",
            "AI done/s",
            "busy",
        ]);
        let alone = core_p99(&self.alone);
        let mut push = |load: String, policy: String, figures: &Figures| {
            let core = &figures.streams[0];
            let done = figures.streams.get(1).map_or_else(
                || "-".to_owned(),
                |ai| format!("{:.1}", rate(ai.completed, figures.seconds)),
            );
            table.push([
                load,
                policy,
                in_millis(core.wait.quantile(0.99)),
                in_millis(core_p99(figures)),
                format!("{:.2}x", core_p99(figures).as_secs_f64() / alone.as_secs_f64()),
                percent(core.refused_part()),
                done,
                percent(figures.utilisation),
            ]);
        };
        push("nothing".to_owned(), "core alone".to_owned(), &self.alone);
        for row in &self.rows {
            let policy = match row.policy {
                Policy::Shared => "one shared line".to_owned(),
                Policy::Guarantee(seats) => format!("guarantee {seats}"),
                Policy::Defaults => "**the defaults**: guarantee 10, agents at most 7".to_owned(),
                Policy::Enforced => "the defaults, all policies enforced".to_owned(),
            };
            push(format!("{:.1}x", row.overload), policy, &row.figures);
        }
        table
    }
}
