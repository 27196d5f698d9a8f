use std::io;
use std::time::Duration;

use forebay_seam::time;

use super::*;
use crate::class::{ClassSettings, Kind};
use crate::connect::FailureKind;
use crate::mode::Mode;
use crate::settings::Budget;

const SECOND: Duration = Duration::from_secs(1);

/// A pool of `budget` connections with one class.
fn pool(budget: u32) -> (DryPool, ClassId, Instant) {
    let class = ClassSettings { kind: Kind::Core, mode: Mode::Off, ..ClassSettings::default() };
    let settings = PoolSettings {
        classes: vec![(ClassName::new("work"), class)],
        seed: 1,
        ..PoolSettings::new("dry", Budget::Fixed(budget))
    };
    let now = time::now();
    let pool = DryPool::new(settings, now);
    let class = pool.class("work").unwrap();
    (pool, class, now)
}

fn waits(answer: Answer) -> Place {
    let Answer::Waiting(place, _) = answer else { panic!("{answer:?}") };
    place
}

/// The connection that the pool wants opened, once it is.
fn open(pool: &mut DryPool, now: Instant) -> Connection {
    let Some(News::Open(connection)) = pool.news() else { panic!("it wants none") };
    pool.opened(connection, now);
    connection
}

#[test]
fn a_connection_goes_from_one_caller_to_the_next_in_line() {
    let (mut pool, class, now) = pool(1);
    let ask = Ask::new(7, class);
    let first = waits(pool.ask(&ask, now));
    let second = waits(pool.ask(&ask, now));
    let connection = open(&mut pool, now);
    assert_eq!(pool.news(), Some(News::Granted(first, connection)));
    pool.give_back(connection, Condition::Clean, now + SECOND);
    assert_eq!(pool.news(), Some(News::Granted(second, connection)));
    pool.give_back(connection, Condition::Clean, now + SECOND);
    assert_eq!(pool.ask(&ask, now + SECOND), Answer::Granted(connection));
    assert_eq!(pool.news(), None);
}

#[test]
fn what_is_decided_is_told_once_and_cannot_be_changed() {
    let (mut pool, class, now) = pool(1);
    let ask = Ask::new(0, class);
    let served = waits(pool.ask(&ask, now));
    let late = waits(pool.ask(&ask, now));
    let gone = waits(pool.ask(&ask, now));
    let connection = open(&mut pool, now);
    assert_eq!(pool.news(), Some(News::Granted(served, connection)));
    pool.expire(late, now + SECOND);
    assert_eq!(pool.news(), Some(News::Refused(late, Why::TimedOut)));
    pool.abandon(gone, now + SECOND);
    for place in [served, late, gone] {
        pool.expire(place, now + SECOND);
        pool.abandon(place, now + SECOND);
    }
    pool.give_back(connection, Condition::Clean, now + SECOND);
    pool.give_back(connection, Condition::Clean, now + SECOND);
    assert_eq!(pool.news(), None);
    assert_eq!(pool.snapshot(now + SECOND).idle, 1);
}

#[test]
fn who_was_given_a_dead_connection_asks_again_in_its_place() {
    let (mut pool, class, now) = pool(1);
    let ask = Ask::new(0, class);
    let place = waits(pool.ask(&ask, now));
    let dead = open(&mut pool, now);
    assert_eq!(pool.news(), Some(News::Granted(place, dead)));
    let behind = waits(pool.ask(&ask, now + SECOND));
    let again = waits(pool.was_dead(dead, &ask, now, now + SECOND));
    assert_eq!(pool.news(), Some(News::Closed(dead)));
    let fresh = open(&mut pool, now + SECOND);
    assert_eq!(pool.news(), Some(News::Granted(again, fresh)));
    pool.give_back(fresh, Condition::Broken, now + SECOND);
    assert_eq!(pool.news(), Some(News::Closed(fresh)));
    pool.abandon(behind, now + SECOND);
}

#[test]
fn a_destination_that_is_down_is_told_when_the_pool_has_given_up() {
    let (mut pool, class, mut now) = pool(1);
    let place = waits(pool.ask(&Ask::new(0, class), now));
    let told = loop {
        match pool.news() {
            Some(News::Open(connection)) => {
                let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
                let why = ConnectFailure::new(FailureKind::Unreachable, refused);
                pool.open_failed(connection, why, now);
            }
            Some(news) => break news,
            None => {
                now = pool.due().max(now);
                pool.tick(now);
            }
        }
    };
    assert_eq!(told, News::Refused(place, Why::Unreachable));
}
