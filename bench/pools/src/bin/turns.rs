//! How long callers wait, counted in leases that others got meanwhile: no clock, so neither
//! the machine nor its neighbours are in it. One thread, each lease held over one yield.
//!
//! `turns [TASKS [OPERATIONS]]`: single waits, and whole requests of 16 operations.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use beside_pools::candidates::{Bb8, Candidate, Deadpool, Full, Mobc, Plain, Sqlx, User};

const SIZE: u32 = 8;
/// Operations of one request.
const REQUEST: usize = 16;
/// Operations of each task before anything is counted.
const WARM_UP: usize = 64;

fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|text| text.parse::<usize>().ok());
    let (tasks, operations) =
        (arguments.next().unwrap_or(512), arguments.next().unwrap_or(REQUEST * 20));
    println!("{tasks} tasks, {SIZE} connections; leases of others during a wait\n");
    println!(
        "{:<16} {:>31} {:>31}",
        "", "one operation: p50  p99  most", "16 in a row: p50  p99  most"
    );
    count::<Full>(tasks, operations);
    count::<Plain>(tasks, operations);
    count::<Deadpool>(tasks, operations);
    count::<Bb8>(tasks, operations);
    count::<Sqlx>(tasks, operations);
    count::<Mobc>(tasks, operations);
}

fn count<C: Candidate>(tasks: usize, operations: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be started");
    let (mut waits, mut requests) = (Vec::new(), Vec::new());
    runtime.block_on(async {
        let pool = C::new(SIZE);
        let leases = Arc::new(AtomicU64::new(0));
        let tasks: Vec<_> = (0..tasks)
            .map(|number| tokio::spawn(work(pool.user(number), operations, Arc::clone(&leases))))
            .collect();
        for task in tasks {
            let (own_waits, own_requests) = task.await.expect("tasks do not panic");
            waits.extend(own_waits);
            requests.extend(own_requests);
        }
    });
    println!("{:<16} {} {}", C::NAME, spread(waits), spread(requests));
}

/// Leases of others during each wait, and during each request.
async fn work<U: User>(
    mut user: U,
    operations: usize,
    leases: Arc<AtomicU64>,
) -> (Vec<u64>, Vec<u64>) {
    let (mut waits, mut requests) = (Vec::new(), Vec::new());
    let mut began = 0;
    for turn in 0..operations + WARM_UP {
        let asked = leases.load(Ordering::Relaxed);
        if turn.is_multiple_of(REQUEST) {
            began = asked;
        }
        let Some(held) = user.take().await else { continue };
        let got = leases.fetch_add(1, Ordering::Relaxed);
        if turn >= WARM_UP {
            waits.push(got - asked);
            if turn % REQUEST == REQUEST - 1 {
                requests.push(got - began);
            }
        }
        tokio::task::yield_now().await;
        U::give_back(held);
    }
    (waits, requests)
}

fn spread(mut counts: Vec<u64>) -> String {
    counts.sort_unstable();
    let at = |percent: usize| counts.get(counts.len() * percent / 100).copied().unwrap_or(0);
    let most = counts.last().copied().unwrap_or(0);
    format!("{:>15} {:>7} {:>7}", at(50), at(99), most)
}
