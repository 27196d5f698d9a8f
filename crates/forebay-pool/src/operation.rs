//! What kind of work a connection is taken for: cost, hold time and fan-out are learnt by it.
//!
//! Made once by whoever knows its name (a prepared statement, a route, a tool) and cloned for
//! each checkout: a clone counts a reference, and looking one up hashes nothing anew.

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, LazyLock};

/// A kind of work: an operation of a feature.
#[derive(Clone)]
pub struct Operation(Arc<Named>);

struct Named {
    feature: Arc<str>,
    name: Arc<str>,
    hash: u64,
    /// Where it was found last, in whichever table: a hint, to be checked.
    place: AtomicU16,
}

/// Names come from clients: the seed keeps them from choosing who collides.
static SEED: LazyLock<std::hash::RandomState> = LazyLock::new(std::hash::RandomState::new);

impl Operation {
    /// The operation `name` (a statement's shape, a route, a tool) of `feature` (the endpoint,
    /// agent or tool that metrics are told apart by).
    pub fn new(feature: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        let (feature, name) = (feature.into(), name.into());
        let hash = SEED.hash_one((&*feature, &*name));
        Self(Arc::new(Named { feature, name, hash, place: AtomicU16::new(0) }))
    }

    /// The endpoint, agent or tool.
    pub fn feature(&self) -> &Arc<str> {
        &self.0.feature
    }

    /// What is done there.
    pub fn name(&self) -> &Arc<str> {
        &self.0.name
    }

    /// Where it may be found, since it was there last: tables that find it so hash nothing.
    pub(crate) fn place(&self) -> u16 {
        self.0.place.load(Ordering::Relaxed)
    }

    /// It was found at `place`.
    pub(crate) fn is_at(&self, place: u16) {
        self.0.place.store(place, Ordering::Relaxed);
    }
}

impl PartialEq for Operation {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || (self.0.hash == other.0.hash
                && self.0.feature == other.0.feature
                && self.0.name == other.0.name)
    }
}

impl Eq for Operation {}

impl Hash for Operation {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0.feature, self.0.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_of_the_same_name_are_one() {
        let one = Operation::new("answer", "SELECT ?");
        let other = Operation::new("answer".to_owned(), Arc::<str>::from("SELECT ?"));
        assert_eq!(one, other);
        let hash = |o: &Operation| SEED.hash_one(o);
        assert_eq!(hash(&one), hash(&other));
        assert_ne!(one, Operation::new("answe", "rSELECT ?"));
    }
}
