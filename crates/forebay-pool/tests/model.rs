//! The real pool under a model checker: a few tasks, every order of their locks and wakes
//! that a random and a priority-based scheduler (PCT) come upon.
//!
//! Run it with
//! `RUSTFLAGS="--cfg forebay_model" CARGO_TARGET_DIR=target/model cargo test -p forebay-pool --test model`;
//! `--cfg forebay_model` swaps the locks, tasks, timers and randomness of `forebay-seam`
//! for shuttle's. `FOREBAY_MODEL_RUNS` sets the number of schedules of each test. A failing
//! schedule is printed and can be replayed with `shuttle::replay`.
//!
//! Checked in each schedule: every task ends (shuttle reports a deadlock where a wake-up was
//! lost), a connection never has two owners, there are never more than the budget, and in
//! the end all of the budget can be had again. Meanwhile the pool may close, change its budget
//! or renew its connections, deadlines pass, and requests wait crosswise at two pools.

#![cfg(forebay_model)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use forebay_pool::{
    Activity, Ask, Budget, CheckoutError, ClassName, ClassSettings, Condition, ConnectFailure,
    Connector, FailureKind, Kind, Lease, Pool, PoolSettings, Request, Roster, Share, TraceId,
};
use forebay_seam::time::{self, Timers};
use shuttle::future::{block_on, spawn, yield_now};
use shuttle::rand::{Rng, thread_rng};

/// What may go wrong at the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weather {
    /// Nothing: then nobody needs a clock.
    Fair,
    Stormy,
}

/// What is done with the pool while callers take from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meanwhile {
    Nothing,
    Closes,
    /// Its budget goes down to one and up again, twice.
    Resizes,
    /// All its connections are replaced, twice.
    Renews,
}

struct Server {
    weather: Weather,
    budget: u32,
    live: Arc<AtomicU32>,
}

struct Conn {
    live: Arc<AtomicU32>,
    has_owner: AtomicBool,
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.live.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct User(u8);

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {}", self.0)
    }
}

fn chance(percent: u32) -> bool {
    thread_rng().gen_ratio(percent, 100)
}

impl Connector for Server {
    type Identity = User;
    type Connection = Conn;

    async fn connect(&self, _: &User) -> Result<Conn, ConnectFailure> {
        yield_now().await;
        if self.weather == Weather::Stormy && chance(20) {
            let kinds = [FailureKind::Unreachable, FailureKind::Busy, FailureKind::Denied];
            let kind = kinds[thread_rng().gen_range(0..kinds.len())];
            return Err(ConnectFailure::new(kind, io::Error::other("a storm")));
        }
        let live = self.live.fetch_add(1, Ordering::SeqCst) + 1;
        assert!(live <= self.budget, "{live} connections, {} allowed", self.budget);
        Ok(Conn { live: Arc::clone(&self.live), has_owner: AtomicBool::new(false) })
    }

    fn is_open(&self, connection: &mut Conn) -> bool {
        assert!(!connection.has_owner.load(Ordering::SeqCst), "it rests in two places");
        chance(90)
    }

    async fn probe(&self, connection: Conn) -> Option<Conn> {
        yield_now().await;
        chance(80).then_some(connection)
    }

    async fn reset(&self, connection: Conn) -> Option<Conn> {
        connection.has_owner.store(false, Ordering::SeqCst);
        yield_now().await;
        chance(80).then_some(connection)
    }
}

fn pool(budget: u32, weather: Weather) -> Pool<Server> {
    let class = |kind, guarantee| ClassSettings {
        kind,
        guarantee: Share::Seats(guarantee),
        ceiling: None,
        checkout_timeout: Duration::from_secs(2),
        ..ClassSettings::default()
    };
    let settings = PoolSettings {
        ai_share: 100,
        classes: vec![
            (ClassName::new("core"), class(Kind::Core, budget - 1)),
            (ClassName::new("agents"), class(Kind::Ai, 0)),
        ],
        concurrent_opens: Some(1_000),
        opens_per_second: Some(1_000_000),
        ..PoolSettings::new("model", Budget::Fixed(budget))
    };
    Pool::new(Server { weather, budget, live: Arc::default() }, settings)
}

fn ask(pool: &Pool<Server>, identities: u8) -> Ask<User> {
    let class = pool.class(if chance(50) { "core" } else { "agents" }).unwrap();
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let trace = TraceId::from_traceparent(trace).unwrap();
    let request = chance(30).then(|| Request::new("tenant".into(), trace));
    // Shorter than its class's; without a clock it never passes.
    let deadline = chance(40).then(|| time::now() + Duration::from_millis(500));
    Ask { request, deadline, ..Ask::new(User(thread_rng().gen_range(0..identities)), class) }
}

fn own_it(lease: &mut Lease<Server>) {
    let had_owner = lease.connection().has_owner.swap(true, Ordering::SeqCst);
    assert!(!had_owner, "a connection has two owners");
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

/// A caller: takes a connection or leaves while it waits, and gives it back in any way.
async fn call(pool: &Pool<Server>, identities: u8) {
    let checkout = pool.checkout(ask(pool, identities));
    let taken = match thread_rng().gen_range(0..4_u32) {
        0 => at_most(1, checkout).await,
        1 => at_most(2, checkout).await,
        _ => Some(checkout.await),
    };
    let Some(Ok(mut lease)) = taken else { return };
    own_it(&mut lease);
    if chance(50) {
        yield_now().await;
    }
    match thread_rng().gen_range(0..4_u32) {
        0 => drop(lease),
        1 => lease.give_back(Condition::Broken),
        _ => {
            lease.connection().has_owner.store(false, Ordering::SeqCst);
            lease.give_back(Condition::Clean);
        }
    }
}

/// Are connections still being opened, looked after or closed?
fn is_busy(pool: &Pool<Server>) -> bool {
    let seen = pool.snapshot();
    seen.opening + seen.cleaning + seen.idle + seen.leased > 0
        || pool.connector().live.load(Ordering::SeqCst) > 0
}

impl Meanwhile {
    async fn happens_to(self, pool: &Pool<Server>) {
        yield_now().await;
        match self {
            Self::Nothing => {}
            Self::Closes => pool.close(),
            Self::Resizes => {
                for budget in [Some(1), None, Some(1), None] {
                    pool.set_budget(budget);
                    yield_now().await;
                }
            }
            Self::Renews => {
                pool.renew();
                yield_now().await;
                pool.renew();
            }
        }
    }
}

fn a_life(tasks: u32, budget: u32, identities: u8, weather: Weather, meanwhile: Meanwhile) {
    block_on(async move {
        let pool = pool(budget, weather);
        let callers: Vec<_> = (0..tasks)
            .map(|_| {
                let pool = pool.clone();
                spawn(async move {
                    for _ in 0..2 {
                        call(&pool, identities).await;
                    }
                })
            })
            .collect();
        meanwhile.happens_to(&pool).await;
        for caller in callers {
            caller.await.unwrap();
        }
        let waiting: u32 = pool.snapshot().classes.iter().map(|class| class.waiting).sum();
        assert_eq!(waiting, 0, "everybody was served or left");
        if meanwhile != Meanwhile::Closes && weather == Weather::Fair {
            let class = pool.class("core").unwrap();
            let mut all = Vec::new();
            for _ in 0..budget {
                let ask = Ask::new(User(0), class);
                let lease: Result<_, CheckoutError> = pool.checkout(ask).await;
                all.push(lease.unwrap());
            }
            assert_eq!(pool.snapshot().leased, budget, "all of the budget can be had");
        }
        ends(&pool).await;
    });
}

/// Nothing is under way when the model ends: what is cut off there proves nothing.
async fn ends(pool: &Pool<Server>) {
    pool.drain(time::now() + Duration::from_secs(3600)).await;
    while is_busy(pool) {
        yield_now().await;
    }
    assert_eq!(pool.connector().live.load(Ordering::SeqCst), 0, "a closed pool is empty");
}

/// Two requests that each keep the only connection of one pool at rest and wait at the other:
/// the pools' clocks find the circle and fail one of the two waits, and only one.
fn two_requests_wait_crosswise() {
    block_on(async move {
        let roster = Arc::new(Roster::default());
        let pools = [patient_pool(&roster), patient_pool(&roster)];
        let holding = Arc::new(AtomicU32::new(0));
        let waits: Vec<_> = (0..2_usize)
            .map(|n| {
                let (own, other) = (pools[n].clone(), pools[1 - n].clone());
                let trace = format!("00-{:032x}-0000000000000001-01", n + 1);
                let trace = TraceId::from_traceparent(&trace).unwrap();
                let request = roster.request(&"tenant".into(), trace);
                let holding = Arc::clone(&holding);
                spawn(async move {
                    let class = own.class("core").unwrap();
                    let ask = Ask { request: Some(request), ..Ask::new(User(0), class) };
                    let mut kept = own.checkout(&ask).await.unwrap();
                    own_it(&mut kept);
                    kept.now(Activity::AtRest);
                    holding.fetch_add(1, Ordering::SeqCst);
                    while holding.load(Ordering::SeqCst) < 2 {
                        yield_now().await;
                    }
                    let outcome = other.checkout(&ask).await;
                    match outcome {
                        Ok(mut lease) => {
                            own_it(&mut lease);
                            drop(lease);
                            true
                        }
                        Err(CheckoutError::Deadlock { held: 1, .. }) => false,
                        Err(error) => panic!("{error}"),
                    }
                })
            })
            .collect();
        let mut served = 0;
        for wait in waits {
            served += u32::from(wait.await.unwrap());
        }
        assert_eq!(served, 1, "one fails, the other is served");
        for pool in &pools {
            ends(pool).await;
        }
    });
}

/// A pool of one connection in which nobody gives up, and which knows the other.
fn patient_pool(roster: &Arc<Roster>) -> Pool<Server> {
    let settings = PoolSettings {
        classes: vec![(
            ClassName::new("core"),
            ClassSettings::whole_budget(Duration::from_secs(36_000_000)),
        )],
        concurrent_opens: Some(1_000),
        opens_per_second: Some(1_000_000),
        ..PoolSettings::new("model", Budget::Fixed(1))
    };
    let server = Server { weather: Weather::Fair, budget: 1, live: Arc::default() };
    let pool = Pool::new(server, settings);
    pool.join(roster);
    pool
}

fn runs() -> usize {
    std::env::var("FOREBAY_MODEL_RUNS").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000)
}

fn check(timers: Timers, life: impl Fn() + Copy + Send + Sync + 'static) {
    let life = move || {
        time::set_timers(timers);
        life();
    };
    shuttle::check_random(life, runs());
    shuttle::check_pct(life, runs(), 3);
}

#[test]
fn nobody_who_waits_is_forgotten_though_no_clock_helps() {
    check(Timers::Never, || a_life(3, 1, 1, Weather::Fair, Meanwhile::Nothing));
    check(Timers::Never, || a_life(4, 2, 1, Weather::Fair, Meanwhile::Nothing));
}

#[test]
fn a_pool_that_closes_meanwhile_tells_everybody_and_empties() {
    check(Timers::Never, || a_life(3, 2, 1, Weather::Fair, Meanwhile::Closes));
}

#[test]
fn a_budget_that_goes_down_and_up_meanwhile_loses_nobody() {
    check(Timers::Never, || a_life(3, 2, 1, Weather::Fair, Meanwhile::Resizes));
    check(Timers::Eventually, || a_life(3, 2, 1, Weather::Stormy, Meanwhile::Resizes));
}

#[test]
fn connections_that_are_replaced_meanwhile_are_lent_to_nobody_twice() {
    check(Timers::Never, || a_life(3, 2, 1, Weather::Fair, Meanwhile::Renews));
    check(Timers::Eventually, || a_life(3, 2, 1, Weather::Stormy, Meanwhile::Renews));
}

#[test]
fn deadlines_and_failures_at_any_moment_lose_nothing() {
    check(Timers::Eventually, || a_life(3, 2, 2, Weather::Stormy, Meanwhile::Nothing));
    check(Timers::Eventually, || a_life(3, 1, 2, Weather::Stormy, Meanwhile::Closes));
}

#[test]
fn a_circle_through_two_pools_costs_one_of_its_waits() {
    check(Timers::Eventually, two_requests_wait_crosswise);
}
