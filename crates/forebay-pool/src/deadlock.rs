//! Requests that hold connections and wait for others in a circle (engine notes c.7, I13).
//!
//! A request is stuck while all that it holds is at rest and nobody who is not stuck can give
//! it what it waits for. Found by reduction: whoever could be served by what the others may
//! still give back is no longer stuck; those that are left when nothing changes any more are
//! deadlocked (the graph reduction of Holt, "Some Deadlock Properties of Computer Systems",
//! ACM Computing Surveys 1972). In doubt a request is not stuck: a query that runs, a lease
//! of which nothing is known and a connection being opened all count as progress.

use std::time::Instant;

use crate::budget::Seats;
use crate::class::ClassId;
use crate::request::Request;
use crate::slot::WaiterId;

/// What one pool knows of those who hold and those who wait.
#[derive(Debug, Clone)]
pub(crate) struct Census {
    pub(crate) seats: Seats,
    /// Connections of requests that are known.
    pub(crate) held: Vec<Held>,
    /// Those who wait, of requests that are known.
    pub(crate) waiting: Vec<Waiting>,
}

/// A connection on lease.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) request: Request,
    pub(crate) class: ClassId,
    pub(crate) activity: Activity,
}

/// Somebody who waits.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    pub(crate) waiter: WaiterId,
    pub(crate) request: Request,
    pub(crate) class: ClassId,
    pub(crate) since: Instant,
}

/// What the owner of a lease does with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activity {
    /// It works, or nobody knows: it may come home by itself.
    #[default]
    Working,
    /// It is kept and nothing runs on it: it comes home when its request goes on.
    AtRest,
}

/// Who has to fail so that the others can go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Victim {
    pub(crate) pool: usize,
    pub(crate) waiter: WaiterId,
}

/// A request that may be stuck.
struct Suspect<'a> {
    request: &'a Request,
    /// Of each pool and class, the connections that it keeps: (pool, class).
    keeps: Vec<(usize, ClassId)>,
    /// (pool, what waits there).
    waits: Vec<(usize, &'a Waiting)>,
}

/// The youngest of those that wait for each other, if any do.
pub(crate) fn find(pools: &[Census]) -> Option<Victim> {
    let mut stuck = suspects(pools);
    loop {
        let kept = kept(pools, &stuck);
        let before = stuck.len();
        stuck.retain(|suspect| {
            let is_served = |(pool, waiting): &(usize, &Waiting)| {
                pools[*pool].seats.would_serve(waiting.class, &kept[*pool])
            };
            !suspect.waits.iter().any(is_served)
        });
        if stuck.len() == before {
            break;
        }
    }
    let waits = stuck.iter().flat_map(|suspect| &suspect.waits);
    let (pool, youngest) = waits.max_by_key(|(pool, waiting)| (waiting.since, *pool))?;
    Some(Victim { pool: *pool, waiter: youngest.waiter })
}

/// Requests that wait while everything that they hold is at rest.
fn suspects(pools: &[Census]) -> Vec<Suspect<'_>> {
    let mut suspects: Vec<Suspect<'_>> = Vec::new();
    for (pool, census) in pools.iter().enumerate() {
        for waiting in &census.waiting {
            match suspects.iter_mut().find(|suspect| *suspect.request == waiting.request) {
                Some(suspect) => suspect.waits.push((pool, waiting)),
                None => suspects.push(Suspect {
                    request: &waiting.request,
                    keeps: Vec::new(),
                    waits: vec![(pool, waiting)],
                }),
            }
        }
    }
    suspects.retain_mut(|suspect| {
        for (pool, census) in pools.iter().enumerate() {
            for held in census.held.iter().filter(|held| held.request == *suspect.request) {
                match held.activity {
                    Activity::Working => return false,
                    Activity::AtRest => suspect.keeps.push((pool, held.class)),
                }
            }
        }
        !suspect.keeps.is_empty()
    });
    suspects
}

/// What the stuck ones keep, by pool and class.
fn kept(pools: &[Census], stuck: &[Suspect<'_>]) -> Vec<Vec<u32>> {
    let mut kept: Vec<_> = pools.iter().map(|pool| vec![0; pool.seats.classes.len()]).collect();
    for (pool, class) in stuck.iter().flat_map(|suspect| &suspect.keeps) {
        kept[*pool][class.index()] += 1;
    }
    kept
}
