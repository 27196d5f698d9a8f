//! Prepared statements that SQL itself names: PREPARE, EXECUTE and DEALLOCATE.
//!
//! To PostgreSQL their names and those of the protocol are the same.

use std::ops::Range;

use smallvec::SmallVec;

use super::effect::name_of;
use super::token::{Token, Tokens};

/// What a name is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// EXECUTE.
    Runs,
    /// DEALLOCATE, or a PREPARE that wants the name itself.
    Names,
}

/// A name of a prepared statement in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mention {
    /// Which statement of the text it is in; empty ones do not count.
    pub(crate) statement: usize,
    /// The bytes it stands in, with its quotes.
    pub(crate) place: Range<usize>,
    pub(crate) name: String,
    pub(crate) used: Use,
}

/// The names in `text`, in order.
pub(crate) fn mentions(text: &[u8]) -> SmallVec<[Mention; 1]> {
    let mut found = SmallVec::new();
    // Most texts show by their words that there is nothing to find.
    const WORDS: [&[u8]; 3] = [b"execute", b"prepare", b"deallocate"];
    let has = |word: &[u8]| text.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word));
    if !WORDS.into_iter().any(has) {
        return found;
    }
    let mut tokens = Tokens::new(text);
    let mut at_hand: Vec<(Token<'_>, Range<usize>)> = Vec::new();
    let mut statement = 0;
    loop {
        let token = tokens.next();
        match token {
            Some(Token::Mark(b';')) | None => {
                found.extend(mention(statement, &at_hand));
                statement += usize::from(!at_hand.is_empty());
                at_hand.clear();
                if token.is_none() {
                    return found;
                }
            }
            Some(token) => {
                let end = text.len() - tokens.remaining();
                at_hand.push((token, end - length(&token)..end));
            }
        }
    }
}

fn length(token: &Token<'_>) -> usize {
    match token {
        Token::Word(bytes)
        | Token::QuotedName(bytes)
        | Token::Text(bytes)
        | Token::Number(bytes)
        | Token::Parameter(bytes) => bytes.len(),
        Token::Mark(_) => 1,
    }
}

fn mention(statement: usize, tokens: &[(Token<'_>, Range<usize>)]) -> Option<Mention> {
    let word = |at: usize, word: &str| tokens.get(at).is_some_and(|(token, _)| token.is(word));
    let (at, used) = if word(0, "execute") {
        (1, Use::Runs)
    } else if word(0, "explain") || word(0, "create") {
        let execute = tokens.iter().position(|(token, _)| token.is("execute"))?;
        (execute + 1, Use::Runs)
    } else if word(0, "deallocate") {
        (if word(1, "prepare") && tokens.len() > 2 { 2 } else { 1 }, Use::Names)
    } else if word(0, "prepare") && tokens.len() > 2 {
        (1, Use::Names)
    } else {
        return None;
    };
    let (token, place) = tokens.get(at)?;
    if used == Use::Names && token.is("all") && word(0, "deallocate") {
        return None;
    }
    Some(Mention { statement, place: place.clone(), name: name_of(token)?, used })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> Vec<(usize, &str, String, Use)> {
        let mentions = mentions(text.as_bytes()).into_iter();
        mentions.map(|m| (m.statement, &text[m.place], m.name, m.used)).collect()
    }

    #[test]
    fn names_are_found_where_sql_has_them() {
        let one = |text, place, name: &str, used| {
            assert_eq!(shown(text), [(0, place, name.to_owned(), used)], "{text}");
        };
        one("EXECUTE S1(1, 'x')", "S1", "s1", Use::Runs);
        one(" execute \"S 1\";", "\"S 1\"", "S 1", Use::Runs);
        one("EXPLAIN (ANALYZE) EXECUTE a", "a", "a", Use::Runs);
        one("CREATE TABLE x AS EXECUTE a(2)", "a", "a", Use::Runs);
        one("DEALLOCATE a", "a", "a", Use::Names);
        one("DEALLOCATE PREPARE a", "a", "a", Use::Names);
        one("DEALLOCATE prepare", "prepare", "prepare", Use::Names);
        one("PREPARE a (int) AS SELECT $1", "a", "a", Use::Names);
        let text = "; SELECT 1; EXECUTE a; DEALLOCATE a";
        assert_eq!(
            shown(text),
            [(1, "a", "a".into(), Use::Runs), (2, "a", "a".into(), Use::Names)]
        );
        for text in [
            "DEALLOCATE ALL",
            "DEALLOCATE PREPARE ALL",
            "SELECT 'EXECUTE a'",
            "EXECUTE",
            "EXECUTE 1",
        ] {
            assert_eq!(shown(text), [], "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_place_is_within_its_text(text in "(?i)(execute|prepare|deallocate|;| |[a-z\"'$/*-]){0,12}") {
            for mention in mentions(text.as_bytes()) {
                prop_assert!(text.as_bytes().get(mention.place).is_some());
            }
        }
    }
}
