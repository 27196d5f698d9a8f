//! The batch that was sent last, kept while it may have to be sent once more.
//!
//! Always true: it is kept no longer than until the first of its answers is passed on, and
//! never more of it than [`MOST`] bytes.

use bytes::BytesMut;

use super::Server;
use super::answers::{Awaited, Purpose};
use crate::wire::TxStatus;

/// A batch that is longer is not kept: its client is told what went wrong with it.
const MOST: usize = 16 * 1024;
/// Tables may have changed again since the statement was renewed for another client.
const MOST_TIMES: u8 = 3;

/// The client's messages of one batch, as they came.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// Which one it is, while it is kept.
    batch: Option<u64>,
    messages: BytesMut,
    /// How often it was sent again.
    again: u8,
}

impl Kept {
    pub(crate) fn messages(&self) -> &[u8] {
        &self.messages
    }

    pub(crate) fn forget(&mut self) {
        self.batch = None;
        self.messages.clear();
    }

    fn begin(&mut self, batch: u64) {
        self.forget();
        self.batch = Some(batch);
        self.again = 0;
    }

    fn add(&mut self, tag: u8, message: &[u8]) {
        let is_of_batch = matches!(tag, b'P' | b'B' | b'D' | b'E' | b'C' | b'S' | b'H');
        if is_of_batch && self.messages.len() + message.len() <= MOST {
            self.messages.extend_from_slice(message);
        } else {
            self.forget();
        }
    }
}

impl Server {
    /// The message at hand may meet an outdated plan, or one behind it may: if it begins a
    /// batch, that is kept.
    pub(crate) fn keep_from_here(&mut self) {
        if self.unsynced {
            return;
        }
        let begun = |awaited: &Awaited| {
            let Awaited::OwnQuery(purpose) = awaited else { return false };
            matches!(purpose, Purpose::Begin | Purpose::FailedBegin | Purpose::Queried)
        };
        if self.status == TxStatus::Idle && !self.awaited.back().is_some_and(begun) {
            self.kept.begin(self.pipeline.at_hand());
        } else {
            self.kept.forget();
        }
    }

    /// The client's `message` is about to be sent, whole: it belongs to what is kept, if
    /// anything is.
    pub(crate) fn keep(&mut self, tag: u8, message: &[u8]) {
        if self.kept.batch == Some(self.pipeline.at_hand()) {
            self.kept.add(tag, message);
        }
    }

    /// Is the batch whose answers come now kept? Then none of them was passed on.
    pub(crate) fn is_kept_back(&self) -> bool {
        self.kept.batch.is_some()
            && self.kept.batch == Some(self.pipeline.answering())
            && !matches!(self.awaited.front(), Some(Awaited::OwnQuery(_)))
    }

    /// May what is kept be sent again?
    pub(crate) fn may_send_again(&self) -> bool {
        self.is_kept_back() && self.status == TxStatus::Idle && self.kept.again < MOST_TIMES
    }

    /// What is to be sent again, and how often it will have been.
    pub(crate) fn take_kept(&mut self) -> (BytesMut, u8) {
        self.kept.batch = None;
        (std::mem::take(&mut self.kept.messages), self.kept.again + 1)
    }

    /// What is kept has been sent `times` before.
    pub(crate) fn kept_again(&mut self, times: u8) {
        self.kept.again = times;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_is_too_long_or_streams_is_not_kept() {
        let mut kept = Kept::default();
        kept.begin(3);
        kept.add(b'P', &[0; MOST]);
        assert_eq!((kept.batch, kept.messages().len()), (Some(3), MOST));
        kept.add(b'S', &[0; 5]);
        assert_eq!((kept.batch, kept.messages().len()), (None, 0));
        kept.begin(4);
        kept.add(b'Q', b"Q");
        assert_eq!(kept.batch, None);
    }
}
