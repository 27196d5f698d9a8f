//! A burst of ten times the steady rate meets a pool that holds a quarter of its connections.
//!
//! What is there serves first and the queue takes the rest, while connections are opened at
//! a limited pace; nobody is refused, and afterwards what idles is closed again.

use std::ops::Range;
use std::time::Duration;

use forebay_pool::{ClassSettings, PoolSettings};

use crate::simulate::{
    Arrivals, Client, Figures, Naming, Queries, Scenario, Server, Stream, Times,
};

use super::{Table, in_millis, millis, plain_class, plain_pool, seconds};

const CONNECTIONS: u32 = 20;
/// Connects that may be begun without a pause, and those a second after them: half the budget,
/// the defaults.
pub const IN_A_BURST: u32 = 10;
/// See [`IN_A_BURST`].
pub const A_SECOND: u32 = 10;
/// The burst.
pub const BURST: Range<Duration> = Duration::from_secs(60)..Duration::from_secs(62);
/// How fine it is shown.
pub const SLICE: Duration = Duration::from_millis(200);
/// The slices that the table shows, by the tenth of a second in which they begin.
const SHOWN: [usize; 15] =
    [598, 600, 602, 604, 606, 608, 610, 614, 618, 620, 622, 1_000, 1_060, 1_070, 1_100];

/// The table.
#[derive(Debug, Clone)]
pub struct Burst {
    /// The run.
    pub figures: Figures,
}

/// Plays it.
pub fn play() -> Burst {
    Burst { figures: scenario().play() }
}

fn scenario() -> Scenario {
    let class = ClassSettings { checkout_timeout: seconds(2), ..plain_class() };
    Scenario {
        pool: PoolSettings {
            warm_up: 25,
            opens_per_second: None,
            concurrent_opens: None,
            ..plain_pool(CONNECTIONS, vec![("ai", class)])
        },
        server: Server::well(millis(50)),
        streams: vec![Stream {
            name: "ai",
            class: "ai",
            arrivals: Arrivals::Bursts {
                rate: 20.0,
                factor: 10.0,
                every: BURST.start,
                length: BURST.end - BURST.start,
            },
            queries: Queries::ONE,
            service: Times::Exponential { mean: millis(50) },
            naming: Naming::Unnamed,
            client: Client::CALM,
        }],
        length: seconds(120),
        settle: seconds(0),
        slice: SLICE,
        seed: 14,
    }
}

impl Burst {
    /// In rows.
    pub fn table(&self) -> Table {
        let mut table = Table::new([
            "from second",
            "came",
            "served",
            "refused",
            "in line at its end",
            "connects",
            "connections at its end",
        ]);
        for shown in SHOWN {
            let second = self.figures.timeline[shown / 2];
            table.push([
                format!("{}.{}", shown / 10, shown % 10),
                second.arrived.to_string(),
                second.granted.to_string(),
                second.refused.to_string(),
                second.waiting.to_string(),
                second.connects.to_string(),
                second.open.to_string(),
            ]);
        }
        let ai = &self.figures.streams[0];
        table.push([
            "all".to_owned(),
            ai.arrived.to_string(),
            ai.granted.to_string(),
            ai.refusals().to_string(),
            format!("longest wait {}", in_millis(ai.wait.max())),
            self.figures.connects.len().to_string(),
            format!("of {CONNECTIONS}"),
        ]);
        table
    }
}
