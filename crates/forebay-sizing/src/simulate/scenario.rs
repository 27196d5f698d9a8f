//! What is played: a pool, a server behind it, and streams of requests.

use std::time::Duration;

use forebay_pool::PoolSettings;

use super::chance::{Arrivals, Times};

/// Everything that decides a run. The same scenario gives the same figures.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The pool; its `seed` is that of the pool's own jitter.
    pub pool: PoolSettings,
    /// The server behind it.
    pub server: Server,
    /// Who asks.
    pub streams: Vec<Stream>,
    /// How long is played.
    pub length: Duration,
    /// What happens before this is played, and not counted.
    pub settle: Duration,
    /// How fine the timeline is.
    pub slice: Duration,
    /// Seed of arrivals and service times. They do not depend on what the pool decides, so
    /// two pools under the same seed get the same requests.
    pub seed: u64,
}

/// What connections lead to.
#[derive(Debug, Clone)]
pub struct Server {
    /// How long connecting takes.
    pub connect: Times,
    /// What goes wrong with it.
    pub troubles: Vec<Trouble>,
}

/// Something is wrong with the server for a while.
#[derive(Debug, Clone, Copy)]
pub struct Trouble {
    /// From when.
    pub from: Duration,
    /// Until when.
    pub until: Duration,
    /// What.
    pub what: Disorder,
}

/// What may be wrong with a server.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Disorder {
    /// It is away: all connections break, and connects are refused.
    Away,
    /// Everything takes so many times as long.
    Slow(f64),
}

/// Requests of one kind.
#[derive(Debug, Clone)]
pub struct Stream {
    /// What the figures call it; also its feature, in the engine's words.
    pub name: &'static str,
    /// Its class in the pool.
    pub class: &'static str,
    /// When its requests come.
    pub arrivals: Arrivals,
    /// What a request does.
    pub queries: Queries,
    /// How long one query keeps a connection busy.
    pub service: Times,
    /// What the engine knows of its requests.
    pub naming: Naming,
    /// What its clients do when they fail.
    pub client: Client,
}

/// The queries of one request.
#[derive(Debug, Clone, Copy)]
pub enum Queries {
    /// One after the other, with a pause (a model that thinks) between two.
    InTurn {
        /// How many.
        count: u32,
        /// Between two.
        pause: Times,
    },
    /// All at once; the request is done when the last one is.
    AtOnce {
        /// How many.
        count: u32,
    },
}

impl Queries {
    /// Only one.
    pub const ONE: Self = Self::AtOnce { count: 1 };

    pub(super) fn count(self) -> u32 {
        match self {
            Self::InTurn { count, .. } | Self::AtOnce { count } => count,
        }
    }

    /// How many are asked for when a try begins.
    pub(super) fn at_once(self) -> u32 {
        match self {
            Self::InTurn { .. } => 1,
            Self::AtOnce { count } => count,
        }
    }
}

/// Whether queries say which request they belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// They do not: each is a request of its own to the engine.
    Unnamed,
    /// They do, and a request that is tried again has a new name.
    ByTry,
    /// They do, and a request keeps its name when it is tried again.
    ByRequest,
}

/// What clients do when a query fails. The whole request is tried again, from its start,
/// unless the pool said that no retry is welcome.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    /// Tries of one request, the first included.
    pub tries: u32,
    /// Between a failure and the next try.
    pub backoff: Times,
    /// A client that waits longer for one query (in line and at the server) takes it for
    /// lost, and tries again. A query that runs goes on, for nobody.
    pub patience: Option<Duration>,
}

impl Client {
    /// One try, and all the patience in the world.
    pub const CALM: Self = Self { tries: 1, backoff: Times::NONE, patience: None };
}

impl Server {
    /// Well, with connects that always take as long.
    pub fn well(connect: Duration) -> Self {
        Self { connect: Times::Always(connect), troubles: Vec::new() }
    }

    pub(super) fn is_away(&self, at: Duration) -> bool {
        self.at(at).any(|what| what == Disorder::Away)
    }

    /// How many times as long everything takes.
    pub(super) fn slowness(&self, at: Duration) -> f64 {
        let factors = self.at(at).filter_map(|what| match what {
            Disorder::Away => None,
            Disorder::Slow(factor) => Some(factor),
        });
        factors.product()
    }

    fn at(&self, at: Duration) -> impl Iterator<Item = Disorder> + '_ {
        let now = self.troubles.iter().filter(move |t| t.from <= at && at < t.until);
        now.map(|trouble| trouble.what)
    }
}
