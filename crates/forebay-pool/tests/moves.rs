//! A destination that moves: connections to where it was are not lent again.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use forebay_pool::{Ask, Budget, Condition, ConnectFailure, Connector, Lease, Pool, PoolSettings};

/// Where connections should lead.
#[derive(Clone, Default)]
struct Moving(Arc<AtomicU32>);

impl Connector for Moving {
    type Identity = &'static str;
    /// Where it leads.
    type Connection = u32;

    async fn connect(&self, _: &&'static str) -> Result<u32, ConnectFailure> {
        Ok(self.0.load(Ordering::SeqCst))
    }

    fn is_open(&self, _: &mut u32) -> bool {
        true
    }

    fn is_current(&self, connection: &mut u32) -> bool {
        *connection == self.0.load(Ordering::SeqCst)
    }

    async fn probe(&self, connection: u32) -> Option<u32> {
        Some(connection)
    }

    async fn reset(&self, connection: u32) -> Option<u32> {
        Some(connection)
    }
}

fn pool(moving: &Moving) -> Pool<Moving> {
    Pool::new(moving.clone(), PoolSettings::new("db", Budget::Fixed(8)))
}

async fn lease(pool: &Pool<Moving>) -> Lease<Moving> {
    let core = pool.class("core").unwrap();
    pool.checkout(Ask::new("user", core)).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_rests_and_what_comes_home_is_replaced_and_nothing_is_suspected() {
    let moving = Moving::default();
    let pool = pool(&moving);
    let (mut held, mut dropped, rests) =
        (lease(&pool).await, lease(&pool).await, lease(&pool).await);
    rests.give_back(Condition::Clean);
    moving.0.store(1, Ordering::SeqCst);
    assert_eq!(*lease(&pool).await.connection(), 1, "the one at rest is not lent");
    assert_eq!((*held.connection(), *dropped.connection()), (0, 0), "no lease is broken");
    held.give_back(Condition::Clean);
    drop(dropped);
    while pool.snapshot().cleaning > 0 {
        tokio::task::yield_now().await;
    }
    for _ in 0..8 {
        assert_eq!(*lease(&pool).await.connection(), 1);
    }
    let closed = pool.snapshot().closed;
    assert_eq!((closed.renewed, closed.broken), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn those_at_rest_go_at_once_when_that_is_asked() {
    let moving = Moving::default();
    let pool = pool(&moving);
    let held = [lease(&pool).await, lease(&pool).await];
    held.into_iter().for_each(|lease| lease.give_back(Condition::Clean));
    pool.replace_outdated();
    assert_eq!(pool.snapshot().idle, 2, "all are current");
    moving.0.store(1, Ordering::SeqCst);
    pool.replace_outdated();
    let snapshot = pool.snapshot();
    assert_eq!((snapshot.idle, snapshot.closed.renewed), (0, 2));
}
