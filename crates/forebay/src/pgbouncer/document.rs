//! A configuration of ours that is being written: tables and keys in their order, each with a
//! remark and the place that it came from.
//!
//! Knows no setting. Always true: what is rendered is TOML that reads back as what was set.

use toml::Value;

use super::ini::Place;

/// A configuration, table by table.
#[derive(Debug, Default)]
pub(super) struct Document {
    tables: Vec<Table>,
}

#[derive(Debug)]
struct Table {
    path: Vec<String>,
    remark: Option<String>,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    key: String,
    value: Value,
    remark: Option<String>,
    place: Option<Place>,
}

/// A value on its way into a [`Document`].
pub(super) struct Setting<'d> {
    entry: &'d mut Entry,
}

impl Setting<'_> {
    /// Why it is there, or what is to be known of it.
    pub(super) fn because(self, remark: impl Into<String>) -> Self {
        self.entry.remark = Some(remark.into());
        self
    }

    /// Where it came from.
    pub(super) fn from(self, place: Option<&Place>) -> Self {
        self.entry.place = place.cloned();
        self
    }
}

impl Document {
    /// Sets `key` of the table at `path`; a later value replaces an earlier one.
    pub(super) fn set(&mut self, path: &[&str], key: &str, value: impl Into<Value>) -> Setting<'_> {
        let table = self.table(path);
        let known = table.entries.iter().position(|entry| entry.key == key);
        let at = known.unwrap_or(table.entries.len());
        let entry = Entry { key: key.to_owned(), value: value.into(), remark: None, place: None };
        if known.is_some() {
            drop(table.entries.remove(at));
        }
        table.entries.insert(at, entry);
        Setting { entry: &mut table.entries[at] }
    }

    /// Says something about the table at `path`, which is there from now on.
    pub(super) fn remark(&mut self, path: &[&str], remark: impl Into<String>) {
        self.table(path).remark = Some(remark.into());
    }

    fn table(&mut self, path: &[&str]) -> &mut Table {
        let known = self.tables.iter().position(|table| table.path == path);
        let at = known.unwrap_or_else(|| {
            let path = path.iter().map(|&name| name.to_owned()).collect();
            self.tables.push(Table { path, remark: None, entries: Vec::new() });
            self.tables.len() - 1
        });
        &mut self.tables[at]
    }

    /// Where the value at `path` came from, such as `postgres.databases.app.pool_size`; for
    /// what was not set itself, the nearest of its table.
    pub(super) fn place(&self, path: &str) -> Option<&Place> {
        let all = self.tables.iter().flat_map(|table| {
            let prefix = table.path.join(".");
            table.entries.iter().map(move |entry| (format!("{prefix}.{}", entry.key), entry))
        });
        let placed = all.filter_map(|(at, entry)| Some((at, entry.place.as_ref()?)));
        let (_, place) = placed
            .map(|(at, place)| (common_prefix(&at, path), place))
            .filter(|(common, _)| *common > 0)
            .max_by_key(|(common, _)| *common)?;
        Some(place)
    }

    /// As TOML, with the remarks.
    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        for table in &self.tables {
            if !table.path.is_empty() {
                let path: Vec<_> = table.path.iter().map(|name| key(name)).collect();
                text.push('\n');
                comment(&mut text, table.remark.as_deref());
                text.push_str(&format!("[{}]\n", path.join(".")));
            }
            for entry in &table.entries {
                comment(&mut text, entry.remark.as_deref());
                text.push_str(&format!("{} = {}\n", key(&entry.key), value(&entry.value)));
            }
        }
        text
    }
}

/// How many of the first names of two paths are the same.
fn common_prefix(a: &str, b: &str) -> usize {
    a.split('.').zip(b.split('.')).take_while(|(a, b)| a == b).count()
}

fn comment(text: &mut String, remark: Option<&str>) {
    for line in remark.into_iter().flat_map(str::lines) {
        text.push_str(&format!("# {line}\n"));
    }
}

fn key(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !name.is_empty() && name.chars().all(bare) { name.to_owned() } else { quoted(name) }
}

/// `text` as a basic string in one line. JSON's escapes are among TOML's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// `value` in one line. `${` would stand for a variable of the environment.
fn value(value: &Value) -> String {
    value.to_string().replace("${", "$${")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_rendered_reads_back_whatever_it_says() {
        let mut document = Document::default();
        document.set(&[], "stop_timeout", "1s");
        document.set(&["postgres"], "max_clients", 1);
        document.set(&["postgres"], "max_clients", 2).because("two lines\nof remark");
        let odd = "a.b \"c\" \\ \n\u{1b}";
        document.set(&["postgres", "databases", odd], odd, vec![odd]);
        let table: toml::Table = document.render().parse().unwrap();
        assert_eq!(table["stop_timeout"].as_str(), Some("1s"));
        assert_eq!(table["postgres"]["max_clients"].as_integer(), Some(2));
        let database = &table["postgres"]["databases"][odd];
        assert_eq!(database[odd][0].as_str(), Some(odd));
    }

    #[test]
    fn a_value_that_looks_like_a_variable_stays_what_it_is() {
        let mut document = Document::default();
        document.set(&["a"], "b", "x${HOME}");
        assert!(document.render().contains("x$${HOME}"));
    }

    #[test]
    fn the_place_of_a_value_is_found_also_by_its_table() {
        let place = |line| Place { file: std::path::Path::new("p.ini").into(), line };
        let mut document = Document::default();
        document.set(&["postgres", "databases", "a"], "pool_size", 1).from(Some(&place(3)));
        document.set(&["postgres", "databases", "b"], "pool_size", 1).from(Some(&place(4)));
        let found = |path| document.place(path).map(|place| place.line);
        assert_eq!(found("postgres.databases.b.pool_size"), Some(4));
        assert_eq!(found("postgres.databases.b.server"), Some(4));
        assert_eq!(found("http.listen"), None);
    }
}
