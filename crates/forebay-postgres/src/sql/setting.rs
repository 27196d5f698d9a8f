//! SET, and what else changes settings: which, and to what, as far as the text tells.
//!
//! Values are read as `set_config` takes them. What a value is that the text does not tell, the
//! server is asked for by the setting's name.

use super::effect::{Effect, Known, calls_only, is_harmless, lower, name_of};
use super::token::Token;
use crate::pins::PinReason;

pub(super) fn set(rest: &[Token<'_>]) -> Effect {
    let rest = match rest {
        [local, ..] if local.is("local") => return Effect::Local,
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
    let (name, value) = match rest {
        [session, auth, _] if session.is("session") && auth.is("authorization") => {
            return Effect::Pin(PinReason::SessionAuthorization);
        }
        [characteristics, ..] if characteristics.is("characteristics") => {
            let of = |what: &str| format!("default_transaction_{what}");
            let names = ["isolation", "read_only", "deferrable"].map(of);
            return Effect::Learn { names: names.into() };
        }
        [schema, value] if schema.is("schema") => {
            ("search_path".to_owned(), std::slice::from_ref(value))
        }
        [role, value] if role.is("role") => ("role".to_owned(), std::slice::from_ref(value)),
        [time, zone, local] if time.is("time") && zone.is("zone") && local.is("local") => {
            return Effect::Reset { name: "timezone".to_owned() };
        }
        [time, zone, value @ ..] if time.is("time") && zone.is("zone") => {
            ("timezone".to_owned(), value)
        }
        [names, value] if names.is("names") => {
            ("client_encoding".to_owned(), std::slice::from_ref(value))
        }
        rest => match setting_name(rest) {
            Some((name, [eq, value @ ..])) if is_assignment(eq) => (name, value),
            _ => return Effect::Pin(PinReason::Setting),
        },
    };
    change_of(name, |name| match value {
        [default] if default.is("default") => Effect::Reset { name },
        value => match value_text(&name, value) {
            Some(value) => Effect::Set { name, value },
            None => Effect::Learn { names: Box::new([name]) },
        },
    })
}

/// The setting that `tokens` begin with (`a`, `a.b`), and what follows it.
pub(super) fn setting_name<'t, 'a>(tokens: &'t [Token<'a>]) -> Option<(String, &'t [Token<'a>])> {
    let (first, mut rest) = tokens.split_first()?;
    let mut name = name_of(first)?;
    while let [Token::Mark(b'.'), next, behind @ ..] = rest {
        name = format!("{name}.{}", name_of(next)?);
        rest = behind;
    }
    Some((name.to_ascii_lowercase(), rest))
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
    let is_word = |t: &Token<'_>| !matches!(t, Token::Mark(_));
    if tokens.windows(2).any(|pair| pair.iter().all(is_word)) {
        // INTERVAL '2' HOUR: more than a list of values.
        return None;
    }
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

/// `SELECT set_config(name, value, false)` and nothing else.
pub(super) fn set_config(statement: &[Token<'_>]) -> Option<Effect> {
    let call = match statement {
        [select, schema, Token::Mark(b'.'), call @ ..]
            if select.is("select") && schema.is("pg_catalog") =>
        {
            call
        }
        [select, call @ ..] if select.is("select") => call,
        _ => return None,
    };
    let [
        function,
        Token::Mark(b'('),
        Token::Text(name),
        Token::Mark(b','),
        Token::Text(value),
        Token::Mark(b','),
        is_local,
        Token::Mark(b')'),
    ] = call
    else {
        return None;
    };
    if !function.is("set_config") || !is_local.is("false") {
        return None;
    }
    let value = unquote(value)?;
    let name = lower(unquote(name)?.as_bytes());
    Some(change_of(name, |name| Effect::Set { name, value }))
}

/// A statement that calls `set_config` somehow: what it may change.
pub(super) fn set_configs(statement: &[Token<'_>], known: &Known<'_>) -> Effect {
    let harmless =
        |name: &[u8]| is_harmless(name) || known(name) || name.eq_ignore_ascii_case(b"set_config");
    let mut names = Vec::new();
    for (at, _) in statement.iter().enumerate().filter(|(_, token)| token.is("set_config")) {
        let call = statement.get(at + 1..).unwrap_or_default();
        let [Token::Mark(b'('), Token::Text(name), Token::Mark(b','), ..] = call else {
            return Effect::Pin(PinReason::Setting);
        };
        if is_local(call) {
            continue;
        }
        let Some(name) = unquote(name) else { return Effect::Pin(PinReason::Setting) };
        let mut own = None;
        let special = change_of(lower(name.as_bytes()), |name| {
            own = Some(name);
            Effect::Local
        });
        if special != Effect::Local {
            return special;
        }
        names.extend(own);
    }
    if !calls_only(statement, harmless) {
        return Effect::Pin(PinReason::Setting);
    }
    if names.is_empty() { Effect::Local } else { Effect::Learn { names: names.into() } }
}

/// Is `true` the last argument of the call that `tokens` begin with?
fn is_local(tokens: &[Token<'_>]) -> bool {
    let mut depth = 0_u32;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Mark(b'(') => depth += 1,
            Token::Mark(b')') if depth <= 1 => {
                let end = tokens.get(at.saturating_sub(2)..at);
                return matches!(end, Some([Token::Mark(b','), last]) if last.is("true"));
            }
            Token::Mark(b')') => depth -= 1,
            Token::Mark(_)
            | Token::Word(_)
            | Token::QuotedName(_)
            | Token::Text(_)
            | Token::Number(_)
            | Token::Parameter(_) => {}
        }
    }
    false
}

/// What a change of the setting `name` is; `other`, unless it is a special one.
pub(super) fn change_of(name: String, other: impl FnOnce(String) -> Effect) -> Effect {
    match &*name {
        "session_authorization" => Effect::Pin(PinReason::SessionAuthorization),
        // It has no value to come back to.
        "seed" => Effect::Dirty,
        "transaction_isolation" | "transaction_read_only" | "transaction_deferrable" => {
            Effect::Local
        }
        _ => other(name),
    }
}

/// The content of a plain string; other quotings are not worth understanding here.
fn unquote(text: &[u8]) -> Option<String> {
    let inner = text.strip_prefix(b"'")?.strip_suffix(b"'")?;
    let inner = std::str::from_utf8(inner).ok()?;
    Some(inner.replace("''", "'"))
}

pub(super) fn unquote_name(text: &[u8]) -> Option<String> {
    let inner = text.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    Some(std::str::from_utf8(inner).ok()?.replace("\"\"", "\""))
}
