//! Tells that two texts differ in nothing but numbers, without splitting either into tokens:
//! the same statement comes again and again, with another number in it.
//!
//! Always true: texts that are alike have one shape, and one is provably clean if the other is.

/// May texts be compared with `text`? Digits in a quoted name are a part of that.
pub(crate) fn is_comparable(text: &[u8]) -> bool {
    memchr::memchr(b'"', text).is_none()
}

/// Does `text` differ from `known`, which [is comparable](is_comparable), in whole numbers
/// alone? `false` also where that takes more than a glance.
pub(crate) fn are_alike(known: &[u8], text: &[u8]) -> bool {
    let (mut known, mut text) = (known, text);
    loop {
        let same = common_start(known, text);
        let (Some(known_rest), Some(text_rest)) = (known.get(same..), text.get(same..)) else {
            return false;
        };
        if known_rest.is_empty() && text_rest.is_empty() {
            return true;
        }
        // Both numbers begin before the first difference, with the same digits, or at it.
        let before = known.get(..same).unwrap_or_default();
        let begun = digits(before.iter().rev());
        let stands_behind = before.get(..same - begun).and_then(<[u8]>::last);
        let (in_known, in_text) = (digits(known_rest.iter()), digits(text_rest.iter()));
        let are_numbers = begun + in_known > 0 && begun + in_text > 0;
        let (Some(known_next), Some(text_next)) =
            (known_rest.get(in_known..), text_rest.get(in_text..))
        else {
            return false;
        };
        let ends = |rest: &[u8]| rest.first().is_none_or(|byte| may_follow(*byte));
        if !are_numbers
            || !stands_behind.is_some_and(|byte| may_stand_before(*byte))
            || !ends(known_next)
            || known_next.first() != text_next.first()
        {
            return false;
        }
        (known, text) = (known_next, text_next);
    }
}

/// How many bytes at the start of both are the same.
fn common_start(a: &[u8], b: &[u8]) -> usize {
    const STEP: usize = 8;
    let ((words_of_a, _), (words_of_b, _)) = (a.as_chunks::<STEP>(), b.as_chunks::<STEP>());
    let mut same = 0;
    for (a, b) in words_of_a.iter().zip(words_of_b) {
        if a != b {
            break;
        }
        same += STEP;
    }
    let (a, b) = (a.get(same..).unwrap_or_default(), b.get(same..).unwrap_or_default());
    same + a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// May a number stand behind `byte`, so that its digits are part of no name, parameter, escape
/// or dollar quote?
fn may_stand_before(byte: u8) -> bool {
    matches!(byte, b' ' | b'=' | b'(' | b',' | b'<' | b'>' | b'\'' | b'\n')
}

fn may_follow(byte: u8) -> bool {
    matches!(byte, b' ' | b')' | b',' | b';' | b'\'' | b'\n')
}

fn digits<'a>(bytes: impl Iterator<Item = &'a u8>) -> usize {
    bytes.take_while(|byte| byte.is_ascii_digit()).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sql::effect::{self, Effect};
    use crate::sql::shape;

    #[test]
    fn numbers_are_no_difference() {
        let known = b"SELECT a FROM t1 WHERE b = 12 AND c IN (3,4)";
        for text in [
            "SELECT a FROM t1 WHERE b = 7 AND c IN (3,4)",
            "SELECT a FROM t1 WHERE b = 123 AND c IN (3,4)",
            "SELECT a FROM t1 WHERE b = 12 AND c IN (99999,0)",
        ] {
            assert!(are_alike(known, text.as_bytes()), "{text}");
        }
        for text in [
            "SELECT a FROM t2 WHERE b = 12 AND c IN (3,4)",
            "SELECT a FROM t1 WHERE b = x AND c IN (3,4)",
            "SELECT a FROM t1 WHERE b = 12x AND c IN (3,4)",
            "SELECT a FROM t1 WHERE b = 12 AND c IN (3,4,5)",
            "SELECT a FROM t1 WHERE b = 12 AND c IN (3,)",
            "SELECT a FROM t1 WHERE b = 12 AND c IN (3,4",
        ] {
            assert!(!are_alike(known, text.as_bytes()), "{text}");
        }
        for (known, text) in [("a $1", "a $2"), ("$1$ $1$", "$2$ $2$"), ("1.5", "1.6"), ("1", "2")]
        {
            assert!(!are_alike(known.as_bytes(), text.as_bytes()), "{known} {text}");
        }
        assert!(!is_comparable(b"SELECT \"f 1 \"()"));
    }

    fn pieces() -> impl Strategy<Value = Vec<String>> {
        let piece = prop_oneof![
            4 => "[0-9]{1,4}",
            4 => "[ =(),;<>'$.\\\\-]{1,2}",
            2 => "(select|f|set_config|set|local|from|t1|E'|\\$a1\\$|\\$1|--|/\\*|\\*/|\n|U&'|true|\"a)",
        ];
        prop::collection::vec(piece, 0..24)
    }

    proptest! {
        #[test]
        fn texts_that_are_alike_have_one_shape_and_are_equally_clean(
            pieces in pieces(),
            numbers: Vec<(usize, u16)>,
        ) {
            let known = pieces.concat();
            let mut other = pieces;
            for (at, number) in numbers {
                let n = other.len().max(1);
                if let Some(piece) = other.get_mut(at % n)
                    && piece.bytes().all(|b| b.is_ascii_digit())
                {
                    *piece = number.to_string();
                }
            }
            let other = other.concat();
            if is_comparable(known.as_bytes()) && are_alike(known.as_bytes(), other.as_bytes()) {
                prop_assert_eq!(shape::of(known.as_bytes()), shape::of(other.as_bytes()));
                let is_clean = |text: &str| {
                    effect::of(text.as_bytes()).iter().all(|effect| *effect == Effect::Clean)
                };
                prop_assert_eq!(is_clean(&known), is_clean(&other), "{} {}", known, other);
            }
        }
    }
}
