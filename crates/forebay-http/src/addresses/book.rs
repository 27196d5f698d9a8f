//! What is known of each address: plain values, told the time.
//!
//! Always true: at most half of the addresses are ejected, so one alone never is.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use forebay_seam::random::{self, Dice};

use super::{Known, Verdict};

/// A name that has not led to an address so often in a row does not lead there any more:
/// single answers leave some out where there are many.
const GONE_AFTER: u8 = 2;
/// For how long an address is ejected first; each time again twice as long.
const EJECTED: Duration = Duration::from_secs(10);
const EJECTED_MOST: Duration = Duration::from_secs(300);
/// What a service may ask for by `Retry-After`, at the most.
const REST_MOST: Duration = Duration::from_secs(300);
/// After a failure the name is asked for again so soon.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
struct Entry {
    address: SocketAddr,
    /// Answers in a row that did not have it.
    missing: u8,
    /// Failures in a row.
    failures: u32,
    /// Ejections since it was last well.
    ejections: u32,
    ejected_until: Option<Instant>,
}

impl Entry {
    fn is_ejected(&self, now: Instant) -> bool {
        self.ejected_until.is_some_and(|until| until > now)
    }

    fn is_gone(&self) -> bool {
        self.missing >= GONE_AFTER
    }
}

pub(super) struct Book {
    entries: Vec<Entry>,
    /// When the name is to be resolved again, at the earliest; `None`: never, once it was.
    next: Option<Instant>,
    eject_after: u32,
    /// Where the next order begins.
    turn: usize,
    dice: Dice,
    known: Known,
}

impl Book {
    pub(super) fn new(eject_after: u32) -> Self {
        Self {
            entries: Vec::new(),
            next: None,
            eject_after,
            turn: 0,
            dice: Dice::new(random::seed()),
            known: Known::default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn are_several(&self) -> bool {
        self.entries.len() > 1
    }

    /// Is the name to be resolved? Always, while nothing is known.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.entries.is_empty() || self.next.is_some_and(|next| next <= now)
    }

    /// Somebody is about to resolve it; `false`: somebody else is.
    pub(super) fn begins(&mut self, now: Instant, interval: Duration) -> bool {
        let is_due = self.is_due(now);
        if is_due {
            self.next = now.checked_add(interval);
        }
        is_due
    }

    pub(super) fn was_not_resolved(&mut self, now: Instant) {
        self.known.failures += 1;
        self.next = self.next.map(|next| next.min(now + AGAIN));
    }

    /// The name leads to `found`, and to `forbidden` others.
    pub(super) fn learn(&mut self, found: Vec<SocketAddr>, forbidden: usize) {
        self.known.resolved += 1;
        self.known.forbidden += u64::try_from(forbidden).unwrap_or(u64::MAX);
        if found.is_empty() {
            if forbidden > 0 {
                self.entries.clear();
            }
            return;
        }
        for entry in &mut self.entries {
            let is_there = found.contains(&entry.address);
            entry.missing = if is_there { 0 } else { entry.missing.saturating_add(1) };
        }
        self.entries.retain(|entry| !entry.is_gone());
        for address in found {
            if !self.entries.iter().any(|entry| entry.address == address) {
                let (failures, ejections) = (0, 0);
                let ejected_until = None;
                self.entries.push(Entry {
                    address,
                    missing: 0,
                    failures,
                    ejections,
                    ejected_until,
                });
            }
        }
    }

    /// In which order to try them: in turn, those that the last answer had and that are not
    /// ejected first, families alternating (RFC 8305, 4); the others after all.
    pub(super) fn in_order(&mut self, now: Instant) -> Vec<SocketAddr> {
        let count = self.entries.len();
        if count == 0 {
            return Vec::new();
        }
        self.turn = (self.turn + 1) % count;
        let (later, sooner) = self.entries.split_at(self.turn);
        let all = || sooner.iter().chain(later);
        let well = |entry: &&Entry| entry.missing == 0 && !entry.is_ejected(now);
        let address = |entry: &Entry| entry.address;
        let mut order = alternating(all().filter(well).map(address));
        order.extend(all().filter(|entry| !well(entry)).map(address));
        order
    }

    pub(super) fn verdict(&self, address: SocketAddr, now: Instant) -> Verdict {
        match self.entries.iter().find(|entry| entry.address == address) {
            None if self.entries.is_empty() => Verdict::Stays,
            None => Verdict::Vanished,
            Some(entry) if entry.is_ejected(now) => Verdict::Ejected,
            Some(_) => Verdict::Stays,
        }
    }

    /// Says whether that has ejected it.
    pub(super) fn failed(&mut self, address: SocketAddr, now: Instant) -> bool {
        let limit = self.eject_after;
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.address == address) else {
            return false;
        };
        entry.failures = entry.failures.saturating_add(1);
        if limit == 0 || entry.failures < limit || entry.is_ejected(now) {
            return false;
        }
        let times = entry.ejections.min(10);
        let pause = EJECTED.saturating_mul(1 << times).min(EJECTED_MOST);
        let pause = pause.mul_f64(self.dice.between(0.9..1.1));
        self.eject(address, pause, now)
    }

    pub(super) fn answered(&mut self, address: SocketAddr) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.address == address) {
            entry.failures = 0;
            entry.ejections = 0;
        }
    }

    /// Says whether it may rest.
    pub(super) fn rests(&mut self, address: SocketAddr, pause: Duration, now: Instant) -> bool {
        self.eject_after > 0 && self.eject(address, pause.min(REST_MOST), now)
    }

    fn eject(&mut self, address: SocketAddr, pause: Duration, now: Instant) -> bool {
        let ejected = self.entries.iter().filter(|entry| entry.is_ejected(now)).count();
        let may = (ejected + 1) * 2 <= self.entries.len();
        let limit = self.eject_after;
        let entry = self.entries.iter_mut().find(|entry| entry.address == address);
        let Some(entry) = entry.filter(|entry| may && !entry.is_ejected(now)) else {
            return false;
        };
        entry.ejected_until = Some(now + pause);
        entry.ejections = entry.ejections.saturating_add(1);
        // Afterwards one failure suffices.
        entry.failures = limit.saturating_sub(1);
        self.known.ejections += 1;
        true
    }

    pub(super) fn known(&self, now: Instant) -> Known {
        let count = |all: usize| u32::try_from(all).unwrap_or(u32::MAX);
        let ejected = self.entries.iter().filter(|entry| entry.is_ejected(now)).count();
        Known { addresses: count(self.entries.len()), ejected: count(ejected), ..self.known }
    }
}

/// `addresses` in their order, of each family in turn, beginning with the family of the first.
fn alternating(addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let all: Vec<_> = addresses.collect();
    let Some(first) = all.first() else { return all };
    let (same, other): (Vec<_>, Vec<_>) =
        all.iter().copied().partition(|address| address.is_ipv4() == first.is_ipv4());
    let mut order = Vec::with_capacity(all.len());
    let (mut same, mut other) = (same.into_iter(), other.into_iter());
    loop {
        let pair = [same.next(), other.next()];
        if pair.iter().all(Option::is_none) {
            return order;
        }
        order.extend(pair.into_iter().flatten());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_seam::time;

    fn at(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 443))
    }

    fn book(addresses: impl IntoIterator<Item = u8>) -> (Book, Instant) {
        let (mut book, now) = (Book::new(3), time::now());
        book.learn(addresses.into_iter().map(at).collect(), 0);
        (book, now)
    }

    #[test]
    fn a_hundred_addresses_are_used_in_turn() {
        let (mut book, now) = book(0..100);
        let firsts: std::collections::BTreeSet<_> =
            (0..100).map(|_| book.in_order(now)[0]).collect();
        assert_eq!(firsts.len(), 100);
        assert_eq!(book.in_order(now).len(), 100);
    }

    #[test]
    fn no_address_is_none() {
        let (mut book, now) = book([]);
        assert!(book.in_order(now).is_empty() && book.is_due(now));
        assert_eq!(book.verdict(at(1), now), Verdict::Stays);
    }

    #[test]
    fn families_alternate() {
        let v6 = SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 443));
        let order = alternating([at(1), at(2), at(3), v6].into_iter());
        assert_eq!(order, [at(1), v6, at(2), at(3)]);
    }

    #[test]
    fn an_address_that_two_answers_left_out_has_vanished() {
        let (mut book, now) = book([1, 2]);
        book.learn(vec![at(2)], 0);
        assert_eq!(book.verdict(at(1), now), Verdict::Stays);
        assert_eq!(book.in_order(now), [at(2), at(1)]);
        book.learn(vec![at(2)], 0);
        assert_eq!(book.verdict(at(1), now), Verdict::Vanished);
        assert_eq!(book.in_order(now), [at(2)]);
    }

    #[test]
    fn a_name_that_leads_inside_takes_everything_back() {
        let (mut book, now) = book([1, 2]);
        book.learn(Vec::new(), 1);
        assert!(book.is_empty());
        assert_eq!(book.known(now).forbidden, 1);
    }

    #[test]
    fn an_empty_answer_changes_nothing() {
        let (mut book, now) = book([1, 2]);
        book.learn(Vec::new(), 0);
        assert_eq!(book.in_order(now).len(), 2);
    }

    #[test]
    fn an_address_that_fails_in_a_row_is_ejected_and_tried_again() {
        let (mut book, now) = book([1, 2, 3]);
        book.failed(at(1), now);
        book.failed(at(1), now);
        book.answered(at(1));
        assert!(!book.failed(at(1), now) && !book.failed(at(1), now));
        assert!(book.failed(at(1), now));
        assert_eq!(book.verdict(at(1), now), Verdict::Ejected);
        assert_eq!(book.in_order(now)[2], at(1));
        let later = now + EJECTED * 2;
        assert_eq!(book.verdict(at(1), later), Verdict::Stays);
        assert!(book.failed(at(1), later), "one failure suffices now");
        assert_eq!(book.verdict(at(1), later + EJECTED), Verdict::Ejected);
    }

    #[test]
    fn half_of_them_stay_whatever_happens() {
        for count in 1..=7 {
            let (mut book, now) = book(0..count);
            for _ in 0..10 {
                for n in 0..count {
                    book.failed(at(n), now);
                }
            }
            let ejected = (0..count).filter(|n| book.verdict(at(*n), now) == Verdict::Ejected);
            assert_eq!(ejected.count(), usize::from(count / 2));
        }
    }

    #[test]
    fn an_address_may_ask_to_be_left_alone_if_there_is_another() {
        let (mut two, now) = book([1, 2]);
        assert!(two.rests(at(1), EJECTED_MOST, now));
        assert!(!two.rests(at(2), EJECTED_MOST, now));
        let (mut one, now) = book([1]);
        assert!(!one.rests(at(1), EJECTED_MOST, now));
    }
}
