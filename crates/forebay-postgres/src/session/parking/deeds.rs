//! What the open transaction has done so far, as far as parking it is concerned.
//!
//! Noted when it is sent, examined only if the transaction idles for long. Always true: what is
//! not noted whole refuses parking; a transaction whose BEGIN was not seen is not parked.

use bytes::Bytes;
use std::sync::Arc;

use crate::parking::Reason;
use crate::prepared::Statement;
use crate::sql::parkable::{self, Named};
use crate::sql::{tags, transaction};
use crate::wire::Fields;

/// Texts of one transaction that are kept, in bytes and in number.
const MOST_BYTES: usize = 64 * 1024;
const MOST: usize = 64;
/// Named portals that are kept in mind.
const MOST_PORTALS: usize = 16;

/// A statement that ran, or may have.
enum Deed {
    Text(Bytes),
    Prepared(Arc<Statement>),
}

/// What becomes of the unnamed portal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Unnamed {
    #[default]
    None,
    /// It has rows left, perhaps.
    Open,
    /// All that it had was asked for.
    Done,
}

/// Had it run a statement before it was parked? Then a server takes no other options for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Queried {
    #[default]
    Never,
    Before,
}

/// The deeds of one transaction.
#[derive(Default)]
pub(super) struct Deeds {
    /// What it was begun with.
    begin: Option<Box<[u8]>>,
    done: Vec<Deed>,
    bytes: usize,
    unnamed: Unnamed,
    /// Portals by name: each keeps its snapshot until it is closed.
    named: Vec<Bytes>,
    refused: Option<Reason>,
    queried: Queried,
}

impl Deeds {
    /// It was begun with `text`, which was answered before.
    pub(super) fn begins(&mut self, text: &[u8]) {
        *self = Self { begin: Some(text.into()), queried: self.queried, ..Self::default() };
    }

    /// `text` is sent, and ends the unnamed portal.
    pub(super) fn query(&mut self, text: &[u8]) {
        self.unnamed = Unnamed::None;
        if self.is_first(text) {
            return self.begins(text);
        }
        if self.has_room(text.len()) {
            self.done.push(Deed::Text(Bytes::copy_from_slice(text)));
        }
    }

    /// `statement`, as far as we know it, is bound to a portal.
    pub(super) fn bind(&mut self, portal: &[u8], statement: Option<&Arc<Statement>>) {
        if portal.is_empty() {
            self.unnamed = Unnamed::Open;
        } else if self.named.len() < MOST_PORTALS {
            self.named.push(Bytes::copy_from_slice(portal));
        } else {
            self.refuses(Reason::OpenPortal);
        }
        let Some(statement) = statement else { return self.refuses(Reason::LongStatement) };
        if self.is_first(&statement.text) {
            return self.begins_by(&statement.text);
        }
        let again = |deed: &Deed| matches!(deed, Deed::Prepared(s) if Arc::ptr_eq(s, statement));
        if !self.done.iter().any(again) && self.has_room(statement.text.len()) {
            self.done.push(Deed::Prepared(Arc::clone(statement)));
        }
    }

    /// The portal is executed: for all of its rows, or for some.
    pub(super) fn execute(&mut self, portal: &[u8], rows: Rows) {
        if portal.is_empty() && rows == Rows::All && self.unnamed == Unnamed::Open {
            self.unnamed = Unnamed::Done;
        }
    }

    /// A portal is closed.
    pub(super) fn close(&mut self, portal: &[u8]) {
        if portal.is_empty() {
            self.unnamed = Unnamed::None;
        } else {
            self.named.retain(|name| name != portal);
        }
    }

    /// It is not to be parked, whatever else it does.
    pub(super) fn refuses(&mut self, reason: Reason) {
        self.refused.get_or_insert(reason);
    }

    /// The transaction is over.
    pub(super) fn clear(&mut self) {
        let is_begun = self.begin.is_some() || self.queried == Queried::Before;
        if is_begun || !self.done.is_empty() || self.refused.is_some() {
            *self = Self::default();
        } else {
            (self.unnamed, self.bytes) = (Unnamed::None, 0);
            self.named.clear();
        }
    }

    /// Its connection is given back: what was done before is proved to be gone. Returns what
    /// begins it again.
    pub(super) fn is_parked(&mut self) -> Option<Box<[u8]>> {
        let queried = if self.done.is_empty() { self.queried } else { Queried::Before };
        std::mem::replace(self, Self { queried, ..Self::default() }).begin
    }

    /// What it had done before it was parked, whatever it has done since.
    pub(super) fn queried(&self) -> Queried {
        self.queried
    }

    /// The text of what was done last.
    pub(super) fn last(&self) -> Option<Bytes> {
        self.done.last().map(|deed| match deed {
            Deed::Text(text) => text.clone(),
            Deed::Prepared(statement) => statement.text.clone(),
        })
    }

    /// Is there an unnamed portal that is done?
    pub(super) fn has_portal(&self) -> bool {
        self.unnamed == Unnamed::Done
    }

    /// What its statements name.
    ///
    /// # Errors
    /// Why its texts prove nothing.
    pub(super) fn examine(&self) -> Result<Vec<Named>, Reason> {
        if let Some(reason) = self.refused {
            return Err(reason);
        }
        if self.begin.is_none() {
            return Err(Reason::NoBegin);
        }
        let named = self.done.iter().map(Deed::examine).collect::<Result<_, _>>()?;
        if self.unnamed == Unnamed::Open || !self.named.is_empty() {
            return Err(Reason::OpenPortal);
        }
        Ok(named)
    }

    fn is_first(&self, text: &[u8]) -> bool {
        self.begin.is_none()
            && self.done.is_empty()
            && self.refused.is_none()
            && transaction::begin(text).is_some()
    }

    /// As [`Deeds::begins`], through a portal that is there afterwards.
    fn begins_by(&mut self, text: &[u8]) {
        let unnamed = self.unnamed;
        let named = std::mem::take(&mut self.named);
        *self = Self { begin: Some(text.into()), unnamed, named, ..Self::default() };
    }

    fn has_room(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        let has = self.bytes <= MOST_BYTES && self.done.len() < MOST;
        if !has {
            self.done = Vec::new();
            self.refuses(Reason::TooMuchText);
        }
        has
    }
}

impl Deed {
    fn examine(&self) -> Result<Named, Reason> {
        let (text, types) = match self {
            Self::Text(text) => (text, None),
            Self::Prepared(statement) => (&statement.text, Some(&statement.types)),
        };
        let split = tags::split(text);
        let text = split.as_ref().map_or(&text[..], |(text, _)| text);
        let text =
            std::str::from_utf8(text).map_err(|_| Reason::Text(parkable::Refusal::NonAsciiName))?;
        let mut named = parkable::examine(text).map_err(Reason::Text)?;
        if let Some(types) = types {
            named.declare(&oids(types));
        }
        Ok(named)
    }
}

/// Parameter types as Parse has them.
fn oids(types: &[u8]) -> Vec<u32> {
    let mut fields = Fields::new(types);
    let count = fields.u16().unwrap_or(0);
    let oid = |_| fields.i32().ok().map(i32::cast_unsigned);
    (0..count).map_while(oid).collect()
}

/// How many rows an Execute asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    All,
    Some,
}

impl Rows {
    /// Of the body of an Execute ("Message Formats": the portal, and a number; 0 is no limit).
    pub(super) fn of(body: &[u8]) -> Self {
        if body.ends_with(&[0, 0, 0, 0]) { Self::All } else { Self::Some }
    }
}
