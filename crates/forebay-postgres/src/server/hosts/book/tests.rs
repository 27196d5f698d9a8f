use forebay_seam::time;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn book(attrs: SessionAttrs, hosts: usize) -> Book {
    Book::new(Wanted { attrs, max_lag: None }, hosts)
}

fn primary(timeline: u32) -> Findings {
    let history = Some(History { cluster: "one".into(), timeline });
    Findings { role: Some(Role::Primary), history, lag: None }
}

fn standby(lag: Option<Duration>) -> Findings {
    Findings { role: Some(Role::Standby), history: None, lag }
}

fn order(book: &Book, now: Instant) -> Vec<usize> {
    let mut order: Vec<_> = (0..book.hosts.len()).collect();
    book.sort(&mut order, now);
    order
}

#[test]
fn hosts_in_trouble_are_tried_last_for_longer_each_time() {
    let (mut book, now) = (book(SessionAttrs::Any, 3), time::now());
    assert_eq!(order(&book, now), [0, 1, 2]);
    book.failed(0, Trouble::Down, now);
    assert_eq!(order(&book, now), [1, 2, 0]);
    book.failed(1, Trouble::Down, now + SECOND / 2);
    assert_eq!(order(&book, now + SECOND / 2), [2, 0, 1], "whose pause ends first comes first");
    assert_eq!(order(&book, now + SECOND), [0, 2, 1]);
    book.failed(0, Trouble::Down, now + SECOND);
    assert_eq!(order(&book, now + SECOND * 2), [1, 2, 0], "twice as long");
    for _ in 0..100 {
        book.failed(0, Trouble::Down, now);
    }
    assert_eq!(order(&book, now + PAUSE_MOST), [0, 1, 2]);
}

#[test]
fn one_failure_is_none_of_its_connections_and_two_are() {
    let (mut book, now) = (book(SessionAttrs::Any, 2), time::now());
    assert_eq!(book.failed(0, Trouble::Down, now), []);
    assert_eq!(book.failed(0, Trouble::Down, now), [Consequence::Replace(0)]);
    assert_eq!(book.failed(0, Trouble::Down, now), [], "said once");
    for _ in 0..9 {
        assert_eq!(book.failed(1, Trouble::Full, now), [], "it is there");
    }
    assert!(book.is_usable());
}

#[test]
fn of_two_primaries_the_newer_history_wins_whoever_is_seen_first() {
    for stale_first in [true, false] {
        let (mut book, now) = (book(SessionAttrs::ReadWrite, 2), time::now());
        let (verdict, consequences) = match stale_first {
            true => {
                assert_eq!(book.found(0, primary(1), now).0, Verdict::Use(Fit::Wanted));
                book.found(1, primary(2), now)
            }
            false => {
                assert_eq!(book.found(1, primary(2), now).0, Verdict::Use(Fit::Wanted));
                book.found(0, primary(1), now)
            }
        };
        assert_eq!(consequences, [Consequence::Fence(0)]);
        let refused = Verdict::Refuse(Trouble::Stale);
        assert_eq!(verdict, if stale_first { Verdict::Use(Fit::Wanted) } else { refused });
        assert_eq!(book.found(0, primary(1), now), (refused, vec![]), "and stays fenced");
        assert_eq!((book.fenced, book.failovers), (1, u64::from(stale_first)));
        assert_eq!(order(&book, now), [1, 0]);
        // Made anew from the winner and promoted in its turn, it may come back.
        let (verdict, consequences) = book.found(0, primary(3), now);
        assert_eq!(verdict, Verdict::Use(Fit::Wanted));
        assert_eq!(consequences, [Consequence::Fence(1), Consequence::Release(0)]);
    }
}

#[test]
fn nothing_is_said_of_primaries_that_are_not_of_one_cluster() {
    let (mut book, now) = (book(SessionAttrs::ReadWrite, 2), time::now());
    book.found(0, primary(7), now);
    let mut other = primary(1);
    if let Some(history) = &mut other.history {
        history.cluster = "another".into();
    }
    assert_eq!(book.found(1, other.clone(), now), (Verdict::Use(Fit::Wanted), vec![]));
    // The same host with a new cluster: that counts from now on.
    book.found(0, other, now);
    assert_eq!(book.found(0, primary(1), now).0, Verdict::Use(Fit::Wanted));
}

#[test]
fn a_stale_primary_is_forgiven_by_hand() {
    let (mut book, now) = (book(SessionAttrs::Primary, 2), time::now());
    book.found(1, primary(2), now);
    assert_eq!(book.found(0, primary(1), now).0, Verdict::Refuse(Trouble::Stale));
    book.forget();
    assert_eq!(book.found(0, primary(1), now).0, Verdict::Use(Fit::Wanted));
}

#[test]
fn a_standby_that_was_promoted_is_no_standby_any_more() {
    let (mut book, now) = (book(SessionAttrs::Standby, 2), time::now());
    assert_eq!(book.found(0, standby(None), now), (Verdict::Use(Fit::Wanted), vec![]));
    let (verdict, consequences) = book.found(0, primary(2), now);
    assert_eq!(verdict, Verdict::Refuse(Trouble::WrongRole));
    assert_eq!(consequences, [Consequence::Replace(0)]);
    assert!(book.is_usable(), "nobody has looked at the other");
    book.failed(1, Trouble::Down, now);
    assert!(!book.is_usable());
}

#[test]
fn a_standby_too_far_behind_is_not_used_until_it_has_caught_up() {
    let wanted = Wanted { attrs: SessionAttrs::Standby, max_lag: Some(SECOND * 10) };
    let (mut book, now) = (Book::new(wanted, 1), time::now());
    assert_eq!(book.found(0, standby(Some(SECOND)), now).0, Verdict::Use(Fit::Wanted));
    let (verdict, consequences) = book.found(0, standby(Some(SECOND * 11)), now);
    assert_eq!(verdict, Verdict::Refuse(Trouble::Behind));
    assert_eq!(consequences, [Consequence::Replace(0)]);
    assert!(!book.is_usable());
    assert_eq!(book.found(0, standby(Some(SECOND)), now), (Verdict::Use(Fit::Wanted), vec![]));
    assert_eq!(book.found(0, standby(None), now).0, Verdict::Use(Fit::Wanted), "nobody knows");
}

#[test]
fn a_stale_primary_does_not_stand_in_for_a_standby() {
    let (mut book, now) = (book(SessionAttrs::PreferStandby, 3), time::now());
    let old = book.found(0, primary(1), now);
    assert_eq!(old, (Verdict::Use(Fit::Acceptable), vec![]));
    let (verdict, consequences) = book.found(1, primary(2), now);
    assert_eq!(verdict, Verdict::Use(Fit::Acceptable));
    assert_eq!(consequences, [Consequence::Fence(0)]);
    assert_eq!(book.found(0, primary(1), now).0, Verdict::Refuse(Trouble::Stale));
    assert_eq!(book.found(2, standby(None), now).0, Verdict::Use(Fit::Wanted));
    assert_eq!(book.failovers, 0, "none of them is the one that is wanted");
}
