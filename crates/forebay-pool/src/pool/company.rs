//! What a pool tells others: its events, and who holds and waits here, so that circles which
//! run through several pools are found.

use std::sync::{Arc, Weak};

use forebay_seam::time;
use tokio::sync::broadcast;

use crate::connect::Connector;
use crate::deadlock::{Activity, Census};
use crate::event::{Event, Told};
use crate::operation::Operation;
use crate::roster::{Member, Roster};
use crate::slot::{ConnId, WaiterId};

use super::{Pool, Shared};

impl<K: Connector> Pool<K> {
    /// From now on the pool knows what its requests hold in the other pools of `roster`, if
    /// they were made by [`Roster::request`]. Only the first roster counts.
    pub fn join(&self, roster: &Arc<Roster>) {
        if self.shared.roster.set(Arc::clone(roster)).is_ok() {
            let shared: Weak<Shared<K>> = Arc::downgrade(&self.shared);
            roster.join(shared);
        }
    }

    /// What happens, as it happens. A reader that falls 1,024 behind misses the oldest.
    pub fn events(&self) -> broadcast::Receiver<Told> {
        self.shared.events.subscribe()
    }
}

impl<K: Connector> Shared<K> {
    pub(super) fn announce(&self, events: Vec<Event>) {
        for event in events {
            let destination = Arc::clone(&self.destination);
            // No reader is no error: the counters have it.
            drop(self.events.send(Told { destination, event }));
        }
    }

    /// Looks for circles that run through other pools, too.
    pub(super) fn untangle(&self) {
        let Some(roster) = self.roster.get() else { return };
        if self.state.lock().ledger.may_be_tangled() {
            roster.untangle();
        }
    }

    pub(crate) fn went_wrong(self: &Arc<Self>, id: ConnId) {
        self.act(|state, _| state.ledger.went_wrong(id));
    }

    pub(crate) fn went_well(self: &Arc<Self>, id: ConnId) {
        self.act(|state, _| state.ledger.went_well(id));
    }

    pub(crate) fn does(self: &Arc<Self>, id: ConnId, operation: &Operation) {
        let now = time::now();
        self.act(|state, _| state.ledger.does(id, operation, now));
    }

    pub(crate) fn acts(self: &Arc<Self>, id: ConnId, activity: Activity) {
        let now = time::now();
        self.act(|state, actions| state.ledger.acts(id, activity, now, actions));
    }
}

impl<K: Connector> Member for Shared<K> {
    fn census(&self) -> Census {
        self.state.lock().ledger.census()
    }

    fn fail(self: Arc<Self>, waiter: WaiterId) {
        let now = time::now();
        self.act(|state, actions| state.ledger.fail_circular(waiter, now, actions));
    }
}
