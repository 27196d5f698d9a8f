//! Requests that take from several pools: what they hold at one counts at the others, and a
//! circle that runs through two pools is found within a second, not at a deadline.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use forebay_pool::event::Event;
use forebay_pool::{
    Activity, Ask, Budget, CheckoutError, ClassName, ClassSettings, Condition, ConnectFailure,
    Connector, Lease, Operation, Pool, PoolSettings, Request, Roster, TraceId,
};
use forebay_seam::time;
use tokio::task::JoinHandle;

/// Connections that are nothing.
struct Nothing;

#[derive(Clone, PartialEq, Eq, Hash)]
struct User;

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("app")
    }
}

impl Connector for Nothing {
    type Identity = User;
    type Connection = ();

    async fn connect(&self, _: &User) -> Result<(), ConnectFailure> {
        time::sleep(Duration::from_millis(1)).await;
        Ok(())
    }

    fn is_open(&self, (): &mut ()) -> bool {
        true
    }

    async fn probe(&self, (): ()) -> Option<()> {
        Some(())
    }

    async fn reset(&self, (): ()) -> Option<()> {
        Some(())
    }
}

/// How long a caller waits at the most.
const PATIENCE: Duration = Duration::from_secs(30);

/// A pool of one connection.
fn pool(name: &str, roster: &Arc<Roster>) -> Pool<Nothing> {
    let settings = PoolSettings {
        classes: vec![(ClassName::new("core"), ClassSettings::whole_budget(PATIENCE))],
        ..PoolSettings::new(name, Budget::Fixed(1))
    };
    let pool = Pool::new(Nothing, settings);
    pool.join(roster);
    pool
}

fn trace(n: u32) -> TraceId {
    TraceId::from_traceparent(&format!("00-{n:032x}-0000000000000001-01")).unwrap()
}

fn tenant() -> Arc<str> {
    "acme".into()
}

fn ask(pool: &Pool<Nothing>, request: &Request, feature: &str) -> Ask<User> {
    Ask {
        request: Some(request.clone()),
        operation: Some(Operation::new(feature, "read")),
        ..Ask::new(User, pool.class("core").unwrap())
    }
}

/// A lease of `request` on which nothing runs.
async fn rest(pool: &Pool<Nothing>, request: &Request) -> Lease<Nothing> {
    let mut lease = pool.checkout(ask(pool, request, "first")).await.unwrap();
    lease.now(Activity::AtRest);
    lease
}

type Wait = JoinHandle<Result<Lease<Nothing>, CheckoutError>>;

/// A wait that begins now.
async fn wait(pool: &Pool<Nothing>, request: &Request, feature: &str) -> Wait {
    let (pool, ask) = (pool.clone(), ask(pool, request, feature));
    let wait = tokio::spawn(async move { pool.checkout(ask).await });
    time::sleep(Duration::from_millis(10)).await;
    wait
}

#[tokio::test(start_paused = true)]
async fn of_two_requests_that_wait_crosswise_the_younger_wait_fails_within_a_second() {
    let roster = Arc::new(Roster::default());
    let (database, service) = (pool("database", &roster), pool("service", &roster));
    let mut news = database.events();
    let one = roster.request(&tenant(), trace(1));
    let other = roster.request(&tenant(), trace(2));
    let at_database = rest(&database, &one).await;
    let at_service = rest(&service, &other).await;

    let older = wait(&service, &one, "answer").await;
    let younger = wait(&database, &other, "summary").await;
    let closed = time::now();
    let CheckoutError::Deadlock { destination, feature, held, .. } =
        younger.await.unwrap().err().unwrap()
    else {
        panic!("it is told that it is a deadlock")
    };
    assert!(time::now() - closed <= Duration::from_secs(1), "the look is each second");
    assert_eq!((&*destination, &*feature, held), ("database", "summary", 1));
    let told = std::iter::from_fn(|| news.try_recv().ok());
    let of = |event| matches!(event, Event::Deadlock { feature: Some(f), .. } if &*f == "summary");
    assert_eq!(told.filter(|told| of(told.event.clone())).count(), 1);
    assert_eq!(database.snapshot().classes[0].deadlocks, 1);

    // It rolls back; the other goes on.
    assert!(!older.is_finished());
    at_service.give_back(Condition::Clean);
    older.await.unwrap().unwrap().give_back(Condition::Clean);
    at_database.give_back(Condition::Clean);
    assert_eq!(service.snapshot().classes[0].deadlocks, 0, "one of them is enough");
}

#[tokio::test(start_paused = true)]
async fn a_circle_through_three_pools_costs_one_wait() {
    let roster = Arc::new(Roster::default());
    let pools = ["a", "b", "c"].map(|name| pool(name, &roster));
    let requests = [1, 2, 3].map(|n| roster.request(&tenant(), trace(n)));
    let mut held = Vec::new();
    for (pool, request) in pools.iter().zip(&requests) {
        held.push(rest(pool, request).await);
    }
    let mut waits = Vec::new();
    for n in 0..3 {
        waits.push(wait(&pools[(n + 1) % 3], &requests[n], "next").await);
    }
    time::sleep(Duration::from_secs(5)).await;
    let youngest = waits.pop().unwrap();
    assert!(matches!(youngest.await.unwrap(), Err(CheckoutError::Deadlock { held: 1, .. })));
    assert!(waits.iter().all(|wait| !wait.is_finished()));
    for n in [1, 0] {
        held.pop().unwrap().give_back(Condition::Clean);
        let lease = waits.pop().unwrap().await.unwrap().unwrap();
        assert_eq!(requests[n].held(), 2);
        lease.give_back(Condition::Clean);
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_still_works_is_waited_for() {
    let roster = Arc::new(Roster::default());
    let (database, service) = (pool("database", &roster), pool("service", &roster));
    let one = roster.request(&tenant(), trace(1));
    let other = roster.request(&tenant(), trace(2));
    let _at_database = rest(&database, &one).await;
    let mut at_service = rest(&service, &other).await;
    at_service.now(Activity::Working);
    let older = wait(&service, &one, "answer").await;
    let younger = wait(&database, &other, "summary").await;
    time::sleep(PATIENCE / 2).await;
    assert!(!older.is_finished() && !younger.is_finished());
    at_service.give_back(Condition::Clean);
    older.await.unwrap().unwrap().give_back(Condition::Clean);
}

#[tokio::test(start_paused = true)]
async fn requests_named_anew_at_each_pool_wait_until_their_deadline() {
    let roster = Arc::new(Roster::default());
    let (database, service) = (pool("database", &roster), pool("service", &roster));
    let _at_database = rest(&database, &named(1)).await;
    let _at_service = rest(&service, &named(2)).await;
    let began = time::now();
    let older = wait(&service, &named(1), "answer").await;
    let younger = wait(&database, &named(2), "summary").await;
    for wait in [older, younger] {
        assert!(matches!(wait.await.unwrap(), Err(CheckoutError::TimedOut { .. })));
    }
    assert!(time::now() - began >= PATIENCE);
}

#[tokio::test(start_paused = true)]
async fn who_holds_a_connection_elsewhere_goes_before_new_requests_here() {
    let roster = Arc::new(Roster::default());
    let (database, service) = (pool("database", &roster), pool("service", &roster));
    let holder = roster.request(&tenant(), trace(1));
    let held = database.checkout(ask(&database, &holder, "first")).await.unwrap();
    let busy = service.checkout(ask(&service, &named(9), "busy")).await.unwrap();
    let mut newcomers = Vec::new();
    for n in 10..15 {
        newcomers.push(wait(&service, &named(n), "new").await);
    }
    let next = wait(&service, &holder, "next").await;
    busy.give_back(Condition::Clean);
    let lease = next.await.unwrap().unwrap();
    assert!(newcomers.iter().all(|wait| !wait.is_finished()), "they came first and go later");
    lease.give_back(Condition::Clean);
    held.give_back(Condition::Clean);
    for newcomer in newcomers {
        newcomer.await.unwrap().unwrap().give_back(Condition::Clean);
    }
}

#[tokio::test(start_paused = true)]
async fn who_gave_back_what_it_held_elsewhere_is_new_again() {
    let roster = Arc::new(Roster::default());
    let (database, service) = (pool("database", &roster), pool("service", &roster));
    let request = roster.request(&tenant(), trace(1));
    let held = database.checkout(ask(&database, &request, "first")).await.unwrap();
    held.give_back(Condition::Clean);
    assert_eq!(request.held(), 0);
    let busy = service.checkout(ask(&service, &named(9), "busy")).await.unwrap();
    let first = wait(&service, &named(10), "new").await;
    let second = wait(&service, &request, "next").await;
    busy.give_back(Condition::Clean);
    first.await.unwrap().unwrap().give_back(Condition::Clean);
    second.await.unwrap().unwrap().give_back(Condition::Clean);
}

/// A request that no roster knows.
fn named(n: u32) -> Request {
    Request::new(tenant(), trace(n))
}
