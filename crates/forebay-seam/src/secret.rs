//! Secrets from outside: the environment, a file, a command, or the configuration itself.
//!
//! A [`SecretRef`] says where a secret is and may be shown; the secret itself has no
//! `Debug`, `Display` or `Serialize`, and is wiped when dropped. Reading is bounded: nothing is
//! longer than 64 KiB, no command takes longer than ten seconds.

mod command;

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::{env, fmt, fs, io};

use schemars::JsonSchema;
pub use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

/// Bytes of a secret, at the most.
const LONGEST: u64 = 64 * 1024;

/// Where a secret is to be found: `env:NAME`, `file:PATH`, `cmd:PROGRAM ARG …` (its first
/// line of output), or else the secret itself, also behind `text:` for one that would look like
/// any of these.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct SecretRef(#[schemars(with = "String")] SecretString);

/// Why a secret could not be read. Never says what it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// `env:` names a variable that is not there.
    #[error("the environment variable `{0}` is not set (from `env:{0}`)")]
    NoVariable(String),
    /// `file:` names a file that cannot be read.
    #[error("cannot read the secret's file `{path}`")]
    File {
        /// The file.
        path: String,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// `cmd:` did not give a secret.
    #[error("the secret's command `{program}` failed: {reason}")]
    Command {
        /// The program, without its arguments, which may be secret.
        program: String,
        /// The reason.
        reason: String,
    },
    /// More than any secret needs: it is something else.
    #[error("the secret from `{0}` is longer than 64 KiB: it is something else")]
    TooLong(String),
    /// An empty secret protects nothing.
    #[error("the secret from `{0}` is empty")]
    Empty(String),
}

impl PartialEq for SecretRef {
    /// Whether both are written alike; what they refer to may differ all the same.
    fn eq(&self, other: &Self) -> bool {
        self.0.expose_secret() == other.0.expose_secret()
    }
}

impl SecretRef {
    /// A reference or a secret, as it stands in a configuration.
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    /// Reads the secret. Blocks on the file or the command, so not on a hot path.
    ///
    /// # Errors
    /// When it is not there, empty, or longer than 64 KiB.
    pub fn read(&self) -> Result<SecretString, SecretError> {
        self.read_as(Form::Line)
    }

    /// As [`SecretRef::read`], for secrets of several lines (PEM): all that a command prints.
    ///
    /// # Errors
    /// As [`SecretRef::read`].
    pub fn read_text(&self) -> Result<SecretString, SecretError> {
        self.read_as(Form::Text)
    }

    fn read_as(&self, form: Form) -> Result<SecretString, SecretError> {
        let text = self.0.expose_secret();
        let secret = match text.split_once(':') {
            Some(("env", name)) => {
                env::var(name).map_err(|_| SecretError::NoVariable(name.to_owned()))?
            }
            Some(("file", path)) => read_file(path)
                .map_err(|source| SecretError::File { path: path.to_owned(), source })?,
            Some(("cmd", command)) => {
                let printed = command::run(command)?;
                match form {
                    Form::Line => printed.lines().next().unwrap_or_default().to_owned(),
                    Form::Text => printed,
                }
            }
            Some(("text", secret)) => secret.to_owned(),
            _ => text.to_owned(),
        };
        if u64::try_from(secret.len()).unwrap_or(u64::MAX) > LONGEST {
            return Err(SecretError::TooLong(self.to_string()));
        }
        let secret = secret.trim_end_matches(['\r', '\n']);
        if secret.is_empty() {
            return Err(SecretError::Empty(self.to_string()));
        }
        Ok(SecretString::from(secret.to_owned()))
    }

    /// How this secret may become another one while the program runs.
    pub fn change(&self) -> Change {
        match self.0.expose_secret().split_once(':') {
            Some(("file", _)) => Change::File,
            Some(("cmd", _)) => Change::Command,
            _ => Change::Never,
        }
    }

    /// Tells one state of the secret's file from the next, without reading it; always the
    /// same where it is in no file. Blocks as long as the file system takes.
    pub fn stamp(&self) -> Stamp {
        let Some(("file", path)) = self.0.expose_secret().split_once(':') else {
            return Stamp(None);
        };
        let found = fs::metadata(path).ok();
        Stamp(found.map(|f| (f.dev(), f.ino(), f.len(), f.mtime(), f.mtime_nsec())))
    }
}

/// How much of what is found is the secret.
#[derive(Clone, Copy)]
enum Form {
    /// The first line of what a command prints.
    Line,
    /// All of it.
    Text,
}

/// How a secret may become another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Not at all: it is in the environment or in the configuration.
    Never,
    /// Its file is another one: see [`SecretRef::stamp`].
    File,
    /// Its command may print another one, which only running it tells.
    Command,
}

/// A state of a secret's file; `None` inside: there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp(Option<(u64, u64, u64, i64, i64)>);

/// One byte more than may be, so that what is too long is known to be.
fn read_file(path: &str) -> io::Result<String> {
    let mut text = String::new();
    let read = fs::File::open(path)?.take(LONGEST + 1).read_to_string(&mut text);
    // What breaks off within a character is no secret either.
    read.map(|_| text)
}

impl fmt::Display for SecretRef {
    /// Where the secret is; of a secret that stands in the configuration only that it does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.expose_secret().split_once(':') {
            Some((kind @ ("env" | "file"), place)) => write!(f, "{kind}:{place}"),
            Some(("cmd", command)) => {
                write!(f, "cmd:{}", command.split_whitespace().next().unwrap_or_default())
            }
            _ => f.write_str("[inline secret]"),
        }
    }
}

impl fmt::Debug for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretRef({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown_only_its_place() {
        assert_eq!(format!("{:?}", SecretRef::new("hunter2")), "SecretRef([inline secret])");
        assert_eq!(SecretRef::new("env:PGPASSWORD").to_string(), "env:PGPASSWORD");
        assert_eq!(SecretRef::new("cmd:vault read hunter2").to_string(), "cmd:vault");
    }

    #[test]
    fn a_command_gives_its_first_line() {
        let secret = SecretRef::new("cmd:echo hunter2").read().unwrap();
        assert_eq!(secret.expose_secret(), "hunter2");
    }

    #[test]
    fn a_secret_that_looks_like_a_reference_can_be_told_apart() {
        let secret = SecretRef::new("text:env:x");
        assert_eq!(secret.read().unwrap().expose_secret(), "env:x");
        assert_eq!(secret.to_string(), "[inline secret]");
    }

    #[test]
    fn a_text_is_all_that_a_command_prints() {
        let secret = SecretRef::new("cmd:printf a\\nb\\n").read_text().unwrap();
        assert_eq!(secret.expose_secret(), "a\nb");
    }

    #[test]
    fn a_file_that_became_another_one_has_another_stamp() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let secret = SecretRef::new(format!("file:{}", file.path().display()));
        let before = secret.stamp();
        assert_eq!(secret.stamp(), before);
        fs::write(file.path(), "hunter2").unwrap();
        assert_ne!(secret.stamp(), before);
        assert_eq!(secret.change(), Change::File);
        assert_eq!(SecretRef::new("env:X").stamp(), SecretRef::new("file:/no/such/file").stamp());
    }

    #[test]
    fn what_is_too_long_to_be_a_secret_is_none() {
        let endless = SecretRef::new("file:/dev/zero").read().unwrap_err();
        assert!(matches!(endless, SecretError::TooLong(_)), "{endless}");
    }

    #[test]
    fn what_cannot_be_read_is_an_error_that_names_the_place() {
        let missing = SecretRef::new("env:FOREBAY_NO_SUCH_VARIABLE").read().unwrap_err();
        assert!(missing.to_string().contains("FOREBAY_NO_SUCH_VARIABLE"));
        let file = SecretRef::new("file:/no/such/file").read().unwrap_err();
        assert!(file.to_string().contains("/no/such/file"));
        assert!(matches!(SecretRef::new("cmd:false").read(), Err(SecretError::Command { .. })));
        assert!(matches!(SecretRef::new("").read(), Err(SecretError::Empty(_))));
    }
}
