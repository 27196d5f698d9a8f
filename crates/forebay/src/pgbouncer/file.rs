//! A `pgbouncer.ini` that was read and checked: what it sets, where, and all that is wrong
//! with it.
//!
//! Knows what may stand in such a file, not what becomes of it. PgBouncer stops at the first
//! mistake; here all of them are found in one pass, and a file has none exactly if PgBouncer
//! starts with it (the differences: docs/pgbouncer.md).

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use super::connstr;
use super::ini::{self, IniError, Item, Place};
use super::parameter::{OF_DATABASES, OF_PEERS, OF_USERS, Parameter};
use super::setting::{self, Setting};
use super::value;
use crate::config::wording;

/// The database of PgBouncer's console.
const CONSOLE: &str = "pgbouncer";

/// What a file says.
#[derive(Debug, Clone, Default)]
pub(super) struct File {
    settings: BTreeMap<&'static str, Said>,
    /// `[databases]`, in the order of the file; a name once.
    pub(super) databases: Vec<Line>,
    /// `[users]`, likewise.
    pub(super) users: Vec<Line>,
    /// `[peers]`, likewise.
    pub(super) peers: Vec<Line>,
    /// `overlay` of `[forebay]`: more settings of ours, TOML.
    pub(super) overlay: Option<Said>,
    /// What works, and surely not as it was meant.
    pub(super) warnings: Vec<Mistake>,
}

/// A value, and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Said {
    pub(super) value: String,
    pub(super) place: Place,
}

/// A line of `[databases]`, `[users]` or `[peers]`.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) place: Place,
    pairs: BTreeMap<&'static str, String>,
}

impl Line {
    /// The value of `key`.
    pub(super) fn text(&self, key: &'static str) -> Option<&str> {
        self.pairs.get(key).map(String::as_str)
    }

    /// The number `key`; nothing where it is negative, which is PgBouncer's "not set".
    pub(super) fn number(&self, key: &'static str) -> Option<u32> {
        let number = value::pair_number(self.text(key)?).ok()?;
        u32::try_from(number).ok()
    }

    /// The seconds `key`; nothing where they are negative.
    pub(super) fn seconds(&self, key: &'static str) -> Option<Duration> {
        self.number(key).map(|seconds| Duration::from_secs(seconds.into()))
    }
}

/// One thing that is wrong, or odd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where.
    pub place: Option<Place>,
    /// What is wrong and what would be right.
    pub reason: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{place}: {}", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// It cannot be read to its end.
    #[error(transparent)]
    Unreadable(#[from] IniError),
    /// It can, but says what cannot be.
    #[error("{}", lines(.0))]
    Wrong(Vec<Mistake>),
}

fn lines(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(Mistake::to_string).collect::<Vec<_>>().join("\n")
}

impl File {
    /// Reads and checks `file` and what it includes.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub(super) fn load(file: &Path) -> Result<Self, FileError> {
        Self::read(file, &|path| {
            let text = fs::read(path)?;
            String::from_utf8(text)
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is no text in UTF-8"))
        })
    }

    /// As [`File::load`], with files that `open` gives.
    pub(super) fn read(file: &Path, open: ini::Open<'_>) -> Result<Self, FileError> {
        let mut reader = Reader::default();
        for item in ini::read(file, open)? {
            reader.take(item);
        }
        reader.finish()
    }

    /// The value of the setting `name`: that of the file, else its default, else nothing.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let default = || setting::find(name).and_then(|setting| setting.default);
        self.said(name).map(|said| said.value.as_str()).or_else(default)
    }

    /// What the file itself says of `name`.
    pub(super) fn said(&self, name: &str) -> Option<&Said> {
        self.settings.get(name)
    }

    /// The setting `name` is `value`, as somebody has said at the console.
    pub(super) fn set(&mut self, name: &'static str, value: &str) {
        let said = Said { value: value.to_owned(), place: Place::elsewhere("SET") };
        self.settings.insert(name, said);
    }

    /// Where the file says something of `name`.
    pub(super) fn place(&self, name: &str) -> Option<&Place> {
        self.said(name).map(|said| &said.place)
    }

    /// The value of `name`, where it is not empty.
    pub(super) fn nonempty(&self, name: &str) -> Option<&str> {
        self.text(name).filter(|text| !text.is_empty())
    }

    /// The number `name`; 0 where it is negative or not set.
    pub(super) fn number(&self, name: &str) -> u32 {
        let number = self.text(name).and_then(|text| value::number(text).ok());
        number.and_then(|number| u32::try_from(number).ok()).unwrap_or(0)
    }

    /// Is the setting `name` other than 0?
    pub(super) fn flag(&self, name: &str) -> bool {
        self.number(name) != 0
    }

    /// The time `name`.
    pub(super) fn seconds(&self, name: &str) -> Duration {
        self.text(name).and_then(|text| value::seconds(text).ok()).unwrap_or_default()
    }

    /// The names that the setting `name` lists.
    pub(super) fn list(&self, name: &str) -> Vec<&str> {
        self.text(name).map(value::list).unwrap_or_default()
    }

    /// The settings that the file sets, and not to what holds anyway.
    pub(super) fn changed(&self) -> impl Iterator<Item = (&'static Setting, &Said)> {
        let said =
            self.settings.iter().filter_map(|(name, said)| Some((setting::find(name)?, said)));
        said.filter(|(setting, said)| setting.default != Some(said.value.as_str()))
    }
}

/// The section that lines belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    Settings,
    Databases,
    Users,
    Peers,
    Forebay,
}

/// Reads a file item by item.
#[derive(Default)]
struct Reader {
    file: File,
    section: Option<Section>,
    has_settings: bool,
    mistakes: Vec<Mistake>,
}

impl Reader {
    fn take(&mut self, item: Item) {
        match item {
            Item::Section { name, place } => self.begin(&name, place),
            Item::Value { key, value, place } => self.value(key, value, place),
        }
    }

    fn begin(&mut self, name: &str, place: Place) {
        let section = match name {
            "pgbouncer" => Section::Settings,
            "databases" => Section::Databases,
            "users" => Section::Users,
            "peers" => Section::Peers,
            "forebay" => Section::Forebay,
            _ => {
                let reason = format!(
                    "there is no section `[{name}]`: expected [databases], [users], [peers] or \
                     [pgbouncer], in lower case"
                );
                self.wrong(place, reason);
                self.section = None;
                return;
            }
        };
        if section == Section::Settings && std::mem::replace(&mut self.has_settings, true) {
            if !self.file.settings.is_empty() {
                let reason = "a second [pgbouncer]: PgBouncer forgets what the first one set, \
                              and so do we; put all settings into one";
                self.file.warnings.push(Mistake { place: Some(place), reason: reason.into() });
            }
            self.file.settings.clear();
        }
        self.section = Some(section);
    }

    fn value(&mut self, key: String, value: String, place: Place) {
        let parameters = match self.section {
            Some(Section::Settings) => return self.setting(&key, value, place),
            Some(Section::Forebay) => return self.forebay(&key, value, place),
            Some(Section::Databases) if key == CONSOLE => {
                let reason =
                    format!("the database `{CONSOLE}` is the console's; choose another name");
                return self.wrong(place, reason);
            }
            Some(Section::Databases) => OF_DATABASES,
            Some(Section::Users) => OF_USERS,
            Some(Section::Peers) => OF_PEERS,
            // A section that is wrong was told of already.
            None if !self.mistakes.is_empty() => return,
            None => return self.wrong(place, format!("`{key}` stands before the first section")),
        };
        match line(key, &value, place.clone(), parameters) {
            Ok(line) => {
                let lines = match self.section {
                    Some(Section::Users) => &mut self.file.users,
                    Some(Section::Peers) => &mut self.file.peers,
                    _ => &mut self.file.databases,
                };
                // The last line of a name counts.
                lines.retain(|known| known.name != line.name);
                lines.push(line);
            }
            Err(reason) => self.wrong(place, reason),
        }
    }

    fn setting(&mut self, key: &str, value: String, place: Place) {
        let Some(setting) = setting::find(key) else {
            let hint = match setting::not_here(key) {
                Some(hint) => hint.to_owned(),
                None => alike(key, setting::SETTINGS.iter().map(|setting| setting.name)),
            };
            return self.wrong(place, format!("PgBouncer has no setting `{key}`: {hint}"));
        };
        match setting.kind.check(&value) {
            Ok(()) => drop(self.file.settings.insert(setting.name, Said { value, place })),
            Err(expected) => self.wrong(place, format!("{key}: {expected}")),
        }
    }

    fn forebay(&mut self, key: &str, value: String, place: Place) {
        if key == "overlay" {
            self.file.overlay = Some(Said { value, place });
        } else {
            self.wrong(place, format!("[forebay] has no `{key}`, only `overlay = FILE.toml`"));
        }
    }

    fn wrong(&mut self, place: Place, reason: String) {
        self.mistakes.push(Mistake { place: Some(place), reason });
    }

    fn finish(mut self) -> Result<File, FileError> {
        if !self.has_settings {
            let reason = "there is no section [pgbouncer]".to_owned();
            self.mistakes.push(Mistake { place: None, reason });
        }
        if self.mistakes.is_empty() { Ok(self.file) } else { Err(FileError::Wrong(self.mistakes)) }
    }
}

/// Never says what a value is, which may be a password.
fn line(
    name: String,
    text: &str,
    place: Place,
    parameters: &'static [Parameter],
) -> Result<Line, String> {
    let mut pairs = BTreeMap::new();
    for (key, value) in connstr::pairs(text).map_err(|error| format!("{name}: {error}"))? {
        let Some(parameter) = parameters.iter().find(|parameter| parameter.name == key) else {
            let hint = alike(key, parameters.iter().map(|parameter| parameter.name));
            return Err(format!("{name}: there is no `{key}` in this section: {hint}"));
        };
        let checked = parameter.kind.check(&value);
        checked.map_err(|expected| format!("{name}: {key}: {expected}"))?;
        pairs.insert(parameter.name, value);
    }
    Ok(Line { name, place, pairs })
}

/// What was perhaps meant.
fn alike(key: &str, names: impl Iterator<Item = &'static str>) -> String {
    match wording::meant(&key.to_lowercase(), names) {
        Some(name) => format!("did you mean `{name}`?"),
        None => "docs/pgbouncer.md lists what there is".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn file(text: &str) -> Result<File, FileError> {
        File::read(Path::new("p.ini"), &|_| Ok(text.to_owned()))
    }

    fn mistakes(text: &str) -> String {
        file(text).unwrap_err().to_string()
    }

    #[test]
    fn what_is_not_set_has_pgbouncers_default() {
        let file = file("[pgbouncer]\nquery_timeout = 1.5\n").unwrap();
        assert_eq!(file.number("default_pool_size"), 20);
        assert_eq!(file.seconds("query_wait_timeout"), Duration::from_secs(120));
        assert_eq!(file.seconds("query_timeout"), Duration::from_millis(1500));
        assert_eq!(file.text("auth_type"), Some("md5"));
        assert_eq!(file.text("auth_file"), None);
        assert_eq!(file.changed().count(), 1);
    }

    #[test]
    fn all_mistakes_are_told_each_with_its_line() {
        let told = mistakes(
            "[databases]\na = host=h port=0\nb = hots=h\npgbouncer = host=h\n[Users]\nu = x\n\
             [pgbouncer]\nlog_connections = true\ndefault_pool_sise = 5\n",
        );
        let expected = "\
p.ini:2: a: port: expected a port, from 1 to 65535
p.ini:3: b: there is no `hots` in this section: did you mean `host`?
p.ini:4: the database `pgbouncer` is the console's; choose another name
p.ini:5: there is no section `[Users]`: expected [databases], [users], [peers] or [pgbouncer], in lower case
p.ini:8: log_connections: expected 0 or 1 (PgBouncer knows no `true`, `yes` or `on`)
p.ini:9: PgBouncer has no setting `default_pool_sise`: did you mean `default_pool_size`?";
        assert_eq!(told, expected);
    }

    #[test]
    fn a_mistake_in_a_connection_string_shows_none_of_its_values() {
        for line in ["a = password=hunter2 port=hunter2", "a = password='hunter2", "a = hunter2"] {
            let told = mistakes(&format!("[databases]\n{line}\n[pgbouncer]\n"));
            assert!(!told.contains("hunter2"), "{told}");
        }
    }

    #[test]
    fn the_last_line_of_a_database_counts() {
        let file = file("[databases]\na = host=x\nb =\na = host=y\n[pgbouncer]\n").unwrap();
        let names: Vec<_> = file.databases.iter().map(|line| line.name.as_str()).collect();
        assert_eq!(names, ["b", "a"]);
        assert_eq!(file.databases[1].text("host"), Some("y"));
    }

    #[test]
    fn a_second_section_of_settings_forgets_the_first_as_in_pgbouncer() {
        let file = file("[pgbouncer]\nlisten_port = 1\n[databases]\n[pgbouncer]\n").unwrap();
        assert_eq!(file.number("listen_port"), 6432);
        assert_eq!(file.warnings.len(), 1);
    }

    #[test]
    fn a_file_without_settings_is_none() {
        assert_eq!(mistakes("[databases]\n"), "there is no section [pgbouncer]");
        assert!(mistakes("a = b\n[pgbouncer]\n").contains("before the first section"));
    }
}
