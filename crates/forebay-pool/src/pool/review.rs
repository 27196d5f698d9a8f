//! What an operator does to some identities of a pool while it is used: other terms, pauses,
//! new connections in place of the old ones; and the waits for what comes of it.

use std::pin::pin;
use std::sync::Arc;

use forebay_seam::time;

use crate::connect::Connector;
use crate::ledger::{Actions, Count};
use crate::slot::IdentityId;

use super::{Pool, Shared, State};

impl<K: Connector> Pool<K> {
    /// Asks the protocol's side anew what `which` of the known identities may have
    /// ([`Connector::terms`]). No lease is broken: what is above smaller terms is closed when
    /// it comes home, and at once where it rests.
    pub fn review(&self, which: impl Fn(&K::Identity) -> bool) {
        let now = time::now();
        let connector = &self.shared.connector;
        self.shared.act(|state, actions| {
            for id in state.those(which) {
                let Some(terms) = state.names.name(id).map(|name| connector.terms(name)) else {
                    continue;
                };
                state.ledger.review(id, terms, now, actions);
            }
        });
    }

    /// As [`Pool::review`], for `identity`, which is known from now on if something is to be
    /// kept open for it.
    pub fn review_one(&self, identity: &K::Identity) {
        let now = time::now();
        let terms = self.shared.connector.terms(identity);
        self.shared.act(|state, actions| {
            let id = match state.names.number(identity) {
                Some(id) => id,
                None if terms.keep == 0 => return,
                None => state.identity(identity, &self.shared.connector),
            };
            state.ledger.review(id, terms, now, actions);
        });
    }

    /// Replaces all connections of now of `which`: those that rest at once, leased ones when
    /// they come home.
    pub fn replace(&self, which: impl Fn(&K::Identity) -> bool) {
        let now = time::now();
        self.shared.act(|state, actions| {
            let those = state.those(which);
            state.ledger.replace_all_of(&those, now, actions);
        });
    }

    /// The connections of `which`.
    pub fn count(&self, which: impl Fn(&K::Identity) -> bool) -> Count {
        let state = self.shared.state.lock();
        let those = state.those(which);
        state.ledger.count(&those)
    }

    /// Waits until the connections of `which` are as `reached` says.
    ///
    /// # Cancel safety
    /// It only looks.
    pub async fn until(
        &self,
        which: impl Fn(&K::Identity) -> bool,
        reached: impl Fn(Count) -> bool,
    ) {
        loop {
            // Made before the look, so that it hears of what happens after it.
            let mut left = pin!(self.shared.left.notified());
            left.as_mut().enable();
            if reached(self.count(&which)) {
                return;
            }
            left.await;
        }
    }
}

impl<K: Connector> State<K> {
    /// The number of `identity`, which has none yet.
    pub(super) fn introduce(&mut self, identity: &K::Identity, connector: &K) -> IdentityId {
        let id = self.ledger.introduce(connector.terms(identity));
        self.names.insert(id, identity.clone());
        id
    }

    /// Is what is kept open for some still wanted?
    pub(super) fn review_keepers(&mut self, connector: &K, actions: &mut Actions) {
        let now = time::now();
        for id in self.ledger.keepers_due(now) {
            let Some(terms) = self.names.name(id).map(|name| connector.terms(name)) else {
                continue;
            };
            self.ledger.review(id, terms, now, actions);
        }
    }

    fn those(&self, which: impl Fn(&K::Identity) -> bool) -> Vec<IdentityId> {
        self.names.iter().filter(|(_, name)| which(name)).map(|(id, _)| id).collect()
    }
}

impl<K: Connector> Shared<K> {
    /// A connection is gone.
    pub(super) fn one_left(self: &Arc<Self>) {
        self.left.notify_waiters();
    }
}
