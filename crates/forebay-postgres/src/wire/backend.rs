//! Messages towards a client, and the few fields of a server's messages that we read.

use bytes::{BufMut, Bytes, BytesMut};

use super::TxStatus;
use super::fields::{Fields, Malformed};
use super::frontend::{cstr, message};

pub(crate) fn ready_for_query(out: &mut BytesMut, status: TxStatus) {
    message(out, b'Z', |out| out.put_u8(status.byte()));
}

/// RowDescription and DataRow of one column of text.
pub(crate) fn one_value(out: &mut BytesMut, name: &str, value: &str) {
    message(out, b'T', |out| {
        out.extend_from_slice(&1_u16.to_be_bytes());
        cstr(out, name.as_bytes());
        // Of no table; text (OID 25) of any length, in text format.
        out.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 25, 255, 255, 255, 255, 255, 255, 0, 0]);
    });
    message(out, b'D', |out| {
        out.extend_from_slice(&1_u16.to_be_bytes());
        let length = i32::try_from(value.len()).unwrap_or(0);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(value.as_bytes());
    });
}

pub(crate) fn command_complete(out: &mut BytesMut, tag: &str) {
    message(out, b'C', |out| cstr(out, tag.as_bytes()));
}

/// ParameterDescription of a statement that takes none.
pub(crate) fn no_parameters(out: &mut BytesMut) {
    message(out, b't', |out| out.put_u16(0));
}

pub(crate) fn parameter_status(out: &mut BytesMut, name: &str, value: &str) {
    message(out, b'S', |out| {
        cstr(out, name.as_bytes());
        cstr(out, value.as_bytes());
    });
}

pub(crate) fn backend_key_data(out: &mut BytesMut, pid: i32, secret: &[u8]) {
    message(out, b'K', |out| {
        out.put_i32(pid);
        out.put_slice(secret);
    });
}

/// AuthenticationOk, -SASL, -SASLContinue, -SASLFinal: a code and its data.
pub(crate) fn authentication(out: &mut BytesMut, code: i32, data: &[u8]) {
    message(out, b'R', |out| {
        out.put_i32(code);
        out.put_slice(data);
    });
}

/// NegotiateProtocolVersion: the version that is spoken, and the options we do not know.
pub(crate) fn negotiate_protocol_version(out: &mut BytesMut, version: u32, options: &[&[u8]]) {
    message(out, b'v', |out| {
        out.put_u32(version);
        out.put_i32(i32::try_from(options.len()).unwrap_or(0));
        options.iter().for_each(|option| cstr(out, option));
    });
}

/// How bad an error is: FATAL ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Severity {
    Error,
    Fatal,
}

impl Severity {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Error => b"ERROR",
            Self::Fatal => b"FATAL",
        }
    }
}

/// ErrorResponse ("Error and Notice Message Fields").
pub(crate) fn error_response(
    out: &mut BytesMut,
    severity: Severity,
    code: &str,
    text: &str,
    detail: Option<&str>,
    hint: Option<&str>,
) {
    message(out, b'E', |out| fields(out, severity.name(), code, text, detail, hint));
}

/// NoticeResponse, of what is no warning.
pub(crate) fn notice(out: &mut BytesMut, text: &str, detail: Option<&str>) {
    message(out, b'N', |out| fields(out, b"NOTICE", "00000", text, detail, None));
}

fn fields(
    out: &mut BytesMut,
    severity: &[u8],
    code: &str,
    text: &str,
    detail: Option<&str>,
    hint: Option<&str>,
) {
    let field = |out: &mut BytesMut, kind: u8, value: &[u8]| {
        out.put_u8(kind);
        // A zero byte would end the field early.
        out.extend(value.iter().copied().filter(|b| *b != 0));
        out.put_u8(0);
    };
    field(out, b'S', severity);
    field(out, b'V', severity);
    field(out, b'C', code.as_bytes());
    field(out, b'M', text.as_bytes());
    if let Some(detail) = detail {
        field(out, b'D', detail.as_bytes());
    }
    if let Some(hint) = hint {
        field(out, b'H', hint.as_bytes());
    }
    out.put_u8(0);
}

/// What a server says of a statement whose rows are no longer those of its description
/// (`RevalidateCachedQuery` in PostgreSQL's plancache.c): drivers know it by code or routine.
pub(crate) fn outdated_plan(out: &mut BytesMut) {
    message(out, b'E', |out| {
        for field in [
            &b"SERROR"[..],
            b"VERROR",
            b"C0A000",
            b"Mcached plan must not change result type",
            b"Fplancache.c",
            b"RRevalidateCachedQuery",
        ] {
            out.put_slice(field);
            out.put_u8(0);
        }
        out.put_u8(0);
    });
}

/// ErrorResponse of protocol 2: text alone.
pub(crate) fn error_of_protocol_2(out: &mut BytesMut, text: &str) {
    out.put_u8(b'E');
    cstr(out, format!("FATAL:  {text}\n").as_bytes());
}

/// What a server's ErrorResponse said. Every field may be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerError {
    pub(crate) severity: Severity,
    pub(crate) code: String,
    pub(crate) text: String,
    pub(crate) detail: Option<String>,
    pub(crate) hint: Option<String>,
    /// "cached plan must not change result type". Its words are translated and its SQLSTATE
    /// is that of much else, so the server's function tells (as in pgjdbc).
    pub(crate) stale_plan: bool,
}

impl ServerError {
    /// Does it end the connection?
    pub(crate) fn ends_the_connection(&self) -> bool {
        self.severity == Severity::Fatal
    }

    /// Does it say that the work failed because there was too much of something, or too little
    /// time? Errors of the statement itself say nothing of its class.
    pub(crate) fn is_of_load_or_time(&self) -> bool {
        // Resources (53), the system around the server (58), a time limit or a cancel, the
        // end of the server, a deadlock, which is found after a wait.
        matches!(self.code.get(..2), Some("53" | "58"))
            || matches!(
                self.code.as_str(),
                "57014" | "57P01" | "57P02" | "57P03" | "25P04" | "40P01"
            )
    }

    /// Does it say that the server is not what it was taken for, or not for long? A write where
    /// none can be (25006), or a server that stops, has crashed or recovers.
    pub(crate) fn says_another_role(&self) -> bool {
        matches!(self.code.as_str(), "25006" | "57P01" | "57P02" | "57P03")
    }

    /// Reads the fields we pass on; bounded, because servers are not trusted either.
    pub(crate) fn read(body: &[u8]) -> Self {
        let mut error = Self {
            severity: Severity::Error,
            code: "XX000".into(),
            text: "no message".into(),
            detail: None,
            hint: None,
            stale_plan: false,
        };
        let mut fields = Fields::new(body);
        while let (Ok(kind @ 1..), Ok(value)) = (fields.u8(), fields.cstr()) {
            let value = value.get(..value.len().min(1024)).unwrap_or_default();
            let value = String::from_utf8_lossy(value).into_owned();
            match kind {
                b'V' | b'S' if matches!(value.as_str(), "FATAL" | "PANIC") => {
                    error.severity = Severity::Fatal;
                }
                b'C' if value.len() == 5 => error.code = value,
                b'M' => error.text = value,
                b'D' => error.detail = Some(value),
                b'H' => error.hint = Some(value),
                b'R' => error.stale_plan = value == "RevalidateCachedQuery",
                _ => {}
            }
        }
        error
    }
}

/// The body of an ErrorResponse with names that begin with `prefix` and go on with digits
/// replaced by what `name` says of the digits; `None` if nothing was replaced.
pub(crate) fn rename(
    body: &[u8],
    prefix: &[u8],
    name: impl Fn(&[u8]) -> Option<Bytes>,
) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = body;
    while let Some(at) = rest.windows(prefix.len()).position(|window| window == prefix) {
        let (before, found) = rest.split_at(at);
        let digits = found.iter().skip(prefix.len()).take_while(|b| b.is_ascii_digit()).count();
        let (ours, after) = found.split_at(prefix.len() + digits);
        out.extend_from_slice(before);
        let theirs = ours.get(prefix.len()..).and_then(&name);
        out.extend_from_slice(theirs.as_deref().unwrap_or(ours));
        rest = after;
    }
    out.extend_from_slice(rest);
    (out != body).then_some(out)
}

/// NotificationResponse, without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Notification<'a> {
    pub(crate) channel: &'a [u8],
}

impl<'a> Notification<'a> {
    pub(crate) fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(body);
        // The process that notified.
        fields.i32()?;
        Ok(Self { channel: fields.cstr()? })
    }
}

/// ParameterStatus: name and value.
pub(crate) fn read_parameter_status(body: &[u8]) -> Result<(&str, &str), Malformed> {
    let mut fields = Fields::new(body);
    let (name, value) = (fields.cstr()?, fields.cstr()?);
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| Malformed::Value);
    Ok((text(name)?, text(value)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reaches_its_reader_with_all_fields() {
        let mut out = BytesMut::new();
        error_response(&mut out, Severity::Fatal, "28P01", "no\0way", Some("d"), Some("h"));
        let error = ServerError::read(&out[5..]);
        assert_eq!((error.code.as_str(), error.text.as_str()), ("28P01", "noway"));
        assert_eq!((error.detail.as_deref(), error.hint.as_deref()), (Some("d"), Some("h")));
    }

    #[test]
    fn names_of_ours_become_the_clients() {
        let name = |digits: &[u8]| (digits == b"12").then(|| Bytes::from_static(b"s"));
        let rename = |body| rename(body, b"our_", name);
        assert_eq!(rename(b"Ma \"our_12\" b our_1 our_").unwrap(), b"Ma \"s\" b our_1 our_");
        assert_eq!(rename(b"Mnothing"), None);
        assert_eq!(rename(b""), None);
    }

    #[test]
    fn an_error_without_fields_still_has_a_code() {
        assert_eq!(ServerError::read(b"").code, "XX000");
        assert_eq!(ServerError::read(b"C12\0\0").code, "XX000");
        assert_eq!(ServerError::read(b"Mno end").text, "no message");
    }
}
