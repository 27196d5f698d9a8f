//! A statement's shape: its text without literals, comments and needless blanks, for logs
//! and metrics, where values must never show.

use std::hash::Hasher;

use super::token::{Token, Tokens};

/// Bytes of a shape at the most.
const LONGEST: usize = 512;

/// The shape of `text`: literals become `?`.
pub(crate) fn of(text: &[u8]) -> String {
    let mut out = String::new();
    let mut glue = Glue::None;
    for token in Tokens::new(text) {
        if out.len() >= LONGEST {
            out.push('…');
            break;
        }
        let (piece, next) = match token {
            Token::Text(_) | Token::Number(_) => ("?".into(), Glue::Space),
            Token::Word(name) | Token::QuotedName(name) | Token::Parameter(name) => (
                String::from_utf8_lossy(name.get(..name.len().min(63)).unwrap_or(name)),
                Glue::Space,
            ),
            Token::Mark(mark @ (b'(' | b'.')) => (char::from(mark).to_string().into(), Glue::None),
            Token::Mark(mark @ (b',' | b')' | b';')) => {
                if glue == Glue::Space {
                    glue = Glue::None;
                }
                (char::from(mark).to_string().into(), Glue::Space)
            }
            Token::Mark(mark) => (char::from(mark).to_string().into(), Glue::Mark),
        };
        let is_call = piece == "(" && glue == Glue::Space;
        let separated = match glue {
            Glue::None => false,
            Glue::Space => !is_call && piece != ".",
            Glue::Mark => next != Glue::Mark,
        };
        if separated && !out.is_empty() {
            out.push(' ');
        }
        out.extend(piece.chars().filter(|c| !c.is_control()));
        glue = next;
    }
    out
}

/// Hands `hasher` what the shape of `text` is made of, and makes no shape: texts that differ
/// in literals, comments and blanks alone are one to it.
pub(crate) fn hash(text: &[u8], hasher: &mut impl Hasher) {
    const LITERAL: usize = 0;
    const MARK: usize = 1;
    const NAME: usize = 2;
    for token in Tokens::new(text) {
        match token {
            Token::Text(_) | Token::Number(_) => hasher.write_usize(LITERAL),
            Token::Mark(mark) => hasher.write_usize(MARK | usize::from(mark) << 2),
            Token::Word(name) | Token::QuotedName(name) | Token::Parameter(name) => {
                hasher.write_usize(NAME | name.len() << 2);
                hasher.write(name);
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Glue {
    None,
    Space,
    /// Behind an operator's character: another one belongs to it.
    Mark,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_literal_shows() {
        let text = b"SELECT  a.b, 'secret', 42 -- secret\nFROM t WHERE x >= $1 AND y = $$secret$$ /* secret */";
        assert_eq!(of(text), "SELECT a.b, ?, ? FROM t WHERE x >= $1 AND y = ?");
    }

    #[test]
    fn texts_of_one_shape_have_one_hash() {
        let hashed = |text: &str| {
            let mut hasher = std::hash::DefaultHasher::new();
            hash(text.as_bytes(), &mut hasher);
            hasher.finish()
        };
        let one = hashed("SELECT a FROM t WHERE b = 1");
        assert_eq!(one, hashed("SELECT a  FROM t WHERE b = 'x' -- why"));
        for other in ["SELECT a FROM t WHERE b = c", "SELECT a FROM t WHERE b < 1", "SELECT a"] {
            assert_ne!(one, hashed(other), "{other}");
        }
        assert_ne!(hashed("ab"), hashed("a b"));
    }

    #[test]
    fn a_shape_is_bounded_and_prints_no_control_characters() {
        let long = "x".repeat(100_000);
        assert!(of(long.as_bytes()).len() < 600);
        assert!(!of(b"a \"b\x1b[31m\" c").contains('\x1b'));
    }
}
