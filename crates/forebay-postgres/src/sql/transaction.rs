//! Statements that only begin or end a transaction: a pooler can answer them as long as the
//! transaction is empty.

use super::token::{Token, Tokens};

/// A statement that begins a transaction and does nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Begin {
    /// Its command tag.
    pub(crate) tag: &'static str,
    pub(crate) modes: Modes,
}

/// What a transaction that begins asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Modes {
    /// What every server gives.
    Usual,
    /// `READ WRITE` or `SERIALIZABLE`, which a standby refuses.
    NotOnStandby,
}

/// `BEGIN [WORK | TRANSACTION] [mode [, …]]`, `START TRANSACTION [mode [, …]]`, with nothing
/// behind; `None` for everything else, and for modes that there are not.
pub(crate) fn begin(text: &[u8]) -> Option<Begin> {
    let mut words = Words::of(text);
    let tag = if words.take("begin") {
        let _noise = words.take("work") || words.take("transaction");
        "BEGIN"
    } else if words.take("start") && words.take("transaction") {
        "START TRANSACTION"
    } else {
        return None;
    };
    let mut modes = Modes::Usual;
    let mut first = true;
    while !words.is_over() {
        // A comma between modes may be left out.
        let _comma = !first && words.take_comma();
        modes = words.mode()?.max(modes);
        first = false;
    }
    Some(Begin { tag, modes })
}

/// `COMMIT`, `END`, `ROLLBACK` or `ABORT` with nothing behind that matters: the command tag.
pub(crate) fn end(text: &[u8]) -> Option<&'static str> {
    let mut words = Words::of(text);
    let tag = if words.take("commit") || words.take("end") {
        "COMMIT"
    } else if words.take("rollback") || words.take("abort") {
        "ROLLBACK"
    } else {
        return None;
    };
    let _noise = words.take("work") || words.take("transaction");
    if words.take("and") && !(words.take("no") && words.take("chain")) {
        return None;
    }
    words.is_over().then_some(tag)
}

impl Modes {
    fn max(self, other: Self) -> Self {
        if self == Self::NotOnStandby { self } else { other }
    }
}

/// The words of a text that is one statement.
struct Words<'a> {
    tokens: Tokens<'a>,
    next: Option<Token<'a>>,
}

impl<'a> Words<'a> {
    fn of(text: &'a [u8]) -> Self {
        let mut words = Self { tokens: Tokens::new(text), next: None };
        words.go_on();
        while words.next == Some(Token::Mark(b';')) {
            words.go_on();
        }
        words
    }

    fn go_on(&mut self) {
        self.next = self.tokens.next();
    }

    fn take(&mut self, word: &str) -> bool {
        let is_it = self.next.is_some_and(|next| next.is(word));
        if is_it {
            self.go_on();
        }
        is_it
    }

    fn take_comma(&mut self) -> bool {
        let is_it = self.next == Some(Token::Mark(b','));
        if is_it {
            self.go_on();
        }
        is_it
    }

    fn mode(&mut self) -> Option<Modes> {
        if self.take("isolation") {
            if !self.take("level") {
                return None;
            }
            let read = self.take("read");
            let weak = read && (self.take("committed") || self.take("uncommitted"));
            if weak || (!read && self.take("repeatable") && self.take("read")) {
                return Some(Modes::Usual);
            }
            return (!read && self.take("serializable")).then_some(Modes::NotOnStandby);
        }
        if self.take("read") {
            if self.take("only") {
                return Some(Modes::Usual);
            }
            return self.take("write").then_some(Modes::NotOnStandby);
        }
        let _not = self.take("not");
        self.take("deferrable").then_some(Modes::Usual)
    }

    /// Nothing comes any more but semicolons.
    fn is_over(&mut self) -> bool {
        let semicolon = Token::Mark(b';');
        if self.next.is_some_and(|next| next != semicolon) {
            return false;
        }
        self.tokens.clone().all(|token| token == semicolon)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(text: &str) -> Option<&'static str> {
        begin(text.as_bytes()).map(|begin| begin.tag)
    }

    #[test]
    fn a_begin_can_wait_with_all_its_modes() {
        for text in [
            "BEGIN",
            "begin;",
            " BEGIN WORK ; ",
            ";BEGIN TRANSACTION;;",
            "BEGIN ISOLATION LEVEL REPEATABLE READ",
            "begin transaction isolation level serializable, read only, deferrable",
            "BEGIN READ WRITE NOT DEFERRABLE",
            "BEGIN /* why */ READ ONLY -- so",
            "BEGIN ISOLATION LEVEL READ UNCOMMITTED READ ONLY READ WRITE",
        ] {
            assert_eq!(tag(text), Some("BEGIN"), "{text}");
        }
        assert_eq!(tag("START TRANSACTION READ ONLY"), Some("START TRANSACTION"));
        for text in [
            "BEGIN; SELECT 1",
            "BEGIN; READ ONLY",
            "BEGIN READ",
            "BEGIN, READ ONLY",
            "BEGIN READ ONLY,",
            "BEGIN READ ONLY,,READ ONLY",
            "BEGIN ISOLATION LEVEL",
            "BEGIN ISOLATION LEVEL READ",
            "BEGIN ISOLATION LEVEL SNAPSHOT",
            "BEGIN ISOLATION SERIALIZABLE",
            "BEGIN NOT READ ONLY",
            "BEGIN WORK WORK",
            "START",
            "START WORK",
            "BEGINS",
            "",
            ";",
        ] {
            assert_eq!(tag(text), None, "{text}");
        }
    }

    #[test]
    fn what_a_standby_refuses_is_known() {
        let modes = |text: &str| begin(text.as_bytes()).unwrap().modes;
        assert_eq!(modes("BEGIN READ ONLY, ISOLATION LEVEL READ COMMITTED"), Modes::Usual);
        assert_eq!(modes("BEGIN READ WRITE, DEFERRABLE"), Modes::NotOnStandby);
        assert_eq!(modes("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY"), Modes::NotOnStandby);
    }

    #[test]
    fn an_end_that_begins_nothing_is_one() {
        for text in ["COMMIT", "END;", "commit work", "COMMIT TRANSACTION AND NO CHAIN;"] {
            assert_eq!(end(text.as_bytes()), Some("COMMIT"), "{text}");
        }
        for text in ["rollback", "ABORT WORK", "ROLLBACK AND NO CHAIN"] {
            assert_eq!(end(text.as_bytes()), Some("ROLLBACK"), "{text}");
        }
        for text in [
            "ROLLBACK TO a",
            "COMMIT AND CHAIN",
            "COMMIT PREPARED 'x'",
            "COMMIT; SELECT 1",
            "END a",
        ] {
            assert_eq!(end(text.as_bytes()), None, "{text}");
        }
    }
}
