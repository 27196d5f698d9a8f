//! The first packet of a connection: no tag, a length, a code ("Message Formats",
//! StartupMessage, SSLRequest, GSSENCRequest, CancelRequest).

use super::fields::{Fields, Malformed};
use crate::cancel::key::{self, Request};

/// The longest first packet that PostgreSQL itself accepts (MAX_STARTUP_PACKET_LENGTH).
pub(crate) const LONGEST: usize = 10_000;

const SSL_REQUEST: i32 = 80_877_103;
const GSS_REQUEST: i32 = 80_877_104;
const CANCEL_REQUEST: i32 = 80_877_102;
const MAJOR: u32 = 3;
/// The newest minor version that is spoken here.
const NEWEST: u32 = 2;

/// What a client wants first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum First {
    Ssl,
    Gss,
    Cancel(Request),
    Startup(Startup),
    /// A protocol that nobody here speaks.
    Unsupported {
        major: u32,
        minor: u32,
    },
}

/// A StartupMessage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Startup {
    pub(crate) minor: u32,
    /// Names and values as they came, without `_pq_.` options.
    pub(crate) parameters: Vec<(String, String)>,
    /// Protocol options (`_pq_.…`) that the client asks for.
    pub(crate) options: Vec<String>,
}

impl Startup {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The version that is spoken with the client, where it has to be told: it asked for a newer
    /// one, or for options that are not known here ("NegotiateProtocolVersion").
    pub(crate) fn negotiated(&self) -> Option<u32> {
        let has_to_be_told = self.minor > NEWEST || !self.options.is_empty();
        has_to_be_told.then(|| MAJOR << 16 | self.minor.min(NEWEST))
    }

    /// Does the client take keys for cancel requests of any length (protocol 3.2)?
    pub(crate) fn has_long_keys(&self) -> bool {
        self.minor >= 2
    }

    /// Does the client want to replicate, the whole server (`replication=true`) or what a
    /// database decodes (`replication=database`)? Read as PostgreSQL reads a boolean.
    ///
    /// # Errors
    /// A value that says neither.
    pub(crate) fn wants_replication(&self) -> Result<bool, String> {
        let Some(value) = self.get("replication") else { return Ok(false) };
        let lower = value.to_ascii_lowercase();
        let begins = |words: &[&str], least| {
            lower.len() >= least && words.iter().any(|word| word.starts_with(&lower))
        };
        match &*lower {
            "database" | "1" => Ok(true),
            "0" => Ok(false),
            _ if begins(&["true", "yes"], 1) || begins(&["on"], 2) => Ok(true),
            _ if begins(&["false", "no"], 1) || begins(&["off"], 2) => Ok(false),
            _ => Err(value.to_owned()),
        }
    }

    /// What a server has to be told besides user and database.
    pub(crate) fn into_parameters(self) -> Vec<(String, String)> {
        let mut parameters = self.parameters;
        parameters.retain(|(name, _)| !matches!(name.as_str(), "user" | "database"));
        parameters
    }
}

/// The length of the first packet with its length field, once four bytes are there.
///
/// # Errors
/// Shorter than a code or longer than PostgreSQL accepts.
pub(crate) fn length(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    let Some(head) = bytes.first_chunk() else { return Ok(None) };
    let length = i32::from_be_bytes(*head);
    match usize::try_from(length) {
        Ok(n @ 8..=LONGEST) => Ok(Some(n)),
        _ => Err(Malformed::Length(length)),
    }
}

/// Reads a whole first packet, without its length field.
pub(crate) fn read(body: &[u8]) -> Result<First, Malformed> {
    let mut fields = Fields::new(body);
    let code = fields.i32()?;
    match code {
        SSL_REQUEST => fields.end().map(|()| First::Ssl),
        GSS_REQUEST => fields.end().map(|()| First::Gss),
        CANCEL_REQUEST => {
            let (pid, secret) = (fields.i32()?, fields.rest());
            if !key::LENGTHS.contains(&secret.len()) {
                return Err(Malformed::Value);
            }
            Ok(First::Cancel(Request::new(pid, secret)))
        }
        _ => {
            let version = u32::from_be_bytes(code.to_be_bytes());
            let (major, minor) = (version >> 16, version & 0xffff);
            if major == MAJOR {
                parameters(fields, minor).map(First::Startup)
            } else {
                Ok(First::Unsupported { major, minor })
            }
        }
    }
}

fn parameters(mut fields: Fields<'_>, minor: u32) -> Result<Startup, Malformed> {
    let mut startup = Startup { minor, ..Startup::default() };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| Malformed::Value);
    loop {
        let name = fields.cstr()?;
        if name.is_empty() {
            fields.end()?;
            return Ok(startup);
        }
        let (name, value) = (text(name)?, text(fields.cstr()?)?);
        if name.starts_with("_pq_.") {
            startup.options.push(name);
        } else {
            startup.parameters.push((name, value));
        }
    }
}

/// The settings in a startup `options` value: `-c name=value`, `--name=value`; a backslash
/// takes the next character as it is ("Managing Kernel…, Parameter Interaction via the
/// Shell").
///
/// # Errors
/// A word that is no setting, as it was written.
pub(crate) fn options(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => word.get_or_insert_default().extend(chars.next()),
            c if c.is_ascii_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    let mut settings = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let setting = match word.strip_prefix("--") {
            Some(setting) => setting.to_owned(),
            None if word == "-c" => words.next().unwrap_or_default(),
            None => match word.strip_prefix("-c") {
                Some(setting) => setting.to_owned(),
                None => return Err(word),
            },
        };
        let Some((name, value)) = setting.split_once('=') else { return Err(setting) };
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(code: i32, rest: &[u8]) -> Vec<u8> {
        let mut bytes = code.to_be_bytes().to_vec();
        bytes.extend(rest);
        bytes
    }

    #[test]
    fn parameters_and_protocol_options_are_told_apart() {
        let body = packet(196_610, b"user\0app\0_pq_.x\0on\0database\0d\0\0");
        let First::Startup(startup) = read(&body).unwrap() else { panic!() };
        assert_eq!(startup.minor, 2);
        assert_eq!((startup.get("user"), startup.get("database")), (Some("app"), Some("d")));
        assert_eq!(startup.options, ["_pq_.x"]);
    }

    #[test]
    fn packets_that_are_none_are_refused() {
        assert!(matches!(length(b"\0\0\0\x04"), Err(Malformed::Length(4))));
        assert!(matches!(length(b"\x7f\xff\xff\xff"), Err(Malformed::Length(_))));
        assert!(read(&packet(196_608, b"user\0app")).is_err());
        assert!(read(&packet(196_608, b"user\0app\0")).is_err());
        assert!(read(&packet(196_608, b"user\0app\0\0x")).is_err());
        let http = read(b"GET / HTTP/1.1\r\n").unwrap();
        assert!(matches!(http, First::Unsupported { .. }));
    }

    #[test]
    fn replication_is_a_boolean_or_a_database() {
        let wants = |value: &str| {
            let parameters = vec![("replication".to_owned(), value.to_owned())];
            Startup { parameters, ..Startup::default() }.wants_replication()
        };
        for value in ["true", "T", "on", "yes", "1", "database", "tru"] {
            assert_eq!(wants(value), Ok(true), "{value}");
        }
        for value in ["false", "off", "of", "n", "0", "F"] {
            assert_eq!(wants(value), Ok(false), "{value}");
        }
        for value in ["", "o", "2", "physical", "truee"] {
            assert!(wants(value).is_err(), "{value}");
        }
    }

    #[test]
    fn options_are_read_as_postgres_reads_them() {
        let read = options("-c a=b --search-path=x\\ y -cgeqo=off").unwrap();
        let pair = |n: &str, v: &str| (n.to_owned(), v.to_owned());
        assert_eq!(read, [pair("a", "b"), pair("search_path", "x y"), pair("geqo", "off")]);
        assert_eq!(options("-d 5"), Err("-d".to_owned()));
        assert_eq!(options("-c a"), Err("a".to_owned()));
        assert_eq!(options(""), Ok(vec![]));
    }

    proptest! {
        #[test]
        fn no_packet_breaks_the_reader(body: Vec<u8>, text: String) {
            let _ = (read(&body).is_ok(), options(&text).is_ok(), length(&body).is_ok());
        }
    }
}
