//! The tasks in which hyper sends uploads on HTTP/2, and their end.
//!
//! hyper goes on sending a body when the answer to it has ended, and asks it for nothing while
//! the service takes nothing: so no word of the body itself ends that, and its task is ended
//! from outside. With the task goes the stream's last holder, which resets it. Always true: a
//! task is that of the upload which was last asked for its first frame; hyper asks for it, and
//! begins the task if one is needed, in one step of the connection, which takes calls one by
//! one.

use std::future::Future;
use std::sync::Arc;

use forebay_seam::sync::Mutex;
use forebay_seam::task::Spawner;

use crate::upload::Progress;

/// What a connection of HTTP/2 sends.
#[derive(Default)]
pub(crate) struct Piping {
    /// The upload that was asked for its first frame, until somebody goes on with it.
    begun: Mutex<Option<Arc<Progress>>>,
}

impl Piping {
    /// `upload` was asked for its first frame, and that was not all.
    pub(crate) fn begins(&self, upload: &Arc<Progress>) {
        *self.begun.lock() = Some(Arc::clone(upload));
    }
}

/// Runs what a connection of HTTP/2 does besides.
#[derive(Clone)]
pub(crate) struct Hands {
    spawner: Spawner,
    piping: Arc<Piping>,
}

impl Hands {
    /// Those of the connection that sends `piping`.
    pub(crate) fn new(spawner: Spawner, piping: Arc<Piping>) -> Self {
        Self { spawner, piping }
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Hands {
    fn execute(&self, work: F) {
        match self.piping.begun.lock().take() {
            None => self.spawner.spawn(work),
            // It sends the upload; where that was over at once, it waits for the answer, which
            // nobody wants either once the upload is given up.
            Some(upload) => self.spawner.spawn(async move {
                tokio::select! {
                    biased;
                    () = upload.is_given_up() => {}
                    () = work => {}
                }
            }),
        }
    }
}
