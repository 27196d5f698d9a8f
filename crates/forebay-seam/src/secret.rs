//! Secrets from outside: the environment, a file, a command, or the configuration itself.
//!
//! A [`SecretRef`] says where a secret is and may be shown; the secret itself has no
//! `Debug`, `Display` or `Serialize`, and is wiped when dropped.

use std::process::Command;
use std::{env, fmt, fs, io};

use schemars::JsonSchema;
pub use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

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
    /// When it is not there or empty.
    pub fn read(&self) -> Result<SecretString, SecretError> {
        let text = self.0.expose_secret();
        let secret = match text.split_once(':') {
            Some(("env", name)) => {
                env::var(name).map_err(|_| SecretError::NoVariable(name.to_owned()))?
            }
            Some(("file", path)) => fs::read_to_string(path)
                .map_err(|source| SecretError::File { path: path.to_owned(), source })?,
            Some(("cmd", command)) => run(command)?,
            Some(("text", secret)) => secret.to_owned(),
            _ => text.to_owned(),
        };
        let secret = secret.trim_end_matches(['\r', '\n']);
        if secret.is_empty() {
            return Err(SecretError::Empty(self.to_string()));
        }
        Ok(SecretString::from(secret.to_owned()))
    }
}

fn run(command: &str) -> Result<String, SecretError> {
    let mut words = command.split_whitespace();
    let program = words.next().unwrap_or_default();
    let failed = |reason: String| SecretError::Command { program: program.to_owned(), reason };
    let output = Command::new(program).args(words).output().map_err(|e| failed(e.to_string()))?;
    if !output.status.success() {
        return Err(failed(output.status.to_string()));
    }
    let text =
        String::from_utf8(output.stdout).map_err(|_| failed("its output is no text".into()))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
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
    fn what_cannot_be_read_is_an_error_that_names_the_place() {
        let missing = SecretRef::new("env:FOREBAY_NO_SUCH_VARIABLE").read().unwrap_err();
        assert!(missing.to_string().contains("FOREBAY_NO_SUCH_VARIABLE"));
        let file = SecretRef::new("file:/no/such/file").read().unwrap_err();
        assert!(file.to_string().contains("/no/such/file"));
        assert!(matches!(SecretRef::new("cmd:false").read(), Err(SecretError::Command { .. })));
        assert!(matches!(SecretRef::new("").read(), Err(SecretError::Empty(_))));
    }
}
