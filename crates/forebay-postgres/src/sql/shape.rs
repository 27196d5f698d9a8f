//! A statement's shape: its text without literals, comments and needless blanks, for logs
//! and metrics, where values must never show.

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
    fn a_shape_is_bounded_and_prints_no_control_characters() {
        let long = "x".repeat(100_000);
        assert!(of(long.as_bytes()).len() < 600);
        assert!(!of(b"a \"b\x1b[31m\" c").contains('\x1b'));
    }
}
