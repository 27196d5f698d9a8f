//! The identities that the ledger knows by number only.
//!
//! Callers come in bursts of one identity: the one that was asked for last is compared before
//! anything is hashed. Always true: each number has one name, each name at most one number.

use std::hash::{BuildHasher, Hash};

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use slotmap::SecondaryMap;

use crate::slot::IdentityId;

/// Names and numbers.
pub(super) struct Names<I> {
    hasher: RandomState,
    numbers: HashTable<IdentityId>,
    names: SecondaryMap<IdentityId, I>,
    last: IdentityId,
}

impl<I: Clone + Eq + Hash> Names<I> {
    pub(super) fn new() -> Self {
        Self {
            hasher: RandomState::default(),
            numbers: HashTable::new(),
            names: SecondaryMap::new(),
            last: IdentityId::default(),
        }
    }

    /// The number of `name`, if it has one.
    pub(super) fn number(&mut self, name: &I) -> Option<IdentityId> {
        if self.names.get(self.last) != Some(name) {
            let hash = self.hasher.hash_one(name);
            self.last = *self.numbers.find(hash, |id| self.names.get(*id) == Some(name))?;
        }
        Some(self.last)
    }

    pub(super) fn name(&self, id: IdentityId) -> Option<&I> {
        self.names.get(id)
    }

    /// All that are known.
    pub(super) fn iter(&self) -> impl Iterator<Item = (IdentityId, &I)> {
        self.names.iter()
    }

    /// `name` has the number `id` from now on; it had none.
    pub(super) fn insert(&mut self, id: IdentityId, name: I) {
        let Self { hasher, numbers, names, .. } = self;
        let hash = hasher.hash_one(&name);
        names.insert(id, name);
        numbers.insert_unique(hash, id, |other| {
            names.get(*other).map_or(0, |name| hasher.hash_one(name))
        });
    }

    pub(super) fn remove(&mut self, id: IdentityId) {
        let Some(name) = self.names.remove(id) else { return };
        let hash = self.hasher.hash_one(&name);
        if let Ok(entry) = self.numbers.find_entry(hash, |other| *other == id) {
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
        let mut names = Names::new();
        let mut ids = SlotMap::<IdentityId, ()>::with_key();
        let all: Vec<_> = (0..1_000_u32).map(|name| (ids.insert(()), name)).collect();
        for (id, name) in &all {
            assert_eq!(names.number(name), None);
            names.insert(*id, *name);
            assert_eq!(names.number(name), Some(*id));
        }
        for (id, name) in all.iter().step_by(2) {
            assert_eq!(names.number(name), Some(*id));
            names.remove(*id);
            assert_eq!(names.number(name), None);
            assert_eq!(names.name(*id), None);
        }
        for (id, name) in all.iter().skip(1).step_by(2) {
            assert_eq!(names.number(name), Some(*id));
            assert_eq!(names.name(*id), Some(name));
        }
    }
}
