//! Messages of the PostgreSQL protocol as bytes: no sockets, no sessions.
//!
//! Section numbers of the manual change, so comments name the message formats ("Message
//! Formats, Bind"). Nothing here trusts a length: all reads go through [`Fields`], which
//! answers with an error instead of reading beyond the end.

pub(crate) mod backend;
pub(crate) mod fields;
pub(crate) mod frontend;
pub(crate) mod startup;

pub(crate) use fields::{Fields, Malformed};

/// A message's tag and the length of what follows its five header bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) tag: u8,
    pub(crate) body: usize,
}

/// The longest message there can be: what PostgreSQL itself can hold in memory (its
/// `MaxAllocSize`).
pub(crate) const LONGEST: usize = 0x3fff_ffff;

/// Bytes of tag and length.
pub(crate) const HEADER: usize = 5;

impl Header {
    /// The length of the whole message.
    pub(crate) fn whole(self) -> usize {
        HEADER + self.body
    }

    /// The header at the start of `bytes`; `None` while it is not there yet.
    ///
    /// # Errors
    /// A length that counts less than itself, or more than there can be.
    pub(crate) fn read(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let [tag, a, b, c, d, ..] = *bytes else { return Ok(None) };
        let length = i32::from_be_bytes([a, b, c, d]);
        let body = usize::try_from(i64::from(length) - 4).map_err(|_| Malformed::Length(length))?;
        if body + 4 > LONGEST {
            return Err(Malformed::Length(length));
        }
        Ok(Some(Self { tag, body }))
    }
}

/// What a transaction is, by the byte in ReadyForQuery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TxStatus {
    /// `I`: none is open.
    Idle,
    /// `T`: one is open.
    Open,
    /// `E`: one is open, and failed.
    Failed,
}

impl TxStatus {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'I' => Some(Self::Idle),
            b'T' => Some(Self::Open),
            b'E' => Some(Self::Failed),
            _ => None,
        }
    }

    pub(crate) fn byte(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::Open => b'T',
            Self::Failed => b'E',
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_once_it_is_whole() {
        assert_eq!(Header::read(b"Q\0\0\0"), Ok(None));
        let header = Header::read(b"Q\0\0\0\x06;\0").unwrap().unwrap();
        assert_eq!((header.tag, header.body, header.whole()), (b'Q', 2, 7));
    }

    #[test]
    fn a_length_that_cannot_be_is_malformed() {
        for length in [3, 0, -1, i32::MIN, i32::MAX, 1 << 30] {
            let mut bytes = vec![b'Q'];
            bytes.extend(i32::to_be_bytes(length));
            assert_eq!(Header::read(&bytes), Err(Malformed::Length(length)));
        }
    }
}
