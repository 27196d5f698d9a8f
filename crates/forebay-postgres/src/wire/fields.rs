//! Reads the fields of one message, never beyond its end.

/// What is wrong with bytes from the network. SQLSTATE 08P01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("invalid message length {0}")]
    Length(i32),
    #[error("message ends within a field")]
    Short,
    #[error("a string has no end")]
    Unterminated,
    #[error("a message has {0} bytes too many")]
    Trailing(usize),
    #[error("a field has an impossible value")]
    Value,
}

/// A cursor over one message's body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self(body)
    }

    pub(crate) fn bytes(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.0.split_at_checked(n).ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.0.split_first().ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        let (head, rest) = self.0.split_first_chunk().ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(u16::from_be_bytes(*head))
    }

    pub(crate) fn i32(&mut self) -> Result<i32, Malformed> {
        let (head, rest) = self.0.split_first_chunk().ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(i32::from_be_bytes(*head))
    }

    /// A string up to its zero byte, which is taken and not returned.
    pub(crate) fn cstr(&mut self) -> Result<&'a [u8], Malformed> {
        let end = memchr::memchr(0, self.0).ok_or(Malformed::Unterminated)?;
        let text = self.0.get(..end).ok_or(Malformed::Short)?;
        self.0 = self.0.get(end + 1..).ok_or(Malformed::Short)?;
        Ok(text)
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed::Trailing(self.0.len())) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_make_it_read_beyond_the_end(body: Vec<u8>, n in 0..40_usize) {
            let mut fields = Fields::new(&body);
            let (word, text) = (fields.i32().is_ok(), fields.cstr().is_ok());
            let taken = (word, text, fields.u16().is_ok(), fields.bytes(n).is_ok(), fields.u8().is_ok());
            prop_assert!(fields.rest().len() <= body.len(), "{taken:?}");
        }
    }

    #[test]
    fn what_is_left_over_is_an_error() {
        let mut fields = Fields::new(b"ab\0c");
        assert_eq!(fields.cstr(), Ok(&b"ab"[..]));
        assert_eq!(fields.end(), Err(Malformed::Trailing(1)));
    }
}
