//! Every public future, dropped after each of its polls, with each thing that a connector
//! may do meanwhile: nothing leaks, and no more is opened than is needed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use forebay_pool::{
    Ask, Budget, CheckoutError, ClassName, ClassSettings, Condition, ConnectFailure, Connector,
    FailureKind, Lease, Pool, PoolSettings,
};
use forebay_seam::time;

const BUDGET: u32 = 2;

/// What the other side does when asked for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Connect {
    AtOnce,
    Later,
    Refused,
    Busy,
    Denied,
    Silent,
    Panics,
}

/// What becomes of a connection that came home in an unknown state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reset {
    Works,
    Fails,
    Silent,
    Panics,
}

/// What a look at a connection that rested finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rested {
    Alive,
    /// Every second look.
    SometimesDead,
}

#[derive(Debug, Clone, Copy)]
struct Script {
    connect: Connect,
    reset: Reset,
    rested: Rested,
}

#[derive(Clone)]
struct Server {
    script: Script,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    live: AtomicU32,
    most: AtomicU32,
    attempts: AtomicU32,
    looks: AtomicU32,
}

struct Conn(Arc<Counts>);

impl Conn {
    fn new(counts: &Arc<Counts>) -> Self {
        let live = counts.live.fetch_add(1, Ordering::SeqCst) + 1;
        counts.most.fetch_max(live, Ordering::SeqCst);
        Self(Arc::clone(counts))
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct User;

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("app")
    }
}

fn failure(kind: FailureKind) -> ConnectFailure {
    ConnectFailure::new(kind, io::Error::other("as the script says"))
}

impl Connector for Server {
    type Identity = User;
    type Connection = Conn;

    async fn connect(&self, _: &User) -> Result<Conn, ConnectFailure> {
        self.counts.attempts.fetch_add(1, Ordering::SeqCst);
        let conn = Conn::new(&self.counts);
        match self.script.connect {
            Connect::AtOnce => return Ok(conn),
            Connect::Later => {}
            Connect::Refused => return Err(failure(FailureKind::Unreachable)),
            Connect::Busy => return Err(failure(FailureKind::Busy)),
            Connect::Denied => return Err(failure(FailureKind::Denied)),
            Connect::Silent => std::future::pending().await,
            Connect::Panics => panic!("as the script says"),
        }
        tokio::task::yield_now().await;
        time::sleep(Duration::from_millis(5)).await;
        Ok(conn)
    }

    fn is_open(&self, _: &mut Conn) -> bool {
        match self.script.rested {
            Rested::Alive => true,
            Rested::SometimesDead => {
                self.counts.looks.fetch_add(1, Ordering::SeqCst).is_multiple_of(2)
            }
        }
    }

    async fn probe(&self, connection: Conn) -> Option<Conn> {
        tokio::task::yield_now().await;
        Some(connection)
    }

    async fn reset(&self, connection: Conn) -> Option<Conn> {
        tokio::task::yield_now().await;
        match self.script.reset {
            Reset::Works => Some(connection),
            Reset::Fails => None,
            Reset::Silent => std::future::pending().await,
            Reset::Panics => panic!("as the script says"),
        }
    }
}

fn scripts() -> Vec<Script> {
    let mut scripts = Vec::new();
    for connect in [
        Connect::AtOnce,
        Connect::Later,
        Connect::Refused,
        Connect::Busy,
        Connect::Denied,
        Connect::Silent,
        Connect::Panics,
    ] {
        for reset in [Reset::Works, Reset::Fails, Reset::Silent, Reset::Panics] {
            for rested in [Rested::Alive, Rested::SometimesDead] {
                scripts.push(Script { connect, reset, rested });
            }
        }
    }
    scripts
}

fn pool(script: Script) -> (Pool<Server>, Server) {
    let server = Server { script, counts: Arc::default() };
    let settings = PoolSettings {
        classes: vec![(
            ClassName::new("core"),
            ClassSettings::whole_budget(Duration::from_secs(2)),
        )],
        opens_per_second: Some(1_000),
        concurrent_opens: Some(BUDGET),
        seed: 1,
        ..PoolSettings::new("db", Budget::Fixed(BUDGET))
    };
    (Pool::new(server.clone(), settings), server)
}

async fn take(pool: &Pool<Server>) -> Result<Lease<Server>, CheckoutError> {
    let class = pool.class("core").unwrap();
    pool.checkout(Ask::new(User, class)).await
}

/// Polls `future` at most `polls` times and drops it right after the last.
async fn at_most<F: Future>(polls: u32, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|cx| {
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// A caller that takes a connection, works with it for a while, and gives it back.
async fn work(pool: &Pool<Server>) -> Result<(), CheckoutError> {
    let lease = take(pool).await?;
    tokio::task::yield_now().await;
    time::sleep(Duration::from_millis(3)).await;
    lease.give_back(Condition::Clean);
    Ok(())
}

async fn assert_nothing_is_left(pool: &Pool<Server>, server: &Server, what: &str) {
    time::sleep(Duration::from_secs(30)).await;
    let left = pool.snapshot();
    assert_eq!((left.leased, left.opening, left.cleaning), (0, 0, 0), "{what}");
    assert_eq!(left.classes[0].waiting, 0, "{what}");
    let live = server.counts.live.load(Ordering::SeqCst);
    assert_eq!(left.idle, live, "{what}: what lives is in the pool");
    assert!(server.counts.most.load(Ordering::SeqCst) <= BUDGET, "{what}: above the budget");
}

/// Panics of the script's connector are part of the test: they are not printed.
fn silence_scripted_panics() {
    let inner = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref::<&str>() != Some(&"as the script says") {
            inner(info);
        }
    }));
}

#[tokio::test(start_paused = true)]
async fn a_caller_may_leave_at_any_poll_whatever_the_connector_does() {
    silence_scripted_panics();
    for script in scripts() {
        for busy in 0..=BUDGET {
            let mut completed = false;
            for polls in 1..30 {
                let what = format!("{script:?}, {busy} in use, left after {polls} polls");
                let (pool, server) = pool(script);
                let mut others = Vec::new();
                for _ in 0..busy {
                    let pool = pool.clone();
                    others.push(tokio::spawn(async move { drop(work(&pool).await) }));
                }
                tokio::task::yield_now().await;
                completed = at_most(polls, work(&pool)).await.is_some();
                for other in others {
                    other.await.unwrap();
                }
                assert_nothing_is_left(&pool, &server, &what).await;
                if matches!(script.connect, Connect::AtOnce | Connect::Later)
                    && script.reset == Reset::Works
                    && script.rested == Rested::Alive
                {
                    let opened = pool.snapshot().opened;
                    assert!(opened <= u64::from(BUDGET), "{what}: {opened} opened");
                }
                if completed {
                    break;
                }
            }
            assert!(completed, "{script:?}: a caller hears of its fate in the end");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn callers_that_leave_one_after_the_other_open_nothing_anew() {
    let script = Script { connect: Connect::Later, reset: Reset::Works, rested: Rested::Alive };
    let (pool, server) = pool(script);
    for round in 0..500 {
        drop(at_most(round % 7 + 1, work(&pool)).await);
        drop(time::timeout(Duration::from_millis(u64::from(round % 11)), work(&pool)).await);
    }
    assert_nothing_is_left(&pool, &server, "500 callers that left").await;
    let attempts = server.counts.attempts.load(Ordering::SeqCst);
    assert!(attempts <= 2 * BUDGET, "{attempts} connects for callers that left");
}

#[tokio::test(start_paused = true)]
async fn a_drain_may_be_left_at_any_poll_and_the_pool_still_empties() {
    silence_scripted_panics();
    for script in scripts() {
        let mut completed = false;
        for polls in 1..30 {
            let what = format!("{script:?}, drain left after {polls} polls");
            let (pool, server) = pool(script);
            let working = tokio::spawn({
                let pool = pool.clone();
                async move { drop(work(&pool).await) }
            });
            tokio::task::yield_now().await;
            let deadline = time::now() + Duration::from_secs(20);
            completed = at_most(polls, pool.drain(deadline)).await.is_some();
            assert!(matches!(take(&pool).await, Err(CheckoutError::Closed { .. })), "{what}");
            working.await.unwrap();
            assert_nothing_is_left(&pool, &server, &what).await;
            assert_eq!(pool.snapshot().idle, 0, "{what}: a closed pool keeps nothing");
            if completed {
                break;
            }
        }
        assert!(completed, "{script:?}: a drain ends");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_may_outlive_every_handle_of_its_pool() {
    let script = Script { connect: Connect::AtOnce, reset: Reset::Works, rested: Rested::Alive };
    let (pool, server) = pool(script);
    let lease = take(&pool).await.unwrap();
    drop(pool);
    time::sleep(Duration::from_secs(5)).await;
    assert_eq!(server.counts.live.load(Ordering::SeqCst), 1);
    drop(lease);
    time::sleep(Duration::from_secs(5)).await;
    assert_eq!(server.counts.live.load(Ordering::SeqCst), 0, "nobody is left to use it");
}
