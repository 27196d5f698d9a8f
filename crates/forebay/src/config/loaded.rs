//! A configuration as it was read, and what tells it from another: which keys differ, which
//! files it takes in, and a number for the whole.
//!
//! Always true: no value is kept here, so none can be shown.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Config;
use super::document::{Document, Leaf};
use super::shown::Showing;

/// A configuration that was read and checked.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// What it was read from, and what it names: certificates, files of secrets, lists of users.
    pub files: Vec<PathBuf>,
    /// What its owner should know of it, a line each.
    pub remarks: Vec<String>,
    keys: Keys,
}

impl Loaded {
    /// `config` was read from these `files`; its keys are unknown.
    pub fn new(config: Config, files: Vec<PathBuf>) -> Self {
        Self { config, files, remarks: Vec::new(), keys: Keys::default() }
    }

    /// Logs the remarks.
    pub fn tell(&self) {
        for remark in &self.remarks {
            tracing::warn!("{remark}");
        }
    }

    pub(super) fn with_keys(mut self, keys: Keys) -> Self {
        self.keys = keys;
        self
    }

    /// Paths of keys whose values differ from those of `before`, in order. Not those whose
    /// value says only where to find a secret that changed.
    pub fn changed_since(&self, before: &Self) -> Vec<String> {
        let (now, before) = (&self.keys.values, &before.keys.values);
        let gone = before.keys().filter(|key| !now.contains_key(*key));
        let other = now.iter().filter(|(key, value)| before.get(*key) != Some(value));
        let mut changed: Vec<_> = gone.chain(other.map(|(key, _)| key)).cloned().collect();
        changed.sort_unstable();
        changed
    }

    /// Keys that are set, in order, with their values as far as people may see them.
    pub fn shown(&self) -> impl Iterator<Item = (&str, &str)> {
        self.keys.shown.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// A number that instances with the same configuration share, 48 bits; secrets that stand
    /// in the configuration itself do not count.
    pub fn hash(&self) -> u64 {
        self.keys.hash >> 16
    }
}

/// What a document says, as numbers.
#[derive(Debug, Clone, Default)]
pub(super) struct Keys {
    values: BTreeMap<String, u64>,
    /// As people may see them.
    shown: BTreeMap<String, String>,
    hash: u64,
    /// Files that values name.
    pub(super) files: Vec<PathBuf>,
}

impl Keys {
    /// Of `document`, whose text is `shown` where nothing secret is to be seen.
    pub(super) fn of(document: &mut Document<'_>, shown: &str) -> Self {
        let mut keys = Self { hash: fnv(shown.as_bytes()), ..Self::default() };
        let showing = Showing::new();
        document.leaves(|path, leaf| {
            let (Leaf::Text(text) | Leaf::Other(text)) = &leaf;
            keys.shown.insert(path.clone(), showing.of(&path, text));
            let number = match leaf {
                Leaf::Text(text) => {
                    keys.files.extend(file_in(text));
                    fnv(text.as_bytes())
                }
                Leaf::Other(text) => fnv(text.as_bytes()) ^ 1,
            };
            keys.values.insert(path, number);
        });
        keys
    }
}

/// The file that a value names, if it is there.
fn file_in(text: &str) -> Option<PathBuf> {
    let path = text.strip_prefix("file:").unwrap_or(text);
    let path = PathBuf::from(path);
    (text.contains('/') && path.is_file()).then_some(path)
}

/// FNV-1a: tells texts apart, and resists nobody.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
