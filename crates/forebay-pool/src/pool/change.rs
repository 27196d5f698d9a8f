//! Other settings for a pool that is in use.

use std::sync::{Arc, Weak};

use forebay_seam::time;

use crate::connect::Connector;
use crate::settings::PoolSettings;

use super::{Pool, Shared, Timings};

/// The pool cannot take the settings over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a pool has 1 to 16 classes in its life, and those it had before count as well: make a new \
     pool, and drain this one"
)]
pub struct NoPlace;

impl<K: Connector> Pool<K> {
    /// Applies other settings while the pool is used: all of them but its name and seed.
    ///
    /// No lease is broken and nobody loses its place in line. Idle connections above a smaller
    /// budget are closed at once, leased ones when they come home; a shorter `lifetime` counts
    /// for connections that are open, a longer one for those to come. Classes are known by
    /// their names: those that are new get a [`ClassId`](crate::ClassId), those that are left
    /// out have no guarantee any more and are shown only as long as they have work.
    ///
    /// # Errors
    /// When there is no place for the classes; nothing has changed then.
    pub fn apply(&self, settings: PoolSettings) -> Result<(), NoPlace> {
        let now = time::now();
        self.shared.act(|state, actions| {
            if !state.ledger.has_places_for(&settings.classes) {
                return Err(NoPlace);
            }
            *self.shared.timings.lock() = Timings::of(&settings);
            state.wishes.change(&settings, now);
            state.ledger.change(settings, now, actions);
            state.waiting.grow(state.ledger.class_ids().count());
            self.shared.name_classes_of(&state.ledger);
            state.look_at_wishes(now, actions);
            Ok(())
        })
    }
}

impl<K: Connector> Pool<K> {
    /// The connector leads elsewhere from now on: as [`Pool::renew`], and that connects failed
    /// before says nothing any more.
    pub fn start_over(&self) {
        let now = time::now();
        self.shared.act(|state, actions| state.ledger.start_over(now, actions));
    }

    /// Identities for which `is_served` is false are not kept warm any more, and their idle
    /// connections are closed; what they have on lease is theirs until it comes home.
    pub fn keep(&self, is_served: impl Fn(&K::Identity) -> bool) {
        let now = time::now();
        self.shared.act(|state, actions| {
            let known = state.names.iter();
            let others = known.filter(|(_, identity)| !is_served(identity));
            let others: Vec<_> = others.map(|(id, _)| id).collect();
            if !others.is_empty() {
                state.ledger.serve_no_more(others, now, actions);
            }
        });
    }

    /// Whether both are handles of the same pool.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Is `shared` what its handles share?
    pub(crate) fn is_of(&self, shared: &Arc<Shared<K>>) -> bool {
        Arc::ptr_eq(&self.shared, shared)
    }

    /// A handle that does not keep the pool.
    pub fn downgrade(&self) -> WeakPool<K> {
        WeakPool { shared: Arc::downgrade(&self.shared) }
    }
}

/// A handle that does not keep its pool.
pub struct WeakPool<K: Connector> {
    shared: Weak<Shared<K>>,
}

impl<K: Connector> WeakPool<K> {
    /// The pool, while somebody else keeps it.
    pub fn upgrade(&self) -> Option<Pool<K>> {
        self.shared.upgrade().map(|shared| Pool { shared })
    }
}

impl<K: Connector> Shared<K> {
    /// Notes what the ledger's classes are called, before anybody can know their numbers.
    pub(super) fn name_classes(&self) {
        self.name_classes_of(&self.state.lock().ledger);
    }

    fn name_classes_of(&self, ledger: &crate::ledger::Ledger) {
        for (place, name) in self.names.iter().zip(ledger.class_names()) {
            place.get_or_init(|| name.clone());
        }
    }
}
