//! A seat for a connection that the pool's owner opens itself, within the pool's budget.

use std::sync::Arc;

use forebay_seam::time;

use crate::cap::Place;
use crate::connect::Connector;
use crate::slot::IdentityId;

use super::{Pool, Shared};

/// A connection stands beside the pool, within its budget, until this is dropped: to be dropped
/// when the destination has let the connection go.
#[must_use = "dropped at once, nothing may be opened"]
pub struct Beside<K: Connector> {
    pool: Arc<Shared<K>>,
    identity: IdentityId,
    places: Vec<Place>,
}

impl<K: Connector> Beside<K> {
    /// May it go on? Not where the budget was lowered, its identity is paused or the pool is
    /// closed: then it is to be closed soon.
    pub fn may_stay(&self) -> bool {
        self.pool.state.lock().ledger.may_stand_beside(self.identity)
    }
}

impl<K: Connector> Drop for Beside<K> {
    fn drop(&mut self) {
        let now = time::now();
        self.places.clear();
        self.pool.act(|state, actions| state.ledger.left_beside(self.identity, now, actions));
    }
}

impl<K: Connector> Pool<K> {
    /// A seat for a connection of `identity` that the caller opens itself, which no class gets.
    /// `None`: [`PoolSettings::beside`](crate::PoolSettings::beside), the budget or a cap leave
    /// no room for it now.
    pub fn stand_beside(&self, identity: &K::Identity) -> Option<Beside<K>> {
        self.shared.act(|state, _| {
            let id = state.identity(identity, &self.shared.connector);
            let places = state.ledger.stand_beside(id)?;
            Some(Beside { pool: Arc::clone(&self.shared), identity: id, places })
        })
    }
}
