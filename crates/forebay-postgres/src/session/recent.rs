//! What was found last for a session: mostly its next statement needs the same.
//!
//! Of a statement's text it keeps a copy, so that one that is [alike](alike) is not split into
//! tokens again; only of those that are short, since each client has its own.

use std::sync::Arc;

use forebay_pool::{Operation, Request, Roster, TraceId};

use crate::operations::Operations;
use crate::own;
use crate::sql::alike;
use crate::sql::effect::{self, Effect, Effects};

/// Bytes of a text that is kept, at the most.
const LONGEST: usize = 512;

/// What was found last.
#[derive(Default)]
pub(super) struct Recent {
    request: Option<Request>,
    feature: Option<Arc<str>>,
    /// A statement's text; empty if there was none, or it cannot be kept, and then nothing is
    /// known of it.
    text: Vec<u8>,
    cleanness: Cleanness,
    operation: Option<Operation>,
}

/// Whether the text is one statement that leaves nothing behind.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Cleanness {
    #[default]
    Unknown,
    Proven,
}

impl Recent {
    pub(super) fn request(
        &mut self,
        roster: &Roster,
        tenant: &Arc<str>,
        trace: TraceId,
    ) -> Request {
        match &self.request {
            Some(request) if request.trace() == trace => request.clone(),
            Some(_) | None => self.request.insert(roster.request(tenant, trace)).clone(),
        }
    }

    pub(super) fn feature(&mut self, name: &str) -> Arc<str> {
        match &self.feature {
            Some(feature) if **feature == *name => Arc::clone(feature),
            Some(_) | None => Arc::clone(self.feature.insert(own::feature(name).into())),
        }
    }

    /// `text`, run for `feature`.
    pub(super) fn operation(
        &mut self,
        all: &Operations,
        feature: &Arc<str>,
        text: &[u8],
    ) -> Operation {
        self.turn_to(text);
        match &self.operation {
            Some(known) if known.feature() == feature => known.clone(),
            Some(_) | None => {
                let operation = all.get(all.key(feature, text), feature, text);
                self.operation = (!self.text.is_empty()).then(|| operation.clone());
                operation
            }
        }
    }

    /// What `text` may leave behind.
    pub(super) fn effects(&mut self, text: &[u8]) -> Effects {
        self.turn_to(text);
        if self.cleanness == Cleanness::Proven {
            return Effects::from_buf([Effect::Clean]);
        }
        let effects = effect::of(text);
        if effects.as_slice() == [Effect::Clean] && !self.text.is_empty() {
            self.cleanness = Cleanness::Proven;
        }
        effects
    }

    /// What is known is of `text` from here on, or nothing is.
    fn turn_to(&mut self, text: &[u8]) {
        if self.text == text {
            return;
        }
        let is_kept = text.len() <= LONGEST && alike::is_comparable(text);
        let is_alike = !self.text.is_empty() && alike::are_alike(&self.text, text);
        if !(is_kept && is_alike) {
            self.cleanness = Cleanness::Unknown;
            self.operation = None;
        }
        self.text.clear();
        if is_kept {
            self.text.extend_from_slice(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_that_differs_in_numbers_is_known() {
        let (mut recent, all) = (Recent::default(), Operations::default());
        let feature: Arc<str> = Arc::from("f");
        let one = recent.operation(&all, &feature, b"SELECT a FROM t WHERE b = 1");
        assert_eq!(one, recent.operation(&all, &feature, b"SELECT a FROM t WHERE b = 22"));
        assert_eq!(recent.effects(b"SELECT a FROM t WHERE b = 3").as_slice(), [Effect::Clean]);
        let other: Arc<str> = Arc::from("g");
        assert_ne!(one, recent.operation(&all, &other, b"SELECT a FROM t WHERE b = 1"));
        assert_eq!(recent.effects(b"SELECT f(1)").as_slice(), [Effect::Dirty]);
        assert_eq!(recent.effects(b"SELECT f(2)").as_slice(), [Effect::Dirty]);
        let long = [b"SELECT ".as_slice(), &[b'x'; 600]].concat();
        assert_eq!(recent.effects(&long).as_slice(), [Effect::Clean]);
        assert!(recent.text.is_empty());
    }
}
