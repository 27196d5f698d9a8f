//! Texts of statements: tokens, effects, shapes, tags.

use std::hash::{DefaultHasher, Hasher};

use super::fuzz;
use crate::own;
use crate::prepared;
use crate::sql::effect::{self, Effect};
use crate::sql::shape;
use crate::sql::tags;
use crate::sql::token::{Token, Tokens, block_comment};
use crate::sql::transaction;

fn texts() -> Vec<Vec<u8>> {
    let texts = [
        "SELECT a.\"b\", 'it''s', E'\\'', $$x$$, $t$ $$ $t$, $1 FROM t -- c\n /* d /* e */ */",
        "BEGIN ISOLATION LEVEL SERIALIZABLE",
        "START TRANSACTION;",
        "commit",
        "SET search_path = a, \"b\", 'c'",
        "SET LOCAL TIME ZONE INTERVAL '1' HOUR TO MINUTE",
        "SET forebay.class = 'ai-read'",
        "RESET ALL; DISCARD ALL; DEALLOCATE PREPARE a",
        "SELECT set_config('a.b', 'c', false)",
        "SAVEPOINT \"s\"; ROLLBACK TO s; RELEASE s",
        "LISTEN \"c\"; UNLISTEN *; NOTIFY c, 'x'",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "INSERT INTO s.t (a, b) VALUES (lower('X'), f(1)) ON CONFLICT (a) DO NOTHING",
        "SELECT 1 /*traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',route='%2Fx'*/;",
        "SELECT 1 /*forebay_class='a',forebay_cost='2s',forebay_attempt='2',forebay_needs='3'*/",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

#[test]
fn tokens_are_parts_of_the_text_in_order() {
    fuzz("token", &texts(), |text| {
        let (mut tokens, mut behind) = (Tokens::new(text), text.len());
        while let Some(token) = tokens.next() {
            let length = match token {
                Token::Text(part)
                | Token::Word(part)
                | Token::QuotedName(part)
                | Token::Number(part)
                | Token::Parameter(part) => part.len(),
                Token::Mark(_) => 1,
            };
            assert!(length > 0 && tokens.remaining() + length <= behind);
            behind = tokens.remaining();
        }
        if text.starts_with(b"/*") {
            assert!((2..=text.len()).contains(&block_comment(text)));
        }
    });
}

#[test]
fn effects_agree_with_what_is_told_at_a_glance() {
    fuzz("effect", &texts(), |text| {
        let effects = effect::of(text);
        assert!(effects.len() <= 1 + text.iter().filter(|b| **b == b';').count());
        let forgets =
            |effect: &Effect| matches!(effect, Effect::Deallocate { .. } | Effect::DiscardAll);
        // Several statements are looked at one by one.
        if effects.len() <= 1 {
            assert_eq!(prepared::is_deallocate(text), effects.iter().any(forgets));
        }
        let ends = transaction::begin(text).is_some() || transaction::end(text).is_some();
        let ours = |effect: &Effect| {
            if let Effect::Set { name, .. } | Effect::Reset { name } = effect {
                own::is_ours(name)
            } else {
                matches!(effect, Effect::Deallocate { .. })
            }
        };
        let answers = ends || effects.len() == 1 && effects.iter().all(ours);
        let answers = answers && Tokens::new(text).next() != Some(Token::Mark(b';'));
        assert!(effect::may_need_no_server(text) || !answers, "it is looked at");
        if let Some(nonsense) = own::nonsense(&effects) {
            assert!(!nonsense.statement().contains('\0'));
        }
    });
}

#[test]
fn shapes_are_bounded_and_hold_no_literal() {
    fuzz("shape", &texts(), |text| {
        let shown = shape::of(text);
        assert!(shown.len() < 1024 && !shown.chars().any(char::is_control));
        let hashed = |text: &[u8]| {
            let mut hasher = DefaultHasher::new();
            shape::hash(text, &mut hasher);
            hasher.finish()
        };
        assert_eq!(hashed(text), hashed(text));
    });
}

#[test]
fn tags_are_split_off_once_and_the_statement_stays() {
    fuzz("tags", &texts(), |text| {
        let Some((statement, tags)) = tags::split(text) else { return };
        let whole = statement.strip_suffix(b";").unwrap_or(&statement);
        assert!(text.starts_with(whole) && statement.len() < text.len());
        let count = |text: &[u8]| Tokens::new(text).filter(|t| *t != Token::Mark(b';')).count();
        assert_eq!(count(&statement), count(text), "no token goes with the comment");
        for value in [&tags.cost, &tags.attempt, &tags.needs, &tags.feature].into_iter().flatten() {
            let _read = (own::cost(value), own::attempt(value), own::needs(value));
            assert!(own::feature(value).len() <= value.len());
        }
    });
}
