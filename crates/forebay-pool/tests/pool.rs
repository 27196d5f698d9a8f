//! The pool as its users see it: leases come home, classes keep their promises, and a dead
//! destination is told apart from a full one.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use forebay_pool::{
    Ask, Budget, CheckoutError, ClassName, ClassSettings, Condition, ConnectFailure, Connector,
    FailureKind, Kind, Lease, Pool, PoolSettings, Share,
};
use forebay_seam::time;

#[derive(Clone, Default)]
struct Server(Arc<World>);

#[derive(Default)]
struct World {
    live: AtomicU32,
    most: AtomicU32,
    opened: AtomicU32,
    refuses: AtomicBool,
}

struct Conn(Arc<World>);

impl Drop for Conn {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct User(&'static str);

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Connector for Server {
    type Identity = User;
    type Connection = Conn;

    async fn connect(&self, _: &User) -> Result<Conn, ConnectFailure> {
        time::sleep(Duration::from_millis(5)).await;
        if self.0.refuses.load(Ordering::SeqCst) {
            let error = io::Error::from(io::ErrorKind::ConnectionRefused);
            return Err(ConnectFailure::new(FailureKind::Unreachable, error));
        }
        let live = self.0.live.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.most.fetch_max(live, Ordering::SeqCst);
        self.0.opened.fetch_add(1, Ordering::SeqCst);
        Ok(Conn(Arc::clone(&self.0)))
    }

    fn is_open(&self, _: &mut Conn) -> bool {
        true
    }

    async fn probe(&self, connection: Conn) -> Option<Conn> {
        Some(connection)
    }

    async fn reset(&self, connection: Conn) -> Option<Conn> {
        time::sleep(Duration::from_millis(1)).await;
        Some(connection)
    }
}

fn class(kind: Kind, guarantee: u32, ceiling: u32) -> ClassSettings {
    ClassSettings {
        kind,
        guarantee: Share::Seats(guarantee),
        ceiling: Some(Share::Seats(ceiling)),
        checkout_timeout: Duration::from_secs(5),
        ..ClassSettings::default()
    }
}

fn settings() -> PoolSettings {
    let mut settings = PoolSettings::new("db", Budget::Fixed(10));
    settings.ai_share = 100;
    settings.classes = vec![
        (ClassName::new("core"), class(Kind::Core, 4, 10)),
        (ClassName::new("agents"), class(Kind::Ai, 0, 10)),
    ];
    settings.opens_per_second = Some(1_000);
    settings.seed = 1;
    settings
}

fn ask(pool: &Pool<Server>, class: &str) -> Ask<User> {
    let class = pool.class(class).unwrap();
    Ask::new(User("app"), class)
}

async fn take(pool: &Pool<Server>, class: &str) -> Result<Lease<Server>, CheckoutError> {
    pool.checkout(ask(pool, class)).await
}

#[tokio::test(start_paused = true)]
async fn a_clean_lease_serves_the_next_caller_without_a_new_connection() {
    let server = Server::default();
    let pool = Pool::new(server.clone(), settings());
    for _ in 0..100 {
        take(&pool, "core").await.unwrap().give_back(Condition::Clean);
    }
    assert_eq!(server.0.opened.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn an_unused_guarantee_is_never_lent() {
    let pool = Pool::new(Server::default(), settings());
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(take(&pool, "agents").await.unwrap());
    }
    let seventh = take(&pool, "agents").await;
    assert!(matches!(seventh, Err(CheckoutError::TimedOut { .. })));
    for _ in 0..4 {
        held.push(take(&pool, "core").await.unwrap());
    }
    assert_eq!(pool.snapshot().leased, 10);
}

#[tokio::test(start_paused = true)]
async fn dropped_mid_use_a_connection_is_reset_and_serves_again() {
    let server = Server::default();
    let pool = Pool::new(server.clone(), settings());
    drop(take(&pool, "core").await.unwrap());
    assert_eq!(pool.snapshot().cleaning, 1);
    take(&pool, "core").await.unwrap().give_back(Condition::Clean);
    time::sleep(Duration::from_millis(50)).await;
    assert_eq!((pool.snapshot().leased, pool.snapshot().cleaning), (0, 0));
    assert!(server.0.live.load(Ordering::SeqCst) >= 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_is_told_at_once_and_only_to_agents() {
    let pool = Pool::new(Server::default(), settings());
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(take(&pool, "agents").await.unwrap());
    }
    let waiting: Vec<_> = (0..12)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { take(&pool, "agents").await.map(drop) })
        })
        .collect();
    tokio::task::yield_now().await;
    let before = time::now();
    let refused = take(&pool, "agents").await.err().unwrap();
    assert!(matches!(refused, CheckoutError::QueueFull { limit: 12, .. }), "{refused}");
    assert_eq!(time::now(), before);
    drop(held);
    for waiter in waiting {
        waiter.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_destination_is_unreachable_not_full() {
    let server = Server::default();
    server.0.refuses.store(true, Ordering::SeqCst);
    let pool = Pool::new(server.clone(), settings());
    let error = take(&pool, "core").await.err().unwrap();
    assert!(matches!(error, CheckoutError::Unreachable { .. }), "{error}");
    let before = time::now();
    let again = take(&pool, "core").await.err().unwrap();
    assert!(matches!(again, CheckoutError::Unreachable { .. }));
    assert_eq!(time::now(), before, "told at once once it is known");
    server.0.refuses.store(false, Ordering::SeqCst);
    time::sleep(Duration::from_secs(11)).await;
    take(&pool, "core").await.unwrap().give_back(Condition::Clean);
}

#[tokio::test(start_paused = true)]
async fn warm_up_opens_a_quarter_and_idle_ones_shrink_back_to_it() {
    let server = Server::default();
    let pool = Pool::new(server.clone(), PoolSettings { warm_up: 30, ..settings() });
    assert!(pool.snapshot().warm, "nothing to warm, nothing to wait for");
    pool.warm_up([User("app")]);
    assert!(!pool.snapshot().warm);
    time::sleep(Duration::from_secs(3)).await;
    assert!(pool.snapshot().warm);
    assert_eq!(pool.snapshot().idle, 3);
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(take(&pool, "core").await.unwrap());
    }
    held.into_iter().for_each(|lease| lease.give_back(Condition::Clean));
    time::sleep(Duration::from_secs(120)).await;
    assert_eq!(pool.snapshot().idle, 3);
    assert!(server.0.most.load(Ordering::SeqCst) <= 10);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_of_another_identity_makes_room() {
    let server = Server::default();
    let mut small = settings();
    small.budget = Budget::Fixed(1);
    small.classes[0].1.guarantee = Share::Seats(0);
    let pool = Pool::new(server.clone(), small);
    take(&pool, "core").await.unwrap().give_back(Condition::Clean);
    let other = Ask { identity: User("other"), ..ask(&pool, "core") };
    pool.checkout(other).await.unwrap().give_back(Condition::Clean);
    assert_eq!(pool.snapshot().closed.evicted, 1);
    assert_eq!(server.0.most.load(Ordering::SeqCst), 1, "never above the budget");
}

#[tokio::test(start_paused = true)]
async fn a_drained_pool_has_closed_everything() {
    let server = Server::default();
    let pool = Pool::new(server.clone(), settings());
    let lease = take(&pool, "core").await.unwrap();
    take(&pool, "core").await.unwrap().give_back(Condition::Clean);
    let draining = tokio::spawn({
        let pool = pool.clone();
        async move { pool.drain(time::now() + Duration::from_secs(10)).await }
    });
    time::sleep(Duration::from_millis(10)).await;
    assert!(matches!(take(&pool, "core").await, Err(CheckoutError::Closed { .. })));
    assert_eq!(server.0.live.load(Ordering::SeqCst), 1);
    lease.give_back(Condition::Clean);
    draining.await.unwrap();
    assert_eq!(server.0.live.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_random_cancellations_leak_nothing() {
    let server = Server::default();
    let pool = Pool::new(server.clone(), settings());
    let mut dice = forebay_seam::random::Dice::new(42);
    let mut tasks = Vec::new();
    for _ in 0..10_000 {
        let pool = pool.clone();
        let patience = Duration::from_secs_f64(dice.between(0.0..0.020));
        let hold = Duration::from_secs_f64(dice.between(0.0..0.004));
        tasks.push(tokio::spawn(async move {
            let work = async {
                let lease = take(&pool, "core").await?;
                time::sleep(hold).await;
                lease.give_back(Condition::Clean);
                Ok::<_, CheckoutError>(())
            };
            drop(time::timeout(patience, work).await);
        }));
        if dice.unit() < 0.1 {
            time::sleep(Duration::from_millis(1)).await;
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
    time::sleep(Duration::from_secs(1)).await;
    let snapshot = pool.snapshot();
    assert_eq!((snapshot.leased, snapshot.cleaning), (0, 0));
    assert_eq!(snapshot.classes[0].waiting, 0);
    assert!(server.0.most.load(Ordering::SeqCst) <= 10);
    let mut all = Vec::new();
    for _ in 0..10 {
        all.push(take(&pool, "core").await.unwrap());
    }
}
