use std::time::Duration;

use proptest::prelude::*;

use super::book::COMPARED;
use super::counts::APART;
use super::*;
use crate::class::ClassName;
use crate::request::TraceId;

fn request(tenant: &str) -> Request {
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    Request::new(tenant.into(), TraceId::from_traceparent(trace).unwrap())
}

fn idle(kind: HoldKind) -> IdleTransaction {
    IdleTransaction {
        kind,
        class: ClassName::new("ai-read"),
        feature: "answer".into(),
        statement: "SELECT ?".into(),
        database: "app".into(),
        user: "agent".into(),
        application: "worker".into(),
        client: 7,
        since: time::now(),
    }
}

fn call() -> OutboundCall {
    OutboundCall::new("llm", "POST /v1/chat")
}

fn told(events: &mut broadcast::Receiver<Overlap>) -> Vec<Overlap> {
    std::iter::from_fn(|| events.try_recv().ok()).collect()
}

fn phases(told: &[Overlap]) -> Vec<(Phase, HoldKind)> {
    told.iter().map(|overlap| (overlap.phase, overlap.kind)).collect()
}

async fn pass(seconds: u64) {
    time::sleep(Duration::from_secs(seconds)).await;
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn an_overlap_is_told_at_its_beginning_its_end_and_when_its_transaction_is_over() {
    let overlaps = Arc::new(Overlaps::default());
    let mut events = overlaps.events();
    let idling = overlaps.transaction_idles(&request("a"), idle(HoldKind::Held));
    pass(1).await;
    let calling = overlaps.call_begins(Some(&request("a")), call());
    pass(2).await;
    drop(calling);
    pass(3).await;
    let at_work = idling.goes_on().unwrap();
    pass(4).await;
    drop(at_work);
    let told = told(&mut events);
    let held = HoldKind::Held;
    assert_eq!(
        phases(&told),
        [(Phase::Begins, held), (Phase::Ends, held), (Phase::Released, held)]
    );
    assert!(told.iter().all(|overlap| overlap.id == 1 && &*overlap.destination == "llm"));
    let [begins, ends, released] = &told[..] else { panic!("three") };
    assert_eq!((begins.held_before, begins.duration), (seconds(1), Duration::ZERO));
    assert_eq!((ends.held_before, ends.duration, ends.held_after), (seconds(1), seconds(2), None));
    assert_eq!((released.held_during, released.held_after), (seconds(2), Some(seconds(7))));
    let [count] = &overlaps.counts()[..] else { panic!("one family") };
    assert_eq!((count.begun, count.ended, count.seconds), (1, 1, 2.0));
}

#[tokio::test(start_paused = true)]
async fn a_query_beside_a_call_is_no_overlap() {
    let overlaps = Arc::new(Overlaps::default());
    let idling = overlaps.transaction_idles(&request("a"), idle(HoldKind::Held));
    assert!(idling.goes_on().is_none(), "there is nothing to tell of it");
    drop(overlaps.call_begins(Some(&request("a")), call()));
    assert!(overlaps.counts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_same_trace_of_another_tenant_and_a_call_of_no_request_are_others() {
    let overlaps = Arc::new(Overlaps::default());
    let idling = overlaps.transaction_idles(&request("a"), idle(HoldKind::Held));
    drop(overlaps.call_begins(Some(&request("b")), call()));
    let unknown = overlaps.call_begins(None, call());
    assert_eq!(overlaps.calls(10).len(), 1);
    drop((unknown, idling));
    assert!(overlaps.counts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_outlasts_the_transaction_is_held_for_no_longer() {
    let overlaps = Arc::new(Overlaps::default());
    let mut events = overlaps.events();
    let idling = overlaps.transaction_idles(&request("a"), idle(HoldKind::Held));
    let calling = overlaps.call_begins(Some(&request("a")), call());
    pass(1).await;
    let at_work = idling.goes_on();
    pass(1).await;
    drop(at_work);
    pass(1).await;
    drop(calling);
    let last = told(&mut events).pop().unwrap();
    assert_eq!((last.duration, last.held_after), (seconds(1), Some(Duration::ZERO)));
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_is_parked_meanwhile_is_one_overlap_that_changes() {
    let overlaps = Arc::new(Overlaps::default());
    let mut events = overlaps.events();
    let idling = overlaps.transaction_idles(&request("a"), idle(HoldKind::Held));
    let calling = overlaps.call_begins(Some(&request("a")), call());
    pass(1).await;
    idling.becomes(HoldKind::Parked);
    idling.becomes(HoldKind::Parked);
    pass(10).await;
    drop(calling);
    pass(5).await;
    let at_work = idling.goes_on().unwrap();
    pass(1).await;
    at_work.takes_connection();
    pass(2).await;
    drop(at_work);
    let told = told(&mut events);
    let (held, parked) = (HoldKind::Held, HoldKind::Parked);
    assert_eq!(
        phases(&told),
        [
            (Phase::Begins, held),
            (Phase::Changes, parked),
            (Phase::Ends, parked),
            (Phase::Released, parked)
        ]
    );
    let last = told.last().unwrap();
    assert_eq!((last.duration, last.held_during), (seconds(11), seconds(1)));
    assert_eq!(last.held_after, Some(seconds(2)));
    let [of_held, of_parked] = &overlaps.counts()[..] else { panic!("two kinds") };
    assert_eq!((of_held.kind, of_held.begun, of_held.ended, of_held.seconds), (held, 1, 0, 1.0));
    assert_eq!((of_parked.begun, of_parked.ended, of_parked.seconds), (1, 1, 10.0));
}

#[tokio::test(start_paused = true)]
async fn a_call_of_a_parked_transaction_is_an_overlap_of_kind_parked() {
    let overlaps = Arc::new(Overlaps::default());
    let mut events = overlaps.events();
    let idling = overlaps.transaction_idles(&request("a"), idle(HoldKind::Held));
    pass(3).await;
    idling.becomes(HoldKind::Parked);
    pass(3).await;
    drop(overlaps.call_begins(Some(&request("a")), call()));
    drop(idling);
    let told = told(&mut events);
    assert_eq!((told[0].phase, told[0].kind), (Phase::Begins, HoldKind::Parked));
    assert_eq!(told[0].held_before, seconds(3));
}

#[tokio::test(start_paused = true)]
async fn what_calls_beside_each_other_take_of_a_connection_counts_once() {
    let overlaps = Arc::new(Overlaps::default());
    let idling = overlaps.transaction_idles(&request("a"), idle(HoldKind::Held));
    let first = overlaps.call_begins(Some(&request("a")), call());
    pass(1).await;
    let second = overlaps.call_begins(Some(&request("a")), call());
    pass(1).await;
    idling.could_be_parked();
    pass(1).await;
    drop(first);
    pass(1).await;
    drop(second);
    pass(1).await;
    let [feature] = &overlaps.features()[..] else { panic!("one feature") };
    assert_eq!((feature.transactions, feature.held, feature.parkable), (1, 4.0, 2.0));
    assert_eq!(overlaps.counts()[0].seconds, 6.0);
    drop(idling);
}

#[tokio::test(start_paused = true)]
async fn what_goes_on_is_counted_up_to_now() {
    let overlaps = Arc::new(Overlaps::default());
    let idling = overlaps.transaction_idles(&request("a"), idle(HoldKind::Held));
    let calling = overlaps.call_begins(Some(&request("a")), call());
    pass(100).await;
    assert_eq!(overlaps.features()[0].held, 100.0);
    drop((calling, idling));
    assert_eq!(overlaps.features()[0].held, 100.0);
}

#[tokio::test(start_paused = true)]
async fn a_request_with_a_thousand_calls_is_compared_with_the_oldest_of_them() {
    let overlaps = Arc::new(Overlaps::default());
    let calls: Vec<_> =
        (0..1_000).map(|_| overlaps.call_begins(Some(&request("a")), call())).collect();
    let idling: Vec<_> =
        (0..10).map(|_| overlaps.transaction_idles(&request("a"), idle(HoldKind::Held))).collect();
    assert_eq!(overlaps.book.lock().running(), 10 * COMPARED);
    drop((calls, idling));
    assert!(overlaps.book.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_told_apart_is_bounded_and_nothing_is_left_out() {
    let overlaps = Arc::new(Overlaps::default());
    for n in 0..APART + 500 {
        let what = IdleTransaction {
            feature: format!("feature {n}").into(),
            statement: format!("SELECT c{n}").into(),
            ..idle(HoldKind::Held)
        };
        let idling = overlaps.transaction_idles(&request("a"), what);
        drop(overlaps.call_begins(Some(&request("a")), call()));
        drop(idling);
    }
    let counts = overlaps.counts();
    assert_eq!(counts.len(), APART + 1);
    assert_eq!(counts.iter().map(|count| count.ended).sum::<u64>(), APART as u64 + 500);
    let features = overlaps.features();
    assert_eq!(features.iter().map(|one| one.transactions).sum::<u64>(), APART as u64 + 500);
    assert_eq!(features.len(), APART + 1);
}

#[tokio::test(start_paused = true)]
async fn advice_is_littles_law_on_what_was_seen_and_the_worst_comes_first() {
    let overlaps = Arc::new(Overlaps::default());
    // In 20 minutes: 40 transactions of 15 s each, and 20 of 1 s.
    for _ in 0..20 {
        for (feature, times, secs) in [("slow", 2, 15), ("quick", 1, 1)] {
            for _ in 0..times {
                let what = IdleTransaction { feature: feature.into(), ..idle(HoldKind::Held) };
                let idling = overlaps.transaction_idles(&request("a"), what);
                let calling = overlaps.call_begins(Some(&request("a")), call());
                pass(secs).await;
                drop((calling, idling));
            }
        }
        pass(29).await;
    }
    let report = overlaps.report();
    assert_eq!(report.covered, 1_200.0);
    let [slow, quick] = &report.features[..] else { panic!("two features") };
    assert_eq!((&*slow.feature, &*quick.feature), ("slow", "quick"));
    assert_eq!((slow.transactions_per_hour.round(), slow.hold), (120.0, 15.0));
    assert_eq!(slow.cost.connection_seconds_per_hour.round(), 1_800.0);
    assert!((slow.cost.connections - 0.5).abs() < 1e-6, "{slow:?}");
    assert_eq!(slow.cost, slow.splitting_saves);
    assert_eq!(slow.parking_saves.connections, 0.0, "nothing was proven to be parkable");
    assert_eq!(slow.worst[0].overlaps_per_hour.round(), 120.0);
    pass(2 * 3_600).await;
    assert_eq!(overlaps.report().features, [], "it is of the last hour");
}

/// What may happen, by chance. Numbers choose one of what there is.
#[derive(Debug, Clone)]
enum Step {
    Idles(u8),
    GoesOn(usize),
    IdlesAgain(usize),
    Over(usize),
    Becomes(usize, HoldKind),
    Calls(u8),
    CallEnds(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let which = any::<usize>();
    let kind = prop_oneof![Just(HoldKind::Held), Just(HoldKind::Parked)];
    prop_oneof![
        (0..3u8).prop_map(Step::Idles),
        which.prop_map(Step::GoesOn),
        which.prop_map(Step::IdlesAgain),
        which.prop_map(Step::Over),
        (which, kind).prop_map(|(which, kind)| Step::Becomes(which, kind)),
        (0..3u8).prop_map(Step::Calls),
        which.prop_map(Step::CallEnds),
    ]
}

/// A transaction as the test knows it.
enum Side {
    Idle(Idling),
    Work(Option<AtWork>),
}

/// Takes one of `all`, if there is one.
fn one<T>(all: &mut Vec<T>, which: usize) -> Option<T> {
    (!all.is_empty()).then(|| all.swap_remove(which % all.len()))
}

proptest! {
    #[test]
    fn whatever_begins_or_ends_first_each_overlap_is_found_once(
        steps in prop::collection::vec(step(), 1..COMPARED)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let overlaps = Arc::new(Overlaps::default());
            let mut events = overlaps.events();
            let mut transactions: Vec<(u8, u64, Side)> = Vec::new();
            let mut calls: Vec<(u8, u64, Calling)> = Vec::new();
            // Pairs of a transaction and a call, as a plain comparison finds them.
            let (mut begun, mut ended) = (Vec::new(), Vec::new());
            let mut next = 0;
            let what = |client| IdleTransaction { client, ..idle(HoldKind::Held) };
            let of = |who: u8| request(&who.to_string());
            for step in steps {
                time::sleep(Duration::from_millis(10)).await;
                match step {
                    Step::Idles(who) => {
                        next += 1;
                        let idling = overlaps.transaction_idles(&of(who), what(next));
                        begun.extend(beside(&calls, who).map(|call| (next, call)));
                        transactions.push((who, next, Side::Idle(idling)));
                    }
                    Step::GoesOn(which) => {
                        let Some((who, id, side)) = one(&mut transactions, which) else { continue };
                        let side = match side {
                            Side::Idle(idling) => {
                                ended.extend(beside(&calls, who).map(|call| (id, call)));
                                Side::Work(idling.goes_on())
                            }
                            side @ Side::Work(_) => side,
                        };
                        transactions.push((who, id, side));
                    }
                    Step::IdlesAgain(which) => {
                        let Some((who, id, side)) = one(&mut transactions, which) else { continue };
                        let side = match side {
                            Side::Work(at_work) => {
                                begun.extend(beside(&calls, who).map(|call| (id, call)));
                                Side::Idle(match at_work {
                                    Some(at_work) => at_work.idles(&of(who), what(id)),
                                    None => overlaps.transaction_idles(&of(who), what(id)),
                                })
                            }
                            side @ Side::Idle(_) => side,
                        };
                        transactions.push((who, id, side));
                    }
                    Step::Over(which) => {
                        let Some((who, id, side)) = one(&mut transactions, which) else { continue };
                        if let Side::Idle(_) = side {
                            ended.extend(beside(&calls, who).map(|call| (id, call)));
                        }
                        drop(side);
                    }
                    Step::Becomes(which, kind) => {
                        if let Some((_, _, Side::Idle(idling))) =
                            transactions.get(which % transactions.len().max(1))
                        {
                            idling.becomes(kind);
                        }
                    }
                    Step::Calls(who) => {
                        next += 1;
                        let what = OutboundCall::new("llm", next.to_string());
                        let calling = overlaps.call_begins(Some(&of(who)), what);
                        begun.extend(idle_of(&transactions, who).map(|id| (id, next)));
                        calls.push((who, next, calling));
                    }
                    Step::CallEnds(which) => {
                        let Some((who, id, calling)) = one(&mut calls, which) else { continue };
                        ended.extend(idle_of(&transactions, who).map(|idle| (idle, id)));
                        drop(calling);
                    }
                }
            }
            for (who, id, side) in transactions.drain(..) {
                if let Side::Idle(_) = side {
                    ended.extend(beside(&calls, who).map(|call| (id, call)));
                }
                drop(side);
            }
            drop(calls);
            let (mut told_begun, mut told_ended, mut released) = (Vec::new(), Vec::new(), 0);
            let mut found = 0_u64;
            for overlap in told(&mut events) {
                let pair = (overlap.client, overlap.operation.parse::<u64>().unwrap());
                assert!(overlap.held_during <= overlap.duration);
                match overlap.phase {
                    Phase::Begins => {
                        found += 1;
                        assert_eq!(overlap.id, found, "each has a number of its own");
                        told_begun.push(pair);
                    }
                    Phase::Changes => {}
                    Phase::Ends => told_ended.push(pair),
                    Phase::Released => released += 1,
                }
            }
            for pairs in [&mut begun, &mut ended, &mut told_begun, &mut told_ended] {
                pairs.sort_unstable();
            }
            assert_eq!(told_begun, begun);
            assert_eq!(told_ended, ended);
            assert_eq!(begun, ended, "and what began has ended");
            assert_eq!(released, begun.len());
            assert!(overlaps.book.lock().is_empty(), "nothing is kept of what is over");
            let counts = overlaps.counts();
            assert_eq!(counts.iter().map(|count| count.ended).sum::<u64>(), found);
        });
    }
}

fn beside(calls: &[(u8, u64, Calling)], who: u8) -> impl Iterator<Item = u64> {
    calls.iter().filter(move |(of, ..)| *of == who).map(|(_, id, _)| *id)
}

fn idle_of(transactions: &[(u8, u64, Side)], who: u8) -> impl Iterator<Item = u64> {
    let idle = transactions.iter().filter(|(.., side)| matches!(side, Side::Idle(_)));
    idle.filter(move |(of, ..)| *of == who).map(|(_, id, _)| *id)
}
