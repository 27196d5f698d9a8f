//! Lexemes of a text as PostgreSQL's scanner makes them (`scan.l`), where they do not hang on a
//! setting or an encoding. Whatever might be read in two ways is refused.

use super::Refusal;
use crate::sql::token::{Token, Tokens};

/// The most that PostgreSQL keeps of a name, in bytes (`NAMEDATALEN` − 1).
const LONGEST_NAME: usize = 63;
/// Characters that operators are made of.
const OPERATOR: &str = "~!@#^&|`?+-*/%<>=";
/// With one of these in it, an operator may end in `+` or `-`.
const ENDS_AS_IT_LIKES: &str = "~!@#^&|`?%";

/// One lexeme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lexeme<'a> {
    /// A keyword or an unquoted name, as it stands.
    Word(&'a str),
    /// A quoted name without its outer quotes.
    Quoted(&'a str),
    Text,
    Number,
    Parameter,
    /// One of `( ) [ ] , . ; :`
    Mark(u8),
    /// `::`
    Cast,
    /// `=>` or `:=`
    Names,
    Operator(&'a str),
}

impl Lexeme<'_> {
    /// Is it the keyword `word` (lower case)?
    pub(super) fn is(&self, word: &str) -> bool {
        matches!(self, Self::Word(own) if own.eq_ignore_ascii_case(word))
    }
}

/// The lexemes of `text`.
///
/// # Errors
/// What hangs on a setting or an encoding, and what is no lexeme.
pub(super) fn read(text: &str) -> Result<Vec<Lexeme<'_>>, Refusal> {
    let mut lexemes = Vec::new();
    let mut tokens = Tokens::new(text.as_bytes());
    while let Some(token) = tokens.next() {
        let end = text.len() - tokens.remaining();
        let lexeme = match token {
            Token::Word(word) => {
                let word = ascii_name(word)?;
                // U& strings and names are spelled with escapes.
                if word.eq_ignore_ascii_case("u") && text.get(end..end + 1) == Some("&") {
                    return Err(Refusal::NotUnderstood);
                }
                Lexeme::Word(word)
            }
            Token::QuotedName(name) => {
                let name = name.strip_prefix(b"\"").and_then(|name| name.strip_suffix(b"\""));
                Lexeme::Quoted(ascii_name(name.ok_or(Refusal::NotUnderstood)?)?)
            }
            Token::Text(text) => {
                string(text)?;
                Lexeme::Text
            }
            Token::Number(number) if is_plain(number) => Lexeme::Number,
            Token::Number(_) => return Err(Refusal::NotUnderstood),
            Token::Parameter(_) => Lexeme::Parameter,
            Token::Mark(b':') => match text.get(end..end + 1) {
                Some(":") => {
                    tokens.next();
                    Lexeme::Cast
                }
                Some("=") => {
                    tokens.next();
                    Lexeme::Names
                }
                _ => Lexeme::Mark(b':'),
            },
            Token::Mark(mark @ (b'(' | b')' | b'[' | b']' | b',' | b'.' | b';')) => {
                Lexeme::Mark(mark)
            }
            Token::Mark(_) => {
                let operator = operator(text.get(end - 1..).unwrap_or_default());
                if operator.is_empty() {
                    return Err(Refusal::NotUnderstood);
                }
                for _ in 1..operator.len() {
                    tokens.next();
                }
                if operator == "=>" { Lexeme::Names } else { Lexeme::Operator(operator) }
            }
        };
        lexemes.push(lexeme);
    }
    Ok(lexemes)
}

fn ascii_name(name: &[u8]) -> Result<&str, Refusal> {
    let name = str::from_utf8(name).map_err(|_| Refusal::NonAsciiName)?;
    if !name.is_ascii() {
        return Err(Refusal::NonAsciiName);
    }
    if name.is_empty() || name.len() > LONGEST_NAME {
        return Err(Refusal::NameLength);
    }
    if name.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(Refusal::NotUnderstood);
    }
    Ok(name)
}

/// Whether a string ends where it seems to, whatever `standard_conforming_strings` and the
/// client's encoding are. No second byte of a character is ever a quote; some are a backslash.
fn string(text: &[u8]) -> Result<(), Refusal> {
    let first = text.first().copied().unwrap_or(0);
    if !matches!(first, b'e' | b'E' | b'$') && text.contains(&b'\\') {
        return Err(Refusal::Backslash);
    }
    let is_whole = match first {
        b'$' => text.is_ascii() && ends_with_its_tag(text),
        b'\'' => is_closed(text.get(1..).unwrap_or_default()),
        _ => text.is_ascii() && is_closed(text.get(2..).unwrap_or_default()),
    };
    if is_whole { Ok(()) } else { Err(Refusal::NotUnderstood) }
}

/// Is the last character the quote that closes a string, whose others come in pairs? Backslashes
/// are there only where they escape.
fn is_closed(rest: &[u8]) -> bool {
    let mut bytes = rest.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'\'' if bytes.as_slice().is_empty() => return true,
            b'\'' if bytes.next() != Some(&b'\'') => return false,
            _ => {}
        }
    }
    false
}

fn ends_with_its_tag(text: &[u8]) -> bool {
    let tag = text.iter().skip(1).position(|byte| *byte == b'$').map(|at| at + 2);
    tag.and_then(|tag| text.get(..tag))
        .is_some_and(|tag| text.len() >= 2 * tag.len() && text.ends_with(tag))
}

/// A number that every version reads as one: `1`, `1.5`, `.5`, `1e6`.
fn is_plain(number: &[u8]) -> bool {
    let (mantissa, exponent) = match number.iter().position(|b| matches!(b, b'e' | b'E')) {
        Some(at) => (number.get(..at), number.get(at + 1..)),
        None => (Some(number), None),
    };
    let digits = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    let is_mantissa = mantissa.is_some_and(|mantissa| {
        let mut parts = mantissa.splitn(2, |byte| *byte == b'.');
        let (whole, fraction) = (parts.next().unwrap_or_default(), parts.next());
        match fraction {
            None => digits(whole),
            Some(fraction) => digits(fraction) && (whole.is_empty() || digits(whole)),
        }
    });
    is_mantissa && exponent.is_none_or(digits)
}

/// The operator at the start of `text` ("Operators" in "Lexical Structure").
fn operator(text: &str) -> &str {
    let run = text.bytes().take_while(|byte| OPERATOR.contains(char::from(*byte))).count();
    let run = text.get(..run).unwrap_or_default();
    // A comment ends it.
    let ends = ["--", "/*"].iter().filter_map(|comment| run.find(comment)).min();
    let mut operator = run.get(..ends.unwrap_or(run.len())).unwrap_or_default();
    let likes = |operator: &str| {
        let before = operator.get(..operator.len() - 1).unwrap_or_default();
        before.contains(|c| ENDS_AS_IT_LIKES.contains(c))
    };
    while operator.len() > 1 && operator.ends_with(['+', '-']) && !likes(operator) {
        operator = operator.get(..operator.len() - 1).unwrap_or_default();
    }
    operator
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> Refusal {
        read(text).unwrap_err()
    }

    #[test]
    fn operators_end_where_postgres_ends_them() {
        for (text, first) in [
            ("=-1", "="),
            ("@-1", "@-"),
            ("*-- x", "*"),
            ("+/* x */", "+"),
            ("->>'a'", "->>"),
            ("<=+-1", "<="),
            ("%-", "%-"),
        ] {
            assert_eq!(read(text).unwrap().first(), Some(&Lexeme::Operator(first)), "{text}");
        }
        assert_eq!(read("a::b := c => :d").unwrap().len(), 8);
    }

    #[test]
    fn what_may_be_read_in_two_ways_is_refused() {
        assert_eq!(refused(r"SELECT '\'"), Refusal::Backslash);
        assert_eq!(refused("SELECT größe"), Refusal::NonAsciiName);
        assert_eq!(refused("SELECT \"größe\""), Refusal::NonAsciiName);
        assert_eq!(refused(&format!("SELECT {}", "a".repeat(64))), Refusal::NameLength);
        for text in [
            "SELECT U&'\\0041'",
            "SELECT u&\"x\"",
            "SELECT 1from t",
            "SELECT 1e",
            "SELECT 0x1F",
            "SELECT 1_000",
            "SELECT 'never ends",
            "SELECT \"never ends",
            "SELECT $a$ never ends $b$",
            "SELECT E'never ends\\'",
            "SELECT \u{b} 1",
            "SELECT {fn now()}",
            "\\d",
        ] {
            assert_eq!(refused(text), Refusal::NotUnderstood, "{text}");
        }
    }

    #[test]
    fn strings_in_any_language_are_strings() {
        let lexemes = read("SELECT '日本''語', E'it\\'s', $$x\\$$, .5, 1.5e6").unwrap();
        assert_eq!(lexemes.iter().filter(|lexeme| **lexeme == Lexeme::Text).count(), 3);
        assert_eq!(lexemes.iter().filter(|lexeme| **lexeme == Lexeme::Number).count(), 2);
    }
}
