//! The last things that happened, for SHOW EVENTS.
//!
//! Always true: at most `KEPT` are kept, the newest.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use forebay_seam::sync::Mutex;
use forebay_seam::task::Spawner;
use forebay_seam::time;
use tokio::sync::broadcast::error::RecvError;

use crate::events::{Events, Happened};

/// Events that are kept.
const KEPT: usize = 1_000;

/// The last events. Cheap to clone.
#[derive(Clone, Default)]
pub struct Recent(Arc<Mutex<VecDeque<(SystemTime, Happened)>>>);

impl Recent {
    /// Keeps what happens from now on. Inside a runtime.
    pub(super) fn of(events: &Events) -> Self {
        let recent = Self::default();
        let (kept, mut heard) = (recent.clone(), events.listen());
        Spawner::current().spawn(async move {
            loop {
                match heard.recv().await {
                    Ok(event) => kept.keep(time::wall_now(), event),
                    // Those that were missed are older than what is kept.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        });
        recent
    }

    fn keep(&self, at: SystemTime, event: Happened) {
        let mut kept = self.0.lock();
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back((at, event));
    }

    /// The last `most`, the newest last.
    pub fn last(&self, most: usize) -> Vec<(SystemTime, Happened)> {
        let kept = self.0.lock();
        kept.iter().skip(kept.len().saturating_sub(most)).cloned().collect()
    }
}
