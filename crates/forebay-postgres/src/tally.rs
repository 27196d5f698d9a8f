//! What the clients of one database and user did: counted where it happens, in plain fields of
//! the session, and added up when an answer is complete.
//!
//! Figures never go back. Averages are of the last period that is over, between two samples
//! that a task takes. Always true: at most [`MOST_PAIRS`] pairs are told apart; what comes
//! after is counted under one name.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use forebay_seam::sync::Mutex;

/// Pairs of database and user that have figures of their own.
const MOST_PAIRS: usize = 10_000;
/// The pair of all who come after.
const OTHERS: &str = "(other)";
/// Bytes that a session counts for itself before it adds them up.
const WORTH_ADDING: u32 = 1 << 20;

/// What is counted, in the order in which it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figure {
    Assignments,
    Transactions,
    Queries,
    Received,
    Sent,
    /// Microseconds, as all times.
    TransactionTime,
    QueryTime,
    WaitTime,
    ClientParses,
    ServerParses,
    Binds,
    Logins,
}

impl Figure {
    pub(crate) const ALL: [Self; 12] = [
        Self::Assignments,
        Self::Transactions,
        Self::Queries,
        Self::Received,
        Self::Sent,
        Self::TransactionTime,
        Self::QueryTime,
        Self::WaitTime,
        Self::ClientParses,
        Self::ServerParses,
        Self::Binds,
        Self::Logins,
    ];
}

/// One value for each figure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Figures([u64; Figure::ALL.len()]);

impl Figures {
    pub(crate) fn get(&self, figure: Figure) -> u64 {
        self.0.get(figure as usize).copied().unwrap_or(0)
    }

    fn zip(&self, other: &Self, with: impl Fn(u64, u64) -> u64) -> Self {
        let mut all = *self;
        all.0.iter_mut().zip(other.0).for_each(|(one, other)| *one = with(*one, other));
        all
    }

    pub(crate) fn plus(&self, other: &Self) -> Self {
        self.zip(other, u64::saturating_add)
    }

    fn since(&self, before: &Self) -> Self {
        self.zip(before, u64::saturating_sub)
    }

    /// What grew by `self` within `period`: in a second; times of transactions and queries, for
    /// one of them.
    pub(crate) fn average(&self, period: Duration) -> Self {
        let micros = period.as_micros().max(1);
        let in_a_second =
            |value: u64| u64::try_from(u128::from(value) * 1_000_000 / micros).unwrap_or(u64::MAX);
        let of_one = |time, count| self.get(time).checked_div(self.get(count)).unwrap_or(0);
        let mut average = Self::default();
        for (place, figure) in average.0.iter_mut().zip(Figure::ALL) {
            *place = match figure {
                Figure::TransactionTime => of_one(figure, Figure::Transactions),
                Figure::QueryTime => of_one(figure, Figure::Queries),
                Figure::Assignments
                | Figure::Transactions
                | Figure::Queries
                | Figure::Received
                | Figure::Sent
                | Figure::WaitTime
                | Figure::ClientParses
                | Figure::ServerParses
                | Figure::Binds
                | Figure::Logins => in_a_second(self.get(figure)),
            };
        }
        average
    }
}

/// The figures of one database, as clients call it, and one user.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) database: Arc<str>,
    pub(crate) user: Arc<str>,
    counts: [AtomicU64; Figure::ALL.len()],
    sampled: Mutex<Sampled>,
}

/// What the figures were at the end of the last period, and what they grew by in it.
#[derive(Debug, Default)]
struct Sampled {
    last: Figures,
    grown: Figures,
}

impl Tally {
    fn new(database: &Arc<str>, user: &Arc<str>) -> Self {
        let (database, user) = (Arc::clone(database), Arc::clone(user));
        Self { database, user, counts: Default::default(), sampled: Mutex::default() }
    }

    /// Adds `value`; nothing is written for nothing.
    pub(crate) fn add(&self, figure: Figure, value: u64) {
        if value > 0
            && let Some(count) = self.counts.get(figure as usize)
        {
            count.fetch_add(value, Ordering::Relaxed);
        }
    }

    /// What was counted so far.
    pub(crate) fn figures(&self) -> Figures {
        let mut figures = Figures::default();
        for (figure, count) in figures.0.iter_mut().zip(&self.counts) {
            *figure = count.load(Ordering::Relaxed);
        }
        figures
    }

    /// By how much they grew in the last period.
    pub(crate) fn grown(&self) -> Figures {
        self.sampled.lock().grown
    }

    fn sample(&self) {
        let now = self.figures();
        let mut sampled = self.sampled.lock();
        sampled.grown = now.since(&sampled.last);
        sampled.last = now;
    }
}

/// A database, as clients call it, and a user.
type Pair = (Arc<str>, Arc<str>);

/// All pairs that were seen.
#[derive(Debug, Default)]
pub(crate) struct Tallies {
    by_pair: Mutex<HashMap<Pair, Arc<Tally>>>,
}

impl Tallies {
    /// The figures of a pair.
    pub(crate) fn of(&self, database: &Arc<str>, user: &Arc<str>) -> Arc<Tally> {
        let mut by_pair = self.by_pair.lock();
        let mut key = (Arc::clone(database), Arc::clone(user));
        if !by_pair.contains_key(&key) && by_pair.len() >= MOST_PAIRS {
            key = (OTHERS.into(), OTHERS.into());
        }
        let tally = by_pair
            .entry(key)
            .or_insert_with_key(|(database, user)| Arc::new(Tally::new(database, user)));
        Arc::clone(tally)
    }

    /// All, in the order of their names.
    pub(crate) fn all(&self) -> Vec<Arc<Tally>> {
        let mut all: Vec<_> = self.by_pair.lock().values().map(Arc::clone).collect();
        all.sort_by(|a, b| (&a.database, &a.user).cmp(&(&b.database, &b.user)));
        all
    }

    /// A period is over.
    pub(crate) fn sample(&self) {
        self.all().iter().for_each(|tally| tally.sample());
    }
}

/// What one session has counted and not added up yet. Moments are nanoseconds of the
/// [census](crate::census::Census)' clock. Only its session writes: what is read here was
/// written by the same task, so nothing is lost between a load and the store that follows.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    queries: AtomicU32,
    client_parses: AtomicU32,
    server_parses: AtomicU32,
    binds: AtomicU32,
    received: AtomicU32,
    sent: AtomicU32,
    /// When the query at hand began; 0: none runs.
    query: AtomicU64,
    /// When the transaction at hand began; 0: none is open.
    transaction: AtomicU64,
}

#[inline]
fn count(counter: &AtomicU32, more: u32) {
    let so_far = counter.load(Ordering::Relaxed);
    counter.store(so_far.saturating_add(more), Ordering::Relaxed);
}

/// What `counter` had, which has nothing from now on.
#[inline]
fn take(counter: &AtomicU32) -> u64 {
    let so_far = counter.load(Ordering::Relaxed);
    counter.store(0, Ordering::Relaxed);
    so_far.into()
}

impl Meter {
    #[inline]
    pub(crate) fn received(&self, bytes: usize) {
        count(&self.received, u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    #[inline]
    pub(crate) fn sent(&self, bytes: usize) {
        count(&self.sent, u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// A query that needed no server.
    pub(crate) fn answers_itself(&self) {
        count(&self.queries, 1);
    }

    pub(crate) fn client_prepares(&self) {
        count(&self.client_parses, 1);
    }

    pub(crate) fn server_prepares(&self) {
        count(&self.server_parses, 1);
    }

    pub(crate) fn binds(&self) {
        count(&self.binds, 1);
    }

    /// Something is sent to a server that is owed nothing.
    #[inline]
    pub(crate) fn begins(&self, now: u64) {
        self.query.store(now, Ordering::Relaxed);
        if self.transaction.load(Ordering::Relaxed) == 0 {
            self.transaction.store(now, Ordering::Relaxed);
        }
    }

    /// When an answer was complete last, while nothing is asked for.
    pub(crate) fn last_answer(&self) -> u64 {
        self.query.load(Ordering::Relaxed)
    }

    /// Is so much counted here that others should see it?
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        let received = self.received.load(Ordering::Relaxed);
        received.max(self.sent.load(Ordering::Relaxed)) >= WORTH_ADDING
    }

    /// An answer is complete.
    pub(crate) fn answered(&self, now: u64, rest: Rest, tally: &Tally) {
        count(&self.queries, 1);
        let since = |began: &AtomicU64| now.saturating_sub(began.load(Ordering::Relaxed)) / 1_000;
        tally.add(Figure::QueryTime, since(&self.query));
        // What was sent ahead runs from now on.
        self.query.store(now, Ordering::Relaxed);
        if rest == Rest::OutsideTransaction {
            tally.add(Figure::Transactions, 1);
            tally.add(Figure::TransactionTime, since(&self.transaction));
            self.transaction.store(0, Ordering::Relaxed);
        }
        self.add_up(tally);
    }

    /// What was counted here belongs to `tally` from now on.
    pub(crate) fn add_up(&self, tally: &Tally) {
        let counts = [
            (Figure::Queries, &self.queries),
            (Figure::Received, &self.received),
            (Figure::Sent, &self.sent),
            (Figure::ClientParses, &self.client_parses),
            (Figure::ServerParses, &self.server_parses),
            (Figure::Binds, &self.binds),
        ];
        for (figure, counter) in counts {
            tally.add(figure, take(counter));
        }
    }

    /// The connection goes home: a transaction that was cut off is over as well.
    pub(crate) fn parts(&self, tally: &Tally) {
        self.query.store(0, Ordering::Relaxed);
        self.transaction.store(0, Ordering::Relaxed);
        self.add_up(tally);
    }
}

/// Where an answer leaves the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    InTransaction,
    OutsideTransaction,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally() -> Arc<Tally> {
        Tallies::default().of(&"app".into(), &"ann".into())
    }

    #[test]
    fn averages_are_of_the_last_period_only() {
        let tally = tally();
        tally.add(Figure::Transactions, 100);
        tally.sample();
        tally.add(Figure::Transactions, 10);
        tally.add(Figure::TransactionTime, 5_000);
        tally.sample();
        tally.add(Figure::Transactions, 7);
        let average = tally.grown().average(Duration::from_secs(2));
        assert_eq!(average.get(Figure::Transactions), 5);
        assert_eq!(average.get(Figure::TransactionTime), 500, "of one transaction");
        assert_eq!(tally.figures().get(Figure::Transactions), 117);
    }

    #[test]
    fn a_period_without_queries_has_no_query_time() {
        let average = Figures::default().average(Duration::from_secs(60));
        assert_eq!(average, Figures::default());
    }

    #[test]
    fn a_transaction_of_two_queries_is_one() {
        let (tally, meter) = (tally(), Meter::default());
        meter.begins(1_000_000);
        meter.answered(3_000_000, Rest::InTransaction, &tally);
        meter.begins(9_000_000);
        meter.received(40);
        meter.answered(10_000_000, Rest::OutsideTransaction, &tally);
        let figures = tally.figures();
        let shown = [Figure::Transactions, Figure::Queries, Figure::Received];
        assert_eq!(shown.map(|figure| figures.get(figure)), [1, 2, 40]);
        assert_eq!(figures.get(Figure::QueryTime), 3_000);
        assert_eq!(figures.get(Figure::TransactionTime), 9_000);
    }

    #[test]
    fn whoever_invents_names_fills_no_memory() {
        let tallies = Tallies::default();
        for number in 0..MOST_PAIRS + 5 {
            let tally = tallies.of(&number.to_string().into(), &"ann".into());
            tally.add(Figure::Logins, 1);
        }
        let all = tallies.all();
        assert_eq!(all.len(), MOST_PAIRS + 1);
        let others = all.iter().find(|tally| &*tally.database == OTHERS).unwrap();
        assert_eq!(others.figures().get(Figure::Logins), 5);
    }
}
