//! SUSPEND: nothing more is read and nobody accepted, what was read before is written out, and
//! then all is still until RESUME.
//!
//! Knows no sessions: each looks whether a round of stillness is on, and says when its buffers
//! are empty. Looking costs one load. Always true: a round begins after the one before ended.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Rounds of stillness.
#[derive(Debug, Default)]
pub(crate) struct Stillness {
    /// The round that is on; 0: none.
    now: AtomicU64,
    last: AtomicU64,
    /// A session's buffers are empty, or the round is over.
    changed: Notify,
}

impl Stillness {
    /// The round that is on.
    #[inline]
    pub(crate) fn round(&self) -> Option<NonZeroU64> {
        NonZeroU64::new(self.now.load(Ordering::Acquire))
    }

    /// The buffers of a session are empty.
    pub(crate) fn one_more(&self) {
        self.changed.notify_waiters();
    }

    pub(super) fn begin(&self) -> u64 {
        let round = self.last.fetch_add(1, Ordering::AcqRel) + 1;
        self.now.store(round, Ordering::Release);
        round
    }

    pub(super) fn end(&self) {
        self.now.store(0, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Waits until `reached`.
    pub(super) async fn until(&self, reached: impl Fn(Option<NonZeroU64>) -> bool) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if reached(self.round()) {
                return;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_for_the_end_of_a_round_hears_it() {
        let stillness = Stillness::default();
        assert_eq!(stillness.round(), None);
        let first = stillness.begin();
        assert_eq!(stillness.round().map(NonZeroU64::get), Some(first));
        let over = stillness.until(|round| round.is_none());
        let ((), ()) = tokio::join!(over, async {
            tokio::task::yield_now().await;
            stillness.end();
        });
        assert!(stillness.begin() > first);
    }
}
