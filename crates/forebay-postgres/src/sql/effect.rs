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
use super::token::{Token, Tokens};

/// One statement's effect on the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Provably none beyond its transaction.
    Clean,
    /// Perhaps some: the connection is reset before its next owner.
    Dirty,
    /// `SET name …` for the session: it follows the client from now on.
    Set { name: String, value: String },
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
    /// connection until it leaves.
    Pin(PinReason),
    /// `SAVEPOINT name`: settings of the transaction can go back to here.
    Savepoint { name: String },
    /// `RELEASE name`: no longer.
    Release { name: String },
    /// `ROLLBACK TO name`: settings of the transaction are as they were there.
    RollbackTo { name: String },
}

/// Why a client keeps its server connection beyond its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum PinReason {
    Listen,
    TemporaryTable,
    AdvisoryLock,
    HoldCursor,
    SqlPrepare,
    /// A setting whose value the text does not tell.
    Setting,
    SessionAuthorization,
}

impl PinReason {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Listen => "listen",
            Self::TemporaryTable => "temporary_table",
            Self::AdvisoryLock => "advisory_lock",
            Self::HoldCursor => "hold_cursor",
            Self::SqlPrepare => "sql_prepare",
            Self::Setting => "setting",
            Self::SessionAuthorization => "session_authorization",
        }
    }
}

/// The effects of one text: mostly it is one statement.
pub(crate) type Effects = SmallVec<[Effect; 1]>;

/// The effects of the statements in `text`, in order. Empty statements have none.
pub(crate) fn of(text: &[u8]) -> Effects {
    let mut tokens = Tokens::new(text);
    let mut effects = Effects::new();
    let mut statement: SmallVec<[Token<'_>; 32]> = SmallVec::new();
    loop {
        let token = tokens.next();
        match token {
            Some(Token::Mark(b';')) | None => {
                if !statement.is_empty() {
                    effects.push(of_one(&statement));
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

/// Exactly `BEGIN` or `START TRANSACTION` with nothing behind: a statement that can wait
/// for the first one that needs a server. The answer is its command tag.
pub(crate) fn plain_begin(text: &[u8]) -> Option<&'static str> {
    let mut tokens = Tokens::new(text).filter(|token| *token != Token::Mark(b';'));
    let mut next = || tokens.next();
    match (next(), next(), next()) {
        (Some(begin), None, None) if begin.is("begin") => Some("BEGIN"),
        (Some(begin), Some(word), None)
            if begin.is("begin") && (word.is("work") || word.is("transaction")) =>
        {
            Some("BEGIN")
        }
        (Some(start), Some(word), None) if start.is("start") && word.is("transaction") => {
            Some("START TRANSACTION")
        }
        _ => None,
    }
}

/// Whether `text` begins like a statement that a pooler may answer by itself: a look at the
/// first word, for all those that do not.
pub(crate) fn may_need_no_server(text: &[u8]) -> bool {
    let Some(Token::Word(first)) = Tokens::new(text).next() else { return false };
    const LOCAL: [&[u8]; 9] = [
        b"begin",
        b"start",
        b"commit",
        b"end",
        b"rollback",
        b"abort",
        b"set",
        b"reset",
        b"deallocate",
    ];
    LOCAL.iter().any(|word| first.eq_ignore_ascii_case(word))
}

/// Does `text` begin like a LISTEN? A look at the first word, for all those that do not.
pub(crate) fn begins_with_listen(text: &[u8]) -> bool {
    Tokens::new(text).next().is_some_and(|first| first.is("listen"))
}

/// Exactly `COMMIT`, `END` or `ROLLBACK`: what ends a transaction that never began.
pub(crate) fn plain_end(text: &[u8]) -> Option<&'static str> {
    let mut tokens = Tokens::new(text).filter(|token| *token != Token::Mark(b';'));
    let first = tokens.next()?;
    if tokens.next().is_some() {
        return None;
    }
    match first {
        t if t.is("commit") || t.is("end") => Some("COMMIT"),
        t if t.is("rollback") || t.is("abort") => Some("ROLLBACK"),
        _ => None,
    }
}

fn of_one(statement: &[Token<'_>]) -> Effect {
    let Some(Token::Word(first)) = statement.first() else {
        return if calls_only_harmless(statement) { Effect::Clean } else { Effect::Dirty };
    };
    let rest = statement.get(1..).unwrap_or_default();
    let first = lowered(first);
    match first.as_slice() {
        b"set" => set(rest),
        b"reset" => match rest {
            [all] if all.is("all") => Effect::ResetAll,
            [name] => name_of(name).map_or(Effect::Dirty, |name| Effect::Reset { name }),
            [Token::Word(a), Token::Mark(b'.'), Token::Word(b)] => {
                Effect::Reset { name: lower(&[*a, b".", *b].concat()) }
            }
            _ => Effect::Dirty,
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
            Effect::Pin(PinReason::TemporaryTable)
        }
        b"declare" if hold_cursor(rest) => Effect::Pin(PinReason::HoldCursor),
        b"rollback" | b"savepoint" | b"release" => savepoint(&first, rest),
        b"begin" | b"start" | b"commit" | b"end" | b"abort" | b"fetch" | b"move" | b"close"
        | b"show" | b"truncate" | b"analyze" | b"vacuum" | b"reindex" | b"checkpoint" | b"lock"
        | b"comment" | b"grant" | b"revoke" | b"notify" | b"cluster" => Effect::Clean,
        b"select" | b"insert" | b"update" | b"delete" | b"with" | b"values" | b"table"
        | b"merge" | b"copy" | b"explain" | b"declare" | b"create" | b"alter" | b"drop"
        | b"execute" => calls(statement),
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

/// `SELECT set_config(name, value, is_local)` and nothing else.
fn set_config(statement: &[Token<'_>]) -> Option<Effect> {
    let call = match statement {
        [select, schema, Token::Mark(b'.'), call @ ..]
            if select.is("select") && schema.is("pg_catalog") =>
        {
            call
        }
        [select, call @ ..] if select.is("select") => call,
        _ => return None,
    };
    let [function, Token::Mark(b'('), Token::Text(name), Token::Mark(b','), value, rest @ ..] =
        call
    else {
        return None;
    };
    let rest = match rest {
        // A parameter may say its type.
        [Token::Mark(b':'), Token::Mark(b':'), Token::Word(_), rest @ ..] => rest,
        rest => rest,
    };
    let [Token::Mark(b','), is_local, Token::Mark(b')')] = rest else { return None };
    if !function.is("set_config") {
        return None;
    }
    if is_local.is("true") && matches!(value, Token::Text(_) | Token::Parameter(_)) {
        return Some(Effect::Clean);
    }
    let Token::Text(value) = value else { return None };
    let name = lower(unquote(name)?.as_bytes());
    is_local.is("false").then_some(Effect::Set { name, value: unquote(value)? })
}

/// `DECLARE … WITH HOLD`.
fn hold_cursor(rest: &[Token<'_>]) -> bool {
    rest.windows(2).any(|pair| matches!(pair, [with, hold] if with.is("with") && hold.is("hold")))
}

/// The effect of what a statement calls, and of tables that live with the session.
fn calls(statement: &[Token<'_>]) -> Effect {
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
    if let Some(effect) = set_config(statement) {
        return effect;
    }
    let word = |what: fn(&[u8]) -> bool| {
        statement.iter().any(|t| matches!(t, Token::Word(name) if what(name)))
    };
    if word(|name| begins(name, b"pg_temp")) {
        return Effect::Pin(PinReason::TemporaryTable);
    }
    if word(|name| name.eq_ignore_ascii_case(b"set_config")) {
        return Effect::Pin(PinReason::Setting);
    }
    if calls_only_harmless(statement) { Effect::Clean } else { Effect::Dirty }
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

fn is_harmless(name: &[u8]) -> bool {
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

fn calls_only_harmless(statement: &[Token<'_>]) -> bool {
    let mut previous: [Option<Token<'_>>; 3] = [None; 3];
    for token in statement {
        if *token == Token::Mark(b'(') {
            let harmless = match previous {
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
                    of_catalog && is_harmless(name) || schema_of_insert(statement, name)
                }
                [_, before, Some(Token::Word(name))] => {
                    is_harmless(name)
                        || is_syntax(before.as_ref(), name)
                        || is_cte_or_alias(statement, name)
                }
                [_, Some(on), Some(Token::QuotedName(_))] if on.is("on") => makes_index(statement),
                [.., Some(Token::QuotedName(_))] => false,
                _ => true,
            };
            if !harmless {
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

fn set(rest: &[Token<'_>]) -> Effect {
    let rest = match rest {
        [local, ..] if local.is("local") => return Effect::Clean,
        [scope, next, ..]
            if scope.is("transaction") || (scope.is("constraints") && !is_assignment(next)) =>
        {
            return Effect::Clean;
        }
        [session, next, ..] if session.is("session") && !next.is("authorization") => {
            rest.get(1..).unwrap_or_default()
        }
        _ => rest,
    };
    let assignment = match rest {
        [session, auth, _] if session.is("session") && auth.is("authorization") => {
            return Effect::Pin(PinReason::SessionAuthorization);
        }
        [schema, value] if schema.is("schema") => {
            Some(("search_path".to_owned(), std::slice::from_ref(value)))
        }
        [role, value] if role.is("role") => Some(("role".to_owned(), std::slice::from_ref(value))),
        [time, zone, value] if time.is("time") && zone.is("zone") => {
            Some(("timezone".to_owned(), std::slice::from_ref(value)))
        }
        [names, value] if names.is("names") => {
            Some(("client_encoding".to_owned(), std::slice::from_ref(value)))
        }
        [name, eq, value @ ..] if is_assignment(eq) => name_of(name).map(|name| (name, value)),
        [Token::Word(a), Token::Mark(b'.'), Token::Word(b), eq, value @ ..]
            if is_assignment(eq) =>
        {
            Some((lower(&[*a, b".", *b].concat()), value))
        }
        _ => None,
    };
    let Some((name, value)) = assignment else { return Effect::Pin(PinReason::Setting) };
    match value {
        [default] if default.is("default") => Effect::Reset { name },
        value => match value_text(&name, value) {
            Some(value) => Effect::Set { name, value },
            None => Effect::Pin(PinReason::Setting),
        },
    }
}

fn is_assignment(token: &Token<'_>) -> bool {
    token.is("to") || *token == Token::Mark(b'=')
}

/// A value as `set_config` takes it: lists keep their commas, and what was a string in a
/// list of names becomes a quoted name.
fn value_text(setting: &str, tokens: &[Token<'_>]) -> Option<String> {
    const LISTS_OF_NAMES: [&str; 4] =
        ["search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries"];
    let is_list = tokens.len() > 1 || LISTS_OF_NAMES.contains(&setting);
    let mut out = String::new();
    for token in tokens {
        match token {
            Token::Text(text) => {
                let content = unquote(text)?;
                if is_list {
                    quote_where_needed(&mut out, &content);
                } else {
                    out.push_str(&content);
                }
            }
            Token::Word(name) => out.push_str(&lower(name)),
            Token::QuotedName(name) if is_list => {
                quote_where_needed(&mut out, &unquote_name(name)?);
            }
            Token::QuotedName(name) => out.push_str(&unquote_name(name)?),
            Token::Number(number) => out.push_str(std::str::from_utf8(number).ok()?),
            Token::Mark(b',') => out.push_str(", "),
            Token::Mark(b'-') => out.push('-'),
            Token::Mark(_) | Token::Parameter(_) => return None,
        }
    }
    (!tokens.is_empty()).then_some(out)
}

/// As `quote_identifier` does it, but for keywords, which need no quotes in a list.
fn quote_where_needed(out: &mut String, name: &str) {
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if starts && name.chars().all(plain) {
        return out.push_str(name);
    }
    out.push('"');
    out.push_str(&name.replace('"', "\"\""));
    out.push('"');
}

/// The content of a plain string; other quotings are not worth understanding here.
fn unquote(text: &[u8]) -> Option<String> {
    let inner = text.strip_prefix(b"'")?.strip_suffix(b"'")?;
    let inner = std::str::from_utf8(inner).ok()?;
    Some(inner.replace("''", "'"))
}

fn unquote_name(text: &[u8]) -> Option<String> {
    let inner = text.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    Some(std::str::from_utf8(inner).ok()?.replace("\"\"", "\""))
}

fn name_of(token: &Token<'_>) -> Option<String> {
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

fn lower(name: &[u8]) -> String {
    String::from_utf8_lossy(&name.to_ascii_lowercase()).into_owned()
}

#[cfg(test)]
mod tests;
