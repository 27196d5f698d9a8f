//! Guessing passwords is slow: the more logins of one user from one address failed lately, the
//! longer each further one waits for its verdict; and only so many wait at once.
//!
//! A right password waits, too, else waiting would tell that it was wrong. Who logged in from
//! there within the hour waits less; users and addresses that nobody guesses at wait never.
//! Memory is bounded, and what is not looked at fades by itself: there is no task.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use forebay_seam::sync::Mutex;
use forebay_seam::time::{self, Instant};
use lru::LruCache;

/// Pairs of address and user, and addresses, that are remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(32_768).expect("32768 is not zero");
/// Failures count half after so long.
const FADE: Duration = Duration::from_secs(10);
/// Who logged in counts as proven for so long.
const PROVEN: Duration = Duration::from_secs(3_600);
/// More failures than these are not counted: whoever stops is forgiven within a minute or two.
const MOST_FAILURES: u32 = 1_024;

/// What is borne of one kind of caller.
#[derive(Clone, Copy)]
struct Limits {
    /// Failures that cost nothing.
    free: u32,
    /// What each one after them doubles, from this …
    first: Duration,
    /// … to this.
    longest: Duration,
    /// Verdicts that may wait at once.
    waiting: u32,
}

/// One user from one address.
const PAIR: Limits = Limits {
    free: 4,
    first: Duration::from_millis(50),
    longest: Duration::from_millis(1_600),
    waiting: 16,
};
/// The same, where it has logged in within the hour.
const PROVEN_PAIR: Limits =
    Limits { free: 8, longest: Duration::from_millis(400), waiting: 64, ..PAIR };
/// All users from one address that have not logged in from there.
const ADDRESS: Limits = Limits { free: 64, waiting: 256, ..PAIR };

impl Limits {
    fn delay(&self, failures: u32) -> Duration {
        match failures.checked_sub(self.free) {
            None | Some(0) => Duration::ZERO,
            Some(more) => {
                let doubled = 1_u32.checked_shl(more - 1).filter(|n| *n <= 1 << 20);
                doubled.map_or(self.longest, |n| (self.first * n).min(self.longest))
            }
        }
    }
}

/// Whether a proof was right; and, after [`Visit::settle`], whether that is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Right,
    Wrong,
}

#[derive(Default, Clone, Copy)]
struct Record {
    failures: u32,
    /// When the failures were last counted.
    at: Option<Instant>,
    waiting: u32,
    proven: Option<Instant>,
}

impl Record {
    fn fade(&mut self, now: Instant) {
        let Some(at) = self.at else { return };
        let passed = now.saturating_duration_since(at).as_secs() / FADE.as_secs();
        if passed > 0 {
            let halvings = u32::try_from(passed).unwrap_or(u32::MAX);
            self.failures = self.failures.checked_shr(halvings).unwrap_or(0);
            self.at = Some(now);
        }
    }

    fn fail(&mut self, now: Instant) {
        self.failures = (self.failures + 1).min(MOST_FAILURES);
        self.at.get_or_insert(now);
    }

    fn is_proven(&self, now: Instant) -> bool {
        self.proven.is_some_and(|at| now.saturating_duration_since(at) < PROVEN)
    }
}

/// Records by hash, which nobody outside can foretell.
type Records = LruCache<u64, Record>;

/// Failed logins, and what they cost.
#[derive(Clone)]
pub(crate) struct Throttle(Arc<Shared>);

struct Shared {
    records: Mutex<Records>,
    hasher: foldhash::quality::RandomState,
    turned_away: AtomicU64,
}

impl Default for Throttle {
    fn default() -> Self {
        let mut records = LruCache::unbounded();
        records.resize(REMEMBERED);
        Self(Arc::new(Shared {
            records: Mutex::new(records),
            hasher: foldhash::quality::RandomState::default(),
            turned_away: AtomicU64::new(0),
        }))
    }
}

impl Throttle {
    /// Somebody at `address` (nothing: this machine) wants to be `user`.
    pub(crate) fn admit(&self, address: Option<IpAddr>, user: &str) -> Visit {
        let network = address.map(network);
        let pair = self.0.hasher.hash_one((network, Some(user)));
        let address = self.0.hasher.hash_one((network, None::<&str>));
        let mut visit = Visit { throttle: self.clone(), pair, address, admitted: true };
        let places = visit.places(&mut self.0.records.lock(), time::now());
        visit.admitted = places.are_free;
        visit
    }

    /// Logins that were turned away unheard, since the start.
    pub(crate) fn turned_away(&self) -> u64 {
        self.0.turned_away.load(Ordering::Relaxed)
    }
}

/// A v4 address, or the network of a v6 one: whoever has one of its addresses has them all.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

/// One login, from the moment that it says who it is.
pub(crate) struct Visit {
    throttle: Throttle,
    pair: u64,
    address: u64,
    admitted: bool,
}

/// What a verdict has to wait for.
struct Places {
    delay: Duration,
    are_free: bool,
}

impl Visit {
    /// May its password be looked at? Otherwise it goes through the motions, and fails.
    pub(crate) fn is_admitted(&self) -> bool {
        self.admitted
    }

    fn places(&self, records: &mut Records, now: Instant) -> Places {
        let mut look = |key| {
            records.get_mut(&key).map_or_else(Record::default, |record| {
                record.fade(now);
                *record
            })
        };
        let (pair, address) = (look(self.pair), look(self.address));
        let is_proven = pair.is_proven(now);
        let limits = if is_proven { PROVEN_PAIR } else { PAIR };
        let delay = limits.delay(pair.failures);
        let of_address = if is_proven { Duration::ZERO } else { ADDRESS.delay(address.failures) };
        let are_free = (delay.is_zero() || pair.waiting < limits.waiting)
            && (of_address.is_zero() || address.waiting < ADDRESS.waiting);
        Places { delay: delay.max(of_address), are_free }
    }

    /// Counts `verdict`, and waits until it may be told; what is told may be worse.
    ///
    /// # Cancel safety
    /// Dropped, it waits no more.
    pub(crate) async fn settle(self, verdict: Verdict) -> Verdict {
        let wait = {
            let now = time::now();
            let mut records = self.throttle.0.records.lock();
            if verdict == Verdict::Wrong {
                for key in [self.pair, self.address] {
                    records.get_or_insert_mut(key, Record::default).fail(now);
                }
            }
            let places = self.places(&mut records, now);
            if !self.admitted || !places.are_free {
                self.throttle.0.turned_away.fetch_add(1, Ordering::Relaxed);
                return Verdict::Wrong;
            }
            if verdict == Verdict::Right {
                records.get_or_insert_mut(self.pair, Record::default).proven = Some(now);
            }
            (!places.delay.is_zero()).then(|| {
                let waits = Waits::begin(&self, &mut records);
                (waits, places.delay)
            })
        };
        if let Some((waits, delay)) = wait {
            time::sleep(delay).await;
            drop(waits);
        }
        verdict
    }
}

/// Counted among those that wait, until dropped.
struct Waits {
    throttle: Throttle,
    keys: [u64; 2],
}

impl Waits {
    fn begin(visit: &Visit, records: &mut Records) -> Self {
        let keys = [visit.pair, visit.address];
        for key in keys {
            records.get_or_insert_mut(key, Record::default).waiting += 1;
        }
        Self { throttle: visit.throttle.clone(), keys }
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        let mut records = self.throttle.0.records.lock();
        for key in self.keys {
            // It may have been forgotten meanwhile.
            if let Some(record) = records.peek_mut(&key) {
                record.waiting = record.waiting.saturating_sub(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    /// How long a login from `address` takes to hear its verdict, and what it hears.
    async fn log_in(
        throttle: &Throttle,
        address: Option<IpAddr>,
        user: &str,
        verdict: Verdict,
    ) -> (Duration, Verdict) {
        let begun = time::now();
        let told = throttle.admit(address, user).settle(verdict).await;
        (time::now() - begun, told)
    }

    #[tokio::test(start_paused = true)]
    async fn guessing_gets_slow_and_others_do_not_notice() {
        let throttle = Throttle::default();
        let (bad, good) = (ip("192.0.2.1"), ip("192.0.2.2"));
        let mut waited = Duration::ZERO;
        for _ in 0..100 {
            waited += log_in(&throttle, bad, "app", Verdict::Wrong).await.0;
        }
        assert!(waited > Duration::from_secs(60), "{waited:?}");
        // The right password waits like a wrong one.
        assert!(log_in(&throttle, bad, "app", Verdict::Right).await.0 >= PAIR.first);
        for (address, user) in [(good, "app"), (None, "app")] {
            let heard = log_in(&throttle, address, user, Verdict::Right).await;
            assert_eq!(heard, (Duration::ZERO, Verdict::Right));
        }
        time::sleep(Duration::from_secs(120)).await;
        assert_eq!(log_in(&throttle, bad, "app", Verdict::Right).await.0, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn guessing_in_parallel_is_no_faster() {
        let throttle = Throttle::default();
        let address = ip("192.0.2.1");
        let mut guesses = tokio::task::JoinSet::new();
        for n in 0..1_000 {
            let throttle = throttle.clone();
            let verdict = if n == 500 { Verdict::Right } else { Verdict::Wrong };
            guesses.spawn(async move { log_in(&throttle, address, "app", verdict).await.1 });
        }
        let told = guesses.join_all().await;
        assert!(told.iter().all(|told| *told == Verdict::Wrong));
        assert!(throttle.turned_away() > 900);
    }

    #[tokio::test(start_paused = true)]
    async fn guessing_at_many_users_is_slow_and_known_ones_do_not_notice() {
        let throttle = Throttle::default();
        let address = ip("2001:db8::1");
        log_in(&throttle, address, "app", Verdict::Right).await;
        let mut waited = Duration::ZERO;
        for n in 0..300_u32 {
            // The same network, whichever of its addresses.
            let address = ip(&format!("2001:db8::{n:x}"));
            waited += log_in(&throttle, address, &format!("user{n}"), Verdict::Wrong).await.0;
        }
        assert!(waited > Duration::from_secs(30), "{waited:?}");
        let known = log_in(&throttle, address, "app", Verdict::Right).await;
        assert_eq!(known, (Duration::ZERO, Verdict::Right));
    }

    #[tokio::test(start_paused = true)]
    async fn three_thousand_good_logins_at_once_wait_for_nothing() {
        let throttle = Throttle::default();
        let mut logins = tokio::task::JoinSet::new();
        for _ in 0..3_000 {
            let throttle = throttle.clone();
            logins.spawn(async move { log_in(&throttle, None, "app", Verdict::Right).await });
        }
        let heard = logins.join_all().await;
        assert!(heard.iter().all(|heard| *heard == (Duration::ZERO, Verdict::Right)));
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_while_waiting_waits_no_more() {
        let throttle = Throttle::default();
        for _ in 0..200 {
            let login = log_in(&throttle, None, "app", Verdict::Wrong);
            drop(time::timeout(Duration::from_millis(1), login).await);
        }
        let records = throttle.0.records.lock();
        assert!(records.iter().all(|(_, record)| record.waiting == 0));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded() {
        let throttle = Throttle::default();
        for n in 0..40_000_u32 {
            let visit = throttle.admit(Some(IpAddr::V4(n.into())), "app");
            drop(time::timeout(Duration::ZERO, visit.settle(Verdict::Wrong)).await);
        }
        assert_eq!(throttle.0.records.lock().len(), REMEMBERED.get());
    }
}
