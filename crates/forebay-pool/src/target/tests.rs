use std::io;

use forebay_seam::time;

use super::*;
use crate::settings::Budget;

fn opener(budget: u32) -> (Opener, Instant) {
    let now = time::now();
    (Opener::new(&PoolSettings::new("t", Budget::Fixed(budget)), budget, now), now)
}

fn refused() -> ConnectFailure {
    ConnectFailure::new(FailureKind::Unreachable, io::Error::from(io::ErrorKind::ConnectionRefused))
}

#[tokio::test(start_paused = true)]
async fn opens_are_bounded_by_rate_and_by_those_in_flight() {
    let (mut opener, start) = opener(80);
    let mut dice = Dice::new(1);
    let mut opened = 0_u32;
    for ms in 0..2_000 {
        let now = start + Duration::from_millis(ms);
        while opener.pace(now) == Pace::Now {
            opener.begin(now, &mut dice);
            opened += 1;
            assert!(opener.in_flight <= 8);
            opener.succeeded(Duration::from_millis(1), now);
        }
        let most = 40.0 * f64::from(u32::try_from(ms).unwrap()) / 1000.0 + 40.0;
        assert!(f64::from(opened) <= most + 1e-6, "{opened} opens after {ms} ms");
    }
    assert!(opened > 80, "the pace is a limit, not a stop: {opened}");
}

#[tokio::test(start_paused = true)]
async fn what_was_saved_up_at_one_pace_is_not_counted_at_another() {
    let (mut opener, start) = opener(10);
    let mut dice = Dice::new(1);
    while opener.pace(start) == Pace::Now {
        opener.begin(start, &mut dice);
        opener.succeeded(Duration::from_millis(1), start);
    }
    // A tenth of a second at five a second is half an open; at 500 it would be fifty.
    let now = start + Duration::from_millis(100);
    opener.resize(&PoolSettings::new("t", Budget::Fixed(1_000)), 1_000, now);
    opener.spaced = None;
    assert!(matches!(opener.pace(now), Pace::At(_)));
}

#[tokio::test(start_paused = true)]
async fn failures_back_off_and_one_success_ends_it() {
    let (mut opener, mut now) = opener(80);
    let mut dice = Dice::new(1);
    for n in 1..=8 {
        while let Pace::At(at) = opener.pace(now) {
            now = at;
        }
        opener.begin(now, &mut dice);
        let alone = opener.pace(now) == Pace::WhenOneEnds;
        assert!(n == 1 || alone, "one at a time while it is down");
        opener.failed(&refused(), now, &mut dice);
        assert_eq!(opener.gave_up(), n >= 5);
        assert!(opener.not_before().unwrap() <= now + BACKOFF_MOST);
    }
    assert!(opener.is_broken(now));
    now += BACKOFF_MOST;
    assert!(!opener.is_broken(now), "the next attempt may be waited for");
    opener.begin(now, &mut dice);
    opener.succeeded(Duration::from_millis(5), now);
    assert_eq!(opener.health(), Health::Up);
    assert!(opener.outage().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_busy_server_is_not_a_dead_one() {
    let (mut opener, now) = opener(80);
    opener.begin(now, &mut Dice::new(1));
    let full = ConnectFailure::new(FailureKind::Busy, io::Error::other("53300"));
    opener.failed(&full, now, &mut Dice::new(1));
    assert_eq!(opener.health(), Health::Busy);
    assert!(opener.outage().is_none() && !opener.gave_up());
    assert!(matches!(opener.pace(now), Pace::At(_)));
}

#[tokio::test(start_paused = true)]
async fn a_busy_answer_ends_an_outage_and_stays_apart_from_it() {
    let (mut opener, mut now) = opener(80);
    let mut dice = Dice::new(1);
    fail(&mut opener, 6, &mut now, &mut dice);
    assert!(opener.gave_up());
    now = opener.not_before().unwrap();
    opener.begin(now, &mut dice);
    let full = ConnectFailure::new(FailureKind::Busy, io::Error::other("full"));
    opener.failed(&full, now, &mut dice);
    assert!(!opener.gave_up() && opener.outage().is_none(), "it answers");
    assert_eq!(opener.health(), Health::Busy);
}

#[tokio::test(start_paused = true)]
async fn a_busy_server_is_asked_once_a_second() {
    let (mut opener, start) = opener(80);
    let (mut dice, mut asked) = (Dice::new(1), 0_u32);
    let full = ConnectFailure::new(FailureKind::Busy, io::Error::other("53300"));
    for _ in 0..4 {
        opener.begin(start, &mut dice);
    }
    for _ in 0..4 {
        opener.failed(&full, start, &mut dice);
    }
    for ms in 0..10_000 {
        let now = start + Duration::from_millis(ms);
        let before = opener.in_flight;
        while opener.pace(now) == Pace::Now {
            opener.begin(now, &mut dice);
            asked += 1;
        }
        for _ in before..opener.in_flight {
            opener.failed(&full, now, &mut dice);
        }
    }
    assert_eq!(asked, 9);
    let back = opener.not_before().unwrap();
    assert!(back <= start + Duration::from_secs(10), "it is found within a second");
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_restarts_is_not_given_up_for_as_long_as_it_may_take() {
    let now = time::now();
    let patience = Duration::from_secs(5);
    let settings =
        PoolSettings { restart_patience: patience, ..PoolSettings::new("t", Budget::Fixed(80)) };
    let (mut opener, mut dice) = (Opener::new(&settings, 80, now), Dice::new(1));
    let (mut at, mut attempts) = (now, 0);
    while at < now + patience {
        assert!(!opener.gave_up(), "after {:?}", at - now);
        fail(&mut opener, 1, &mut at, &mut dice);
        attempts += 1;
    }
    assert!(attempts > 15, "it is asked for often: {attempts}");
    fail(&mut opener, 1, &mut at, &mut dice);
    assert!(opener.gave_up());
}

#[tokio::test(start_paused = true)]
async fn a_restart_that_was_waited_for_does_not_speak_against_the_next_one() {
    let now = time::now();
    let patience = Duration::from_secs(5);
    let settings =
        PoolSettings { restart_patience: patience, ..PoolSettings::new("t", Budget::Fixed(80)) };
    let (mut opener, mut dice) = (Opener::new(&settings, 80, now), Dice::new(1));
    let mut at = now;
    for restart in 1..=3 {
        let down = at;
        while at < down + Duration::from_secs(3) {
            fail(&mut opener, 1, &mut at, &mut dice);
            assert!(!opener.gave_up(), "restart {restart}, after {:?}", at - down);
        }
        for _ in 0..4 {
            open_one(&mut opener, &mut at, &mut dice);
            opener.succeeded(Duration::from_millis(1), at);
        }
    }
}

/// Connects that fail, one after the other, as the pace allows.
fn fail(opener: &mut Opener, times: u32, now: &mut Instant, dice: &mut Dice) {
    for _ in 0..times {
        open_one(opener, now, dice);
        opener.failed(&refused(), *now, dice);
    }
}

fn open_one(opener: &mut Opener, now: &mut Instant, dice: &mut Dice) {
    while let Pace::At(at) = opener.pace(*now) {
        *now = at;
    }
    opener.begin(*now, dice);
}

/// How many connects may be in flight now.
fn in_flight(opener: &Opener, now: Instant, dice: &mut Dice) -> u32 {
    let mut opener = opener.clone();
    opener.tokens = f64::from(opener.concurrent);
    opener.spaced = None;
    while opener.pace(now) == Pace::Now {
        opener.begin(now, dice);
    }
    opener.in_flight
}

#[tokio::test(start_paused = true)]
async fn failures_halve_what_is_in_flight_and_each_success_doubles_it() {
    let (mut opener, mut now) = opener(80);
    let mut dice = Dice::new(1);
    assert_eq!(in_flight(&opener, now, &mut dice), 8);
    fail(&mut opener, 2, &mut now, &mut dice);
    for expected in [4, 8, 8] {
        open_one(&mut opener, &mut now, &mut dice);
        opener.succeeded(Duration::from_millis(1), now);
        assert_eq!(in_flight(&opener, now, &mut dice), expected);
    }
    fail(&mut opener, 5, &mut now, &mut dice);
    for expected in [2, 4, 8] {
        open_one(&mut opener, &mut now, &mut dice);
        opener.succeeded(Duration::from_millis(1), now);
        assert_eq!(in_flight(&opener, now, &mut dice), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_destination_where_half_of_the_connects_fail_is_given_up() {
    let (mut opener, mut now) = opener(80);
    let mut dice = Dice::new(1);
    for n in 1..=5 {
        assert!(!opener.gave_up(), "{n} of each are too few for a verdict");
        open_one(&mut opener, &mut now, &mut dice);
        opener.succeeded(Duration::from_millis(1), now);
        fail(&mut opener, 1, &mut now, &mut dice);
    }
    assert!(opener.gave_up() && opener.is_broken(now), "ten connects, five failed");
    now = opener.not_before().unwrap();
    assert_eq!(in_flight(&opener, now, &mut dice), 1, "half-open: one connect decides");
    open_one(&mut opener, &mut now, &mut dice);
    opener.succeeded(Duration::from_millis(1), now);
    fail(&mut opener, 1, &mut now, &mut dice);
    assert!(!opener.gave_up(), "what came before the outage is forgotten");
}

#[tokio::test(start_paused = true)]
async fn failures_that_are_ten_seconds_old_count_no_more() {
    let (mut opener, mut now) = opener(80);
    let mut dice = Dice::new(1);
    for _ in 0..40 {
        open_one(&mut opener, &mut now, &mut dice);
        opener.succeeded(Duration::from_millis(1), now);
        fail(&mut opener, 1, &mut now, &mut dice);
        assert!(!opener.gave_up());
        now += Duration::from_secs(3);
    }
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_the_lendable_budget_grows_in_steps() {
    let (mut opener, mut now) = opener(80);
    let mut dice = Dice::new(1);
    fail(&mut opener, 3, &mut now, &mut dice);
    open_one(&mut opener, &mut now, &mut dice);
    opener.succeeded(Duration::from_millis(1), now);
    assert_eq!(opener.ramp(80, now), 80, "a short one is none to come back from");
    fail(&mut opener, 5, &mut now, &mut dice);
    assert_eq!(opener.ramp(80, now), 80, "what is still open may be lent");
    open_one(&mut opener, &mut now, &mut dice);
    opener.succeeded(Duration::from_millis(1), now);
    let back = now;
    let mut steps = vec![opener.ramp(80, now)];
    while let Some(at) = opener.next_ramp(now) {
        assert!(at > now);
        now = at;
        steps.push(opener.ramp(80, now));
    }
    assert_eq!(steps, [20, 40, 80]);
    assert_eq!(now, back + Duration::from_secs(4));
    assert_eq!(opener.ramp(1, back), 1, "never nothing");
}

#[tokio::test(start_paused = true)]
async fn opens_at_the_pace_come_with_jitter_and_at_the_rate_on_average() {
    let (mut opener, mut now) = opener(80);
    let mut dice = Dice::new(1);
    let mut gaps = Vec::new();
    let mut last = now;
    for _ in 0..1_000 {
        open_one(&mut opener, &mut now, &mut dice);
        opener.succeeded(Duration::ZERO, now);
        gaps.push(now - last);
        last = now;
    }
    let paced = &gaps[20..];
    let distinct: std::collections::BTreeSet<_> = paced.iter().collect();
    assert!(distinct.len() > 100, "they vary: {}", distinct.len());
    let mean = paced.iter().sum::<Duration>().as_secs_f64() / 980.0;
    assert!((0.024..0.028).contains(&mean), "40 a second: {mean}");
}

#[tokio::test(start_paused = true)]
async fn while_a_destination_moves_nobody_gives_up_and_its_return_is_ramped() {
    let (mut opener, mut now) = opener(80);
    let mut dice = Dice::new(1);
    let moving = ConnectFailure::new(FailureKind::Moving, io::Error::other("a standby"));
    for _ in 0..100 {
        opener.begin(now, &mut dice);
        opener.failed(&moving, now, &mut dice);
        assert!(!opener.gave_up() && opener.outage().is_some());
        let at = opener.not_before().unwrap();
        assert!(at <= now + BACKOFF_MOST);
        now = at;
    }
    opener.begin(now, &mut dice);
    opener.succeeded(Duration::from_millis(5), now);
    assert_eq!((opener.health(), opener.ramp(80, now)), (Health::Up, 20));
}
