//! The proof by text that an open transaction holds nothing: each of its statements was one
//! plain SELECT, and whatever it names is PostgreSQL's own or of an allowed extension, and not
//! volatile.
//!
//! [`examine`] reads the text and collects what it names; [`QUESTION`] asks a server of the same
//! database whether those names can mean anything else. The server does not show everything that
//! a transaction can hold (a custom setting, a role, a notification, a seed), so neither a
//! glance at the server nor a list of forbidden words would do: this is a parser of what is
//! understood, and what is not understood is refused. Names count in every schema, so no
//! `search_path` can make the verdict wrong. Knows no connection and asks nothing by itself.

mod expression;
mod lexemes;
mod named;
mod query;
mod refusal;
mod verdicts;

pub(crate) use named::{Named, QUESTION, read_answer};
pub(crate) use refusal::Refusal;
pub(crate) use verdicts::{Subject, Verdicts};

use query::Reader;

/// Longer texts are not examined, in bytes.
const LONGEST: usize = 64 * 1024;

/// Extensions whose functions, operators and types may be used: what they do is known, and none
/// that is not volatile changes a session.
pub(crate) const EXTENSIONS: [&str; 16] = [
    "btree_gin",
    "btree_gist",
    "citext",
    "cube",
    "dict_int",
    "dict_xsyn",
    "earthdistance",
    "fuzzystrmatch",
    "hstore",
    "intarray",
    "isn",
    "ltree",
    "pg_trgm",
    "pgcrypto",
    "unaccent",
    "vector",
];

/// What `text` names, if it is one plain SELECT. That it holds nothing is proved only when the
/// answer to [`QUESTION`] says so too.
///
/// # Errors
/// The reason why it is no statement that could be parked behind.
pub(crate) fn examine(text: &str) -> Result<Named, Refusal> {
    if text.len() > LONGEST {
        return Err(Refusal::TooLong);
    }
    let lexemes = lexemes::read(text)?;
    Reader::new(&lexemes).statement()
}

/// Is `text` one plain SELECT that changes no setting, as far as a text tells?
pub(crate) fn changes_no_setting(text: &str) -> bool {
    !text.to_ascii_lowercase().contains("set_config") && examine(text).is_ok()
}

#[cfg(test)]
mod tests;
