//! Another configuration while agents are there.
//!
//! The next desk is made beside the one in force, which changes nothing as long as something
//! can fail; then it takes its place in one step. Always true: a call ends at the desk where it
//! began; a destination that keeps its name and is reached in the same way keeps its pool; a
//! pool that nobody is sent to any more is closed when its last call is over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use forebay_pool::event::Told;
use forebay_pool::overlap::Overlaps;
use forebay_pool::{Pool, Roster};
use forebay_seam::time;
use serde::Serialize;
use tokio::sync::broadcast;

use super::{Gateway, at_tenants, check};
use crate::SettingsError;
use crate::agent::Certified;
use crate::call::Desk;
use crate::credential::Registry;
use crate::destination::{Before, Prepared};
use crate::meter::Refusals;
use crate::routes::Routes;
use crate::settings::HttpSettings;
use crate::tenant::Tenants;
use crate::tls::Trust;
use crate::upstream::Opener;

/// How long the last calls of a pool that is not used any more may take, and how often is
/// looked.
const LAST_CALLS: Duration = Duration::from_secs(600);
const LOOK: Duration = Duration::from_millis(100);

/// What a reload came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Destinations that are new.
    pub opened: Vec<String>,
    /// Destinations with another pool, since they are reached in another way.
    pub reconnected: Vec<String>,
    /// Destinations that are no more; calls under way finish.
    pub closed: Vec<String>,
}

/// What all desks share.
pub(super) struct Shared {
    pub(super) overlaps: Arc<Overlaps>,
    pub(super) roster: Arc<Roster>,
    pub(super) refusals: Arc<Refusals>,
}

/// A desk that could be made.
pub(super) struct Draft<'s> {
    tenants: Tenants,
    tls: Option<Arc<Certified>>,
    destinations: Vec<(String, Prepared<'s>)>,
}

impl<'s> Draft<'s> {
    /// The desk for `settings`, which were checked, after the one `before`. Reads secrets.
    pub(super) fn new(
        settings: &'s HttpSettings,
        before: Option<(&HttpSettings, &Desk)>,
        registry: &Registry,
        trust: &mut Trust,
    ) -> Result<Self, SettingsError> {
        let tls = settings.tls.as_ref().map(Certified::new).transpose();
        let tls = tls.map_err(|reason| SettingsError { at: "http.tls".to_owned(), reason })?;
        let tenants = Tenants::new(&settings.tenants, registry.digester()).map_err(at_tenants)?;
        let mut destinations = Vec::new();
        for (name, destination) in &settings.destinations {
            let before = before.and_then(|(settings, desk)| {
                let destination = Arc::clone(desk.routes.named(name)?);
                Some(Before { settings, destination })
            });
            let everybody = tenants.everybody();
            let prepared = Prepared::new(name, destination, before, everybody, registry, trust)?;
            destinations.push((name.clone(), prepared));
        }
        Ok(Self { tenants, tls: tls.map(Arc::new), destinations })
    }

    /// Takes its place.
    pub(super) fn stand(
        self,
        settings: &HttpSettings,
        shared: Shared,
    ) -> (Desk, Option<Arc<Certified>>) {
        let Self { tenants, tls, destinations } = self;
        let Shared { overlaps, roster, refusals } = shared;
        let destinations: BTreeMap<_, _> = destinations
            .into_iter()
            .map(|(name, prepared)| (name, Arc::new(prepared.stand(&roster))))
            .collect();
        let routes = Routes::new(destinations, &settings.destinations);
        let streams = settings.max_concurrent_streams;
        (Desk { tenants, routes, overlaps, roster, refusals, streams }, tls)
    }
}

/// Settings that were found to be possible.
pub struct Revision {
    gateway: Gateway,
    settings: HttpSettings,
    trust: Trust,
}

impl Gateway {
    /// Looks whether other settings can be carried out. Reads files and runs commands of
    /// secrets, so not on a thread that serves.
    ///
    /// # Errors
    /// As [`Gateway::new`]; nothing has changed.
    pub fn revise(&self, settings: HttpSettings) -> Result<Revision, SettingsError> {
        let mut trust = Trust::default();
        check(&settings, &mut trust)?;
        if let Some(problem) = Self::check_secrets(&settings).into_iter().next() {
            return Err(problem);
        }
        Ok(Revision { gateway: self.clone(), settings, trust })
    }

    /// What happens in the pool of `destination`, from now on.
    pub fn events_of(&self, destination: &str) -> Option<broadcast::Receiver<Told>> {
        let desk = self.house.desk.load();
        desk.routes.named(destination).map(|named| named.pool.events())
    }
}

impl Revision {
    /// Carries the settings out while agents are served: whoever calls when it returns finds
    /// the new ones. Inside a runtime, on a thread that may block.
    ///
    /// # Errors
    /// When a secret could be read before and cannot be read now; nothing has changed then.
    pub fn carry_out(self) -> Result<Changes, SettingsError> {
        let Self { gateway, settings, mut trust } = self;
        let house = &gateway.house;
        let mut in_force = house.settings.lock();
        let before = house.desk.load_full();
        let draft = Draft::new(&settings, Some((&in_force, &before)), &house.registry, &mut trust)?;
        let shared = Shared {
            overlaps: Arc::clone(&before.overlaps),
            roster: Arc::clone(&before.roster),
            refusals: Arc::clone(&before.refusals),
        };
        let (desk, tls) = draft.stand(&settings, shared);
        let changes = Changes::between(&before, &desk);
        house.tls.store(tls);
        house.desk.store(Arc::new(desk));
        let desk = house.desk.load();
        for destination in before.routes.destinations() {
            let now = desk.routes.named(&destination.name);
            if !now.is_some_and(|now| now.pool.is(&destination.pool)) {
                house.spawner.spawn(run_out(destination.pool.clone()));
            }
        }
        *in_force = settings;
        Ok(changes)
    }
}

impl Changes {
    fn between(before: &Desk, now: &Desk) -> Self {
        let mut changes = Self::default();
        for destination in now.routes.destinations() {
            let name = || destination.name.to_string();
            match before.routes.named(&destination.name) {
                None => changes.opened.push(name()),
                Some(old) if !old.pool.is(&destination.pool) => changes.reconnected.push(name()),
                Some(_) => {}
            }
        }
        let gone = before.routes.destinations();
        let gone = gone.filter(|old| now.routes.named(&old.name).is_none());
        changes.closed = gone.map(|old| old.name.to_string()).collect();
        changes
    }
}

/// Closes `pool` when nobody waits for it and nothing is on lease, or after a while.
async fn run_out(pool: Pool<Opener>) {
    let deadline = time::now() + LAST_CALLS;
    loop {
        time::sleep(LOOK).await;
        let snapshot = pool.snapshot();
        let waiting: u32 = snapshot.classes.iter().map(|class| class.waiting).sum();
        if snapshot.leased + waiting == 0 || time::now() >= deadline {
            return pool.close();
        }
    }
}
