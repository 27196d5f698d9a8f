use std::sync::Arc;

use forebay_seam::time;
use proptest::prelude::*;

use super::*;
use crate::request::TraceId;

fn request(n: u64) -> Request {
    let trace = TraceId::from_traceparent(&format!("00-{:032x}-00f067aa0ba902b7-01", n + 1));
    Request::new(Arc::from("acme"), trace.unwrap())
}

fn operation(name: &str) -> Operation {
    Operation::new("answer", name)
}

struct World {
    retries: Retries,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let now = time::now();
        Self { retries: Retries::new(now), now }
    }

    fn pass_time(&mut self, seconds: f64) {
        self.now += Duration::from_secs_f64(seconds);
    }

    fn ask(&mut self, n: u64, name: &str, attempt: Attempt) -> Verdict {
        let (request, operation) = (request(n), operation(name));
        let cost = Some(Duration::from_millis(10));
        self.retries.verdict(Some((&request, &operation)), attempt, cost, self.now)
    }

    fn fail(&mut self, n: u64, name: &str) {
        self.retries.failed(&request(n), &operation(name), self.now);
    }
}

#[test]
fn a_retry_is_the_same_request_and_operation_after_a_failure() {
    let mut world = World::new();
    assert_eq!(world.ask(1, "a", Attempt::Unknown), Verdict::FirstTry);
    assert_eq!(world.ask(1, "a", Attempt::Unknown), Verdict::FirstTry, "nothing failed");
    world.fail(1, "a");
    assert_eq!(world.ask(2, "a", Attempt::Unknown), Verdict::FirstTry, "another request");
    assert_eq!(world.ask(1, "b", Attempt::Unknown), Verdict::FirstTry, "another operation");
    assert_eq!(world.ask(1, "a", Attempt::Unknown), Verdict::Retry);
    assert_eq!(world.ask(1, "a", Attempt::First), Verdict::Retry, "a claim hides no failure");
}

#[test]
fn a_failure_is_forgotten_after_half_a_minute_or_a_success() {
    let mut world = World::new();
    world.fail(1, "a");
    world.pass_time(29.0);
    world.fail(2, "a");
    assert_eq!(world.ask(1, "a", Attempt::Unknown), Verdict::Retry);
    world.pass_time(2.0);
    assert_eq!(world.ask(1, "a", Attempt::Unknown), Verdict::FirstTry);
    assert_eq!(world.ask(2, "a", Attempt::Unknown), Verdict::Retry);
    world.retries.succeeded(&request(2), &operation("a"), world.now);
    assert_eq!(world.ask(2, "a", Attempt::Unknown), Verdict::FirstTry);
}

#[test]
fn three_tries_are_enough() {
    let mut world = World::new();
    for verdict in [Verdict::FirstTry, Verdict::Retry, Verdict::Retry] {
        assert_eq!(world.ask(1, "a", Attempt::Unknown), verdict);
        world.fail(1, "a");
    }
    let enough = Verdict::TooMany(Excess::Tries);
    assert_eq!(world.ask(1, "a", Attempt::Unknown), enough);
    assert_eq!(world.ask(1, "a", Attempt::First), enough);
    let counted = Counted { first_tries: 1, retries: 2, over_budget: 0, over_tries: 2 };
    assert_eq!(world.retries.counted(), counted);
}

#[test]
fn a_declared_retry_needs_no_memory() {
    let mut world = World::new();
    let cost = Some(Duration::from_millis(1));
    let verdict = world.retries.verdict(None, Attempt::Retry, cost, world.now);
    assert_eq!(verdict, Verdict::Retry);
    let verdict = world.retries.verdict(None, Attempt::Unknown, cost, world.now);
    assert_eq!(verdict, Verdict::FirstTry);
}

#[test]
fn a_retry_beyond_the_budget_is_refused() {
    let mut world = World::new();
    // 1,000 first tries pay for 100 retries, ten more are free.
    (0..1_000).for_each(|n| assert_eq!(world.ask(n, "a", Attempt::First), Verdict::FirstTry));
    let asked: Vec<_> = (0..200).map(|n| world.ask(n, "a", Attempt::Retry)).collect();
    assert!(asked[..110].iter().all(|verdict| *verdict == Verdict::Retry));
    assert!(asked[110..].iter().all(|verdict| *verdict == Verdict::TooMany(Excess::Retries)));
    world.pass_time(11.0);
    assert_eq!(world.ask(1, "a", Attempt::Retry), Verdict::Retry, "the floor is back");
}

#[test]
fn an_expensive_retry_needs_many_cheap_first_tries() {
    let mut world = World::new();
    let second = Some(Duration::from_secs(1));
    // Uses up the floor.
    (0..10).for_each(|n| assert_eq!(world.ask(n, "a", Attempt::Retry), Verdict::Retry));
    (0..999).for_each(|n| assert_eq!(world.ask(n, "a", Attempt::First), Verdict::FirstTry));
    let expensive =
        |world: &mut World| world.retries.verdict(None, Attempt::Retry, second, world.now);
    assert_eq!(expensive(&mut world), Verdict::TooMany(Excess::Retries));
    world.ask(999, "a", Attempt::First);
    assert_eq!(expensive(&mut world), Verdict::Retry);
}

#[test]
fn retries_of_unknown_cost_have_the_floor_only() {
    let mut world = World::new();
    (0..1_000).for_each(|n| assert_eq!(world.ask(n, "a", Attempt::First), Verdict::FirstTry));
    let asked = |world: &mut World| {
        world.retries.verdict(None, Attempt::Retry, None, world.now) == Verdict::Retry
    };
    assert_eq!((0..100).filter(|_| asked(&mut world)).count(), 10);
}

#[test]
fn a_storm_of_failures_is_remembered_in_bounded_memory_newest_first() {
    let mut world = World::new();
    for n in 0..100_000 {
        world.fail(n, "a");
        if n % 100 == 0 {
            world.pass_time(0.01);
        }
    }
    assert_eq!(world.retries.failures.len(), REMEMBERED);
    let known = |world: &mut World, n| {
        let (request, operation) = (request(n), operation("a"));
        world.retries.tried(Some((&request, &operation)), world.now) > 0
    };
    let newest = (99_000..100_000).filter(|n| known(&mut world, *n)).count();
    assert!(newest > 950, "{newest} of the last 1,000");
    assert!((0..80_000).filter(|n| known(&mut world, *n)).count() < 100);
}

#[test]
fn a_class_without_failures_takes_no_memory() {
    let mut world = World::new();
    (0..100).for_each(|n| _ = world.ask(n, "a", Attempt::Unknown));
    assert_eq!(world.retries.failures.capacity(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whenever one is paid for: the retries of the last ten seconds cost at most a tenth of
    /// the first tries of the last eleven. At any moment: at most ten of the last ten seconds
    /// were free.
    #[test]
    fn over_any_ten_seconds_retries_cost_a_tenth_and_the_floor(
        steps in prop::collection::vec((0..400_u64, 1..50_000_u64, 0..4_u8), 1..800),
    ) {
        let mut world = World::new();
        let (mut at, mut first, mut paid, mut free) = (0_u64, vec![], vec![], vec![]);
        for (gap, micros, kind) in steps {
            at += gap;
            world.now += Duration::from_millis(gap);
            let attempt = if kind == 0 { Attempt::Retry } else { Attempt::First };
            let [_, _, free_before] = world.retries.spent.sums(world.now);
            let cost = Some(Duration::from_micros(micros));
            let verdict = world.retries.verdict(None, attempt, cost, world.now);
            let [_, _, free_after] = world.retries.spent.sums(world.now);
            let within = |told: &[(u64, u64)], age: u64| -> Vec<u64> {
                told.iter().filter(|(then, _)| then + age >= at).map(|(_, cost)| *cost).collect()
            };
            match verdict {
                Verdict::FirstTry => first.push((at, micros)),
                Verdict::Retry if free_after > free_before => free.push((at, micros)),
                Verdict::Retry => {
                    paid.push((at, micros));
                    let cost: u64 = within(&paid, 10_000).iter().sum();
                    prop_assert!(cost * 10 <= within(&first, 11_000).iter().sum());
                }
                Verdict::TooMany(excess) => prop_assert_eq!(excess, Excess::Retries),
            }
            prop_assert!(within(&free, 10_000).len() <= 10);
        }
    }
}
