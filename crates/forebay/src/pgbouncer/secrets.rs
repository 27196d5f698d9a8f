//! Passwords of a `pgbouncer.ini`, and where they stand in settings of ours.
//!
//! Never shown: not in an error, not in `Debug`. In a configuration that only lives in memory
//! they stand themselves; one that is written refers to them.

use std::fmt;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Where secrets stand.
pub(super) enum Secrets {
    /// In the settings themselves, which nobody sees.
    Inside,
    /// In variables of the environment, which somebody has to set.
    Variables,
    /// In files of this directory, which is ours.
    Files {
        /// The directory.
        directory: PathBuf,
        /// What will be in it.
        files: Vec<SecretFile>,
    },
}

/// A file that holds a secret.
pub(super) struct SecretFile {
    path: PathBuf,
    secret: String,
}

impl fmt::Debug for SecretFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretFile({})", self.path.display())
    }
}

impl Secrets {
    /// In files of `directory`.
    pub(super) fn in_files(directory: PathBuf) -> Self {
        Self::Files { directory, files: Vec::new() }
    }

    /// Keeps the password of the database `name`: what to write in its place, and a remark.
    pub(super) fn keep(&mut self, name: &str, secret: &str) -> (String, Option<String>) {
        match self {
            Self::Inside => (plainly(secret), None),
            Self::Variables => {
                let variable = format!("FOREBAY_PASSWORD_{}", plain(name, '_').to_uppercase());
                let remark = format!("The password stands in {variable}: set it.");
                (format!("env:{variable}"), Some(remark))
            }
            Self::Files { directory, files } => {
                let plain = plain(name, '-');
                // Different names may look alike once they are plain.
                let numbered = (1..).map(|number| match number {
                    1 => format!("{plain}.password"),
                    _ => format!("{plain}-{number}.password"),
                });
                let mut paths = numbered.map(|name| directory.join(name));
                let taken = |path: &PathBuf| files.iter().any(|file| file.path == *path);
                let path = paths.find(|path| !taken(path)).unwrap_or_else(|| directory.clone());
                let reference = format!("file:{}", path.display());
                files.push(SecretFile { path, secret: secret.to_owned() });
                (reference, None)
            }
        }
    }

    /// The files that have to be written.
    pub(super) fn files(self) -> Vec<SecretFile> {
        match self {
            Self::Files { files, .. } => files,
            Self::Inside | Self::Variables => Vec::new(),
        }
    }
}

impl SecretFile {
    /// Where it will be.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes it, for its owner's eyes only.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn write(&self) -> io::Result<()> {
        if let Some(directory) = self.path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        // An older file may be open to others: it is replaced, not written to.
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.path)?;
        writeln!(file, "{}", self.secret)
    }
}

/// A secret that stands in a setting itself, also where it looks like a reference.
fn plainly(secret: &str) -> String {
    let reference = ["env:", "file:", "cmd:", "text:"];
    let looks = reference.iter().any(|prefix| secret.starts_with(prefix));
    if looks { format!("text:{secret}") } else { secret.to_owned() }
}

/// `name` with `other` for all that is no ASCII letter or digit.
fn plain(name: &str, other: char) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { other }).collect()
}
