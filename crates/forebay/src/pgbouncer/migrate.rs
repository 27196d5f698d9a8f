//! `forebay migrate FILE.ini`: writes settings of ours that do the same, and says what does not.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::file::{File, FileError, Mistake};
use super::secrets::{SecretFile, Secrets};
use super::translate::{self, Note, NoteKind, Translation};

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// The file is none that PgBouncer would start with.
    #[error(transparent)]
    File(#[from] FileError),
    /// It wants what is not to be had here.
    #[error("{}", lines(.0))]
    Refused(Vec<Mistake>),
    /// The result, or a secret beside it, cannot be written.
    #[error("cannot write `{}`: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

fn lines(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(Mistake::to_string).collect::<Vec<_>>().join("\n")
}

/// A migration that was thought through and has written nothing yet.
pub struct Migration {
    text: String,
    report: String,
    secrets: Vec<SecretFile>,
}

impl Migration {
    /// Reads `file`. Secrets will stand in files beside `output`; without one, the result
    /// refers to variables of the environment.
    ///
    /// # Errors
    /// All that is wrong with the file, or cannot be done.
    pub fn of(file: &Path, output: Option<&Path>) -> Result<Self, MigrateError> {
        let secrets = match output {
            Some(output) => Secrets::in_files(absolute(&output.with_extension("secrets"))),
            None => Secrets::Variables,
        };
        let read = File::load(file)?;
        let translation = translate::translate(&read, secrets).map_err(MigrateError::Refused)?;
        let Translation { document, mut notes, secrets } = translation;
        notes.extend(read.warnings.iter().map(warning));
        notes.sort_by(|a, b| (a.kind, &a.place).cmp(&(b.kind, &b.place)));
        notes.dedup();
        let mut text = format!(
            "# Written by `forebay migrate {}`. `forebay check` says what it comes to,\n\
             # docs/configuration.md what else there is.\n",
            file.display()
        );
        text.push_str(&document.render());
        Ok(Self { text, report: report(&notes, &secrets), secrets })
    }

    /// The settings, TOML.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What changed its meaning, what was dropped and why, and what nobody needs any more.
    pub fn report(&self) -> &str {
        &self.report
    }

    /// Writes the settings to `output`, and the secrets beside it, each for its owner's eyes
    /// only.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, output: &Path) -> Result<(), MigrateError> {
        for secret in &self.secrets {
            secret.write().map_err(|source| failed(secret.path(), source))?;
        }
        fs::write(output, &self.text).map_err(|source| failed(output, source))
    }
}

fn failed(path: &Path, source: io::Error) -> MigrateError {
    MigrateError::Write { path: path.to_owned(), source }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn warning(mistake: &Mistake) -> Note {
    Note {
        place: mistake.place.clone(),
        about: "[pgbouncer]".to_owned(),
        kind: NoteKind::Differs,
        text: mistake.reason.clone(),
    }
}

fn report(notes: &[Note], secrets: &[SecretFile]) -> String {
    let mut report = String::new();
    for (kind, title) in [
        (NoteKind::Differs, "Means something different:"),
        (NoteKind::Dropped, "Is not done:"),
        (NoteKind::Needless, "Is not needed:"),
    ] {
        let mut of_kind = notes.iter().filter(|note| note.kind == kind).peekable();
        if of_kind.peek().is_some() {
            report.push_str(&format!("{title}\n"));
        }
        for note in of_kind {
            report.push_str(&format!("  {note}\n"));
        }
    }
    if !secrets.is_empty() {
        report.push_str("Secrets, readable by their owner only:\n");
    }
    for secret in secrets {
        report.push_str(&format!("  {}\n", secret.path().display()));
    }
    report
}
