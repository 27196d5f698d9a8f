//! What in a database may change the session that uses it: found from the definitions of its
//! routines, views, triggers, defaults and the like.
//!
//! A routine is suspected if its body may change a setting, take a lock, make a temporary
//! table, run a text that is made up, or define something; whatever names a suspect is one.
//! Names count without their schema. What is not suspected is proved harmless, as far as the
//! definitions were complete.

use std::collections::{HashMap, HashSet};

use super::token::{Token, Tokens};

/// How a definition is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// Statements, in SQL or PL/pgSQL.
    Statements,
    /// Names in expressions.
    Names,
    /// Nobody can read it.
    Opaque,
    /// Known to be harmless.
    Harmless,
}

/// Who is suspected, if the definition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The routine of that name.
    Routine,
    /// The relation of that name.
    Relation,
    /// Whatever is done in the database: operators, casts and types are found in no text.
    Everything,
}

/// One definition.
#[derive(Debug)]
pub(crate) struct Definition {
    pub(crate) scope: Scope,
    pub(crate) name: String,
    pub(crate) body: Body,
    pub(crate) text: String,
}

/// What is suspected in a database.
#[derive(Debug, Default)]
pub(crate) struct Suspects {
    everything: bool,
    names: HashSet<Vec<u8>>,
    /// Routines of the database that are not suspected.
    harmless: HashSet<Vec<u8>>,
}

/// Routines of PostgreSQL's own that change the session, or run a text that is handed to them.
const OWN: [&[u8]; 17] = [
    b"set_config",
    b"setseed",
    b"pg_advisory_lock",
    b"pg_advisory_lock_shared",
    b"pg_try_advisory_lock",
    b"pg_try_advisory_lock_shared",
    b"pg_reload_conf",
    b"pg_settings",
    b"query_to_xml",
    b"query_to_xmlschema",
    b"query_to_xml_and_xmlschema",
    b"cursor_to_xml",
    b"ts_stat",
    b"ts_rewrite",
    b"database_to_xml",
    b"schema_to_xml",
    b"table_to_xml",
];

impl Suspects {
    /// The suspects among `definitions`.
    pub(crate) fn find(definitions: &[Definition]) -> Self {
        let mut by_name: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
        let mut new = Vec::new();
        for (at, definition) in definitions.iter().enumerate() {
            let suspected = match definition.body {
                Body::Harmless => continue,
                Body::Opaque => true,
                Body::Statements => changes_session(definition.text.as_bytes()),
                Body::Names => false,
            };
            if suspected {
                new.push(at);
            } else {
                for name in names(definition.text.as_bytes()) {
                    by_name.entry(name).or_default().push(at);
                }
            }
        }
        for own in OWN {
            new.extend(by_name.remove(own).unwrap_or_default());
        }
        let mut suspects = Self::default();
        while let Some(definition) = new.pop().and_then(|at| definitions.get(at)) {
            match definition.scope {
                Scope::Everything => suspects.everything = true,
                Scope::Routine | Scope::Relation => {
                    let name = definition.name.as_bytes().to_vec();
                    new.extend(by_name.remove(&name).unwrap_or_default());
                    suspects.names.insert(name);
                }
            }
        }
        let routines = definitions.iter().filter(|definition| definition.scope == Scope::Routine);
        let names = routines.map(|routine| routine.name.as_bytes().to_vec());
        suspects.harmless = names.filter(|name| !suspects.names.contains(name)).collect();
        suspects
    }

    /// Of a database of which nothing can be found out: texts are believed.
    pub(crate) fn none() -> Self {
        Self::default()
    }

    /// Of a database with more definitions than can be read.
    pub(crate) fn all() -> Self {
        Self { everything: true, ..Self::default() }
    }

    /// Does `text` name a suspect?
    pub(crate) fn touches(&self, text: &[u8]) -> bool {
        if self.everything {
            return true;
        }
        let mut before_is_u = false;
        !self.names.is_empty()
            && Tokens::new(text).any(|token| {
                let after_u = std::mem::replace(&mut before_is_u, token.is("u"));
                match token {
                    Token::Word(name) => self.names.contains(&lowered(name)),
                    Token::QuotedName(name) => self.names.contains(&unquoted(name)),
                    // `U&"…"` spells a name with escapes.
                    Token::Mark(mark) => after_u && mark == b'&',
                    Token::Text(_) | Token::Number(_) | Token::Parameter(_) => false,
                }
            })
    }

    /// Is `name`, as it stands in a text, a routine of the database that leaves nothing?
    pub(crate) fn clears(&self, name: &[u8]) -> bool {
        !self.everything && !self.harmless.is_empty() && self.harmless.contains(&lowered(name))
    }
}

fn lowered(name: &[u8]) -> Vec<u8> {
    name.to_ascii_lowercase()
}

fn unquoted(name: &[u8]) -> Vec<u8> {
    let inner = name.strip_prefix(b"\"").unwrap_or(name);
    let inner = inner.strip_suffix(b"\"").unwrap_or(inner);
    let mut plain = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(byte) = bytes.next() {
        plain.push(*byte);
        if *byte == b'"' {
            bytes.next();
        }
    }
    plain
}

/// The names in `text`, each once.
fn names(text: &[u8]) -> HashSet<Vec<u8>> {
    let name = |token| match token {
        Token::Word(name) => Some(lowered(name)),
        Token::QuotedName(name) => Some(unquoted(name)),
        Token::Text(_) | Token::Number(_) | Token::Parameter(_) | Token::Mark(_) => None,
    };
    Tokens::new(text).filter_map(name).collect()
}

/// May the statements of `body` by themselves change the session?
fn changes_session(body: &[u8]) -> bool {
    const ANYWHERE: [&str; 4] = ["execute", "temp", "temporary", "hold"];
    const AT_START: [&str; 12] = [
        "set",
        "reset",
        "discard",
        "load",
        "listen",
        "unlisten",
        "prepare",
        "deallocate",
        "create",
        "alter",
        "drop",
        "import",
    ];
    let (mut before, mut starts) = (None, true);
    for token in Tokens::new(body) {
        let is_in = |words: &[&str]| words.iter().any(|word| token.is(word));
        let temporary = matches!(token, Token::Word(name) if lowered(name).starts_with(b"pg_temp"));
        let escaped =
            matches!(token, Token::Mark(b'&')) && before.is_some_and(|t: Token<'_>| t.is("u"));
        if is_in(&ANYWHERE) || temporary || escaped || (starts && is_in(&AT_START)) {
            return true;
        }
        starts = match token {
            Token::Mark(b';') => true,
            Token::Mark(b'>') => before == Some(Token::Mark(b'>')),
            Token::Word(_) => is_in(&["begin", "then", "else", "loop", "atomic"]),
            Token::QuotedName(_)
            | Token::Text(_)
            | Token::Number(_)
            | Token::Parameter(_)
            | Token::Mark(_) => false,
        };
        before = Some(token);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routine(name: &str, text: &str) -> Definition {
        let (name, text) = (name.into(), text.into());
        Definition { scope: Scope::Routine, name, body: Body::Statements, text }
    }

    fn relation(name: &str, text: &str) -> Definition {
        let (name, text) = (name.into(), text.into());
        Definition { scope: Scope::Relation, name, body: Body::Names, text }
    }

    #[test]
    fn bodies_that_change_the_session_are_told_from_those_that_do_not() {
        for text in [
            "BEGIN SET work_mem = '1MB'; END",
            "BEGIN IF a THEN RESET ALL; END IF; END",
            "BEGIN <<x>> SET a.b = 1; END",
            "BEGIN -- update\n SET LOCAL a.b = 1; END",
            "BEGIN EXECUTE what; END",
            "BEGIN RETURN QUERY EXECUTE 'x'; END",
            "BEGIN CREATE TABLE t (n int); END",
            "BEGIN SELECT 1 INTO TEMP t; END",
            "DECLARE x text := '--'; BEGIN LISTEN x; END",
            "SET a.b = 1",
            "BEGIN PERFORM * FROM pg_temp_3.t; END",
            "#variable_conflict use_column BEGIN SET a = 1; END",
        ] {
            assert!(changes_session(text.as_bytes()), "{text}");
        }
        for text in [
            "BEGIN UPDATE t SET a = 1; NEW.b := now(); RETURN NEW; END",
            "INSERT INTO t VALUES (1) ON CONFLICT DO UPDATE SET a = 2",
            "BEGIN RAISE NOTICE 'SET x = 1; EXECUTE y'; /* SET z */ END",
            "SELECT 1",
        ] {
            assert!(!changes_session(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn who_names_a_suspect_is_one() {
        let found = Suspects::find(&[
            routine("sets", "BEGIN PERFORM set_config('a', 'b', false); END"),
            routine("calls", "SELECT Sets()"),
            routine("adds", "SELECT $1 + 1"),
            relation("Odd View", "SELECT adds(1), calls() FROM t"),
            relation("t", "CREATE TRIGGER x BEFORE INSERT ON t EXECUTE FUNCTION adds()"),
            relation("above", "SELECT * FROM \"Odd View\""),
        ]);
        for text in
            ["SELECT * FROM \"Odd View\"", "TABLE Above", "SELECT CALLS()", "SELECT U&\"x\""]
        {
            assert!(found.touches(text.as_bytes()), "{text}");
        }
        for text in ["SELECT adds(1) FROM t", "SELECT 'above'", "SELECT * FROM odd"] {
            assert!(!found.touches(text.as_bytes()), "{text}");
        }
        assert!(found.clears(b"ADDS") && !found.clears(b"calls") && !found.clears(b"query_to_xml"));
    }

    #[test]
    fn what_no_text_names_makes_everything_suspect() {
        let everything = |body, text: &str| Definition {
            scope: Scope::Everything,
            name: String::new(),
            body,
            text: text.into(),
        };
        let sets = || routine("sets", "SET a.b = 1");
        assert!(Suspects::find(&[sets(), everything(Body::Names, "sets")]).touches(b"SELECT 1"));
        assert!(!Suspects::find(&[sets(), everything(Body::Names, "adds")]).touches(b"SELECT 1"));
        assert!(Suspects::find(&[everything(Body::Opaque, "")]).touches(b""));
        assert!(!Suspects::none().touches(b"SELECT 1") && Suspects::all().touches(b"SELECT 1"));
    }
}
