//! Measuring, the same for every workload and both sides: how long tries took, what failed.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::{Duration, Instant};

use forebay_seam::sync::Mutex;
use forebay_seam::time;
use hdrhistogram::Histogram;

/// Distinct errors kept for the report.
const ERRORS_KEPT: usize = 5;

/// How long the tries of one kind took, and what failed. Shared by all who try.
pub(crate) struct Tries(Mutex<Kept>);

struct Kept {
    micros: Histogram<u64>,
    failed: u64,
    errors: BTreeMap<String, u64>,
}

impl Default for Tries {
    fn default() -> Self {
        let micros = Histogram::new_with_bounds(1, 600_000_000, 3).expect("1 µs to 10 min");
        Self(Mutex::new(Kept { micros, failed: 0, errors: BTreeMap::new() }))
    }
}

impl Tries {
    /// Counts a try that was due at `since` and ended now. A failed one counts as an error
    /// and not among the times, where it would make the others look fast or slow.
    pub(crate) fn note<T, E: Display>(&self, since: Instant, outcome: &Result<T, E>) {
        let took = time::now().saturating_duration_since(since);
        let mut kept = self.0.lock();
        match outcome {
            Ok(_) => {
                let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                kept.micros.saturating_record(micros.max(1));
            }
            Err(error) => {
                kept.failed += 1;
                let text = error.to_string();
                if kept.errors.len() < ERRORS_KEPT || kept.errors.contains_key(&text) {
                    *kept.errors.entry(text).or_default() += 1;
                }
            }
        }
    }

    /// The time that the part `quantile` of the good tries stayed below.
    pub(crate) fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_micros(self.0.lock().micros.value_at_quantile(quantile))
    }

    /// Good tries.
    pub(crate) fn good(&self) -> u64 {
        self.0.lock().micros.len()
    }

    /// Failed tries.
    pub(crate) fn failed(&self) -> u64 {
        self.0.lock().failed
    }

    /// What the first kinds of failures said, and how often.
    pub(crate) fn errors(&self) -> Vec<String> {
        let kept = self.0.lock();
        kept.errors.iter().map(|(text, times)| format!("{times} x {text}")).collect()
    }
}

/// The moments of an open-loop workload: `per_second` from `start` on, whether or not the
/// earlier ones have been answered.
pub(crate) struct Pace {
    start: Instant,
    every: Duration,
    given: u32,
}

impl Pace {
    /// `per_second` moments a second.
    pub(crate) fn new(start: Instant, per_second: u32) -> Self {
        Self { start, every: Duration::from_secs(1) / per_second, given: 0 }
    }

    /// Waits for the next moment and gives it; late wake-ups do not move the later ones.
    pub(crate) async fn next(&mut self) -> Instant {
        let due = self.start + self.every * self.given;
        self.given += 1;
        time::sleep_until(due).await;
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_try_is_measured_from_when_it_was_due() {
        let tries = Tries::default();
        let mut pace = Pace::new(time::now(), 10);
        assert_eq!(pace.next().await, pace.next().await - Duration::from_millis(100));
        let due = pace.next().await;
        time::sleep(Duration::from_millis(250)).await;
        tries.note(due, &Ok::<_, String>(()));
        let measured = tries.quantile(0.5);
        assert!((249..252).contains(&measured.as_millis()), "{measured:?}");
        assert_eq!((tries.good(), tries.failed()), (1, 0));
    }

    #[test]
    fn what_failed_is_told_by_kind_and_kept_within_bounds() {
        let tries = Tries::default();
        for number in 0..20 {
            tries.note(time::now(), &Err::<(), _>(format!("error {}", number % 10)));
        }
        assert_eq!(tries.failed(), 20);
        assert_eq!(tries.good(), 0);
        assert_eq!(tries.errors().len(), ERRORS_KEPT);
        assert_eq!(tries.errors().first().map(String::as_str), Some("2 x error 0"));
    }
}
