//! How often something may be done: as often as a second allows, in bursts of a tenth of it.

use std::time::Duration;

use forebay_seam::sync::Mutex;
use forebay_seam::time::Instant;

/// What may come at once, as a part of a second.
const BURST: Duration = Duration::from_millis(100);

/// A rate: the generic cell rate algorithm (ITU-T I.371), with one moment for a state.
#[derive(Debug)]
pub(super) struct Rate {
    /// Between two.
    pace: Duration,
    /// When the next would come if all came evenly.
    next: Mutex<Option<Instant>>,
}

impl Rate {
    pub(super) fn new(per_second: u32) -> Self {
        Self { pace: Duration::from_secs(1) / per_second.max(1), next: Mutex::default() }
    }

    /// May it be done `now`?
    ///
    /// # Errors
    /// Not before then.
    pub(super) fn admits(&self, now: Instant) -> Result<(), Instant> {
        let mut next = self.next.lock();
        let due = next.map_or(now, |next| next.max(now));
        if due > now + BURST {
            return Err(due.checked_sub(BURST).unwrap_or(due));
        }
        *next = Some(due + self.pace);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use forebay_seam::time;

    use super::*;

    #[test]
    fn a_rate_is_kept_whatever_comes_at_once() {
        let (rate, start) = (Rate::new(100), time::now());
        let mut admitted = 0;
        for millisecond in 0..1_000 {
            let now = start + Duration::from_millis(millisecond);
            for _ in 0..10 {
                match rate.admits(now) {
                    Ok(()) => admitted += 1,
                    Err(later) => assert!(later > now),
                }
            }
        }
        assert!((100..=112).contains(&admitted), "{admitted}");
    }
}
