//! The server is away for half a minute: what the pool does meanwhile, and when it is back.
//!
//! While it is away one connect at a time asks, less and less often; when it is back,
//! connections are opened at the pace of the pool and not of those who wait.

use std::ops::Range;
use std::time::Duration;

use forebay_pool::{ClassSettings, Kind, PoolSettings, Share};

use crate::simulate::{
    Arrivals, Client, Disorder, Figures, Naming, Queries, Scenario, Server, Stream, Times, Trouble,
};

use super::{Table, millis, plain_class, plain_pool, seconds};

const CONNECTIONS: u32 = 40;
/// Connects that may be begun without a pause, and those a second after them: half the budget,
/// the defaults.
pub const IN_A_BURST: u32 = 20;
/// See [`IN_A_BURST`].
pub const A_SECOND: u32 = 20;
/// The seconds in which the server is away.
pub const AWAY: Range<usize> = 60..90;
/// The seconds that a row of the table shows.
const SHOWN: [Range<usize>; 12] = [
    50..60,
    60..61,
    61..65,
    65..75,
    75..90,
    90..92,
    92..94,
    94..96,
    96..98,
    98..100,
    100..104,
    104..110,
];

/// The table.
#[derive(Debug, Clone)]
pub struct Outage {
    /// With the pace of the defaults.
    pub paced: Figures,
    /// As if everybody who waits opened a connection of his own.
    pub herd: Figures,
}

/// Plays it.
pub fn play() -> Outage {
    let herd = PoolSettings {
        opens_per_second: Some(1_000_000),
        concurrent_opens: Some(CONNECTIONS),
        ..pool()
    };
    Outage { paced: scenario(pool()).play(), herd: scenario(herd).play() }
}

fn pool() -> PoolSettings {
    let core = ClassSettings {
        kind: Kind::Core,
        guarantee: Share::OfBudget(50),
        checkout_timeout: seconds(5),
        ..plain_class()
    };
    let agents = ClassSettings { checkout_timeout: seconds(2), ..plain_class() };
    PoolSettings {
        opens_per_second: None,
        concurrent_opens: None,
        ..plain_pool(CONNECTIONS, vec![("core", core), ("ai", agents)])
    }
}

fn scenario(pool: PoolSettings) -> Scenario {
    let client =
        Client { tries: 3, backoff: Times::Between(millis(500), millis(1_500)), patience: None };
    let stream = |name, rate, service| Stream {
        name,
        class: name,
        arrivals: Arrivals::Poisson { rate },
        queries: Queries::ONE,
        service: Times::Exponential { mean: service },
        naming: Naming::Unnamed,
        client,
    };
    Scenario {
        pool,
        server: Server {
            connect: Times::Always(millis(50)),
            troubles: vec![Trouble { from: seconds(60), until: seconds(90), what: Disorder::Away }],
        },
        streams: vec![stream("core", 300.0, millis(20)), stream("ai", 40.0, millis(300))],
        length: seconds(120),
        settle: seconds(0),
        slice: seconds(1),
        seed: 15,
    }
}

impl Outage {
    /// Seconds from the server's return to the end of the first in which at most one try of
    /// twenty gets no connection.
    pub fn recovery(figures: &Figures) -> Option<usize> {
        let after = figures.timeline.get(AWAY.end..)?;
        Some(after.iter().position(|slice| slice.refused * 20 <= slice.tries)? + 1)
    }

    /// The most connects within any second.
    pub fn most_connects(figures: &Figures, from: usize) -> usize {
        let begin = Duration::from_secs(u64::try_from(from).unwrap_or(u64::MAX));
        let connects: Vec<_> = figures.connects.iter().filter(|at| **at >= begin).collect();
        let within = |first: usize| {
            connects[first..].iter().take_while(|at| ***at < *connects[first] + seconds(1)).count()
        };
        (0..connects.len()).map(within).max().unwrap_or(0)
    }

    /// In rows.
    pub fn table(&self) -> Table {
        let mut table = Table::new([
            "seconds",
            "the server",
            "connects/s, paced",
            "connections",
            "done/s",
            "refused/s",
            "connects/s, unpaced",
        ]);
        for shown in SHOWN {
            let server = if AWAY.contains(&shown.start) { "away" } else { "there" };
            let length = u32::try_from(shown.len()).unwrap_or(1);
            let paced = &self.paced.timeline[shown.clone()];
            let herd = &self.herd.timeline[shown.clone()];
            let mean = |sum: u32| format!("{:.1}", f64::from(sum) / f64::from(length));
            table.push([
                format!("{} to {}", shown.start, shown.end),
                server.to_owned(),
                mean(paced.iter().map(|s| s.connects).sum()),
                paced.last().map_or(0, |s| s.open).to_string(),
                mean(paced.iter().map(|s| s.completed).sum()),
                mean(paced.iter().map(|s| s.refused).sum()),
                mean(herd.iter().map(|s| s.connects).sum()),
            ]);
        }
        table
    }
}
