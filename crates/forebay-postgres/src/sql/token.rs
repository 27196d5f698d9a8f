//! Splits SQL into tokens by PostgreSQL's lexical rules ("Lexical Structure"): nested
//! comments, quoted identifiers, `E''` and dollar-quoted strings. Works on bytes, never
//! fails: what is unfinished is one token to the end.

/// A token and the bytes it stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    /// A keyword or an unquoted name.
    Word(&'a [u8]),
    /// A quoted name, with its quotes.
    QuotedName(&'a [u8]),
    /// A string in any quoting, with its quotes.
    Text(&'a [u8]),
    Number(&'a [u8]),
    /// `$1`
    Parameter(&'a [u8]),
    /// A single character of punctuation or of an operator.
    Mark(u8),
}

impl<'a> Token<'a> {
    /// Is it the keyword `word` (lower case)?
    pub(crate) fn is(&self, word: &str) -> bool {
        matches!(self, Self::Word(w) if w.eq_ignore_ascii_case(word.as_bytes()))
    }
}

/// Tokens of a text, comments left out.
#[derive(Debug, Clone)]
pub(crate) struct Tokens<'a> {
    rest: &'a [u8],
}

impl<'a> Tokens<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self { rest: text }
    }

    /// Bytes not looked at yet.
    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    fn take(&mut self, n: usize) -> &'a [u8] {
        let (head, rest) = self.rest.split_at(n.min(self.rest.len()));
        self.rest = rest;
        head
    }

    fn skip_blank(&mut self) {
        loop {
            let blank = self.rest.iter().take_while(|b| b.is_ascii_whitespace()).count();
            self.take(blank);
            let comment = match self.rest {
                [b'-', b'-', ..] => {
                    self.rest.iter().take_while(|b| !matches!(b, b'\n' | b'\r')).count()
                }
                [b'/', b'*', ..] => block_comment(self.rest),
                _ => return,
            };
            self.take(comment);
        }
    }
}

/// The length of the block comment at the start of `text`; comments nest.
pub(crate) fn block_comment(text: &[u8]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(pair) = text.get(at..at + 2) {
        match pair {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// The length of a string or name at the start of `text` that ends with `quote`; a doubled
/// quote is part of it, as is anything after a backslash where those escape.
fn quoted(text: &[u8], open: usize, quote: u8, backslash: Backslash) -> usize {
    let mut at = open;
    while let Some(byte) = text.get(at) {
        at += 1;
        if *byte == b'\\' && backslash == Backslash::Escapes {
            at += 1;
        } else if *byte == quote {
            if text.get(at) == Some(&quote) {
                at += 1;
            } else {
                return at;
            }
        }
    }
    text.len()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Backslash {
    Escapes,
    IsText,
}

fn is_name_start(b: u8) -> bool {
    b.is_ascii_alphabetic() || b == b'_' || b >= 0x80
}

fn is_name(b: u8) -> bool {
    is_name_start(b) || b.is_ascii_digit() || b == b'$'
}

fn run(text: &[u8], of: fn(u8) -> bool) -> usize {
    text.iter().take_while(|b| of(**b)).count()
}

/// The length of a dollar-quoted string at the start of `text`, if one is there.
fn dollar_quoted(text: &[u8]) -> Option<usize> {
    let tag = text.get(1..)?.iter().take_while(|b| is_name(**b) && **b != b'$').count();
    let starts_with_digit = text.get(1).is_some_and(u8::is_ascii_digit);
    if starts_with_digit || text.get(tag + 1) != Some(&b'$') {
        return None;
    }
    let delimiter = text.get(..tag + 2)?;
    let body = text.get(tag + 2..)?;
    let end = body.windows(delimiter.len()).position(|window| window == delimiter);
    Some(end.map_or(text.len(), |end| tag + 2 + end + delimiter.len()))
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.skip_blank();
        let first = *self.rest.first()?;
        let second = self.rest.get(1).copied().unwrap_or(0);
        Some(match first {
            b'\'' => Token::Text(self.take(quoted(self.rest, 1, b'\'', Backslash::IsText))),
            b'e' | b'E' if second == b'\'' => {
                Token::Text(self.take(quoted(self.rest, 2, b'\'', Backslash::Escapes)))
            }
            b'b' | b'B' | b'x' | b'X' | b'n' | b'N' if second == b'\'' => {
                Token::Text(self.take(quoted(self.rest, 2, b'\'', Backslash::IsText)))
            }
            b'"' => Token::QuotedName(self.take(quoted(self.rest, 1, b'"', Backslash::IsText))),
            b'$' if second.is_ascii_digit() => {
                let digits = run(self.rest.get(1..).unwrap_or_default(), |b| b.is_ascii_digit());
                Token::Parameter(self.take(digits + 1))
            }
            b'$' => match dollar_quoted(self.rest) {
                Some(n) => Token::Text(self.take(n)),
                None => {
                    self.take(1);
                    Token::Mark(b'$')
                }
            },
            b if is_name_start(b) => Token::Word(self.take(run(self.rest, is_name))),
            b if b.is_ascii_digit() || (b == b'.' && second.is_ascii_digit()) => {
                Token::Number(self.take(run(self.rest, |b| is_name(b) || b == b'.')))
            }
            mark => {
                self.take(1);
                Token::Mark(mark)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens(text: &str) -> Vec<Token<'_>> {
        Tokens::new(text.as_bytes()).collect()
    }

    #[test]
    fn quotes_of_all_kinds_are_single_tokens() {
        for text in ["'it''s; --'", "E'a\\'b'", "$$a;'b$$", "$x$ $$ $x$", "X'ff'"] {
            assert_eq!(tokens(text), [Token::Text(text.as_bytes())], "{text}");
        }
        assert_eq!(tokens("\"a\"\"b\""), [Token::QuotedName(b"\"a\"\"b\"")]);
    }

    #[test]
    fn comments_nest_and_vanish() {
        assert_eq!(
            tokens("a /* x /* y */ ; */ b -- c\n;"),
            [Token::Word(b"a"), Token::Word(b"b"), Token::Mark(b';')]
        );
        assert_eq!(tokens("a -- b\r; c")[1], Token::Mark(b';'), "a return ends a line, too");
        assert_eq!(tokens("a /* never closed ; '"), [Token::Word(b"a")]);
    }

    #[test]
    fn parameters_are_no_dollar_quotes() {
        assert_eq!(tokens("$1$2"), [Token::Parameter(b"$1"), Token::Parameter(b"$2")]);
        assert_eq!(tokens("a$b"), [Token::Word(b"a$b")]);
    }

    proptest! {
        #[test]
        fn every_text_has_an_end(text: Vec<u8>) {
            prop_assert!(Tokens::new(&text).count() <= text.len());
        }
    }
}
