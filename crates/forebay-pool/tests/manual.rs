//! What the reference promises of every item: each async one says what a drop does, each
//! setting its default and its unit, and the manual's front page stays about a dozen names.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::fs;
use std::path::{Path, PathBuf};

/// The documentation above each line of code in `text`: (documentation, line).
fn documented(text: &str) -> Vec<(String, String)> {
    let (mut found, mut doc) = (Vec::new(), String::new());
    for line in text.lines().map(str::trim) {
        match line.strip_prefix("///") {
            Some(words) => doc.extend([words, "\n"]),
            None if line.starts_with("#[") => {}
            None => found.push((std::mem::take(&mut doc), line.to_owned())),
        }
    }
    found
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|end| end == "rs"))
        .collect()
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(name)
}

/// The fields of the struct called `name` in `file`, with their documentation.
fn settings(file: &str, name: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(source(file)).unwrap();
    let (_, body) = text.split_once(&format!("pub struct {name} {{")).unwrap();
    let (body, _) = body.split_once("\n}").unwrap();
    documented(body).into_iter().filter(|(_, line)| line.starts_with("pub ")).collect()
}

#[test]
fn every_async_item_says_what_happens_when_it_is_dropped() {
    let mut seen = 0;
    for path in sources(&source("")) {
        let text = fs::read_to_string(&path).unwrap();
        let mut about = String::new();
        for (doc, line) in documented(&text) {
            if line.contains("fn ") {
                about = doc;
            }
            // The methods of a trait return their futures, some lines below their name.
            if line.starts_with("pub async fn") || line.starts_with(") -> impl Future") {
                seen += 1;
                assert!(about.contains("# Cancel safety"), "{}: {line}", path.display());
            }
        }
    }
    assert!(seen >= 5, "checkout, drain and the three of Connector; seen: {seen}");
}

#[test]
fn every_setting_says_its_default_and_every_number_what_it_counts() {
    const UNITS: [&str; 6] =
        ["percent", "connections", "requests", "operations", "multiple", "weights"];
    let all = [settings("settings.rs", "PoolSettings"), settings("class.rs", "ClassSettings")];
    let all = all.concat();
    assert!(all.len() > 20);
    for (doc, field) in all {
        let is_given = ["name: Arc<str>", "budget: Budget", "policies: Policies"];
        let has_default = doc.contains("Default") || is_given.iter().any(|f| field.contains(f));
        assert!(has_default, "`{field}` does not say its default: {doc}");
        let is_number = ["u8", "u32"].iter().any(|number| field.contains(number));
        let counts = UNITS.iter().any(|unit| doc.to_lowercase().contains(unit));
        assert!(!is_number || counts, "`{field}` does not say what it counts: {doc}");
    }
}

#[test]
fn the_front_page_names_about_a_dozen_types() {
    let text = fs::read_to_string(source("lib.rs")).unwrap();
    let (_, table) = text.split_once("# The names to know").unwrap();
    let (table, _) = table.split_once("The others belong").unwrap();
    let names = table.lines().filter(|line| line.starts_with("//! | [`")).count();
    assert!((10..=13).contains(&names), "{names}");
}
