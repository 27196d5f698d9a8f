//! Prepared statements in transaction pooling: clients name them as they like, servers know
//! each text once, under a name of ours.
//!
//! Always true: two clients' statements share a server-side name only if text and parameter
//! types are the same; a text is forgotten when no client has it any more.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use foldhash::quality::RandomState;
use forebay_seam::sync::Mutex;
use lru::LruCache;

use crate::server::connector::Identity;
use crate::sql::effect::{self, Effect};
use crate::sql::token::{Token, Tokens};
use crate::wire::frontend::Parse;
use crate::wire::{Fields, Malformed};

/// Names on servers begin so. A client's own name may not.
pub(crate) const PREFIX: &[u8] = b"__forebay_";

/// Tells statements apart, for the life of the process.
pub(crate) type StatementId = u64;

/// How many clients have a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One.
    Own,
    /// All that prepare this text.
    Shared,
}

/// A statement as servers get it: without comments that differ from call to call.
#[derive(Debug)]
pub(crate) struct Statement {
    pub(crate) id: StatementId,
    /// Its name on servers.
    pub(crate) name: Bytes,
    pub(crate) text: Bytes,
    /// Count and OIDs of the parameter types, as Parse has them.
    pub(crate) types: Bytes,
    pub(crate) effect: Effect,
    pub(crate) kind: Kind,
    /// Where a server has taken it first: whoever comes there needs none to know that.
    pub(crate) proven: OnceLock<Identity>,
    /// What clients were told of its rows.
    pub(crate) rows: OnceLock<Shape>,
}

impl Statement {
    fn new(id: StatementId, text: &[u8], types: &[u8], effect: Effect, kind: Kind) -> Self {
        let name = [PREFIX, id.to_string().as_bytes()].concat();
        Self {
            id,
            name: name.into(),
            text: Bytes::copy_from_slice(text),
            types: Bytes::copy_from_slice(types),
            effect,
            kind,
            proven: OnceLock::new(),
            rows: OnceLock::new(),
        }
    }

    /// The client's name of the statement that this one deallocates, if that is our `id`.
    pub(crate) fn deallocates(&self, id: &[u8]) -> Option<Bytes> {
        let Effect::Deallocate { name: Some(name) } = &self.effect else { return None };
        self.text.ends_with(id).then(|| Bytes::copy_from_slice(name.as_bytes()))
    }

    /// How many values a Bind must have: as many as Parse has types for, or as the text has
    /// places for.
    pub(crate) fn parameters(&self) -> usize {
        let typed = Fields::new(&self.types).u16().map_or(0, usize::from);
        let place = |token| {
            let Token::Parameter(place) = token else { return None };
            std::str::from_utf8(place.get(1..)?).ok()?.parse().ok()
        };
        let mut tokens = Tokens::new(&self.text).peekable();
        if tokens.peek().is_some_and(|first| first.is("prepare")) {
            // They are the other statement's.
            return typed;
        }
        tokens.filter_map(place).max().unwrap_or(0).max(typed)
    }

    /// The Parse that prepares it on a server under `name`.
    pub(crate) fn parse<'a>(&'a self, name: &'a [u8]) -> Parse<'a> {
        Parse { name, text: &self.text, types: &self.types }
    }
}

/// What one statement may leave behind.
pub(crate) fn effect_of(text: &[u8]) -> Effect {
    let mut effects = effect::of(text);
    match effects.len() {
        0 => Effect::Clean,
        1 => effects.remove(0),
        // The server refuses it.
        _ => Effect::Dirty,
    }
}

/// May `text` forget statements? The first letter tells most apart before anything is
/// allocated.
pub(crate) fn is_deallocate(text: &[u8]) -> bool {
    let first = text.trim_ascii_start().first();
    let forgets =
        |effect: &Effect| matches!(effect, Effect::Deallocate { .. } | Effect::DiscardAll);
    first.is_some_and(|b| matches!(b, b'd' | b'D' | b'-' | b'/' | b';'))
        && effect::of(text).iter().any(forgets)
}

/// The columns of a statement's rows, as far as a client that decodes them by what it was told
/// depends on them: their types, in order. Zero: it has no rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape(u64);

impl Shape {
    /// Of a statement that has no rows (NoData).
    pub(crate) const NONE: Self = Self(0);

    /// Of the `body` of a RowDescription. Names and formats are not part of it.
    pub(crate) fn of_rows(body: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(body);
        let columns = fields.u16()?;
        let mut hash = foldhash::quality::FixedState::default().build_hasher();
        columns.hash(&mut hash);
        for _ in 0..columns {
            fields.cstr()?;
            // Its table and its place there; type, width and modifier; format.
            fields.bytes(6)?;
            fields.bytes(10)?.hash(&mut hash);
            fields.bytes(2)?;
        }
        Ok(Self(hash.finish().max(1)))
    }
}

/// Where a text is prepared: names in it mean other tables elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Place<'a> {
    /// As clients call it.
    pub(crate) database: &'a str,
    pub(crate) user: &'a str,
    pub(crate) path: Option<&'a str>,
}

#[derive(Debug, PartialEq, Eq)]
struct OwnedPlace {
    database: Box<str>,
    user: Box<str>,
    path: Option<Box<str>>,
}

impl Place<'_> {
    fn to_owned(self) -> OwnedPlace {
        OwnedPlace {
            database: self.database.into(),
            user: self.user.into(),
            path: self.path.map(Box::from),
        }
    }
}

impl OwnedPlace {
    fn borrowed(&self) -> Place<'_> {
        Place { database: &self.database, user: &self.user, path: self.path.as_deref() }
    }
}

/// What makes two statements one.
fn key_of(text: &[u8], types: &[u8], place: Place<'_>) -> Vec<u8> {
    let Place { database, user, path } = place;
    let path = path.map(str::as_bytes).unwrap_or_default();
    [text, &[0], types, database.as_bytes(), &[0], user.as_bytes(), &[0], path].concat()
}

/// Every text that some client has prepared by name.
#[derive(Default)]
pub(crate) struct Statements {
    next: AtomicU64,
    seed: RandomState,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    by_text: HashMap<Box<[u8]>, Weak<Statement>>,
    /// Swept when it has doubled since the last time.
    sweep_at: usize,
    /// Unnamed texts that came lately, by a hash of what makes two statements one.
    lately: Option<LruCache<u64, Lately>>,
}

/// How often an unnamed text came.
enum Lately {
    Seen(u8),
    Named { statement: Arc<Statement>, place: OwnedPlace },
}

/// An unnamed text is named when it comes so often.
const REPEATED: u8 = 3;
/// A longer text is not named.
const LONGEST_NAMED: usize = 4 * 1024;
/// Unnamed texts that are remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(2_048).expect("more than none");

impl Statements {
    fn next_id(&self) -> StatementId {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The statement that all clients with this text and these types share in this place.
    pub(crate) fn shared(&self, text: &[u8], types: &[u8], place: Place<'_>) -> Arc<Statement> {
        let key = key_of(text, types, place);
        let mut known = self.known.lock();
        if let Some(statement) = known.by_text.get(&*key).and_then(Weak::upgrade) {
            return statement;
        }
        let statement =
            Arc::new(Statement::new(self.next_id(), text, types, effect_of(text), Kind::Shared));
        if known.by_text.len() >= known.sweep_at {
            known.by_text.retain(|_, statement| statement.strong_count() > 0);
            known.sweep_at = (known.by_text.len() * 2).max(1024);
        }
        known.by_text.insert(key.into(), Arc::downgrade(&statement));
        statement
    }

    /// The statement that all clients with this text share, if one of them has it.
    pub(crate) fn existing(
        &self,
        text: &[u8],
        types: &[u8],
        place: Place<'_>,
    ) -> Option<Arc<Statement>> {
        self.known.lock().by_text.get(&*key_of(text, types, place)).and_then(Weak::upgrade)
    }

    /// The named statement for an unnamed text that comes again and again; `None` as long as
    /// it did not.
    pub(crate) fn repeated(
        &self,
        text: &[u8],
        types: &[u8],
        place: Place<'_>,
    ) -> Option<Arc<Statement>> {
        if text.len() > LONGEST_NAMED {
            return None;
        }
        let hash = self.seed.hash_one((text, types, place));
        {
            let mut known = self.known.lock();
            let lately = known.lately.get_or_insert_with(|| LruCache::new(REMEMBERED));
            match lately.get_or_insert_mut(hash, || Lately::Seen(0)) {
                Lately::Named { statement, place: its_place } => {
                    let is_it = statement.text == *text
                        && statement.types == *types
                        && its_place.borrowed() == place;
                    return is_it.then(|| Arc::clone(statement));
                }
                Lately::Seen(times) if *times + 1 < REPEATED => {
                    *times += 1;
                    return None;
                }
                Lately::Seen(_) => {}
            }
        }
        let statement = self.shared(text, types, place);
        let named = Lately::Named { statement: Arc::clone(&statement), place: place.to_owned() };
        if let Some(lately) = &mut self.known.lock().lately {
            lately.push(hash, named);
        }
        Some(statement)
    }

    /// The same text under another name, since the plans that servers keep under this one are
    /// of no use any more.
    pub(crate) fn renewed(&self, stale: &Statement, place: Place<'_>) -> Arc<Statement> {
        let key = key_of(&stale.text, &stale.types, place);
        {
            let mut known = self.known.lock();
            let current = known.by_text.get(&*key).and_then(Weak::upgrade);
            if current.is_some_and(|current| current.id == stale.id) {
                known.by_text.remove(&*key);
            }
            let hash = self.seed.hash_one((&*stale.text, &*stale.types, place));
            if let Some(lately) = &mut known.lately
                && let Some(Lately::Named { statement, .. }) = lately.peek(&hash)
                && statement.id == stale.id
            {
                lately.push(hash, Lately::Seen(REPEATED - 1));
            }
        }
        self.shared(&stale.text, &stale.types, place)
    }

    /// A statement of one client only: the unnamed one.
    pub(crate) fn own(&self, text: &[u8], types: &[u8]) -> Arc<Statement> {
        self.with_effect(text, types, effect_of(text))
    }

    /// A statement of one client only whose effect its text does not tell.
    pub(crate) fn with_effect(&self, text: &[u8], types: &[u8], effect: Effect) -> Arc<Statement> {
        Arc::new(Statement::new(self.next_id(), text, types, effect, Kind::Own))
    }

    /// What the texts mean may have changed: whoever prepares one from now on gets it anew.
    /// Those who have one keep it, as they would without us.
    pub(crate) fn outdate(&self) {
        let mut known = self.known.lock();
        known.by_text.clear();
        for (_, lately) in known.lately.iter_mut().flatten() {
            if let Lately::Named { .. } = lately {
                *lately = Lately::Seen(REPEATED - 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Place<'_> = Place { database: "d", user: "u", path: None };

    #[test]
    fn the_same_text_and_types_are_one_statement() {
        let statements = Statements::default();
        let one = statements.shared(b"SELECT $1", &[0, 0], HERE);
        assert_eq!(one.id, statements.shared(b"SELECT $1", &[0, 0], HERE).id);
        assert_ne!(one.id, statements.shared(b"SELECT $1", &[0, 1, 0, 0, 0, 23], HERE).id);
        assert_ne!(one.id, statements.own(b"SELECT $1", &[0, 0]).id);
    }

    #[test]
    fn a_stale_statement_is_renewed_once_for_all() {
        let statements = Statements::default();
        let stale = statements.shared(b"SELECT * FROM t", &[0, 0], HERE);
        let renewed = statements.renewed(&stale, HERE);
        assert_ne!(stale.id, renewed.id);
        assert_eq!(statements.renewed(&stale, HERE).id, renewed.id);
        assert_eq!(statements.shared(b"SELECT * FROM t", &[0, 0], HERE).id, renewed.id);
    }

    #[test]
    fn the_same_text_is_another_statement_elsewhere() {
        let statements = Statements::default();
        let id = |place| statements.shared(b"SELECT * FROM t", &[0, 0], place).id;
        let here = statements.shared(b"SELECT * FROM t", &[0, 0], HERE);
        assert_eq!(id(HERE), here.id);
        for elsewhere in [
            Place { database: "e", ..HERE },
            Place { user: "v", ..HERE },
            Place { path: Some("s"), ..HERE },
        ] {
            assert_ne!(id(elsewhere), here.id);
        }
    }

    #[test]
    fn the_shape_of_rows_is_that_of_their_types() {
        let column = |name: &[u8], table: u8, of: u8, format: u8| {
            [name, &[0, 0, 0, 0, table, 0, 1, 0, 0, 0, of, 0, 4, 255, 255, 255, 255, 0, format]]
                .concat()
        };
        let rows = |columns: &[Vec<u8>]| {
            let count = u16::try_from(columns.len()).unwrap().to_be_bytes().to_vec();
            Shape::of_rows(&[count, columns.concat()].concat()).unwrap()
        };
        let one = rows(&[column(b"n", 1, 23, 0)]);
        assert_eq!(one, rows(&[column(b"m", 2, 23, 1)]));
        assert_ne!(one, rows(&[column(b"n", 1, 25, 0)]));
        assert_ne!(one, rows(&[column(b"n", 1, 23, 0), column(b"o", 1, 23, 0)]));
        assert_ne!(rows(&[]), Shape::NONE);
        assert!(Shape::of_rows(&[0, 1, b'n', 0]).is_err());
    }

    #[test]
    fn what_nobody_has_any_more_is_forgotten() {
        let statements = Statements::default();
        for n in 0..10_000 {
            statements.shared(format!("SELECT {n}").as_bytes(), &[0, 0], HERE);
        }
        assert!(statements.known.lock().by_text.len() <= 1024);
    }
}
