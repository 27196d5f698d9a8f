//! What clients are told at login, remembered for each identity and each set of start
//! settings, so that a login needs no server connection.

use std::collections::HashMap;
use std::sync::Arc;

use forebay_seam::sync::Mutex;

use crate::params::{Reported, Settings};
use crate::server::connector::Identity;

/// Sets of start settings remembered; beyond that all are forgotten and learnt anew.
const MOST: usize = 4_096;

type Key = (Identity, Settings);

#[derive(Default)]
pub(crate) struct Welcomes(Mutex<HashMap<Key, (Arc<Reported>, Settings)>>);

impl Welcomes {
    /// What the server reported to a client that asked for `settings`, and these settings as
    /// the server writes them. Names that differ only in `application_name` are one.
    pub(crate) fn get(
        &self,
        identity: &Identity,
        settings: &Settings,
    ) -> Option<(Arc<Reported>, Settings)> {
        let (key, name) = without_name(identity, settings);
        let (reported, mut canonical) = self.0.lock().get(&key).cloned()?;
        let Some(name) = name else { return Some((reported, canonical)) };
        let mut own = (*reported).clone();
        own.set("application_name", &name);
        canonical.insert("application_name".into(), name);
        Some((Arc::new(own), canonical))
    }

    /// A default has changed on a server: all is learnt anew.
    pub(crate) fn forget(&self) {
        self.0.lock().clear();
    }

    pub(crate) fn remember(
        &self,
        identity: &Identity,
        settings: &Settings,
        reported: &Arc<Reported>,
        canonical: &Settings,
    ) {
        let (key, _) = without_name(identity, settings);
        let mut known = self.0.lock();
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(key, (Arc::clone(reported), canonical.clone()));
    }
}

fn without_name(identity: &Identity, settings: &Settings) -> (Key, Option<String>) {
    let mut settings = settings.clone();
    let name = settings.get_mut("application_name").map(std::mem::take);
    ((identity.clone(), settings), name)
}
