//! A small pool of one's own and a shared one behind it: who gets a connection from where,
//! what happens while the shared one is away, and that nothing is left behind by those who
//! leave.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use forebay_pool::overflow::{Overflow, OverflowCounts};
use forebay_pool::{
    Ask, Budget, CheckoutError, ClassName, ClassSettings, Condition, ConnectFailure, Connector,
    FailureKind, Lease, Pool, PoolSettings,
};
use forebay_seam::time;

const MS: Duration = Duration::from_millis(1);

#[derive(Clone)]
struct Server {
    name: &'static str,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    live: AtomicU32,
    /// Refuses connects, or never answers them.
    refuses: AtomicBool,
    silent: AtomicBool,
}

struct Conn {
    server: &'static str,
    state: Arc<State>,
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.state.live.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Connector for Server {
    type Identity = &'static str;
    type Connection = Conn;

    async fn connect(&self, _: &&'static str) -> Result<Conn, ConnectFailure> {
        time::sleep(MS).await;
        if self.state.silent.load(Ordering::SeqCst) {
            return std::future::pending().await;
        }
        if self.state.refuses.load(Ordering::SeqCst) {
            let error = io::Error::from(io::ErrorKind::ConnectionRefused);
            return Err(ConnectFailure::new(FailureKind::Unreachable, error));
        }
        self.state.live.fetch_add(1, Ordering::SeqCst);
        Ok(Conn { server: self.name, state: Arc::clone(&self.state) })
    }

    fn is_open(&self, _: &mut Conn) -> bool {
        true
    }

    async fn probe(&self, connection: Conn) -> Option<Conn> {
        Some(connection)
    }

    async fn reset(&self, connection: Conn) -> Option<Conn> {
        tokio::task::yield_now().await;
        Some(connection)
    }
}

fn pool(name: &'static str, budget: u32, class: &str) -> (Pool<Server>, Server) {
    let server = Server { name, state: Arc::default() };
    let whole = ClassSettings::whole_budget(Duration::from_secs(2));
    let settings = PoolSettings {
        classes: vec![(ClassName::new(class), whole)],
        opens_per_second: Some(1_000),
        concurrent_opens: Some(budget),
        seed: 1,
        ..PoolSettings::new(name, Budget::Fixed(budget))
    };
    (Pool::new(server.clone(), settings), server)
}

fn both(local: u32, shared: u32) -> (Overflow<Server>, Server, Server) {
    let (local, near) = pool("local", local, "core");
    let (shared, far) = pool("shared", shared, "core");
    (Overflow::new(local, shared).unwrap(), near, far)
}

async fn take(overflow: &Overflow<Server>) -> Result<Lease<Server>, CheckoutError> {
    let class = overflow.local().class("core").unwrap();
    overflow.checkout(Ask::new("app", class)).await
}

async fn take_from(overflow: &Overflow<Server>) -> (Lease<Server>, &'static str) {
    let mut lease = take(overflow).await.unwrap();
    let server = lease.connection().server;
    (lease, server)
}

/// Lets the own pool learn that work takes `hold`.
async fn learn(overflow: &Overflow<Server>, hold: Duration) {
    let class = overflow.local().class("core").unwrap();
    for _ in 0..50 {
        let lease = overflow.local().checkout(Ask::new("app", class)).await.unwrap();
        time::sleep(hold).await;
        lease.give_back(Condition::Clean);
    }
}

fn counts(local: u64, overflowed: u64, fell_back: u64) -> OverflowCounts {
    OverflowCounts { local, overflowed, fell_back }
}

#[tokio::test(start_paused = true)]
async fn what_the_own_pool_cannot_serve_at_once_the_shared_one_serves() {
    let (overflow, near, far) = both(2, 10);
    learn(&overflow, 100 * MS).await;
    let mut held = Vec::new();
    for expected in ["local", "local", "shared", "shared"] {
        let (lease, server) = take_from(&overflow).await;
        assert_eq!(server, expected);
        held.push(lease);
    }
    assert_eq!(overflow.counts(), counts(2, 2, 0));
    held.into_iter().for_each(|lease| lease.give_back(Condition::Clean));
    assert_eq!(take_from(&overflow).await.1, "local", "the burst is over");
    assert!(near.state.live.load(Ordering::SeqCst) <= 2);
    assert!(far.state.live.load(Ordering::SeqCst) <= 2);
}

#[tokio::test(start_paused = true)]
async fn a_short_wait_for_the_own_pool_is_waited() {
    let (overflow, _, far) = both(1, 10);
    learn(&overflow, 2 * MS).await;
    let (lease, _) = take_from(&overflow).await;
    let second = tokio::spawn({
        let overflow = overflow.clone();
        async move { take_from(&overflow).await.1 }
    });
    time::sleep(2 * MS).await;
    lease.give_back(Condition::Clean);
    assert_eq!(second.await.unwrap(), "local");
    assert_eq!(far.state.live.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_turns_out_longer_than_foreseen_goes_on_at_the_shared_pool() {
    let (overflow, _, _) = both(1, 10);
    learn(&overflow, 2 * MS).await;
    let (_held, _) = take_from(&overflow).await;
    let asked = time::now();
    assert_eq!(take_from(&overflow).await.1, "shared");
    let waited = time::now() - asked;
    assert!(waited <= 8 * MS, "5 ms of patience, and a connect: {waited:?}");
    assert_eq!(overflow.local().snapshot().classes[0].waiting, 0, "it stands in one line only");
}

#[tokio::test(start_paused = true)]
async fn while_the_shared_pool_is_away_the_own_one_is_all_there_is() {
    for silent in [false, true] {
        let (overflow, _, far) = both(1, 10);
        learn(&overflow, 50 * MS).await;
        far.state.refuses.store(!silent, Ordering::SeqCst);
        far.state.silent.store(silent, Ordering::SeqCst);
        // Its outage is learnt by those who ask it.
        let mut served = 0;
        for _ in 0..30 {
            let (lease, _) = take_from(&overflow).await;
            let second = take(&overflow);
            let giver = async {
                time::sleep(50 * MS).await;
                lease.give_back(Condition::Clean);
            };
            let (second, ()) = tokio::join!(second, giver);
            served += u32::from(second.is_ok());
        }
        assert!(served >= 25, "silent {silent}: {served} of 30");
        assert!(overflow.counts().fell_back >= 25);
        // Nobody waits for it any more, beyond his patience.
        let (lease, _) = take_from(&overflow).await;
        let asked = time::now();
        let second = tokio::spawn({
            let overflow = overflow.clone();
            async move { take_from(&overflow).await.1 }
        });
        time::sleep(10 * MS).await;
        lease.give_back(Condition::Clean);
        assert_eq!(second.await.unwrap(), "local");
        assert!(time::now() - asked <= 12 * MS);
        // It is found again by those who ask.
        far.state.refuses.store(false, Ordering::SeqCst);
        far.state.silent.store(false, Ordering::SeqCst);
        time::sleep(Duration::from_secs(20)).await;
        let (_lease, _) = take_from(&overflow).await;
        let _second = take_from(&overflow).await;
        time::sleep(Duration::from_secs(1)).await;
        let mut overflowed = overflow.counts().overflowed;
        let (_third, server) = take_from(&overflow).await;
        assert_eq!(server, "shared", "silent {silent}");
        overflowed = overflow.counts().overflowed - overflowed;
        assert_eq!(overflowed, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn both_pools_share_one_deadline() {
    let (overflow, _, _) = both(1, 1);
    learn(&overflow, 50 * MS).await;
    let (_one, _) = take_from(&overflow).await;
    let (_two, _) = take_from(&overflow).await;
    let asked = time::now();
    let class = overflow.local().class("core").unwrap();
    let deadline = Some(asked + 300 * MS);
    let error = overflow.checkout(Ask { deadline, ..Ask::new("app", class) }).await.err().unwrap();
    assert!(matches!(error, CheckoutError::TimedOut { .. }), "{error}");
    assert!(time::now() - asked <= 302 * MS);
    let asked = time::now();
    assert!(take(&overflow).await.is_err());
    assert!(time::now() - asked <= Duration::from_millis(2_002), "the class's timeout, once");
}

#[tokio::test(start_paused = true)]
async fn pools_of_other_classes_do_not_fit_together() {
    let (local, _) = pool("local", 1, "core");
    let (shared, _) = pool("shared", 1, "other");
    let error = Overflow::new(local, shared).err().unwrap();
    assert_eq!(error.class.as_str(), "core");
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

#[derive(Debug, Clone, Copy)]
enum Far {
    Answers,
    Refuses,
    Silent,
}

#[tokio::test(start_paused = true)]
async fn a_caller_may_leave_at_any_poll_and_nothing_is_left_in_either_pool() {
    for hold in [2 * MS, 50 * MS] {
        for far_is in [Far::Answers, Far::Refuses, Far::Silent] {
            for held_locally in 0..=1 {
                let mut completed = false;
                for polls in 1..40 {
                    let what = format!("{hold:?}, {far_is:?}, {held_locally} held, {polls} polls");
                    let (overflow, near, far) = both(1, 1);
                    learn(&overflow, hold).await;
                    far.state.refuses.store(matches!(far_is, Far::Refuses), Ordering::SeqCst);
                    far.state.silent.store(matches!(far_is, Far::Silent), Ordering::SeqCst);
                    let held = match held_locally {
                        0 => None,
                        _ => Some(take(&overflow).await.unwrap()),
                    };
                    let giver = tokio::spawn(async move {
                        time::sleep(20 * MS).await;
                        drop(held);
                    });
                    let left = at_most(polls, take(&overflow)).await;
                    completed = left.is_some();
                    let leased = |pool: &Pool<Server>| pool.snapshot().leased;
                    let sum = leased(overflow.local()) + leased(overflow.shared());
                    let mine = u32::from(left.is_some_and(|result| result.is_ok()));
                    assert!(sum <= held_locally + mine, "{what}: two leases for one ask");
                    giver.await.unwrap();
                    time::sleep(Duration::from_secs(30)).await;
                    for (pool, server) in [(overflow.local(), &near), (overflow.shared(), &far)] {
                        let rest = pool.snapshot();
                        assert_eq!((rest.leased, rest.opening, rest.cleaning), (0, 0, 0), "{what}");
                        assert_eq!(rest.classes[0].waiting, 0, "{what}");
                        assert_eq!(rest.idle, server.state.live.load(Ordering::SeqCst), "{what}");
                    }
                    if completed {
                        break;
                    }
                }
                assert!(completed, "{hold:?}, {far_is:?}: a caller hears of its fate in the end");
            }
        }
    }
}
