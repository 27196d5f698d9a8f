//! What a checkout and its return cost, with a connection that does nothing.
//!
//! `cargo bench -p forebay-pool --bench checkout [-- SECONDS [NAME]]`: all cases, or those
//! whose name contains NAME. CPU time is the figure to
//! look at (the sum of all threads, from `/proc`); wall time depends on the neighbours. The
//! aim: at most 250 ns uncontended, 500 ns with a queue, and nobody starved.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on is over")]
#![allow(clippy::cast_precision_loss, reason = "counts of a few seconds")]

use std::fmt;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forebay_pool::{
    Ask, Budget, ClassName, ClassSettings, Condition, ConnectFailure, Connector, Pool,
    PoolSettings, Request, TraceId,
};
use forebay_seam::time;

struct Nothing;

/// An identity as gateways have it: two strings.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Identity {
    database: Arc<str>,
    user: Arc<str>,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.user, self.database)
    }
}

impl Connector for Nothing {
    type Identity = Identity;
    type Connection = Box<u64>;

    async fn connect(&self, _: &Identity) -> Result<Box<u64>, ConnectFailure> {
        Ok(Box::new(0))
    }

    fn is_open(&self, _: &mut Box<u64>) -> bool {
        true
    }

    async fn probe(&self, connection: Box<u64>) -> Option<Box<u64>> {
        Some(connection)
    }

    async fn reset(&self, connection: Box<u64>) -> Option<Box<u64>> {
        Some(connection)
    }
}

/// Does the owner of a lease yield once before it gives it back?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Held {
    NotAtAll,
    OverOneYield,
}

struct Case {
    name: &'static str,
    tasks: usize,
    budget: u32,
    held: Held,
    traced: bool,
}

fn ask(pool: &Pool<Nothing>, traced: bool) -> Ask<Identity> {
    let trace =
        TraceId::from_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let identity = Identity { database: "app".into(), user: "agent".into() };
    Ask {
        request: traced.then(|| Request::new("tenant".into(), trace.unwrap())),
        ..Ask::new(identity, pool.class("core").unwrap())
    }
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

async fn run(case: &Case, duration: Duration) {
    let settings = PoolSettings {
        classes: vec![
            (ClassName::new("core"), ClassSettings::whole_budget(Duration::from_secs(30))),
            (ClassName::new("ai-read"), ClassSettings::default()),
            (ClassName::new("ai-write"), ClassSettings::default()),
        ],
        concurrent_opens: Some(case.budget),
        opens_per_second: Some(1_000_000),
        ..PoolSettings::new("bench", Budget::Fixed(case.budget))
    };
    let pool = Pool::new(Nothing, settings);
    let stop = Arc::new(AtomicBool::new(false));
    let (cpu, start) = (cpu_nanos(), time::now());
    let tasks: Vec<_> = (0..case.tasks)
        .map(|_| {
            let (pool, stop) = (pool.clone(), Arc::clone(&stop));
            let (held, ask) = (case.held, ask(&pool, case.traced));
            tokio::spawn(async move {
                let mut done = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    let lease = pool.checkout(ask.clone()).await.unwrap();
                    if held == Held::OverOneYield {
                        tokio::task::yield_now().await;
                    }
                    lease.give_back(Condition::Clean);
                    done += 1;
                    // Leave the scheduler a chance to run the others and the timer.
                    if held == Held::NotAtAll && done.is_multiple_of(256) {
                        tokio::task::yield_now().await;
                    }
                }
                done
            })
        })
        .collect();
    time::sleep(duration).await;
    stop.store(true, Ordering::Relaxed);
    let mut done = Vec::new();
    for task in tasks {
        done.push(task.await.unwrap());
    }
    let (cpu, wall) = (cpu_nanos() - cpu, time::now() - start);
    let operations: u64 = done.iter().sum();
    let per_operation = |nanos: u128| nanos as f64 / operations as f64;
    let fewest = done.iter().min().copied().unwrap();
    println!(
        "{:<34} {:>6.0} CPU ns  {:>6.0} wall ns  {:>10} operations  {:>3} starved  {:>6.2} max/min  {:>6.0} p99 wait µs",
        case.name,
        per_operation(cpu.into()),
        per_operation(wall.as_nanos()),
        operations,
        done.iter().filter(|n| **n == 0).count(),
        done.iter().max().copied().unwrap() as f64 / fewest as f64,
        pool.snapshot().classes[0].wait.p99 * 1e6,
    );
}

fn main() {
    // Cargo adds `--bench` itself.
    let arguments: Vec<_> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let seconds = arguments.iter().find_map(|arg| arg.parse::<f64>().ok()).unwrap_or(2.0);
    let wanted = arguments.iter().find(|arg| arg.parse::<f64>().is_err());
    let duration = Duration::from_secs_f64(seconds);
    let cases = [
        ("1 task, 8 connections", 1, 8, Held::NotAtAll, false),
        ("1 task, 8 connections, traced", 1, 8, Held::NotAtAll, true),
        ("8 tasks, 8 connections", 8, 8, Held::NotAtAll, false),
        ("64 tasks, 8 connections, a yield", 64, 8, Held::OverOneYield, false),
        ("64 tasks, 8 connections, 1 thread", 64, 8, Held::OverOneYield, false),
        ("64 tasks, 8 connections, traced", 64, 8, Held::OverOneYield, true),
        ("512 tasks, 32 connections, a yield", 512, 32, Held::OverOneYield, false),
    ];
    println!("2 worker threads where not said, {seconds} s each, 3 classes, 1 identity");
    for (name, tasks, budget, held, traced) in cases {
        if wanted.is_some_and(|part| !name.contains(part)) {
            continue;
        }
        // Without a second thread nobody contends for the lock: the rest is the work itself.
        let threads = if name.ends_with("1 thread") { 1 } else { 2 };
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(threads).enable_all().build();
        let case = Case { name, tasks, budget, held, traced };
        runtime.unwrap().block_on(run(&case, duration));
    }
}
