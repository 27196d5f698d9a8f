//! What work costs: the connection time that an operation of a class takes, learnt from what
//! it really took.
//!
//! One entry for each (class, operation), at most [`ENTRIES`] of them; the one that nobody
//! asked for lately makes room (second chance, Corbató's clock of 1968). An entry is found
//! once at checkout and kept as a [`CostId`], so a return hashes nothing; if the entry was
//! given to another operation meanwhile, only the class learns. Names no policy: what is
//! done with an estimate is decided elsewhere.
//!
//! Always true: the estimates of work that stays as it is converge to what it takes, so what
//! is charged by them and what was used differ less and less.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::{Duration, Instant};

use crate::class::ClassId;
use crate::feature::{FeatureId, Features};
use crate::learnt::{Learnt, as_time, micros};
use crate::operation::Operation;

/// Operations that are told apart, all classes together.
pub(crate) const ENTRIES: usize = 4_096;
/// The class's experience counts as so many values of the operation's own.
const PRIOR: f64 = 20.0;

/// What one operation of one class is known by, until it is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CostId {
    class: ClassId,
    /// `None`: work that nobody named.
    entry: Option<EntryId>,
    feature: FeatureId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct EntryId {
    slot: u16,
    generation: u32,
}

impl CostId {
    /// Work of `class` that nobody named: it costs what work of the class costs.
    pub(crate) fn unnamed(class: ClassId) -> Self {
        Self { class, entry: None, feature: FeatureId::UNTAGGED }
    }

    /// The feature it belongs to.
    pub(crate) fn feature(self) -> FeatureId {
        self.feature
    }

    /// A number of its own among all work that has a name; `None` for work without one.
    pub(crate) fn number(self) -> Option<u64> {
        self.entry.map(|entry| u64::from(entry.generation) << 16 | u64::from(entry.slot))
    }

    /// Its place in a table of `ENTRIES + 1` (unnamed work is the last), and what tells it
    /// from others that had the place before.
    pub(crate) fn place(self) -> (usize, u32) {
        self.entry.map_or((ENTRIES, 0), |entry| (usize::from(entry.slot), entry.generation))
    }
}

#[derive(Debug, Clone)]
struct Entry {
    class: ClassId,
    operation: Operation,
    generation: u32,
    feature: FeatureId,
    took: Learnt,
}

/// What an operation says of itself, beside what its class says.
fn blend(entry: &Entry, own: f64, prior: f64) -> f64 {
    prior + entry.took.part_beside(PRIOR) * (own - prior)
}

/// What everything costs, of one destination.
#[derive(Debug, Clone)]
pub(crate) struct Costs {
    /// By class; the operations hash to what they were named with.
    slots: Vec<HashMap<Operation, u16, BuildHasherDefault<AsIs>>>,
    /// What each class's work took, whatever the operation.
    classes: Vec<Learnt>,
    #[expect(clippy::vec_box, reason = "half a kilobyte each: growing copies no entries")]
    entries: Vec<Box<Entry>>,
    /// Which entries were asked for since the clock's hand passed, one bit each.
    asked: [u64; ENTRIES / 64],
    hand: usize,
    generations: u32,
}

impl Costs {
    /// Nothing is known of `classes` classes.
    pub(crate) fn new(classes: usize, now: Instant) -> Self {
        Self {
            slots: vec![HashMap::default(); classes],
            classes: vec![Learnt::new(now); classes],
            entries: Vec::new(),
            asked: [0; ENTRIES / 64],
            hand: 0,
            generations: 0,
        }
    }

    /// There are `classes` classes by now.
    pub(crate) fn grow(&mut self, classes: usize, now: Instant) {
        self.slots.resize_with(classes, HashMap::default);
        self.classes.resize_with(classes, || Learnt::new(now));
    }

    /// The entry of `operation`, made if there is none.
    #[inline]
    pub(crate) fn find(
        &mut self,
        class: ClassId,
        operation: &Operation,
        features: &mut Features,
        now: Instant,
    ) -> CostId {
        let place = operation.place();
        let last = self.entries.get(usize::from(place));
        if last.is_some_and(|last| last.class == class && last.operation == *operation) {
            return self.is_asked_for(place);
        }
        match self.slots[class.index()].get(operation) {
            Some(slot) => {
                operation.is_at(*slot);
                self.is_asked_for(*slot)
            }
            None => {
                let slot = self.learn_of(class, operation, features, now);
                operation.is_at(slot);
                self.id(slot)
            }
        }
    }

    fn is_asked_for(&mut self, slot: u16) -> CostId {
        self.asked[usize::from(slot) / 64] |= 1 << (slot % 64);
        self.id(slot)
    }

    fn id(&self, slot: u16) -> CostId {
        let Entry { class, generation, feature, .. } = *self.entries[usize::from(slot)];
        CostId { class, entry: Some(EntryId { slot, generation }), feature }
    }

    /// What it will probably take on average: `(n·own + 20·prior) / (n + 20)`, where the prior
    /// is the class's 75th percentile, so that the unknown counts as rather expensive. A
    /// declared cost pins it. `None`: the class has never returned anything.
    #[inline]
    pub(crate) fn mean(&self, id: CostId, declared: Option<Duration>) -> Option<Duration> {
        if declared.is_some() {
            return declared;
        }
        let class = &self.classes[id.class.index()];
        if class.is_empty() {
            return None;
        }
        let prior = class.percentiles().p75;
        Some(as_time(match self.entry(id) {
            Some(entry) => blend(entry, entry.took.mean(), prior),
            None if id.entry.is_none() => class.mean(),
            None => prior,
        }))
    }

    /// What the work of `class` took on average, seconds.
    #[inline]
    pub(crate) fn class_mean(&self, class: ClassId) -> Option<f64> {
        let class = &self.classes[class.index()];
        (!class.is_empty()).then(|| class.mean() * 1e-6)
    }

    /// The 95th percentile of the same, with the class's own as its prior.
    pub(crate) fn p95(&self, id: CostId, declared: Option<Duration>) -> Option<Duration> {
        if declared.is_some() {
            return declared;
        }
        let is_known = !self.classes[id.class.index()].is_empty();
        is_known.then(|| {
            let prior = self.classes[id.class.index()].percentiles().p95;
            let own = |entry: &Entry| blend(entry, entry.took.percentiles().p95, prior);
            as_time(self.entry(id).map_or(prior, own))
        })
    }

    /// What it is called, unless it was forgotten or never named.
    pub(crate) fn operation(&self, id: CostId) -> Option<&Operation> {
        self.entry(id).map(|entry| &entry.operation)
    }

    /// What is known of each operation.
    pub(crate) fn known(&self) -> impl Iterator<Item = (ClassId, &Operation, &Learnt)> {
        self.entries.iter().map(|entry| (entry.class, &entry.operation, &entry.took))
    }

    /// It took `held` of connection time.
    #[inline]
    pub(crate) fn learn(&mut self, id: CostId, held: Duration, now: Instant) {
        let took = micros(held);
        self.classes[id.class.index()].record(took, now);
        if let Some(EntryId { slot, generation }) = id.entry
            && let Some(entry) = self.entries.get_mut(usize::from(slot))
            && entry.generation == generation
        {
            entry.took.record(took, now);
        }
    }

    fn entry(&self, id: CostId) -> Option<&Entry> {
        let EntryId { slot, generation } = id.entry?;
        let entry = self.entries.get(usize::from(slot))?;
        (entry.generation == generation).then_some(entry)
    }

    /// An entry for what was not known before. A newcomer counts as not asked for, so that
    /// a flood of names that come only once drives out none that come again.
    #[cold]
    fn learn_of(
        &mut self,
        class: ClassId,
        operation: &Operation,
        features: &mut Features,
        now: Instant,
    ) -> u16 {
        self.generations = self.generations.wrapping_add(1);
        let entry = Entry {
            class,
            operation: operation.clone(),
            generation: self.generations,
            feature: features.find(operation.feature(), now),
            took: Learnt::new(now),
        };
        let slot = match u16::try_from(self.entries.len()) {
            Ok(slot) if self.entries.len() < ENTRIES => {
                self.entries.push(Box::new(entry));
                slot
            }
            _ => {
                let slot = self.unasked();
                let old = std::mem::replace(&mut *self.entries[usize::from(slot)], entry);
                self.slots[old.class.index()].remove(&old.operation);
                slot
            }
        };
        self.slots[class.index()].insert(operation.clone(), slot);
        slot
    }

    /// Moves the hand to the next entry that nobody asked for since it last passed, a word of
    /// 64 at a time: a round is 64 steps, and each clears what it passes.
    fn unasked(&mut self) -> u16 {
        loop {
            let (word, bit) = (self.hand / 64, self.hand % 64);
            let passed = u64::MAX << bit;
            let free = (!self.asked[word] & passed).trailing_zeros();
            if let Ok(free) = u16::try_from(free)
                && free < 64
            {
                // Bits from the hand up to the free one are behind it now.
                self.asked[word] &= !(passed & ((1 << free) - 1));
                let slot = word * 64 + usize::from(free);
                self.hand = (slot + 1) % ENTRIES;
                return u16::try_from(slot).unwrap_or_default();
            }
            self.asked[word] &= !passed;
            self.hand = (word + 1) * 64 % ENTRIES;
        }
    }
}

/// Hashes what is hashed already (an [`Operation`] writes the hash of its names).
#[derive(Debug, Clone, Copy, Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
}

#[cfg(test)]
mod tests;
