//! The identities that the ledger knows by number only.
//!
//! A name is hashed by whoever asks, before it takes the pool's lock; looking it up costs a
//! comparison then. Always true: each number has one name, each name at most one number.

use std::hash::{BuildHasher, Hash};

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use slotmap::SecondaryMap;

use crate::slot::IdentityId;

/// Hashes names, with a seed of this process.
#[derive(Clone, Default)]
pub(super) struct NameHasher(RandomState);

/// A name's hash.
#[derive(Clone, Copy)]
pub(super) struct NameHash(u64);

impl NameHasher {
    pub(super) fn hash(&self, name: &impl Hash) -> NameHash {
        NameHash(self.0.hash_one(name))
    }
}

/// Names and numbers.
pub(super) struct Names<I> {
    hasher: NameHasher,
    numbers: HashTable<IdentityId>,
    names: SecondaryMap<IdentityId, I>,
}

impl<I: Clone + Eq + Hash> Names<I> {
    pub(super) fn new(hasher: NameHasher) -> Self {
        Self { hasher, numbers: HashTable::new(), names: SecondaryMap::new() }
    }

    pub(super) fn number(&self, hash: NameHash, name: &I) -> Option<IdentityId> {
        self.numbers.find(hash.0, |id| self.names.get(*id) == Some(name)).copied()
    }

    pub(super) fn name(&self, id: IdentityId) -> Option<&I> {
        self.names.get(id)
    }

    /// `name` has the number `id` from now on; it had none.
    pub(super) fn insert(&mut self, id: IdentityId, hash: NameHash, name: &I) {
        let Self { hasher, numbers, names } = self;
        names.insert(id, name.clone());
        numbers.insert_unique(hash.0, id, |other| {
            names.get(*other).map_or(0, |name| hasher.hash(name).0)
        });
    }

    pub(super) fn remove(&mut self, id: IdentityId) {
        let Some(name) = self.names.remove(id) else { return };
        if let Ok(entry) = self.numbers.find_entry(self.hasher.hash(&name).0, |other| *other == id)
        {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use slotmap::SlotMap;

    use super::*;

    #[test]
    fn each_name_has_its_number_until_it_is_removed() {
        let hasher = NameHasher::default();
        let mut names = Names::new(hasher.clone());
        let mut ids = SlotMap::<IdentityId, ()>::with_key();
        let all: Vec<_> = (0..1_000_u32).map(|name| (ids.insert(()), name)).collect();
        for (id, name) in &all {
            names.insert(*id, hasher.hash(name), name);
        }
        for (id, name) in all.iter().step_by(2) {
            names.remove(*id);
            assert_eq!(names.number(hasher.hash(name), name), None);
            assert_eq!(names.name(*id), None);
        }
        for (id, name) in all.iter().skip(1).step_by(2) {
            assert_eq!(names.number(hasher.hash(name), name), Some(*id));
            assert_eq!(names.name(*id), Some(name));
        }
    }
}
