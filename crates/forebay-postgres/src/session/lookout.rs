//! Whether a client is still there while nobody reads from it.
//!
//! A client that has sent more than is held for it is not read until its server has taken some.
//! Its end stands behind what is unread, and wakes nobody: so it is looked at now and then.
//! Always true: a client that is read has no timer, and a look asks the system nothing.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use forebay_seam::time::{self, Sleep};

use crate::stream::Stream;

/// A client that has gone is noticed within so much.
const EVERY: Duration = Duration::from_millis(250);

/// When the next look is due, if nobody reads from the client.
#[derive(Default)]
pub(super) struct Lookout(Option<Pin<Box<Sleep>>>);

impl Lookout {
    /// Ready when `client`, from which nobody reads now, will send nothing more.
    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>, client: &Stream) -> Poll<()> {
        let timer = self.0.get_or_insert_with(|| Box::pin(time::sleep(EVERY)));
        loop {
            if client.has_ended() {
                return Poll::Ready(());
            }
            ready!(timer.as_mut().poll(cx));
            time::reset(timer.as_mut(), time::now() + EVERY);
        }
    }

    /// The client is read again.
    pub(super) fn rests(&mut self) {
        self.0 = None;
    }
}
