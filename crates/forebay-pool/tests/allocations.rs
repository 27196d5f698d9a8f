//! A checkout and its return allocate nothing once a pool has been in use for a while, with
//! all that a caller may say and every policy reckoned, whether it waits or not. Counted for
//! this thread, on which the runtime runs too.

#![cfg(not(forebay_model))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use allocation_counter::measure;
use forebay_pool::{
    Ask, Budget, ClassName, ClassSettings, Condition, ConnectFailure, Connector, Mode, Operation,
    Pool, PoolSettings, Request, TraceId,
};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

struct Empty;

#[derive(Clone, PartialEq, Eq, Hash)]
struct User(Arc<str>);

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Connector for Empty {
    type Identity = User;
    type Connection = Box<u64>;

    async fn connect(&self, _: &User) -> Result<Box<u64>, ConnectFailure> {
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

fn pool(budget: u32) -> Pool<Empty> {
    let class = ClassSettings {
        mode: Mode::Observe,
        ..ClassSettings::whole_budget(Duration::from_secs(30))
    };
    let settings = PoolSettings {
        classes: vec![(ClassName::new("core"), class)],
        ..PoolSettings::new("db", Budget::Fixed(budget))
    };
    Pool::new(Empty, settings)
}

fn ask(pool: &Pool<Empty>, task: usize) -> Ask<User> {
    let parent = format!("00-{:032x}-00f067aa0ba902b7-01", task + 1);
    let trace = TraceId::from_traceparent(&parent).unwrap();
    Ask {
        request: Some(Request::new("tenant".into(), trace)),
        operation: Some(Operation::new("answer", "SELECT ?")),
        ..Ask::new(User("app".into()), pool.class("core").unwrap())
    }
}

/// Time stands still while anybody works, so that the pool's upkeep is not counted.
fn runtime() -> Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().unwrap()
}

async fn work(pool: Pool<Empty>, ask: Ask<User>, operations: u32) {
    for _ in 0..operations {
        let lease = pool.checkout(&ask).await.unwrap();
        tokio::task::yield_now().await;
        lease.give_back(Condition::Clean);
    }
}

/// Allocations of `tasks`, each with so many `operations`, beyond those of the same tasks with
/// one operation each: the tasks themselves, and the runtime's list of those that yield.
fn counted(runtime: &Runtime, pool: &Pool<Empty>, tasks: usize, operations: u32) -> u64 {
    let asks: Vec<_> = (0..tasks).map(|task| ask(pool, task)).collect();
    let run = |operations| {
        let start = |ask: &Ask<User>| runtime.spawn(work(pool.clone(), ask.clone(), operations));
        let tasks: Vec<JoinHandle<()>> = asks.iter().map(start).collect();
        runtime.block_on(async {
            for task in tasks {
                task.await.unwrap();
            }
        });
    };
    run(operations);
    let own = measure(|| run(1)).count_total;
    measure(|| run(operations)).count_total - own
}

#[test]
fn a_checkout_that_need_not_wait_allocates_nothing() {
    let runtime = runtime();
    let pool = runtime.block_on(async { pool(4) });
    assert_eq!(counted(&runtime, &pool, 4, 200), 0);
    assert_eq!(pool.snapshot().classes[0].checkouts, 4 * 401);
}

#[test]
fn a_wait_allocates_nothing() {
    let runtime = runtime();
    let pool = runtime.block_on(async { pool(2) });
    assert_eq!(counted(&runtime, &pool, 32, 200), 0);
    let seen = &pool.snapshot().classes[0];
    assert_eq!(seen.checkouts, 32 * 401);
    assert!(seen.waited > seen.checkouts / 2, "{} of {} waited", seen.waited, seen.checkouts);
}
