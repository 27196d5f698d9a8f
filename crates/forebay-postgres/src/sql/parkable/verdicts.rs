//! What servers have said about statements: so much of it, and for a short time.
//!
//! A verdict is of one database and one set of names, and it is void when something was defined through
//! us since, or when it is old, for what others define. Asks no clock: `now` is an argument.

use std::num::NonZeroUsize;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use forebay_seam::sync::Mutex;
use forebay_seam::time::Instant;
use lru::LruCache;

use super::Refusal;

/// Verdicts that are kept.
const MOST: NonZeroUsize = NonZeroUsize::new(4096).expect("it is not 0");
/// How long others may have defined something without our knowing.
const LASTS: Duration = Duration::from_secs(5);

/// What a statement names, in a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Subject([u8; 32]);

impl Subject {
    /// Of `database`, and of what is asked about a statement there ([`super::Named::lines`]).
    pub(crate) fn new(database: &str, lines: &str) -> Self {
        let both = [database.as_bytes(), &[0], lines.as_bytes()].concat();
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, &both).as_ref());
        Self(hash)
    }
}

#[derive(Debug)]
struct Kept {
    verdict: Result<(), Refusal>,
    definitions: u64,
    at: Instant,
}

/// Verdicts of one server, the most recently used ones.
#[derive(Debug)]
pub(crate) struct Verdicts(Mutex<LruCache<Subject, Kept>>);

impl Default for Verdicts {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MOST)))
    }
}

impl Verdicts {
    /// The verdict about `subject`, if it still counts: `definitions` counts those that went
    /// through us in its database, begun and ended.
    pub(crate) fn of(
        &self,
        subject: Subject,
        definitions: u64,
        now: Instant,
    ) -> Option<Result<(), Refusal>> {
        let mut all = self.0.lock();
        let kept = all.get(&subject)?;
        let counts = kept.definitions == definitions && now < kept.at + LASTS;
        if counts {
            return Some(kept.verdict);
        }
        all.pop(&subject);
        None
    }

    /// Keeps what the server answered to a question that was sent at `now`, when `definitions`
    /// had been counted.
    pub(crate) fn keep(
        &self,
        subject: Subject,
        verdict: Result<(), Refusal>,
        definitions: u64,
        now: Instant,
    ) {
        // What was not answered is asked again.
        if verdict != Err(Refusal::NoAnswer) {
            self.0.lock().put(subject, Kept { verdict, definitions, at: now });
        }
    }
}

#[cfg(test)]
mod tests {
    use forebay_seam::time;

    use super::*;

    #[test]
    fn a_verdict_is_void_once_something_was_defined_or_time_has_passed() {
        let (verdicts, now) = (Verdicts::default(), time::now());
        let subject = Subject::new("app", "function\t\tlower");
        verdicts.keep(subject, Ok(()), 3, now);
        assert_eq!(verdicts.of(subject, 3, now), Some(Ok(())));
        assert_eq!(verdicts.of(subject, 4, now), None);
        assert_eq!(verdicts.of(subject, 3, now), None, "it was dropped");
        verdicts.keep(subject, Err(Refusal::OwnFunction), 3, now);
        assert_eq!(verdicts.of(subject, 3, now), Some(Err(Refusal::OwnFunction)));
        assert_eq!(verdicts.of(subject, 3, now + LASTS), None);
        verdicts.keep(subject, Err(Refusal::NoAnswer), 3, now);
        assert_eq!(verdicts.of(subject, 3, now), None, "no answer is no verdict");
    }

    #[test]
    fn verdicts_of_databases_and_names_are_told_apart() {
        let all = [("a", "b"), ("a", "c"), ("ab", ""), ("", "ab")];
        let subjects: std::collections::HashSet<_> =
            all.iter().map(|(database, lines)| Subject::new(database, lines)).collect();
        assert_eq!(subjects.len(), all.len());
    }
}
