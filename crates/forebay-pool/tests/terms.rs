//! What identities may have: sizes, reserves, shared caps, pauses, by a paused clock.

#![allow(clippy::unwrap_used, reason = "tests may")]

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use forebay_pool::{
    Access, Ask, Budget, Cap, ClassName, ClassSettings, Condition, ConnectFailure, Connector, Kind,
    Lease, Parting, Pool, PoolSettings, Terms,
};
use forebay_seam::sync::Mutex;
use forebay_seam::time;

/// A server whose goodbyes take as long as its greetings.
#[derive(Clone, Default)]
struct Server(Arc<World>);

#[derive(Default)]
struct World {
    live: AtomicU32,
    most: AtomicU32,
    opened: AtomicU32,
    terms: Mutex<HashMap<&'static str, Terms>>,
}

struct Conn;

#[derive(Clone, PartialEq, Eq, Hash)]
struct User(&'static str);

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

const GREETING: Duration = Duration::from_millis(5);

impl Connector for Server {
    type Identity = User;
    type Connection = Conn;

    async fn connect(&self, _: &User) -> Result<Conn, ConnectFailure> {
        let live = self.0.live.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.most.fetch_max(live, Ordering::SeqCst);
        self.0.opened.fetch_add(1, Ordering::SeqCst);
        time::sleep(GREETING).await;
        Ok(Conn)
    }

    fn terms(&self, user: &User) -> Terms {
        self.0.terms.lock().get(user.0).cloned().unwrap_or_default()
    }

    async fn close(&self, _: Conn) {
        time::sleep(GREETING).await;
        self.0.live.fetch_sub(1, Ordering::SeqCst);
    }

    fn is_open(&self, _: &mut Conn) -> bool {
        true
    }

    async fn probe(&self, connection: Conn) -> Option<Conn> {
        Some(connection)
    }

    async fn reset(&self, connection: Conn) -> Option<Conn> {
        Some(connection)
    }
}

fn pool(server: &Server, budget: u32) -> Pool<Server> {
    let mut settings = PoolSettings::new("db", Budget::Fixed(budget));
    let core = ClassSettings {
        kind: Kind::Core,
        checkout_timeout: Duration::from_secs(3),
        ..ClassSettings::default()
    };
    settings.classes = vec![(ClassName::new("core"), core)];
    settings.opens_per_second = Some(1_000);
    settings.concurrent_opens = Some(8);
    settings.parting = Parting::Awaited;
    settings.seed = 1;
    Pool::new(server.clone(), settings)
}

impl Server {
    fn grant(&self, user: &'static str, terms: Terms) {
        self.0.terms.lock().insert(user, terms);
    }

    fn opened(&self) -> u32 {
        self.0.opened.load(Ordering::SeqCst)
    }

    fn most(&self) -> u32 {
        self.0.most.load(Ordering::SeqCst)
    }
}

fn sized(size: u32) -> Terms {
    Terms { size: Some(size), ..Terms::default() }
}

fn capped(cap: &Arc<Cap>) -> Terms {
    Terms { caps: vec![Arc::clone(cap)], ..Terms::default() }
}

async fn take(pool: &Pool<Server>, user: &'static str) -> Lease<Server> {
    let class = pool.class("core").unwrap();
    pool.checkout(Ask::new(User(user), class)).await.unwrap()
}

/// Not within `patience`.
async fn waits(pool: &Pool<Server>, user: &'static str, patience: Duration) {
    assert!(time::timeout(patience, take(pool, user)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn an_identity_has_its_size_and_its_reserve_after_a_wait() {
    let server = Server::default();
    let reserve_after = Duration::from_millis(500);
    server.grant("ann", Terms { reserve: 1, reserve_after, ..sized(2) });
    let pool = pool(&server, 10);
    let two = (take(&pool, "ann").await, take(&pool, "ann").await);
    waits(&pool, "ann", Duration::from_millis(450)).await;
    let begun = time::now();
    let third = take(&pool, "ann").await;
    assert!(time::now() - begun >= reserve_after);
    waits(&pool, "ann", Duration::from_secs(2)).await;
    drop(take(&pool, "bob").await);
    assert_eq!(server.opened(), 4);
    drop((two, third));
}

#[tokio::test(start_paused = true)]
async fn a_smaller_size_is_reached_as_leases_come_home() {
    let server = Server::default();
    server.grant("ann", sized(3));
    let pool = pool(&server, 10);
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(take(&pool, "ann").await);
    }
    server.grant("ann", sized(1));
    pool.review(|_| true);
    assert_eq!(pool.count(|user| user.0 == "ann").all, 3, "no lease is broken");
    held.into_iter().for_each(|lease| lease.give_back(Condition::Clean));
    pool.until(|user| user.0 == "ann", |count| count.all == 1).await;
    let _one = take(&pool, "ann").await;
    waits(&pool, "ann", Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn who_is_paused_waits_and_the_others_do_not() {
    let server = Server::default();
    let pool = pool(&server, 10);
    let lease = take(&pool, "ann").await;
    drop(take(&pool, "ann").await);
    server.grant("ann", Terms { access: Access::Paused, ..Terms::default() });
    pool.review(|user| user.0 == "ann");
    waits(&pool, "ann", Duration::from_secs(1)).await;
    drop(take(&pool, "bob").await);
    lease.give_back(Condition::Clean);
    pool.until(|user| user.0 == "ann", |count| count.all == 0).await;
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { drop(take(&pool, "ann").await) }
    });
    time::sleep(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished());
    server.grant("ann", Terms::default());
    pool.review(|_| true);
    waiting.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn after_a_pause_connections_come_slowly_at_first() {
    let server = Server::default();
    let pool = pool(&server, 64);
    server.grant("ann", Terms { access: Access::Paused, ..Terms::default() });
    let waiting: Vec<_> = (0..40)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move {
                let lease = take(&pool, "ann").await;
                time::sleep(Duration::from_secs(1)).await;
                drop(lease);
            })
        })
        .collect();
    time::sleep(Duration::from_millis(100)).await;
    server.grant("ann", Terms::default());
    pool.review(|_| true);
    for in_all in [1, 3, 11] {
        time::sleep(Duration::from_millis(1)).await;
        assert_eq!(server.opened(), in_all);
        time::sleep(GREETING - Duration::from_millis(1)).await;
    }
    for task in waiting {
        task.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_cap_holds_over_pools_and_no_pool_starves() {
    let server = Server::default();
    let cap = Cap::new(2);
    server.grant("ann", capped(&cap));
    let pools = [pool(&server, 10), pool(&server, 10)];
    // What rests in one pool is closed for the other.
    for pool in pools.iter().cycle().take(6) {
        take(pool, "ann").await.give_back(Condition::Clean);
        assert!(cap.taken() <= 2);
    }
    // Where all are busy, all have their turn.
    let workers: Vec<_> = (0..8_usize)
        .map(|n| {
            let pool = pools[n % 2].clone();
            tokio::spawn(async move {
                for _ in 0..30 {
                    let lease = take(&pool, "ann").await;
                    time::sleep(Duration::from_millis(7)).await;
                    lease.give_back(Condition::Clean);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    assert_eq!(server.most(), 2);
    for pool in &pools {
        pool.drain(time::now() + Duration::from_secs(1)).await;
    }
    assert_eq!(cap.taken(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_place_is_free_when_the_destination_has_let_go_and_not_before() {
    let server = Server::default();
    let pool = pool(&server, 1);
    for user in ["ann", "bob", "ann", "bob"] {
        take(&pool, user).await.give_back(Condition::Clean);
    }
    assert_eq!((server.most(), server.opened()), (1, 4));
}

#[tokio::test(start_paused = true)]
async fn what_is_to_be_replaced_is_counted_until_it_is_closed() {
    let server = Server::default();
    let pool = pool(&server, 10);
    let (lease, rests) = (take(&pool, "ann").await, take(&pool, "ann").await);
    let other = take(&pool, "bob").await;
    rests.give_back(Condition::Clean);
    pool.replace(|user| user.0 == "ann");
    assert_eq!(pool.count(|_| true).outdated, 2, "one is on its way out");
    lease.give_back(Condition::Clean);
    pool.until(|_| true, |count| count.outdated == 0).await;
    assert_eq!(pool.count(|_| true).all, 1);
    drop(other);
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_opened_and_kept_until_it_is_wanted_no_more() {
    let server = Server::default();
    server.grant("ann", Terms { keep: 2, ..sized(5) });
    let pool = pool(&server, 10);
    pool.review_one(&User("ann"));
    time::sleep(Duration::from_secs(300)).await;
    assert_eq!(pool.count(|_| true).all, 2);
    server.grant("ann", sized(5));
    time::sleep(Duration::from_secs(60)).await;
    assert_eq!(pool.count(|_| true).all, 0);
    assert!(pool.snapshot().identities.is_empty(), "nothing is kept of who is not there");
}
