//! Notifications on their way to one client.
//!
//! Filled by the connection that listens, emptied by the client's session when it is at
//! rest. Always true: what waits takes no more than the limit; where something could not be
//! kept, nothing is, and the session is told that it has to end.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use forebay_seam::sync::Mutex;

use super::ListenError;

/// What keeping a notification takes besides its bytes.
const ENTRY: usize = 64;

pub(crate) struct Mailbox {
    state: Mutex<State>,
    /// Bytes.
    limit: usize,
}

#[derive(Default)]
struct State {
    mail: VecDeque<Bytes>,
    bytes: usize,
    /// There is mail that nobody has looked at.
    fresh: bool,
    /// A channel that was waited for is heard from now on, or will not be.
    stirred: bool,
    /// Why no channel can be had, to be told once.
    refused: Option<ListenError>,
    /// Why the session cannot go on.
    end: Option<ListenError>,
    waker: Option<Waker>,
}

/// What the session can look at now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attention {
    /// Mail too.
    Mail,
    /// The end of a session, but no mail: what it was sent is not read yet.
    End,
    /// A transaction is open: only whether a channel is heard.
    Channels,
}

/// Whether a notification was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Posted {
    Kept,
    /// It was one too many: the session ends.
    Overflowed,
    /// The session ends already.
    Ended,
}

/// What becomes of a notification that is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Gone,
    /// It depends on what is not known yet.
    Later,
    /// This one and all behind it: nothing more can be taken now.
    Full,
}

impl Mailbox {
    /// Keeps at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { state: Mutex::default(), limit }
    }

    pub(super) fn post(&self, message: &Bytes) -> Posted {
        let mut state = self.state.lock();
        if state.end.is_some() {
            return Posted::Ended;
        }
        let bytes = state.bytes + message.len() + ENTRY;
        if bytes > self.limit {
            state.finish(ListenError::Overflow { limit: self.limit });
            return Posted::Overflowed;
        }
        state.bytes = bytes;
        state.mail.push_back(message.clone());
        state.fresh = true;
        state.wake();
        Posted::Kept
    }

    /// A channel is heard from now on.
    pub(super) fn stir(&self) {
        let mut state = self.state.lock();
        state.stirred = true;
        state.wake();
    }

    /// A channel that is waited for cannot be had.
    pub(super) fn refuse(&self, why: ListenError) {
        let mut state = self.state.lock();
        state.refused = Some(why);
        state.stirred = true;
        state.wake();
    }

    /// Notifications may be missing from now on. Kept is what was not said before.
    pub(super) fn end(&self, why: ListenError) -> Posted {
        let mut state = self.state.lock();
        if state.end.is_some() {
            return Posted::Ended;
        }
        state.finish(why);
        Posted::Kept
    }

    /// Ready when there is something for a session that pays `attention`.
    pub(crate) fn poll_news(&self, cx: &Context<'_>, attention: Attention) -> Poll<()> {
        let mut state = self.state.lock();
        let has_ended = state.end.is_some() && attention != Attention::Channels;
        let has_mail = state.fresh && attention == Attention::Mail;
        if std::mem::take(&mut state.stirred) || has_ended || has_mail {
            return Poll::Ready(());
        }
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Why no channel can be had: told once, but for the end of the session.
    pub(crate) fn take_refusal(&self) -> Option<ListenError> {
        let mut state = self.state.lock();
        state.refused.take().or_else(|| state.end.clone())
    }

    /// Looks at what is there, oldest first.
    ///
    /// # Errors
    /// The session cannot go on, now and later.
    pub(crate) fn sift(
        &self,
        mut look: impl FnMut(&[u8]) -> Result<Verdict, ListenError>,
    ) -> Result<(), ListenError> {
        let mut state = self.state.lock();
        if let Some(end) = &state.end {
            return Err(end.clone());
        }
        state.fresh = false;
        let mut later = VecDeque::new();
        while let Some(message) = state.mail.pop_front() {
            match look(&message) {
                Err(why) => {
                    state.finish(why.clone());
                    return Err(why);
                }
                Ok(Verdict::Gone) => state.bytes -= message.len() + ENTRY,
                Ok(Verdict::Later) => later.push_back(message),
                Ok(Verdict::Full) => {
                    state.fresh = true;
                    later.push_back(message);
                    later.append(&mut state.mail);
                }
            }
        }
        state.mail = later;
        Ok(())
    }
}

impl State {
    fn finish(&mut self, why: ListenError) {
        (self.mail, self.bytes, self.fresh) = (VecDeque::new(), 0, false);
        self.end = Some(why);
        // Who waits for a channel waits in vain.
        self.stirred = true;
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(n: u8) -> Bytes {
        Bytes::copy_from_slice(&[n; 36])
    }

    fn news(mailbox: &Mailbox, attention: Attention) -> bool {
        mailbox.poll_news(&Context::from_waker(Waker::noop()), attention).is_ready()
    }

    #[test]
    fn one_too_many_ends_the_session_and_frees_what_was_kept() {
        let mailbox = Mailbox::new(250);
        assert_eq!(mailbox.post(&note(1)), Posted::Kept);
        assert_eq!(mailbox.post(&note(2)), Posted::Kept);
        assert_eq!(mailbox.post(&note(3)), Posted::Overflowed);
        assert_eq!(mailbox.post(&note(4)), Posted::Ended);
        assert!(mailbox.state.lock().mail.is_empty());
        assert!(news(&mailbox, Attention::Channels), "nobody waits for a channel in vain");
        assert!(!news(&mailbox, Attention::Channels), "its transaction may come to its end");
        assert!(news(&mailbox, Attention::End));
        let end = mailbox.sift(|_| Ok(Verdict::Gone)).unwrap_err();
        assert!(matches!(end, ListenError::Overflow { limit: 250 }));
    }

    #[test]
    fn what_cannot_be_told_yet_keeps_its_place_and_its_bytes() {
        let mailbox = Mailbox::new(1_000);
        (1..=4).for_each(|n| assert_eq!(mailbox.post(&note(n)), Posted::Kept));
        let mut seen = Vec::new();
        let mut look = |message: &[u8]| {
            seen.push(message[0]);
            Ok(match message[0] {
                1 => Verdict::Later,
                2 => Verdict::Gone,
                _ => Verdict::Full,
            })
        };
        mailbox.sift(&mut look).unwrap();
        assert_eq!(seen, [1, 2, 3]);
        assert!(news(&mailbox, Attention::Mail), "there is more");
        let mut seen = Vec::new();
        let mut look = |message: &[u8]| {
            seen.push(message[0]);
            Ok(Verdict::Gone)
        };
        mailbox.sift(&mut look).unwrap();
        assert_eq!(seen, [1, 3, 4]);
        assert_eq!(mailbox.state.lock().bytes, 0);
        assert!(!news(&mailbox, Attention::Mail));
    }

    #[test]
    fn mail_wakes_only_who_can_take_it() {
        let mailbox = Mailbox::new(1_000);
        assert_eq!(mailbox.post(&note(1)), Posted::Kept);
        assert!(!news(&mailbox, Attention::Channels) && !news(&mailbox, Attention::End));
        assert!(news(&mailbox, Attention::Mail));
        mailbox.stir();
        assert!(news(&mailbox, Attention::Channels));
        assert!(!news(&mailbox, Attention::Channels), "told once");
    }
}
