//! Messages from a client, as far as a pooler must know them.

use bytes::{BufMut, BytesMut};

use super::fields::{Fields, Malformed};

/// Parse: a statement's name, text and parameter types.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parse<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) text: &'a [u8],
    /// Count and OIDs, as they came.
    pub(crate) types: &'a [u8],
}

impl<'a> Parse<'a> {
    pub(crate) fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(body);
        let (name, text) = (fields.cstr()?, fields.cstr()?);
        let types = fields.rest();
        let count = usize::from(fields.u16()?);
        fields.bytes(count * 4)?;
        fields.end()?;
        Ok(Self { name, text, types })
    }

    pub(crate) fn write(&self, out: &mut BytesMut) {
        message(out, b'P', |out| {
            cstr(out, self.name);
            cstr(out, self.text);
            out.put_slice(self.types);
        });
    }
}

/// Bind: a portal, a statement, and the rest (formats and values), of which a pooler needs
/// nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bind<'a> {
    pub(crate) portal: &'a [u8],
    pub(crate) statement: &'a [u8],
    /// The length of both names with their zeros: where the rest begins.
    pub(crate) names: usize,
}

impl<'a> Bind<'a> {
    /// Reads the names; `head` may end anywhere after them.
    pub(crate) fn read(head: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(head);
        let (portal, statement) = (fields.cstr()?, fields.cstr()?);
        Ok(Self { portal, statement, names: portal.len() + statement.len() + 2 })
    }

    /// How many values follow in `body`, which it was read from.
    pub(crate) fn values(&self, body: &[u8]) -> Result<usize, Malformed> {
        let mut fields = Fields::new(body);
        fields.bytes(self.names)?;
        let formats = usize::from(fields.u16()?);
        fields.bytes(formats * 2)?;
        Ok(usize::from(fields.u16()?))
    }
}

/// Describe and Close: of a statement or of a portal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named<'a> {
    Statement(&'a [u8]),
    Portal(&'a [u8]),
}

impl<'a> Named<'a> {
    pub(crate) fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(body);
        let kind = fields.u8()?;
        let name = fields.cstr()?;
        fields.end()?;
        match kind {
            b'S' => Ok(Self::Statement(name)),
            b'P' => Ok(Self::Portal(name)),
            _ => Err(Malformed::Value),
        }
    }
}

/// Execute: the portal's name.
pub(crate) fn execute(body: &[u8]) -> Result<&[u8], Malformed> {
    let mut fields = Fields::new(body);
    let portal = fields.cstr()?;
    fields.i32()?;
    fields.end()?;
    Ok(portal)
}

/// Query: the text. Exactly one string.
pub(crate) fn query(body: &[u8]) -> Result<&[u8], Malformed> {
    let mut fields = Fields::new(body);
    let text = fields.cstr()?;
    fields.end()?;
    Ok(text)
}

/// Writes a message with `tag`; its length is known when `body` has been written.
pub(crate) fn message(out: &mut BytesMut, tag: u8, body: impl FnOnce(&mut BytesMut)) {
    out.put_u8(tag);
    let start = out.len();
    out.put_i32(0);
    body(out);
    let length = i32::try_from(out.len() - start).expect("we write no message above 2 GiB");
    if let Some(field) = out.get_mut(start..start + 4) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

/// A string and its zero byte.
pub(crate) fn cstr(out: &mut BytesMut, text: &[u8]) {
    out.put_slice(text);
    out.put_u8(0);
}

/// A simple query of our own.
pub(crate) fn write_query(out: &mut BytesMut, text: &str) {
    message(out, b'Q', |out| cstr(out, text.as_bytes()));
}

/// Describe (`D`) or Close (`C`) of a statement.
pub(crate) fn write_named_statement(out: &mut BytesMut, tag: u8, name: &[u8]) {
    message(out, tag, |out| {
        out.put_u8(b'S');
        cstr(out, name);
    });
}

/// Sync, Terminate and others without a body.
pub(crate) fn write_bare(out: &mut BytesMut, tag: u8) {
    message(out, tag, |_| {});
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::Header;

    #[test]
    fn parse_is_written_as_it_was_read() {
        let mut out = BytesMut::new();
        let parse = Parse { name: b"s1", text: b"SELECT $1", types: &[0, 1, 0, 0, 0, 23] };
        parse.write(&mut out);
        let header = Header::read(&out).unwrap().unwrap();
        assert_eq!(header.whole(), out.len());
        let again = Parse::read(&out[5..]).unwrap();
        assert_eq!((again.name, again.text, again.types), (parse.name, parse.text, parse.types));
    }

    #[test]
    fn parse_that_claims_more_types_than_it_has_is_malformed() {
        assert_eq!(Parse::read(b"\0SELECT 1\0\xff\xff").err(), Some(Malformed::Short));
    }

    proptest! {
        #[test]
        fn no_body_breaks_a_reader(body: Vec<u8>) {
            let _ = (Parse::read(&body).is_ok(), Bind::read(&body).is_ok(), Named::read(&body).is_ok());
            let _ = (execute(&body).is_ok(), query(&body).is_ok());
        }
    }
}
