//! Statements as operations: what costs, holds and overlaps are told apart by.
//!
//! An operation is a statement's shape under a feature's name. Making one writes the shape,
//! so those made lately are kept, found by a hash of what both are made of: statements that
//! differ in their literals find the same. Always true: at most [`KEPT`] are kept, and of a
//! text only the first [`HEAD`] bytes count.

use std::hash::{BuildHasher, Hasher};
use std::num::NonZeroUsize;
use std::sync::Arc;

use foldhash::quality::RandomState;
use forebay_pool::Operation;
use forebay_seam::sync::Mutex;
use lru::LruCache;

use crate::sql::shape;

/// Operations kept: as many as the engine tells apart.
const KEPT: NonZeroUsize = NonZeroUsize::new(4_096).expect("more than none");
/// Bytes of a text that count; a shape has fewer.
pub(crate) const HEAD: usize = 2_048;

/// The hash of a feature and a shape. Two that share one would be learnt as one: with 64 bits
/// and a seed of the process, that is not to be expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct OperationKey(u64);

/// The operations of all sessions.
pub(crate) struct Operations {
    seed: RandomState,
    kept: Mutex<LruCache<OperationKey, Operation>>,
}

impl Default for Operations {
    fn default() -> Self {
        Self { seed: RandomState::default(), kept: Mutex::new(LruCache::new(KEPT)) }
    }
}

impl Operations {
    /// What `text`, run for `feature`, is found by.
    pub(crate) fn key(&self, feature: &str, text: &[u8]) -> OperationKey {
        let mut hasher = self.hasher(feature);
        shape::hash(head(text), &mut hasher);
        OperationKey(hasher.finish())
    }

    fn hasher(&self, feature: &str) -> impl Hasher {
        let mut hasher = self.seed.build_hasher();
        hasher.write_usize(feature.len());
        hasher.write(feature.as_bytes());
        hasher
    }

    /// The operation that `key` stands for, made of what it was made of if it is not kept.
    pub(crate) fn get(&self, key: OperationKey, feature: &Arc<str>, text: &[u8]) -> Operation {
        if let Some(operation) = self.kept.lock().get(&key) {
            return operation.clone();
        }
        let operation = Operation::new(Arc::clone(feature), shape::of(head(text)));
        self.kept.lock().push(key, operation.clone());
        operation
    }
}

/// The part of a text that counts.
pub(crate) fn head(text: &[u8]) -> &[u8] {
    text.get(..HEAD).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_a_shape_under_a_feature() {
        let operations = Operations::default();
        let of = |feature: &str, text: &[u8]| {
            operations.get(operations.key(feature, text), &Arc::from(feature), text)
        };
        let one = of("/ask", b"SELECT 1");
        assert_eq!(&**one.name(), "SELECT ?");
        assert_eq!(one, of("/ask", b"SELECT 1"));
        assert_eq!(one, of("/ask", b"SELECT 2"));
        assert_ne!(one, of("/tell", b"SELECT 1"));
        assert_ne!(operations.key("a", b"b"), operations.key("ab", b""));
        assert_eq!(operations.key("a", b"SELECT 1"), operations.key("a", b"SELECT 2"));
    }

    #[test]
    fn only_so_many_are_kept() {
        let operations = Operations::default();
        for n in 0..10_000 {
            let text = format!("SELECT c{n}");
            operations.get(operations.key("", text.as_bytes()), &Arc::from(""), text.as_bytes());
        }
        assert_eq!(operations.kept.lock().len(), KEPT.get());
    }
}
