//! Settings that somebody has changed at the console, as PgBouncer's `SET key = value` does.
//!
//! They count until the next reload, which takes all from the file. Knows no console. Always
//! true: a SET changes nothing but its setting, whatever has become of the file since it was
//! read; one that cannot be carried out leaves no trace.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forebay_postgres::console::KnownSetting;
use forebay_seam::sync::Mutex;

use super::file::{File, FileError};
use super::setting::{self, Changes, SETTINGS};

/// Why a setting stays as it is. What PgBouncer says of all of these is before the colon.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetError {
    /// There is none of that name.
    #[error("SET failed: PgBouncer has no setting `{0}`, SHOW CONFIG names them")]
    Unknown(String),
    /// It counts at a start only; PgBouncer says yes to these and does nothing.
    #[error("SET failed: `{0}` counts at a start only")]
    AtStart(&'static str),
    /// It is no value of this setting.
    #[error("SET failed: {name}: {expected}")]
    Value {
        /// The setting.
        name: &'static str,
        /// What would be right.
        expected: String,
    },
    /// The configuration cannot be used with it.
    #[error("SET failed: {0}")]
    Refused(String),
}

/// The file as it was read last, and what was changed since. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Overrides {
    path: PathBuf,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    file: File,
    changed: BTreeMap<&'static str, String>,
    asked: Asked,
}

/// What the next reload is for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// What the file says now.
    #[default]
    File,
    /// What was changed by hand.
    Changes,
}

/// What a setting was before, by hand.
#[must_use = "a change that cannot be carried out is taken back"]
pub struct Before {
    name: &'static str,
    value: Option<String>,
}

impl Overrides {
    /// Nothing has been changed of the file at `path`.
    pub(super) fn of(path: &Path) -> Self {
        Self { path: path.to_owned(), state: Arc::default() }
    }

    /// What is to be carried out now: the file as it is, and nothing else; or, where somebody has
    /// just changed something, the file as it was with all changes.
    ///
    /// # Errors
    /// All that is wrong with the file.
    pub(super) fn read(&self) -> Result<File, FileError> {
        let asked = std::mem::take(&mut self.state.lock().asked);
        if asked == Asked::File {
            let file = File::load(&self.path)?;
            let mut state = self.state.lock();
            state.file = file;
            state.changed.clear();
        }
        let state = self.state.lock();
        let mut file = state.file.clone();
        for (name, value) in &state.changed {
            file.set(name, value);
        }
        Ok(file)
    }

    /// The setting `name` is `value` from the next reload on, which is for this.
    ///
    /// # Errors
    /// Where it cannot be.
    pub fn set(&self, name: &str, value: &str) -> Result<Before, SetError> {
        let setting = setting::find(name).ok_or_else(|| SetError::Unknown(name.to_owned()))?;
        if setting.changes == Changes::AtStart {
            return Err(SetError::AtStart(setting.name));
        }
        let checked = setting.kind.check(value);
        checked.map_err(|expected| SetError::Value { name: setting.name, expected })?;
        let mut state = self.state.lock();
        state.asked = Asked::Changes;
        let before = state.changed.insert(setting.name, value.to_owned());
        Ok(Before { name: setting.name, value: before })
    }

    /// The change that `before` was before could not be carried out.
    pub fn take_back(&self, before: Before) {
        let mut state = self.state.lock();
        match before.value {
            Some(value) => state.changed.insert(before.name, value),
            None => state.changed.remove(before.name),
        };
    }

    /// Every setting with its value, in the order of `SHOW CONFIG`.
    pub fn settings(&self) -> Vec<KnownSetting> {
        let state = self.state.lock();
        let all = SETTINGS.iter().map(|setting| {
            let changed = state.changed.get(setting.name).map(String::as_str);
            let value = changed.or_else(|| state.file.text(setting.name)).unwrap_or_default();
            let value = match setting.name {
                "conffile" => self.path.display().to_string(),
                _ => setting.kind.shown(value),
            };
            KnownSetting { value: Some(value), ..setting.known() }
        });
        all.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str) -> (tempfile::TempDir, Overrides) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.ini");
        std::fs::write(&path, text).unwrap();
        let overrides = Overrides::of(&path);
        overrides.read().unwrap();
        (folder, overrides)
    }

    fn shown(overrides: &Overrides, name: &str) -> String {
        let settings = overrides.settings();
        settings.into_iter().find(|known| known.name == name).unwrap().value.unwrap()
    }

    #[test]
    fn a_change_counts_until_the_file_is_read_again() {
        let (_folder, overrides) = with("[databases]\n[pgbouncer]\nmax_client_conn = 7\n");
        drop(overrides.set("max_client_conn", "0x10").unwrap());
        assert_eq!(shown(&overrides, "max_client_conn"), "16");
        assert_eq!(overrides.read().unwrap().number("max_client_conn"), 16);
        assert_eq!(overrides.read().unwrap().number("max_client_conn"), 7);
        assert_eq!(shown(&overrides, "max_client_conn"), "7");
    }

    #[test]
    fn a_change_brings_nothing_with_it_that_was_written_into_the_file_since() {
        let (folder, overrides) = with("[databases]\n[pgbouncer]\nmax_client_conn = 7\n");
        let text = "[databases]\n[pgbouncer]\nmax_client_conn = 8\n";
        std::fs::write(folder.path().join("p.ini"), text).unwrap();
        drop(overrides.set("query_timeout", "1.5").unwrap());
        let file = overrides.read().unwrap();
        assert_eq!((file.number("max_client_conn"), file.text("query_timeout")), (7, Some("1.5")));
    }

    #[test]
    fn a_change_that_cannot_be_leaves_no_trace() {
        let (_folder, overrides) = with("[databases]\n[pgbouncer]\n");
        for (name, value, why) in [
            ("foo", "1", "PgBouncer has no setting `foo`"),
            ("listen_port", "1", "`listen_port` counts at a start only"),
            ("max_client_conn", "abc", "max_client_conn: expected a whole number"),
            ("pool_mode", "bla", "pool_mode: expected one of"),
        ] {
            let error = overrides.set(name, value).err().unwrap().to_string();
            assert!(error.starts_with(&format!("SET failed: {why}")), "{error}");
        }
        let one = overrides.set("pool_mode", "transaction").unwrap();
        let two = overrides.set("pool_mode", "statement").unwrap();
        overrides.take_back(two);
        assert_eq!(shown(&overrides, "pool_mode"), "transaction");
        overrides.take_back(one);
        assert_eq!(shown(&overrides, "pool_mode"), "session");
    }
}
