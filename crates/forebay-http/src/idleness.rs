//! How long a service lets a connection rest, learnt from what it says and does.
//!
//! It says so in `Keep-Alive: timeout=…` (HTTP/1.1), or it closes connections that rest: the
//! shortest rest that ended so counts. Four fifths of it are used, so that no call meets a
//! connection that is just being closed. Knows no connections and is told the time. Always
//! true: what was learnt from closes is doubted after a while, so that a restart, which closes
//! everything, or a setting that was changed there does not count for ever.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use forebay_seam::sync::Mutex;

/// Of what a service lets a connection rest, so much is used, in percent.
const USED: u32 = 80;
/// What a service announces as less is taken to be this.
const LEAST: Duration = Duration::from_millis(100);
/// A close after a shorter rest may be a restart: it counts once another one, at another
/// time, came after about as long. Less than the second that some services allow, since the
/// rest is counted from the arrival of what they sent before they began to wait.
const TELLING: Duration = Duration::from_millis(900);
/// Closes within such a time have the same cause.
const ONE_EVENT: Duration = Duration::from_millis(100);
/// A close that nothing has confirmed is doubted after this, one that something has after
/// this.
const DOUBT: Duration = Duration::from_secs(60);
const DOUBT_CONFIRMED: Duration = Duration::from_secs(600);
/// What would be longer counts for nothing: middleboxes are said to close after less.
const MOST: Duration = Duration::from_secs(3600);

/// What is known of a service's patience.
#[derive(Default)]
pub(crate) struct Idleness {
    /// How long a connection may rest and still serve, in microseconds; 0: nothing is known.
    most: AtomicU64,
    record: Mutex<Record>,
}

#[derive(Debug, Default)]
struct Record {
    announced: Option<Duration>,
    seen: Option<Seen>,
}

/// Closes that were seen.
#[derive(Debug, Clone, Copy)]
struct Seen {
    after: Duration,
    latest: Instant,
    /// Another one, at another time, came after about as long.
    confirmed: bool,
}

impl Idleness {
    /// How long a connection may rest and still serve, as far as that is known.
    pub(crate) fn most(&self) -> Option<Duration> {
        match self.most.load(Ordering::Relaxed) {
            0 => None,
            micros => Some(Duration::from_micros(micros)),
        }
    }

    /// How long the service lets a connection rest, as far as that is known.
    pub(crate) fn learnt(&self) -> Option<Duration> {
        self.record.lock().learnt()
    }

    /// An answer has a field `Keep-Alive` with `value` (RFC 2068, 19.7.1.1).
    pub(crate) fn announced(&self, value: &str) {
        let Some(seconds) = timeout(value) else { return };
        let announced = Duration::from_secs(seconds).max(LEAST);
        let mut record = self.record.lock();
        if record.announced != Some(announced) {
            record.announced = Some(announced);
            self.apply(&record);
        }
    }

    /// The service closed a connection that had rested for `rested`.
    pub(crate) fn closed_after(&self, rested: Duration, now: Instant) {
        let mut record = self.record.lock();
        record.see(rested, now);
        self.apply(&record);
    }

    /// Doubts what nothing has confirmed for long: twice as much may be true by now.
    pub(crate) fn doubt(&self, now: Instant) {
        let mut record = self.record.lock();
        if record.doubt(now) {
            self.apply(&record);
        }
    }

    fn apply(&self, record: &Record) {
        let used = record.learnt().map_or(0, |learnt| (learnt * USED / 100).as_micros());
        self.most.store(u64::try_from(used).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Record {
    fn learnt(&self) -> Option<Duration> {
        let seen = self.seen.filter(|seen| seen.confirmed || seen.after >= TELLING);
        let both = self.announced.into_iter().chain(seen.map(|seen| seen.after));
        both.min().filter(|learnt| *learnt < MOST)
    }

    fn see(&mut self, after: Duration, now: Instant) {
        if after < LEAST {
            return;
        }
        let fresh = Seen { after, latest: now, confirmed: false };
        self.seen = Some(match self.seen {
            None => fresh,
            Some(seen) => {
                let another = now.saturating_duration_since(seen.latest) > ONE_EVENT;
                // About the same: timers are coarse, and a close may be noticed late.
                let alike = after * 4 >= seen.after * 3 && after <= seen.after * 2;
                match (alike, after < seen.after) {
                    (true, _) => Seen {
                        after: after.min(seen.after),
                        latest: now,
                        confirmed: seen.confirmed || another,
                    },
                    (false, true) => fresh,
                    // It rested for longer than we thought it might. Other reasons close
                    // connections, too, so only the shorter one counts.
                    (false, false) => seen,
                }
            }
        });
    }

    fn doubt(&mut self, now: Instant) -> bool {
        let Some(seen) = &mut self.seen else { return false };
        let patience = if seen.confirmed { DOUBT_CONFIRMED } else { DOUBT };
        if now.saturating_duration_since(seen.latest) < patience {
            return false;
        }
        seen.after *= 2;
        seen.latest = now;
        seen.confirmed = seen.confirmed || seen.after >= TELLING;
        if seen.after >= MOST {
            self.seen = None;
        }
        true
    }
}

/// The parameter `timeout` of a field `Keep-Alive`, in seconds.
fn timeout(value: &str) -> Option<u64> {
    value.split(',').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let is_it = name.trim().eq_ignore_ascii_case("timeout");
        is_it.then(|| value.trim().trim_matches('"').parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_seam::time;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn four_fifths_of_what_a_service_announces_are_used() {
        let idleness = Idleness::default();
        assert_eq!(idleness.most(), None);
        for (said, most) in [
            ("timeout=5", Some(secs(4))),
            ("max=100, Timeout = \"60\"", Some(secs(48))),
            ("max=100", Some(secs(48))),
            ("timeout=x", Some(secs(48))),
            ("timeout=0", Some(millis(80))),
            ("timeout=99999999", None),
        ] {
            idleness.announced(said);
            assert_eq!(idleness.most(), most, "{said}");
        }
    }

    #[test]
    fn the_shortest_rest_that_ended_in_a_close_counts() {
        let (idleness, now) = (Idleness::default(), time::now());
        idleness.closed_after(secs(10), now);
        assert_eq!(idleness.most(), Some(secs(8)));
        idleness.closed_after(secs(5), now + secs(10));
        assert_eq!(idleness.most(), Some(secs(4)));
        idleness.closed_after(secs(40), now + secs(60));
        assert_eq!(idleness.most(), Some(secs(4)));
        idleness.announced("timeout=3");
        assert_eq!(idleness.learnt(), Some(secs(3)));
    }

    #[test]
    fn a_service_that_allows_a_second_is_believed_though_its_clock_began_earlier() {
        let (idleness, now) = (Idleness::default(), time::now());
        idleness.closed_after(millis(996), now);
        assert_eq!(idleness.learnt(), Some(millis(996)));
    }

    #[test]
    fn a_restart_that_closes_everything_at_once_teaches_nothing() {
        let (idleness, now) = (Idleness::default(), time::now());
        for n in 0..50 {
            idleness.closed_after(millis(110 + n), now + millis(n));
        }
        assert_eq!(idleness.most(), None);
    }

    #[test]
    fn a_short_rest_counts_once_it_was_seen_twice() {
        let (idleness, now) = (Idleness::default(), time::now());
        idleness.closed_after(millis(400), now);
        assert_eq!(idleness.most(), None);
        idleness.closed_after(millis(410), now + secs(1));
        assert_eq!(idleness.most(), Some(millis(320)));
    }

    #[test]
    fn what_was_learnt_from_closes_is_doubted_after_a_while() {
        let (idleness, now) = (Idleness::default(), time::now());
        idleness.closed_after(secs(10), now);
        idleness.doubt(now + secs(59));
        assert_eq!(idleness.learnt(), Some(secs(10)));
        idleness.doubt(now + secs(60));
        assert_eq!(idleness.learnt(), Some(secs(20)));
        let mut later = now + secs(60);
        for _ in 0..20 {
            later += DOUBT_CONFIRMED;
            idleness.doubt(later);
        }
        assert_eq!(idleness.learnt(), None);
        idleness.announced("timeout=30");
        idleness.doubt(later + secs(100_000));
        assert_eq!(idleness.learnt(), Some(secs(30)));
    }
}
