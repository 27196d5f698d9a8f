//! Batches that were sent and are not answered yet, and what they change if they succeed.
//!
//! Names of statements are taken as changed when the message that changes them is sent. If
//! an error then skips it, the change is taken back; until that is certain, no later batch
//! may build on it. Always true: a message waits only while an answer is owed.

/// Counts batches; each ends with a ReadyForQuery.
#[derive(Debug, Default)]
pub(crate) struct Pipeline {
    sent: u64,
    answered: u64,
    named: Mark,
    unnamed: Mark,
}

/// The last batch that changed something, and the last one before it.
#[derive(Debug, Default)]
struct Mark {
    last: Option<u64>,
    before: Option<u64>,
}

impl Mark {
    fn note(&mut self, batch: u64) {
        if self.last != Some(batch) {
            self.before = self.last.replace(batch);
        }
    }

    /// The last change before `batch`.
    fn earlier_than(&self, batch: u64) -> Option<u64> {
        if self.last == Some(batch) { self.before } else { self.last }
    }
}

impl Pipeline {
    /// The batch at hand is sent whole.
    pub(crate) fn ends_batch(&mut self) {
        self.sent += 1;
    }

    /// The number of the batch at hand.
    pub(crate) fn at_hand(&self) -> u64 {
        self.sent
    }

    /// The number of the batch whose answers come now.
    pub(crate) fn answering(&self) -> u64 {
        self.answered
    }

    /// A ReadyForQuery came.
    pub(crate) fn is_answered(&mut self) {
        self.answered += 1;
    }

    /// Nothing is owed.
    pub(crate) fn is_empty(&mut self) {
        self.answered = self.sent;
    }

    /// The batch at hand changes what a name stands for.
    pub(crate) fn changes_names(&mut self) {
        self.named.note(self.sent);
    }

    /// The batch at hand changes the unnamed statement.
    pub(crate) fn changes_unnamed(&mut self) {
        self.unnamed.note(self.sent);
    }

    /// Is it uncertain what names stand for?
    pub(crate) fn names_are_open(&self) -> bool {
        self.named.earlier_than(self.sent).is_some_and(|batch| batch >= self.answered)
    }

    /// Is it uncertain which the unnamed statement is? Not if the batch at hand made it.
    pub(crate) fn unnamed_is_open(&self) -> bool {
        self.unnamed.last.is_some_and(|batch| batch >= self.answered && batch != self.sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_may_build_on_itself_and_on_what_is_answered() {
        let mut pipeline = Pipeline::default();
        pipeline.changes_names();
        pipeline.changes_unnamed();
        assert!(!pipeline.names_are_open() && !pipeline.unnamed_is_open());
        pipeline.ends_batch();
        assert!(pipeline.names_are_open() && pipeline.unnamed_is_open());
        pipeline.changes_names();
        pipeline.changes_unnamed();
        assert!(pipeline.names_are_open(), "the first batch may still fail");
        assert!(!pipeline.unnamed_is_open(), "it has one of its own");
        pipeline.is_answered();
        assert!(!pipeline.names_are_open());
    }
}
