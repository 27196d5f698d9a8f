//! A `pgbouncer.ini` as a configuration that can be carried out, with an overlay of ours.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::document::Document;
use super::file::{File, FileError, Mistake};
use super::ini::Place;
use super::secrets::Secrets;
use super::translate::{self, Note};
use crate::config::{self, Config, Report};

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file is none that PgBouncer would start with.
    #[error(transparent)]
    File(#[from] FileError),
    /// It wants what is not to be had here, or what cannot be.
    #[error("{}", lines(.0))]
    Refused(Vec<Mistake>),
    /// The overlay cannot be read.
    #[error("{place}cannot read the overlay `{}`: {source}", file.display())]
    Read {
        /// Where it is named, and `: `; empty where that is the command line.
        place: String,
        /// The overlay.
        file: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The overlay is no TOML.
    #[error("{}: {message}", file.display())]
    Toml {
        /// The overlay.
        file: PathBuf,
        /// What is wrong, without the text around it.
        message: String,
    },
}

fn lines(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(Mistake::to_string).collect::<Vec<_>>().join("\n")
}

/// A file that was read, checked and translated.
pub(super) struct Loaded {
    pub(super) loaded: config::Loaded,
    pub(super) notes: Vec<Note>,
    pub(super) file: File,
}

/// Carries `file` out, which was read from `ini`, and lays `overlay`, or the one that it names
/// itself, over it.
///
/// # Errors
/// All that is wrong with the first of them that has mistakes.
pub(super) fn load(ini: &Path, file: File, overlay: Option<&Path>) -> Result<Loaded, LoadError> {
    let mut translation =
        translate::translate(&file, Secrets::Inside).map_err(LoadError::Refused)?;
    if let Some(dir) = file.nonempty("unix_socket_dir") {
        // Where `-R` asks.
        let socket = Path::new(dir).join(format!(".s.forebay.{}", file.number("listen_port")));
        translation.document.set(&["restart"], "socket", socket.display().to_string());
    }
    let mut text = translation.document.render();
    let named = file.overlay.as_ref();
    let overlay = match (overlay, named) {
        (Some(overlay), _) => Some((overlay.to_owned(), None)),
        (None, Some(said)) => Some((PathBuf::from(&said.value), Some(&said.place))),
        (None, None) => None,
    };
    if let Some((path, place)) = &overlay {
        text = lay_over(&text, path, *place)?;
    }
    let environment = |name: &str| std::env::var(name).ok();
    let mut loaded = Config::parse_whole(ini, &text, &environment).map_err(|report| {
        let beside = overlay.as_ref().map(|(path, _)| path.as_path());
        LoadError::Refused(mistakes(&report, &translation.document, beside))
    })?;
    // As in PgBouncer, a file that is being edited is not read before somebody says so.
    loaded.files.clear();
    Ok(Loaded { loaded, notes: translation.notes, file })
}

/// `text` with the settings of `overlay` in place of, and beside, its own.
fn lay_over(text: &str, overlay: &Path, place: Option<&Place>) -> Result<String, LoadError> {
    let toml =
        |message: &str| LoadError::Toml { file: overlay.to_owned(), message: message.into() };
    let over = fs::read_to_string(overlay).map_err(|source| LoadError::Read {
        place: place.map(|place| format!("{place}: ")).unwrap_or_default(),
        file: overlay.to_owned(),
        source,
    })?;
    let over: toml::Table = over.parse().map_err(|error: toml::de::Error| toml(error.message()))?;
    let mut under: toml::Table =
        text.parse().map_err(|error: toml::de::Error| toml(error.message()))?;
    merge(&mut under, over);
    Ok(under.to_string())
}

fn merge(under: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(toml::Value::Table(under)), toml::Value::Table(over)) => merge(under, over),
            (_, value) => drop(under.insert(key, value)),
        }
    }
}

/// What is wrong with our settings, told of the lines that they came from.
fn mistakes(report: &Report, document: &Document, overlay: Option<&Path>) -> Vec<Mistake> {
    let told = report.problems().iter().map(|problem| {
        let place = document.place(&problem.at).cloned();
        let from = match (&place, overlay) {
            (None, Some(overlay)) => format!("{}: ", overlay.display()),
            _ => String::new(),
        };
        let key = if problem.at.is_empty() { String::new() } else { format!("{}: ", problem.at) };
        Mistake { place, reason: format!("{from}{key}{}", problem.reason) }
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlay_adds_tables_and_replaces_values() {
        let directory = tempfile::tempdir().unwrap();
        let overlay = directory.path().join("o.toml");
        fs::write(&overlay, "[a]\nx = 2\n[a.c]\nz = 3\n[d]\n").unwrap();
        let text = lay_over("[a]\nx = 1\ny = 1\n[a.b]\nz = 1\n", &overlay, None).unwrap();
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["a"]["x"].as_integer(), Some(2));
        assert_eq!(table["a"]["y"].as_integer(), Some(1));
        assert!(table["a"].get("b").is_some() && table["a"].get("c").is_some());
        assert!(table.contains_key("d"));
    }
}
