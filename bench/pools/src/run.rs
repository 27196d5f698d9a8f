//! One measurement: so many tasks, one pool, a little while.
//!
//! CPU time is that of all threads of the process (`/proc/self/task/*/schedstat`), so that
//! busy neighbours do not count. Every [`SAMPLED`]th wait is timed; tasks count operations
//! only between the first and the last moment of the measurement.

use std::fmt;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use forebay_seam::time;

use crate::candidates::{Candidate, User};

/// One wait in so many is timed: two readings of the clock would cost as much as a checkout.
const SAMPLED: u64 = 7;
/// Operations of one request: all of them are timed together, where there is a queue.
const REQUEST: u64 = 16;
/// Before this the connections are opened and caches filled.
const WARM_UP: Duration = Duration::from_millis(40);

const WARMING: u8 = 0;
const MEASURING: u8 = 1;
const OVER: u8 = 2;

/// What the owner of a connection does with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Nothing: it is returned at once, so nobody ever waits.
    AtOnce,
    /// Keeps it while others run; whoever comes meanwhile waits.
    OverOneYield,
}

/// A load.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub tasks: usize,
    pub size: u32,
    pub used: Use,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = match self.used {
            Use::AtOnce => "returned at once",
            Use::OverOneYield => "held over one yield",
        };
        write!(f, "{} tasks, {} connections, {used}", self.tasks, self.size)
    }
}

/// What was seen.
#[derive(Debug, Clone)]
pub struct Seen {
    /// CPU nanoseconds for each checkout and return.
    pub cpu: f64,
    /// Wall nanoseconds for each.
    pub wall: f64,
    /// 99th percentile of the waits that ended, microseconds.
    pub p99: f64,
    /// 99th percentile of what 16 operations in a row took, microseconds.
    pub request_p99: f64,
    /// Operations of the task that had most over those of the task that had fewest.
    pub uneven: f64,
    /// Tasks that had no operation at all.
    pub starved: usize,
    /// Checkouts that were refused.
    pub refused: u64,
}

#[derive(Default)]
struct Tally {
    done: u64,
    refused: u64,
    waits: Vec<Duration>,
    requests: Vec<Duration>,
}

/// Runs `case` on a new pool of kind `C` for `duration`.
pub async fn measure<C: Candidate>(case: Case, duration: Duration) -> Seen {
    let pool = C::new(case.size);
    let phase = Arc::new(AtomicU8::new(WARMING));
    let tasks: Vec<_> = (0..case.tasks)
        .map(|number| tokio::spawn(work(pool.user(number), case.used, Arc::clone(&phase))))
        .collect();
    time::sleep(WARM_UP).await;
    phase.store(MEASURING, Ordering::Relaxed);
    let (cpu, start) = (cpu_nanos(), time::now());
    time::sleep(duration).await;
    let (cpu, wall) = (cpu_nanos() - cpu, start.elapsed());
    phase.store(OVER, Ordering::Relaxed);
    let mut tallies = Vec::new();
    for task in tasks {
        tallies.push(task.await.expect("tasks do not panic"));
    }
    summarise(&tallies, cpu, wall)
}

async fn work<U: User>(mut user: U, used: Use, phase: Arc<AtomicU8>) -> Tally {
    let mut tally = Tally { waits: Vec::with_capacity(4096), ..Tally::default() };
    let mut turn = 0_u64;
    let mut began = None;
    loop {
        if used == Use::OverOneYield && turn.is_multiple_of(REQUEST) {
            let now = time::now();
            if let Some(began) = began.replace(now).filter(|_| tally.done >= REQUEST) {
                tally.requests.push(now.duration_since(began));
            }
        }
        turn += 1;
        let asked = turn.is_multiple_of(SAMPLED).then(time::now);
        let held = user.take().await;
        let now = phase.load(Ordering::Relaxed);
        match held {
            Some(held) => {
                if now == MEASURING {
                    tally.done += 1;
                    tally.waits.extend(asked.map(|asked: Instant| asked.elapsed()));
                }
                if used == Use::OverOneYield {
                    tokio::task::yield_now().await;
                }
                U::give_back(held);
            }
            None => {
                tally.refused += 1;
                tokio::task::yield_now().await;
            }
        }
        if now == OVER {
            return tally;
        }
        // The others and the timer want a thread now and then.
        if used == Use::AtOnce && turn.is_multiple_of(256) {
            tokio::task::yield_now().await;
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
fn summarise(tallies: &[Tally], cpu: u64, wall: Duration) -> Seen {
    let operations = tallies.iter().map(|tally| tally.done).sum::<u64>().max(1) as f64;
    let most = tallies.iter().map(|tally| tally.done).max().unwrap_or(0);
    let fewest = tallies.iter().map(|tally| tally.done).min().unwrap_or(0);
    let mut waits: Vec<_> = tallies.iter().flat_map(|tally| tally.waits.iter().copied()).collect();
    let mut requests: Vec<_> =
        tallies.iter().flat_map(|tally| tally.requests.iter().copied()).collect();
    Seen {
        cpu: cpu as f64 / operations,
        wall: wall.as_nanos() as f64 / operations,
        p99: p99_micros(&mut waits),
        request_p99: p99_micros(&mut requests),
        uneven: most as f64 / fewest as f64,
        starved: tallies.iter().filter(|tally| tally.done == 0).count(),
        refused: tallies.iter().map(|tally| tally.refused).sum(),
    }
}

fn p99_micros(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times.get(times.len() * 99 / 100).copied().unwrap_or_default().as_secs_f64() * 1e6
}

/// CPU time of all threads of this process, in nanoseconds.
fn cpu_nanos() -> u64 {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return 0 };
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok())
        .filter_map(|text| text.split(' ').next()?.parse::<u64>().ok())
        .sum()
}
