//! Budgets that change while connections are used, by a wall clock that goes with the
//! runtime's.

use std::cell::Cell;

use forebay_seam::time;

use super::*;
use crate::ask::Ask;
use crate::connect::ConnectFailure;
use crate::settings::Budget;
use crate::timetable::{Timetable, WindowSettings};

/// Connections that are nothing.
struct Nothing;

impl Connector for Nothing {
    type Identity = &'static str;
    type Connection = ();

    async fn connect(&self, _: &&'static str) -> Result<(), ConnectFailure> {
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

thread_local! {
    /// It was eight in the morning then.
    static EIGHT: Cell<Option<Instant>> = const { Cell::new(None) };
}

fn wall() -> SystemTime {
    let passed = EIGHT.get().map_or(Duration::ZERO, |at| time::now() - at);
    "2026-11-23T08:00:00Z".parse::<jiff::Timestamp>().map(SystemTime::from).unwrap() + passed
}

fn pool(budget: u32, windows: &[WindowSettings]) -> Pool<Nothing> {
    EIGHT.set(Some(time::now()));
    let settings = PoolSettings {
        timetable: Timetable::new(windows).unwrap(),
        ..PoolSettings::new("nothing", Budget::Fixed(budget))
    };
    Pool::with_wall_clock(Nothing, settings, wall)
}

fn window(from: &str, minutes: u64, budget: u32) -> WindowSettings {
    WindowSettings {
        from: from.to_owned(),
        length: Duration::from_secs(minutes * 60),
        time_zone: "UTC".to_owned(),
        budget,
    }
}

async fn leases(pool: &Pool<Nothing>, count: usize) -> Vec<Lease<Nothing>> {
    let class = pool.class("core").unwrap();
    let mut leases = Vec::new();
    while leases.len() < count {
        leases.push(pool.checkout(Ask::new("user", class)).await.unwrap());
    }
    leases
}

fn budget(pool: &Pool<Nothing>) -> (u32, u32) {
    let snapshot = pool.snapshot();
    (snapshot.budget, snapshot.leased + snapshot.idle + snapshot.opening + snapshot.cleaning)
}

#[tokio::test(start_paused = true)]
async fn shrinking_by_hand_breaks_no_lease_and_takes_what_comes_home() {
    let pool = pool(20, &[]);
    let mut held = leases(&pool, 16).await;
    let spare: Vec<_> = held.drain(12..).collect();
    spare.into_iter().for_each(|lease| lease.give_back(Condition::Clean));
    pool.set_budget(Some(8));
    assert_eq!(budget(&pool), (8, 12), "those at rest are closed at once, the lent ones stay");
    for (home, mut lease) in (1..).zip(held) {
        *lease.connection() = ();
        lease.give_back(Condition::Clean);
        assert_eq!(budget(&pool).1, (12 - home).max(8));
    }
    assert_eq!(pool.snapshot().closed.broken, 0);
    pool.set_budget(None);
    assert_eq!(budget(&pool), (20, 8));
    drop(leases(&pool, 16).await);
}

#[tokio::test(start_paused = true)]
async fn a_window_opens_ahead_and_its_end_breaks_no_lease() {
    let pool = pool(8, &[window("10 8 * * *", 5, 40)]);
    pool.warm_up(["user"]);
    time::sleep(Duration::from_secs(9 * 60 + 55)).await;
    assert_eq!(budget(&pool), (8, 2));
    time::sleep(Duration::from_secs(5)).await;
    assert_eq!(budget(&pool), (40, 10), "a quarter is warm when the window begins");
    let held = leases(&pool, 20).await;
    time::sleep(Duration::from_secs(5 * 60 + 2)).await;
    assert_eq!(budget(&pool), (8, 20), "all are held still");
    drop(held);
    time::sleep(Duration::from_secs(1)).await;
    assert_eq!(budget(&pool), (8, 8));
    assert_eq!(pool.snapshot().closed.broken, 0);
}

#[tokio::test(start_paused = true)]
async fn a_smaller_budget_under_load_is_reached_while_everybody_is_served() {
    let pool = pool(16, &[]);
    let tasks: Vec<_> = (0..32_u64)
        .map(|n| {
            let pool = pool.clone();
            tokio::spawn(async move {
                let class = pool.class("core").unwrap();
                for _ in 0..50 {
                    let lease = pool.checkout(Ask::new("user", class)).await.unwrap();
                    time::sleep(Duration::from_millis(3 + n % 5)).await;
                    lease.give_back(Condition::Clean);
                }
            })
        })
        .collect();
    time::sleep(Duration::from_millis(100)).await;
    for size in [4, 12, 2, 16, 6] {
        pool.set_budget(Some(size));
        time::sleep(Duration::from_millis(20)).await;
        let (now, held) = budget(&pool);
        assert!(now == size && held <= size, "{held} of {size}");
    }
    for task in tasks {
        task.await.unwrap();
    }
    let snapshot = pool.snapshot();
    assert_eq!((snapshot.leased, snapshot.closed.broken), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_change_of_budget_is_an_event_and_shown() {
    let pool = pool(8, &[]);
    let mut events = pool.shared.events.subscribe();
    pool.set_budget(Some(3));
    let told = events.recv().await.unwrap();
    assert_eq!(told.event, crate::event::Event::Resized { from: 8, to: 3 });
    let wanted = pool.snapshot().wanted;
    assert_eq!((wanted.configured, wanted.by_hand), (8, Some(3)));
    pool.set_capacity(2);
    assert_eq!(pool.snapshot().budget, 2, "never more than the destination takes");
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_becomes_slow_gets_fewer_connections() {
    let settings = PoolSettings {
        evidence: crate::mode::Mode::Enforce,
        ..PoolSettings::new("nothing", Budget::Fixed(40))
    };
    let pool = Pool::with_wall_clock(Nothing, settings, wall);
    let class = pool.class("core").unwrap();
    let mut ask = Ask::new("user", class);
    ask.operation = Some(crate::operation::Operation::new("feature", "select 1"));
    let work = async |hold: Duration, times: u32| {
        for _ in 0..times {
            let lease = pool.checkout(&ask).await.unwrap();
            time::sleep(hold).await;
            lease.give_back(Condition::Clean);
        }
    };
    work(Duration::from_millis(10), 4_000).await;
    assert_eq!(pool.snapshot().budget, 40);
    work(Duration::from_millis(30), 1_500).await;
    let slow = pool.snapshot().budget;
    assert!((24..40).contains(&slow), "a tenth less each ten seconds: {slow}");
    work(Duration::from_millis(10), 30_000).await;
    assert_eq!(pool.snapshot().budget, 40, "and back, one by one");
}
