//! What executing a client's portals does.
//!
//! Most clients bind the unnamed portal alone, and those of the simple protocol none: the
//! first takes no look-up, the others no memory.

use std::collections::HashMap;

use bytes::Bytes;

use super::outward::MOST_STATEMENTS;
use crate::sql::effect::Effect;

/// Portals by name.
#[derive(Default)]
pub(super) struct Portals(Option<Box<Known>>);

#[derive(Default)]
struct Known {
    unnamed: Option<Effect>,
    named: HashMap<Bytes, Effect>,
}

impl Portals {
    /// What executing the portal called `name` does; not known if too many were bound since.
    pub(super) fn get(&self, name: &[u8]) -> Option<&Effect> {
        let known = self.0.as_ref()?;
        if name.is_empty() { known.unnamed.as_ref() } else { known.named.get(name) }
    }

    pub(super) fn insert(&mut self, name: &[u8], effect: Effect) {
        let known = self.0.get_or_insert_default();
        if name.is_empty() {
            known.unnamed = Some(effect);
            return;
        }
        if known.named.len() >= MOST_STATEMENTS {
            known.named.clear();
        }
        known.named.insert(Bytes::copy_from_slice(name), effect);
    }

    pub(super) fn remove(&mut self, name: &[u8]) {
        let Some(known) = &mut self.0 else { return };
        if name.is_empty() {
            known.unnamed = None;
        } else {
            known.named.remove(name);
        }
    }

    pub(super) fn clear(&mut self) {
        if let Some(known) = &mut self.0 {
            known.unnamed = None;
            known.named.clear();
        }
    }
}
