//! What all sessions hear at once: there is another plan, or they should come to an end.
//!
//! Always true: a session that has not looked since the last ring hears it, whenever it comes
//! to listen; what it does then it reads for itself.

use tokio::sync::watch;

/// What sessions are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Course {
    /// Go on, by the plan in force.
    #[default]
    Serving,
    /// End once they run nothing.
    Stopping,
}

/// Rings for all sessions.
#[derive(Debug, Default)]
pub(super) struct Ringer(watch::Sender<Course>);

impl Ringer {
    /// Everybody looks at what is new. Who is to stop is not called back.
    pub(super) fn ring(&self, course: Course) {
        self.0.send_modify(|now| {
            if *now == Course::Serving {
                *now = course;
            }
        });
    }

    /// One who listens, and has not looked yet.
    pub(super) fn listen(&self) -> Bell {
        let mut heard = self.0.subscribe();
        heard.mark_changed();
        Bell(heard)
    }
}

/// Hears the ringer.
#[derive(Debug, Clone)]
pub(crate) struct Bell(watch::Receiver<Course>);

impl Bell {
    /// Has it rung since the last answer?
    pub(crate) fn rang(&self) -> bool {
        self.0.has_changed().unwrap_or(true)
    }

    /// Waits until it rings.
    ///
    /// # Cancel safety
    /// Nothing is lost when dropped.
    pub(crate) async fn rings(&mut self) {
        // A ringer that is gone rings for ever.
        drop(self.0.changed().await);
    }

    /// Answers it.
    pub(crate) fn answer(&mut self) -> Course {
        *self.0.borrow_and_update()
    }
}
