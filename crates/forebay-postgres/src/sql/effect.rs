//! What a statement may leave behind in the session that runs it.
//!
//! Settings can be changed inside functions and DO blocks, so a statement is clean only if
//! it is of a kind that changes no session state and calls nothing but functions of
//! PostgreSQL's own that are known to leave none. Everything else is dirt, and the engine
//! resets the connection before anyone else gets it.

use std::cmp::Ordering;
use std::sync::Arc;

use smallvec::SmallVec;

use super::channel;
use super::setting::{change_of, set, set_config, set_configs, setting_name, unquote_name};
use super::token::{Token, Tokens};
use crate::pins::PinReason;

/// One statement's effect on the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Provably none beyond its transaction.
    Clean,
    /// None but that something may end that lives in the session: a lock, a cursor, a table.
    MayEnd,
    /// None in the session; in the database something is defined from now on.
    Defines(Definition),
    /// A setting until the end of its transaction.
    Local,
    /// Perhaps some: the connection is reset before its next owner.
    Dirty,
    /// `SET name …` for the session: it follows the client from now on.
    Set { name: String, value: String },
    /// Settings whose names the text tells, and whose values the server has to be asked for.
    Learn { names: Box<[String]> },
    /// `RESET name`: back to the client's own start value.
    Reset { name: String },
    /// `RESET ALL`.
    ResetAll,
    /// `DISCARD ALL`.
    DiscardAll,
    /// `DEALLOCATE ALL`, or `DEALLOCATE name`.
    Deallocate { name: Option<String> },
    /// `LISTEN channel`.
    Listen { channel: Arc<str> },
    /// `UNLISTEN channel`, or `UNLISTEN *`.
    Unlisten { channel: Option<Arc<str>> },
    /// Something that lives in the session and cannot be replayed: the client keeps this
    /// connection until it ends.
    Pin(PinReason),
    /// `SAVEPOINT name`: settings of the transaction can go back to here.
    Savepoint { name: String },
    /// `RELEASE name`: no longer.
    Release { name: String },
    /// `ROLLBACK TO name`: settings of the transaction are as they were there.
    RollbackTo { name: String },
}

/// What a definition may mean for other sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Definition {
    /// A table or the like: something only where it names what is suspected.
    Data,
    /// A routine, view, trigger or the like: perhaps something new that changes sessions.
    Code,
    /// As `Code`, and it runs something at once.
    Script,
}

/// The effects of one text: mostly it is one statement.
pub(crate) type Effects = SmallVec<[Effect; 1]>;

/// The effects of the statements in `text`, in order. Empty statements have none.
pub(crate) fn of(text: &[u8]) -> Effects {
    of_known(text, &|_| false)
}

/// As [`of`], where routines besides PostgreSQL's own are known to leave nothing.
pub(crate) fn of_known(text: &[u8], known: &Known<'_>) -> Effects {
    let mut tokens = Tokens::new(text);
    let mut effects = Effects::new();
    let mut statement: SmallVec<[Token<'_>; 32]> = SmallVec::new();
    loop {
        let token = tokens.next();
        match token {
            Some(Token::Mark(b';')) | None => {
                if !statement.is_empty() {
                    effects.push(of_one(&statement, known));
                    statement.clear();
                }
                if token.is_none() {
                    return effects;
                }
            }
            Some(token) => statement.push(token),
        }
    }
}

/// Whether `text` begins like a statement that a pooler may answer by itself: a look at the
/// first word, for all those that do not.
pub(crate) fn may_need_no_server(text: &[u8]) -> bool {
    let Some(Token::Word(first)) = Tokens::new(text).next() else { return false };
    const LOCAL: [&[u8]; 10] = [
        b"begin",
        b"start",
        b"commit",
        b"end",
        b"rollback",
        b"abort",
        b"set",
        b"reset",
        b"deallocate",
        b"show",
    ];
    LOCAL.iter().any(|word| first.eq_ignore_ascii_case(word))
}

/// Does `text` begin like a LISTEN? A look at the first word, for all those that do not.
pub(crate) fn begins_with_listen(text: &[u8]) -> bool {
    Tokens::new(text).next().is_some_and(|first| first.is("listen"))
}

/// Whether a routine, as its name stands in a text, is known to leave nothing.
pub(super) type Known<'k> = dyn Fn(&[u8]) -> bool + 'k;

fn of_one(statement: &[Token<'_>], known: &Known<'_>) -> Effect {
    let Some(Token::Word(first)) = statement.first() else {
        return if calls_only_harmless(statement, known) { Effect::Clean } else { Effect::Dirty };
    };
    let rest = statement.get(1..).unwrap_or_default();
    let first = lowered(first);
    match first.as_slice() {
        b"set" => set(rest),
        b"reset" => match rest {
            [all] if all.is("all") => Effect::ResetAll,
            [time, zone] if time.is("time") && zone.is("zone") => {
                Effect::Reset { name: "timezone".to_owned() }
            }
            rest => match setting_name(rest) {
                Some((name, [])) => change_of(name, |name| Effect::Reset { name }),
                _ => Effect::Dirty,
            },
        },
        b"discard" => match rest {
            [all] if all.is("all") => Effect::DiscardAll,
            _ => Effect::Dirty,
        },
        b"deallocate" => match rest {
            [name] | [_, name] if name.is("all") => Effect::Deallocate { name: None },
            [name] => Effect::Deallocate { name: name_of(name) },
            [prepare, name] if prepare.is("prepare") => Effect::Deallocate { name: name_of(name) },
            _ => Effect::Dirty,
        },
        b"listen" => channel::listen(rest),
        b"unlisten" => channel::unlisten(rest),
        b"prepare" if !rest.first().is_some_and(|t| t.is("transaction")) => {
            Effect::Pin(PinReason::SqlPrepare)
        }
        b"create" if rest.iter().take(4).any(|t| t.is("temp") || t.is("temporary")) => {
            let goes = |w: &[Token<'_>]| w[0].is("on") && w[1].is("commit") && w[2].is("drop");
            if statement.windows(3).any(goes) {
                calls(statement, known)
            } else {
                Effect::Pin(PinReason::TemporaryTable)
            }
        }
        b"declare" if hold_cursor(rest) => Effect::Pin(PinReason::HoldCursor),
        b"rollback" | b"savepoint" | b"release" => savepoint(&first, rest),
        b"begin" | b"start" | b"commit" | b"end" | b"abort" | b"fetch" | b"move" | b"show"
        | b"truncate" | b"analyze" | b"vacuum" | b"reindex" | b"checkpoint" | b"lock"
        | b"comment" | b"grant" | b"revoke" | b"notify" | b"cluster" => Effect::Clean,
        b"close" => Effect::MayEnd,
        b"create" | b"alter" | b"import" => defines(statement, known),
        b"drop" => {
            let effect = calls(statement, known);
            if effect == Effect::Clean { Effect::MayEnd } else { effect }
        }
        b"select" | b"insert" | b"update" | b"delete" | b"with" | b"values" | b"table"
        | b"merge" | b"copy" | b"explain" | b"declare" | b"execute" | b"call" => {
            calls(statement, known)
        }
        _ => Effect::Dirty,
    }
}

/// `SAVEPOINT s`, `RELEASE [SAVEPOINT] s`, `ROLLBACK [WORK] TO [SAVEPOINT] s`; or a whole
/// transaction's ROLLBACK, which leaves nothing.
fn savepoint(first: &[u8], rest: &[Token<'_>]) -> Effect {
    let Some(name) = rest.last().and_then(name_of) else { return Effect::Clean };
    match first {
        b"savepoint" => Effect::Savepoint { name },
        b"release" => Effect::Release { name },
        _ if rest.iter().any(|t| t.is("to")) => Effect::RollbackTo { name },
        _ => Effect::Clean,
    }
}

/// What CREATE, ALTER or IMPORT is for other sessions.
fn defines(statement: &[Token<'_>], known: &Known<'_>) -> Effect {
    const DATA: [&str; 10] = [
        "table",
        "index",
        "sequence",
        "role",
        "user",
        "database",
        "group",
        "tablespace",
        "statistics",
        "publication",
    ];
    const SCRIPTS: [&str; 3] = ["extension", "schema", "import"];
    let kind = statement.iter().take(4).find_map(|token| {
        let is_in = |words: &[&str]| words.iter().any(|word| token.is(word));
        if is_in(&SCRIPTS) {
            Some(Definition::Script)
        } else if is_in(&["view", "function", "procedure", "trigger", "rule", "policy"]) {
            Some(Definition::Code)
        } else if is_in(&DATA) {
            Some(Definition::Data)
        } else {
            None
        }
    });
    let is_alter = statement.first().is_some_and(|t| t.is("alter"));
    match (kind.unwrap_or(Definition::Code), calls(statement, known)) {
        (Definition::Script, _) => Effect::Defines(Definition::Script),
        (_, Effect::Pin(reason)) => Effect::Pin(reason),
        (Definition::Data, Effect::Clean | Effect::MayEnd) => Effect::Defines(Definition::Data),
        (Definition::Data, _) => Effect::Defines(Definition::Script),
        // To alter what is there names it.
        (Definition::Code, _) if is_alter => Effect::Defines(Definition::Data),
        (Definition::Code, _) => Effect::Defines(Definition::Code),
    }
}

/// `DECLARE … WITH HOLD`.
fn hold_cursor(rest: &[Token<'_>]) -> bool {
    rest.windows(2).any(|pair| matches!(pair, [with, hold] if with.is("with") && hold.is("hold")))
}

/// The effect of what a statement calls, and of tables that live with the session.
fn calls(statement: &[Token<'_>], known: &Known<'_>) -> Effect {
    let into_temporary = statement.windows(2).any(
        |pair| matches!(pair, [into, t] if into.is("into") && (t.is("temp") || t.is("temporary"))),
    );
    if into_temporary {
        return Effect::Pin(PinReason::TemporaryTable);
    }
    let takes_session_lock = statement.iter().any(|token| match token {
        Token::Word(name) => {
            begins(name, b"pg_advisory_lock") || begins(name, b"pg_try_advisory_lock")
        }
        Token::QuotedName(name) => name.windows(8).any(|w| w == b"advisory"),
        Token::Text(_) | Token::Number(_) | Token::Parameter(_) | Token::Mark(_) => false,
    });
    if takes_session_lock {
        return Effect::Pin(PinReason::AdvisoryLock);
    }
    let word = |what: fn(&[u8]) -> bool| {
        statement.iter().any(|t| matches!(t, Token::Word(name) if what(name)))
    };
    if word(|name| name.eq_ignore_ascii_case(b"pg_settings"))
        && word(|name| name.eq_ignore_ascii_case(b"update"))
    {
        return Effect::Dirty;
    }
    if word(|name| begins(name, b"pg_temp")) {
        return Effect::Pin(PinReason::TemporaryTable);
    }
    if word(|name| name.eq_ignore_ascii_case(b"set_config")) {
        return set_config(statement).unwrap_or_else(|| set_configs(statement, known));
    }
    if !calls_only_harmless(statement, known) {
        Effect::Dirty
    } else if word(|name| begins(name, b"pg_advisory_unlock")) {
        Effect::MayEnd
    } else {
        Effect::Clean
    }
}

/// Names that may stand before a parenthesis: keywords, types, and functions whose effect
/// ends with the transaction or only takes something away.
const LEAVE_NOTHING: &[&[u8]] = &[
    b"all",
    b"and",
    b"any",
    b"array",
    b"as",
    b"between",
    b"case",
    b"cast",
    b"check",
    b"coalesce",
    b"collate",
    b"cross",
    b"distinct",
    b"else",
    b"except",
    b"exists",
    b"extract",
    b"from",
    b"greatest",
    b"group",
    b"grouping",
    b"having",
    b"ilike",
    b"in",
    b"intersect",
    b"interval",
    b"into",
    b"is",
    b"join",
    b"lateral",
    b"least",
    b"like",
    b"limit",
    b"not",
    b"nullif",
    b"offset",
    b"on",
    b"or",
    b"order",
    b"overlay",
    b"position",
    b"references",
    b"returning",
    b"row",
    b"select",
    b"some",
    b"substring",
    b"table",
    b"then",
    b"time",
    b"timestamp",
    b"treat",
    b"trim",
    b"union",
    b"unique",
    b"using",
    b"values",
    b"varchar",
    b"varying",
    b"when",
    b"where",
    b"window",
    b"with",
    b"normalize",
    b"numeric",
    b"decimal",
    b"char",
    b"character",
    b"bit",
    b"float",
    b"timestamptz",
    b"xmlelement",
    b"xmlforest",
    b"xmlagg",
    b"primary",
    b"foreign",
    b"only",
    b"json_array",
    b"json_object",
    b"json_arrayagg",
    b"json_objectagg",
    b"nextval",
    b"currval",
    b"lastval",
    b"setval",
    b"pg_notify",
    b"pg_advisory_unlock",
    b"pg_advisory_unlock_all",
    b"pg_advisory_unlock_shared",
    b"pg_advisory_xact_lock",
    b"pg_advisory_xact_lock_shared",
    b"pg_try_advisory_xact_lock",
    b"pg_try_advisory_xact_lock_shared",
];

/// Functions of PostgreSQL 15 that change no session state, sorted.
const HARMLESS: &str = include_str!("harmless_functions.txt");

pub(super) fn is_harmless(name: &[u8]) -> bool {
    let name = lowered(name);
    LEAVE_NOTHING.contains(&name.as_slice()) || has_line(HARMLESS, &name)
}

/// Is `line` one of the lines of `sorted`? Halves the text, so that no table has to be built.
fn has_line(sorted: &str, line: &[u8]) -> bool {
    let mut rest = sorted.as_bytes();
    while !rest.is_empty() {
        let (before, behind) = rest.split_at(rest.len() / 2);
        let start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let end =
            behind.iter().position(|b| *b == b'\n').map_or(rest.len(), |at| before.len() + at);
        let middle = rest.get(start..end).unwrap_or_default();
        rest = match middle.cmp(line) {
            Ordering::Equal => return true,
            Ordering::Less => rest.get(end + 1..).unwrap_or_default(),
            Ordering::Greater => rest.get(..start).unwrap_or_default(),
        };
    }
    false
}

fn calls_only_harmless(statement: &[Token<'_>], known: &Known<'_>) -> bool {
    calls_only(statement, |name| is_harmless(name) || known(name))
}

/// Does `statement` call only what is `harmless`?
pub(super) fn calls_only(statement: &[Token<'_>], harmless: impl Fn(&[u8]) -> bool) -> bool {
    let mut previous: [Option<Token<'_>>; 3] = [None; 3];
    for token in statement {
        if *token == Token::Mark(b'(') {
            let is_fine = match previous {
                // INSERT INTO schema.table (…), COPY table (…): a list of columns.
                [Some(into), Some(Token::Mark(b'.')), Some(_)] if names_a_relation(&into) => true,
                [_, Some(before), Some(Token::Word(_) | Token::QuotedName(_))]
                    if names_a_relation(&before) =>
                {
                    true
                }
                [_, Some(on), Some(Token::Word(_))] if on.is("on") && makes_index(statement) => {
                    true
                }
                [_, Some(Token::Mark(b'.')), Some(Token::Word(name))] => {
                    let schema = previous.first().copied().flatten();
                    let of_catalog = matches!(schema, Some(Token::Word(s)) if s.eq_ignore_ascii_case(b"pg_catalog"));
                    (of_catalog || !is_harmless(name)) && harmless(name)
                        || schema_of_insert(statement, name)
                }
                [_, before, Some(Token::Word(name))] => {
                    harmless(name)
                        || is_syntax(before.as_ref(), name)
                        || is_cte_or_alias(statement, name)
                }
                [_, Some(on), Some(Token::QuotedName(_))] if on.is("on") => makes_index(statement),
                [.., Some(Token::QuotedName(_))] => false,
                _ => true,
            };
            if !is_fine {
                return false;
            }
        }
        previous = [previous[1], previous[2], Some(*token)];
    }
    true
}

/// `CREATE [UNIQUE] INDEX … ON table (…)`: behind ON stands a table and not a condition.
fn makes_index(statement: &[Token<'_>]) -> bool {
    statement.first().is_some_and(|t| t.is("create"))
        && statement.iter().skip(1).take(2).any(|t| t.is("index"))
}

/// Words that may also be functions' names, where the one before shows that they are none.
fn is_syntax(before: Option<&Token<'_>>, name: &[u8]) -> bool {
    let name = lowered(name);
    let Some(before) = before else { return matches!(&*name, b"copy" | b"explain") };
    let follows = |words: &[&str]| words.iter().any(|word| before.is(word));
    match &*name {
        b"by" => follows(&["group", "order", "partition"]),
        b"conflict" => follows(&["on"]),
        b"key" => follows(&["primary", "foreign"]),
        b"materialized" => follows(&["as", "not"]),
        b"range" => follows(&["by"]),
        b"sets" => follows(&["grouping"]),
        b"filter" | b"include" | b"over" => *before == Token::Mark(b')'),
        _ => false,
    }
}

fn names_a_relation(before: &Token<'_>) -> bool {
    ["into", "copy", "table", "index", "view", "exists", "references"]
        .iter()
        .any(|word| before.is(word))
}

/// `INSERT INTO schema.table (…)`: the name before the list is a table.
fn schema_of_insert(statement: &[Token<'_>], name: &[u8]) -> bool {
    statement.windows(4).any(|w| match w {
        [into, _, Token::Mark(b'.'), Token::Word(table)] => {
            (into.is("into") || into.is("copy")) && *table == name
        }
        _ => false,
    })
}

/// `WITH name (…)` and `AS name (…)`: a list of columns.
fn is_cte_or_alias(statement: &[Token<'_>], name: &[u8]) -> bool {
    statement.windows(3).any(|w| match w {
        [before, Token::Word(word), Token::Mark(b'(')] if *word == name => {
            before.is("as") || before.is("with") || before.is("recursive")
        }
        _ => false,
    })
}

pub(super) fn name_of(token: &Token<'_>) -> Option<String> {
    match token {
        Token::Word(name) => Some(lower(name)),
        Token::QuotedName(name) => unquote_name(name),
        Token::Text(_) | Token::Number(_) | Token::Parameter(_) | Token::Mark(_) => None,
    }
}

/// A name in lower case, without memory of its own where it is as short as names are.
fn lowered(name: &[u8]) -> SmallVec<[u8; 64]> {
    let mut name = SmallVec::from_slice(name);
    name.make_ascii_lowercase();
    name
}

/// Does `name` begin with `head` (lower case)?
fn begins(name: &[u8], head: &[u8]) -> bool {
    name.get(..head.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(head))
}

pub(super) fn lower(name: &[u8]) -> String {
    String::from_utf8_lossy(&name.to_ascii_lowercase()).into_owned()
}

#[cfg(test)]
mod tests;
