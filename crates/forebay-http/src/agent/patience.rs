//! Answers that their agent does not take.
//!
//! An agent that reads slowly slows its service down, which is as it should be. One that does
//! not read at all would hold a connection to the service for ever (in HTTP/2 with a window
//! of 0 and a socket that is alive), so after a while its answer is given up.

use std::sync::{Arc, Weak};
use std::time::Duration;

use forebay_seam::sync::Mutex;
use forebay_seam::time;
use tokio::sync::Notify;

use crate::answer::Stream;

/// How often is looked, at the least.
const LOOK: Duration = Duration::from_secs(30);

/// The answers on their way to one agent.
#[derive(Default)]
pub(crate) struct Patience {
    answers: Mutex<Vec<Watched>>,
    is_short: Notify,
}

struct Watched {
    limit: Duration,
    answer: Weak<Mutex<Stream>>,
}

impl Patience {
    /// Gives `answer` up when its agent has not taken what is there for `limit`.
    pub(crate) fn with(&self, answer: &Arc<Mutex<Stream>>, limit: Duration) {
        let mut answers = self.answers.lock();
        if answers.len() == answers.capacity() {
            answers.retain(|watched| watched.answer.strong_count() > 0);
        }
        answers.push(Watched { limit, answer: Arc::downgrade(answer) });
        drop(answers);
        if limit < LOOK {
            self.is_short.notify_one();
        }
    }

    /// Waits until it is time to look again, and looks.
    pub(crate) async fn look(&self) {
        let shortest = self.answers.lock().iter().map(|watched| watched.limit).min();
        let pause = shortest.unwrap_or(LOOK).min(LOOK);
        tokio::select! {
            () = time::sleep(pause) => {}
            () = self.is_short.notified() => return,
        }
        let now = time::now();
        self.answers.lock().retain(|watched| {
            let Some(answer) = watched.answer.upgrade() else { return false };
            answer.lock().is_taken_within(watched.limit, now)
        });
    }
}
