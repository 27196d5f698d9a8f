//! LISTEN and UNLISTEN: which channel a name means.
//!
//! PostgreSQL folds what is not quoted to lower case and cuts every name to what `name` holds
//! ("Identifiers and Key Words"), so that names which look different may be one channel.

use std::sync::Arc;

use super::effect::Effect;
use super::token::Token;
use crate::pins::PinReason;

/// Bytes of a name (NAMEDATALEN without its zero byte).
const LONGEST: usize = 63;

/// The effect of LISTEN with `rest` behind it.
pub(super) fn listen(rest: &[Token<'_>]) -> Effect {
    match rest {
        [name] => of(name).map_or(Effect::Pin(PinReason::Listen), |channel| {
            // An empty name is an error.
            if channel.is_empty() { Effect::Dirty } else { Effect::Listen { channel } }
        }),
        // A name in escapes.
        [Token::Word(b"u" | b"U"), Token::Mark(b'&'), Token::QuotedName(_), ..] => {
            Effect::Pin(PinReason::Listen)
        }
        // An error.
        _ => Effect::Dirty,
    }
}

/// The effect of UNLISTEN with `rest` behind it. It leaves nothing behind in any case.
pub(super) fn unlisten(rest: &[Token<'_>]) -> Effect {
    match rest {
        [Token::Mark(b'*')] => Effect::Unlisten { channel: None },
        [name] => {
            of(name).map_or(Effect::Clean, |channel| Effect::Unlisten { channel: Some(channel) })
        }
        _ => Effect::Clean,
    }
}

/// The channel that a name means; `None` if its bytes are no UTF-8, or it is no name.
fn of(name: &Token<'_>) -> Option<Arc<str>> {
    match name {
        Token::Word(name) => {
            let name = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
            Some(Arc::from(cut(&name)))
        }
        Token::QuotedName(name) => {
            let inner = name.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
            let inner = std::str::from_utf8(inner).ok()?.replace("\"\"", "\"");
            Some(Arc::from(cut(&inner)))
        }
        Token::Text(_) | Token::Number(_) | Token::Parameter(_) | Token::Mark(_) => None,
    }
}

/// No character is cut apart.
fn cut(name: &str) -> &str {
    let end = (0..=LONGEST.min(name.len())).rev().find(|at| name.is_char_boundary(*at));
    name.get(..end.unwrap_or(0)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::effect;

    fn channel(text: &str) -> String {
        match effect::of(text.as_bytes()).as_slice() {
            [Effect::Listen { channel }] => channel.to_string(),
            effects => panic!("{text}: {effects:?}"),
        }
    }

    #[test]
    fn a_name_is_folded_unless_it_is_quoted_and_always_cut() {
        for (text, name) in [
            ("LISTEN News", "news"),
            ("listen \"News\";", "News"),
            ("LISTEN /* x */ \"a \"\"b\"\" ; c\"", "a \"b\" ; c"),
            ("LISTEN _a$1", "_a$1"),
            ("LISTEN Ärger", "Ärger"),
        ] {
            assert_eq!(channel(text), name);
        }
        let long = "x".repeat(80);
        assert_eq!(channel(&format!("LISTEN {long}")), long[..63]);
        // A character of two bytes from the 63rd on does not fit.
        assert_eq!(channel(&format!("LISTEN \"{}é{long}\"", &long[..62])), long[..62]);
        assert_eq!(channel(&format!("LISTEN \"{}é{long}\"", &long[..61])).len(), 63);
    }

    #[test]
    fn unlisten_names_one_channel_or_all() {
        let one = |text: &str| effect::of(text.as_bytes()).remove(0);
        assert_eq!(one("UNLISTEN *"), Effect::Unlisten { channel: None });
        assert_eq!(one("UNLISTEN A"), Effect::Unlisten { channel: Some(Arc::from("a")) });
        assert_eq!(one("UNLISTEN"), Effect::Clean);
    }

    #[test]
    fn what_the_server_refuses_is_no_channel() {
        for text in ["LISTEN", "LISTEN *", "LISTEN a b", "LISTEN a.b", "LISTEN \"\""] {
            let effects = effect::of(text.as_bytes());
            assert!(!matches!(effects[0], Effect::Listen { .. }), "{text}");
        }
    }
}
