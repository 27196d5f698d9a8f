//! What is called, as operators tell calls apart: the method and the path, without what
//! differs from call to call, for a feature. Its length and its variety are bounded; what was
//! called lately is known by name, so that the next call makes nothing anew.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use forebay_pool::Operation;
use forebay_seam::sync::Mutex;
use http::Method;
use lru::LruCache;

/// Operations of a destination that are remembered.
const KNOWN: NonZeroUsize = NonZeroUsize::new(1_024).expect("it is not zero");
/// Between the feature and the template in a key: no template begins with a control character.
const BETWEEN: char = '\u{1f}';
/// A new call counts as one part in so many of an operation's mean.
const MEMORY: u64 = 8;
/// No call used that many tokens: none is known.
const UNKNOWN: u64 = u64::MAX;

/// Segments that are told apart.
const SEGMENTS: usize = 8;
/// Characters of a segment that are kept.
const SEGMENT: usize = 32;

/// One operation of one feature, and what its calls used so far.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) operation: Operation,
    /// The tokens that its calls use, on average.
    tokens: AtomicU64,
}

impl Work {
    fn new(operation: Operation) -> Self {
        Self { operation, tokens: AtomicU64::new(UNKNOWN) }
    }

    /// The tokens that a call uses, on average, once one is known.
    pub(crate) fn mean_tokens(&self) -> Option<u64> {
        Some(self.tokens.load(Ordering::Relaxed)).filter(|mean| *mean != UNKNOWN)
    }

    /// A call used so many. Two at the same moment may count as one: it is a mean.
    pub(crate) fn learn_tokens(&self, used: u64) {
        let mean = self
            .mean_tokens()
            .map_or(used, |mean| (mean.saturating_mul(MEMORY - 1).saturating_add(used)) / MEMORY);
        self.tokens.store(mean, Ordering::Relaxed);
    }
}

/// What was called lately at one destination.
#[derive(Debug)]
pub(crate) struct Works(Mutex<LruCache<Box<str>, Arc<Work>>>);

impl Default for Works {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(KNOWN)))
    }
}

impl Works {
    /// The work of `feature` that `method` and `path` are.
    pub(crate) fn look_up(&self, feature: &str, method: &Method, path: &str) -> Arc<Work> {
        let mut key =
            String::with_capacity(feature.len() + path.len().min(SEGMENTS * SEGMENT) + 16);
        key.push_str(feature);
        key.push(BETWEEN);
        let begins = key.len();
        write_template(&mut key, method, path);
        let mut known = self.0.lock();
        if let Some(work) = known.get(key.as_str()) {
            return Arc::clone(work);
        }
        let template = key.get(begins..).unwrap_or_default();
        let work = Arc::new(Work::new(Operation::new(feature, template)));
        known.put(key.into(), Arc::clone(&work));
        work
    }
}

/// `GET /users/{id}/orders` for `GET /users/17/orders`.
fn write_template(template: &mut String, method: &Method, path: &str) {
    template.extend(method.as_str().chars().take(SEGMENT));
    template.push(' ');
    let mut segments = path.trim_start_matches('/').split('/');
    for segment in segments.by_ref().take(SEGMENTS) {
        template.push('/');
        if is_id(segment) {
            template.push_str("{id}");
        } else {
            template.extend(segment.chars().filter(char::is_ascii_graphic).take(SEGMENT));
        }
    }
    if segments.next().is_some() {
        template.push_str("/…");
    }
}

/// Numbers, UUIDs, hexadecimal digests and long words with digits in them.
fn is_id(segment: &str) -> bool {
    let digits = segment.bytes().filter(u8::is_ascii_digit).count();
    let hex = segment.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    match segment.len() {
        0 => false,
        1..8 => digits == segment.len(),
        8..20 => digits > 0 && hex,
        20.. => digits > 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str) -> String {
        let mut template = String::new();
        write_template(&mut template, &Method::GET, path);
        template
    }

    #[test]
    fn the_same_work_is_made_once_and_remembered() {
        let works = Works::default();
        let one = works.look_up("search", &Method::GET, "/users/17");
        assert!(Arc::ptr_eq(&one, &works.look_up("search", &Method::GET, "/users/18")));
        assert_eq!(one.operation, Operation::new("search", "GET /users/{id}"));
        let other = works.look_up("", &Method::GET, "/users/17");
        assert_ne!(one.operation, other.operation);
        for n in 0..5_000 {
            works.look_up(&n.to_string(), &Method::GET, "/");
        }
        assert_eq!(works.0.lock().len(), KNOWN.get());
    }

    #[test]
    fn the_mean_of_an_operations_tokens_follows_its_calls() {
        let works = Works::default();
        let work = works.look_up("", &Method::POST, "/v1/chat");
        assert_eq!(work.mean_tokens(), None);
        work.learn_tokens(800);
        assert_eq!(work.mean_tokens(), Some(800));
        (0..100).for_each(|_| work.learn_tokens(80_000));
        assert!(work.mean_tokens().is_some_and(|mean| (79_000..=80_000).contains(&mean)));
    }

    #[test]
    fn what_differs_from_call_to_call_is_left_out() {
        assert_eq!(of("/users/17/orders"), "GET /users/{id}/orders");
        assert_eq!(of("/v1/chat/completions"), "GET /v1/chat/completions");
        assert_eq!(of("/f/550e8400-e29b-41d4-a716-446655440000"), "GET /f/{id}");
        assert_eq!(of("/c/deadbeef01"), "GET /c/{id}");
        assert_eq!(of("/threads/thread_abc123def456ghi789"), "GET /threads/{id}");
        assert_eq!(of(""), "GET /");
        assert_eq!(of("/facade"), "GET /facade");
    }

    #[test]
    fn an_operation_is_never_long() {
        let endless = "/segment-without-digits-that-goes-on-and-on-and-on".repeat(1_000);
        assert!(of(&endless).len() < 400);
        assert!(of(&endless).ends_with("/…"));
    }
}
