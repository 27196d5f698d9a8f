//! A source file as the rules see it: without comments, without its tests, without what only
//! the model checker runs.
//!
//! Text inside string literals stays, because a message that names a protocol names it too.
//! Always true: every line keeps its number.

use std::fs;
use std::path::{Path, PathBuf};

/// One file of Rust.
pub(crate) struct Source {
    /// Its path from the workspace's root, with `/`.
    pub(crate) path: String,
    /// Its code; comments and tests are blank.
    pub(crate) code: String,
}

/// A place where a rule is broken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) path: String,
    pub(crate) line: usize,
    pub(crate) what: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

impl Source {
    /// The file `path` with `text` in it.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), code: without_model(&without_tests(&without_comments(text))) }
    }

    /// Each line with its number.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// A finding in `line`.
    pub(crate) fn finding(&self, line: usize, what: impl Into<String>) -> Finding {
        Finding { path: self.path.clone(), line, what: what.into() }
    }
}

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Every file of Rust under `folder` (from the root), without files that hold only tests.
pub(crate) fn read(folder: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    collect(&root().join(folder), &mut sources);
    assert!(!sources.is_empty(), "no sources in {folder}: was it moved?");
    sources
}

fn collect(folder: &Path, sources: &mut Vec<Source>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        if stem == "tests" {
            continue;
        }
        if path.is_dir() {
            collect(&path, sources);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let name = path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
            sources.push(Source::new(&name, &fs::read_to_string(&path).unwrap()));
        }
    }
}

/// Blanks comments; knows strings, raw strings, characters and lifetimes.
fn without_comments(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\n');
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    while i < chars.len() {
        let start = i;
        match (at(i), at(i + 1)) {
            ('/', '/') => {
                while i < chars.len() && at(i) != '\n' {
                    i += 1;
                }
                continue;
            }
            ('/', '*') => {
                let mut depth = 0;
                loop {
                    match (at(i), at(i + 1)) {
                        ('/', '*') => (depth, i) = (depth + 1, i + 2),
                        ('*', '/') => (depth, i) = (depth - 1, i + 2),
                        _ => i += 1,
                    }
                    if depth == 0 || i >= chars.len() {
                        break;
                    }
                }
                out.extend(chars.iter().take(i).skip(start).filter(|c| **c == '\n'));
                continue;
            }
            ('r', '"' | '#') if start == 0 || !is_name(at(start - 1)) => {
                let hashes = (i + 1..).take_while(|j| at(*j) == '#').count();
                if at(i + 1 + hashes) == '"' {
                    i += 2 + hashes;
                    while i < chars.len()
                        && !(at(i) == '"' && (1..=hashes).all(|j| at(i + j) == '#'))
                    {
                        i += 1;
                    }
                    i += 1 + hashes;
                } else {
                    i += 1;
                }
            }
            ('"', _) => {
                i += 1;
                while i < chars.len() && at(i) != '"' {
                    i += if at(i) == '\\' { 2 } else { 1 };
                }
                i += 1;
            }
            ('\'', '\\') => {
                i += 3;
                while i < chars.len() && at(i) != '\'' {
                    i += 1;
                }
                i += 1;
            }
            ('\'', _) if at(i + 2) == '\'' => i += 3,
            _ => i += 1,
        }
        out.extend(chars.iter().take(i).skip(start));
    }
    out
}

/// Tests stand last in a file (STYLE), so everything from the first test module on is one.
fn without_tests(code: &str) -> String {
    let lines: Vec<&str> = code.lines().collect();
    let is_start = |index: &usize| {
        let next = lines.get(index + 1).copied().unwrap_or_default();
        lines[*index].starts_with("#[cfg(test)]")
            && next.trim_start().starts_with("mod ")
            && next.contains('{')
    };
    let end = (0..lines.len()).find(is_start).unwrap_or(lines.len());
    let mut out = lines[..end].join("\n");
    out.push('\n');
    out
}

/// Blanks modules that exist only under the model checker: they are no part of the program.
fn without_model(code: &str) -> String {
    let mut out = String::with_capacity(code.len());
    let (mut announced, mut inside) = (false, false);
    for line in code.lines() {
        inside |= announced && line.starts_with("mod ") && line.ends_with('{');
        announced = line == "#[cfg(forebay_model)]";
        if !inside {
            out.push_str(line);
        }
        inside &= line != "}";
        out.push('\n');
    }
    out
}

/// Can `c` stand in a name?
pub(crate) fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Does `line` have `word` as a whole word? Where `word` begins or ends with a sign, that
/// side needs no boundary.
pub(crate) fn has_word(line: &str, word: &str) -> bool {
    let bounded = |inner: Option<char>, outer: Option<char>| {
        !(inner.is_some_and(is_name) && outer.is_some_and(is_name))
    };
    line.match_indices(word).any(|(start, _)| {
        bounded(word.chars().next(), line[..start].chars().next_back())
            && bounded(word.chars().next_back(), line[start + word.len()..].chars().next())
    })
}

#[test]
fn comments_and_tests_are_not_code_and_lines_keep_their_numbers() {
    let text = concat!(
        "//! http\nlet a = \"// http\"; /* http\n http */ let b = '\"'; // http\n",
        "let c = r#\"\" // \"#; let d: &'a str = \"\\\"//\";\n#[cfg(test)]\nmod tests {\nhttp\n}\n"
    );
    let source = Source::new("a.rs", text);
    let found: Vec<_> =
        source.lines().filter(|(_, l)| l.contains("http")).map(|(n, _)| n).collect();
    assert_eq!(found, [2]);
    assert!(source.code.contains("let c = r#\"\" // \"#; let d"), "{}", source.code);
    assert!(source.lines().any(|(n, l)| n == 3 && l.contains("let b")), "{}", source.code);
}

#[test]
fn what_only_the_model_checker_runs_is_not_code() {
    let text = "#[cfg(forebay_model)]\nmod model {\n    static A: Cell<u8>;\n}\nmod b {\n}\n";
    let source = Source::new("a.rs", text);
    assert!(!source.code.contains("static") && source.code.contains("mod b {"), "{}", source.code);
    assert!(source.lines().any(|(number, line)| number == 5 && line == "mod b {"));
}

#[test]
fn a_word_is_whole() {
    assert!(has_word("pub async fn", "async") && !has_word("asynchronous", "async"));
    assert!(has_word("x = now();", "now()") && !has_word("known()", "now()"));
    assert!(has_word("a.lock()", ".lock()"));
}
