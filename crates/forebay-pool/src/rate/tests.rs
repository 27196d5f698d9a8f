use std::time::Instant;

use proptest::prelude::*;

use forebay_seam::time;

use super::book::{Book, Entry};
use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn rate(limit: u64, burst: u64) -> Option<Rate> {
    Some(Rate::new(limit, MINUTE, burst).unwrap())
}

fn requests(limit: u64) -> Limits {
    Limits { requests: rate(limit, limit), tokens: None }
}

fn tokens(limit: u64) -> Limits {
    Limits { requests: None, tokens: rate(limit, limit) }
}

fn call(tokens: u64) -> Amounts {
    Amounts { requests: 1, tokens }
}

fn limits(mode: Mode, whole: Limits, each_tenant: Limits) -> Arc<RateLimits> {
    RateLimits::new(RateSettings { mode, whole, each_tenant, tenants: HashMap::new() })
}

fn admit(limits: &Arc<RateLimits>, tenant: &str, amounts: Amounts) -> Reservation {
    match limits.reserve(&tenant.into(), amounts) {
        Verdict::Admit(reservation) => reservation,
        Verdict::Refuse(refused) => panic!("{refused:?}"),
    }
}

fn refuse(limits: &Arc<RateLimits>, tenant: &str, amounts: Amounts) -> Refused {
    match limits.reserve(&tenant.into(), amounts) {
        Verdict::Admit(_) => panic!("admitted"),
        Verdict::Refuse(refused) => refused,
    }
}

fn send(limits: &Arc<RateLimits>, tenant: &str, amounts: Amounts) {
    admit(limits, tenant, amounts).sent();
}

#[tokio::test(start_paused = true)]
async fn who_exceeds_a_limit_is_told_when_to_come_back() {
    let limits = limits(Mode::Enforce, requests(60), Limits::default());
    for _ in 0..60 {
        send(&limits, "acme", call(0));
    }
    let refused = refuse(&limits, "acme", call(0));
    assert_eq!(refused.cause, Cause::Limit(Unit::Requests));
    assert_eq!(refused.scope, Scope::Destination);
    let wait = refused.retry_after.as_secs_f64();
    assert!((1.0..=1.25).contains(&wait), "{wait}");
    time::sleep(Duration::from_secs(1)).await;
    send(&limits, "acme", call(0));
    refuse(&limits, "acme", call(0));
    assert_eq!(limits.snapshot().refused[0].count, 2);
}

#[tokio::test(start_paused = true)]
async fn a_tenant_does_not_use_up_anothers_limit() {
    let limits = limits(Mode::Enforce, requests(100), requests(2));
    send(&limits, "acme", call(0));
    send(&limits, "acme", call(0));
    assert_eq!(refuse(&limits, "acme", call(0)).scope, Scope::Tenant);
    send(&limits, "globex", call(0));
    let standings = limits.standings(&"acme".into());
    let left: Vec<_> = standings.iter().map(|s| (s.scope, s.remaining)).collect();
    assert_eq!(left, [(Scope::Destination, 97), (Scope::Tenant, 0)]);
    let seen = limits.snapshot();
    assert_eq!((seen.tenants, seen.tenants_limited), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_tenant_may_have_limits_of_its_own() {
    let tenants = [("big".into(), requests(5))].into();
    let settings = RateSettings {
        mode: Mode::Enforce,
        each_tenant: requests(1),
        tenants,
        ..RateSettings::default()
    };
    let limits = RateLimits::new(settings);
    (0..5).for_each(|_| send(&limits, "big", call(0)));
    refuse(&limits, "big", call(0));
    send(&limits, "small", call(0));
    refuse(&limits, "small", call(0));
}

#[tokio::test(start_paused = true)]
async fn what_was_reserved_too_much_comes_back() {
    let limits = limits(Mode::Enforce, tokens(1_000), Limits::default());
    let mut first = admit(&limits, "acme", call(900));
    first.sent();
    refuse(&limits, "acme", call(200));
    first.used(100);
    assert_eq!(limits.snapshot().limits[0].reserved, 900);
    drop(first);
    let seen = limits.snapshot();
    assert_eq!(
        (seen.limits[0].remaining, seen.limits[0].reserved, seen.tokens_used),
        (900, 0, 100)
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_used_beyond_the_reservation_is_paid_before_others_go() {
    let limits = limits(Mode::Enforce, tokens(600), Limits::default());
    let mut reservation = admit(&limits, "acme", call(100));
    reservation.used(1_000);
    drop(reservation);
    // 400 in debt, 10 come in each second.
    let wait = refuse(&limits, "acme", call(1)).retry_after;
    assert!((40.1..=50.2).contains(&wait.as_secs_f64()), "{wait:?}");
    // What uses nothing is not held up by a debt.
    drop(admit(&limits, "acme", call(0)));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_claims_the_world_closes_a_service_for_one_window_at_most() {
    let limits = limits(Mode::Enforce, tokens(600), Limits::default());
    admit(&limits, "acme", call(1)).used(u64::MAX);
    time::sleep(MINUTE + Duration::from_millis(101)).await;
    drop(admit(&limits, "acme", call(1)));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_never_went_out_costs_nothing() {
    let limits = limits(Mode::Enforce, requests(1), Limits::default());
    drop(admit(&limits, "acme", call(5)));
    send(&limits, "acme", call(5));
    refuse(&limits, "acme", call(5));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_broke_off_pays_what_was_reserved_or_seen() {
    let limits = limits(Mode::Enforce, tokens(1_000), Limits::default());
    let mut one = admit(&limits, "acme", call(100));
    one.sent();
    one.at_least(30);
    drop(one);
    let mut other = admit(&limits, "acme", call(100));
    other.sent();
    other.at_least(300);
    drop(other);
    assert_eq!(limits.snapshot().limits[0].remaining, 600);
}

#[tokio::test(start_paused = true)]
async fn a_call_larger_than_the_burst_waits_for_a_full_bucket_and_goes_on_debt() {
    let limits = limits(Mode::Enforce, tokens(600), Limits::default());
    send(&limits, "acme", call(600));
    time::sleep(Duration::from_secs(59)).await;
    refuse(&limits, "acme", call(900));
    time::sleep(Duration::from_secs(1)).await;
    send(&limits, "acme", call(900));
    time::sleep(Duration::from_secs(30)).await;
    refuse(&limits, "acme", call(1));
}

#[tokio::test(start_paused = true)]
async fn observing_refuses_nobody_and_counts_what_would_be() {
    let limits = limits(Mode::Observe, requests(2), Limits::default());
    (0..10).for_each(|_| send(&limits, "acme", call(0)));
    let seen = limits.snapshot();
    assert_eq!((seen.admitted, seen.refused[0].count), (2, 8));
}

#[tokio::test(start_paused = true)]
async fn limits_that_are_off_count_nothing() {
    let limits = limits(Mode::Off, requests(1), requests(1));
    limits.rest(&Account::Destination, MINUTE);
    (0..10).for_each(|_| send(&limits, "acme", call(0)));
    assert_eq!(limits.snapshot().admitted, 0);
}

fn said(remaining: u64, refill: Refill) -> Announcement {
    let (unit, limit) = (Unit::Requests, Some(60));
    Announcement { unit, limit, remaining, reset: MINUTE, refill }
}

#[tokio::test(start_paused = true)]
async fn what_a_service_announces_holds_until_its_reset() {
    let limits = limits(Mode::Enforce, Limits::default(), Limits::default());
    limits.announced(&Account::Destination, said(1, Refill::AtOnce));
    send(&limits, "acme", call(0));
    let refused = refuse(&limits, "globex", call(0));
    assert_eq!(refused.cause, Cause::Announced(Unit::Requests));
    assert!(refused.retry_after >= MINUTE);
    time::sleep(MINUTE).await;
    (0..200).for_each(|_| send(&limits, "acme", call(0)));
}

#[tokio::test(start_paused = true)]
async fn what_comes_back_bit_by_bit_is_not_waited_for_as_a_whole() {
    let limits = limits(Mode::Enforce, Limits::default(), Limits::default());
    limits.announced(&Account::Destination, said(0, Refill::Gradual));
    let wait = refuse(&limits, "acme", call(0)).retry_after;
    assert!((1.0..=1.25).contains(&wait.as_secs_f64()), "{wait:?}");
    time::sleep(Duration::from_secs(1)).await;
    send(&limits, "acme", call(0));
    refuse(&limits, "acme", call(0));
}

#[tokio::test(start_paused = true)]
async fn the_newest_announcement_counts_and_older_calls_are_thought_to_be_in_it() {
    let limits = limits(Mode::Enforce, Limits::default(), Limits::default());
    limits.announced(&Account::Destination, said(5, Refill::AtOnce));
    let older = admit(&limits, "acme", call(0));
    limits.announced(&Account::Destination, said(1, Refill::AtOnce));
    // It is given back unsent; the announcement that it was taken from is gone.
    drop(older);
    send(&limits, "acme", call(0));
    refuse(&limits, "acme", call(0));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_limits_one_tenants_account_limits_no_other() {
    let limits = limits(Mode::Enforce, Limits::default(), Limits::default());
    limits.rest(&Account::Tenant("acme".into()), Duration::from_secs(5));
    let refused = refuse(&limits, "acme", call(0));
    assert_eq!((refused.scope, refused.cause), (Scope::Tenant, Cause::Rests));
    send(&limits, "globex", call(0));
    time::sleep(Duration::from_secs(5)).await;
    send(&limits, "acme", call(0));
}

#[tokio::test(start_paused = true)]
async fn no_service_is_left_alone_for_longer_than_ten_minutes() {
    let limits = limits(Mode::Enforce, Limits::default(), Limits::default());
    let year = Duration::from_secs(365 * 24 * 3600);
    limits.rest(&Account::Destination, year);
    limits
        .announced(&Account::Destination, Announcement { reset: year, ..said(0, Refill::AtOnce) });
    refuse(&limits, "acme", call(0));
    time::sleep(Duration::from_secs(600)).await;
    send(&limits, "acme", call(0));
}

#[test]
fn endless_new_tenants_take_no_endless_memory() {
    let now = time::now();
    let settings = RateSettings { each_tenant: requests(10), ..RateSettings::default() };
    let mut book = Book::new(settings, now);
    for n in 0..10_000 {
        let entry = book.reserve(&n.to_string().into(), call(0), now).unwrap();
        // What was thrown away is not settled on a successor's account.
        book.settle(&entry, Amounts::default());
    }
    assert_eq!(book.tenants(now).0, 4_096);
}

#[test]
fn a_rate_that_cannot_be_meant_is_an_error() {
    assert_eq!(Rate::new(0, MINUTE, 1), Err(RateError::Limit(0)));
    assert_eq!(Rate::new(1, MINUTE, 0), Err(RateError::Burst(0)));
    assert_eq!(Rate::new(1, Duration::ZERO, 1), Err(RateError::Window));
}

/// One thing that happens in a random run.
#[derive(Debug, Clone)]
enum Step {
    Pass { millis: u64 },
    Reserve { tenant: u8, tokens: u64 },
    Settle { which: usize, used: Option<u64> },
    Announce { remaining: u64, seconds: u64, refill: Refill },
}

fn step() -> impl Strategy<Value = Step> {
    let refill = prop_oneof![Just(Refill::AtOnce), Just(Refill::Gradual)];
    prop_oneof![
        3 => (0..20_000_u64).prop_map(|millis| Step::Pass { millis }),
        6 => (0..3_u8, 0..150_u64).prop_map(|(tenant, tokens)| Step::Reserve { tenant, tokens }),
        3 => (0..64_usize, proptest::option::of(0..200_u64))
            .prop_map(|(which, used)| Step::Settle { which, used }),
        1 => (0..20_u64, 0..120_u64, refill).prop_map(|(remaining, seconds, refill)| {
            Step::Announce { remaining, seconds, refill }
        }),
    ]
}

proptest! {
    #[test]
    fn no_window_admits_more_than_limit_and_burst(
        steps in proptest::collection::vec(step(), 1..400),
        limit in 1..40_u64, burst in 1..40_u64, most in 1..400_u64, large in 151..400_u64,
    ) {
        let now = time::now();
        let whole = Limits { requests: rate(limit, burst), tokens: rate(most, large) };
        let settings = RateSettings { whole, each_tenant: requests(10), ..RateSettings::default() };
        let mut book = Book::new(settings, now);
        let (mut now, mut out) = (now, Vec::<Entry>::new());
        // When, how many tokens; by tenant.
        let mut admitted: Vec<(Instant, u64, u8)> = Vec::new();
        for step in steps {
            match step {
                Step::Pass { millis } => now += Duration::from_millis(millis),
                Step::Reserve { tenant, tokens } => {
                    let name: Arc<str> = tenant.to_string().into();
                    match book.reserve(&name, call(tokens), now) {
                        Ok(entry) => {
                            out.push(entry);
                            admitted.push((now, tokens, tenant));
                        }
                        Err(refused) => prop_assert!(!refused.retry_after.is_zero()),
                    }
                }
                Step::Settle { which, used } => if !out.is_empty() {
                    let entry = out.swap_remove(which % out.len());
                    // Never less than was reserved: then what is admitted is what is used.
                    let used = used.map_or(entry.amounts, |used| {
                        call(used.max(entry.amounts.tokens))
                    });
                    book.settle(&entry, used);
                },
                Step::Announce { remaining, seconds, refill } => {
                    let reset = Duration::from_secs(seconds);
                    let said = Announcement { reset, ..said(remaining, refill) };
                    book.announce(&Account::Destination, said, now);
                }
            }
        }
        for (from, _, _) in &admitted {
            let inside = admitted.iter().filter(|(at, _, _)| at >= from && *at < *from + MINUTE);
            let (count, tokens) = inside.clone().fold((0, 0), |(n, sum), (_, t, _)| (n + 1, sum + t));
            prop_assert!(count <= limit + burst, "{count} calls");
            prop_assert!(tokens <= most + large, "{tokens} tokens");
            for tenant in 0..3 {
                prop_assert!(inside.clone().filter(|(_, _, t)| *t == tenant).count() <= 20);
            }
        }
        for entry in out.drain(..) {
            book.settle(&entry, Amounts::default());
        }
        let tenant = "0".into();
        prop_assert!(book.standings(Some(&tenant), now).iter().all(|s| s.reserved == 0));
        // Whatever happened, it ends: a debt is as large as the burst at the most (400), at
        // the slowest rate of one a minute.
        let later = now + MINUTE * 801;
        let standings = book.standings(Some(&tenant), later);
        prop_assert!(standings.iter().all(|s| s.remaining == s.rate.burst() && s.reset.is_zero()));
    }

    #[test]
    fn whoever_comes_back_when_told_is_admitted(
        calls in proptest::collection::vec(0..300_u64, 1..50), burst in 1..300_u64,
    ) {
        let mut now = time::now();
        let whole = Limits { requests: rate(7, 3), tokens: rate(501, burst) };
        let mut book = Book::new(RateSettings { whole, ..RateSettings::default() }, now);
        for tokens in calls {
            let tenant = "acme".into();
            if let Err(refused) = book.reserve(&tenant, call(tokens), now) {
                now += refused.retry_after;
                prop_assert!(book.reserve(&tenant, call(tokens), now).is_ok());
            }
        }
    }
}
