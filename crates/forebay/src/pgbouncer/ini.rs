//! An ini file, read as PgBouncer reads it: sections, keys and `%include`, each with its
//! place.
//!
//! Knows no setting. The rules are PgBouncer's (libusual, `cfparser.c`), tried against its
//! binary: names are exact, a comment is a whole line, a value goes to the end of its line, an
//! included file goes on in the section it was included in and leaves its own last section
//! behind, and a syntax error ends the reading.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files that include each other, at the most; as in PgBouncer.
const MAX_DEPTH: usize = 10;

/// Where something stands: shown as `file:line`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, as it was named.
    pub file: Arc<Path>,
    /// The line, from 1 on; 0: it stands in none.
    pub line: usize,
}

impl Place {
    /// Not in a file.
    pub(super) fn elsewhere(name: &str) -> Self {
        Self { file: Path::new(name).into(), line: 0 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => self.file.display().fmt(f),
            line => write!(f, "{}:{line}", self.file.display()),
        }
    }
}

/// One thing that an ini file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// `[name]`.
    Section { name: String, place: Place },
    /// `key = value`.
    Value { key: String, value: String, place: Place },
}

/// Why a file cannot be read to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IniError {
    /// The file that was asked for.
    #[error("cannot read `{}`: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A file that another one includes.
    #[error(
        "{place}: cannot read the included file `{}`: {source}; a path that does not begin with \
         `/` begins at the working directory", file.display()
    )]
    Include {
        /// The `%include`.
        place: Place,
        /// The file.
        file: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Files include each other in a circle, or nearly.
    #[error("{place}: more than {MAX_DEPTH} files include each other")]
    TooDeep {
        /// The `%include` that was one too many.
        place: Place,
    },
    /// Neither a section nor a value nor a comment.
    #[error("{place}: syntax error: {expected}")]
    Syntax {
        /// The line.
        place: Place,
        /// What would have been right.
        expected: &'static str,
    },
}

/// Gives the text of a file.
pub(super) type Open<'o> = &'o dyn Fn(&Path) -> io::Result<String>;

/// Reads `file` and what it includes.
pub(super) fn read(file: &Path, open: Open<'_>) -> Result<Vec<Item>, IniError> {
    let text = open(file).map_err(|source| IniError::Read { file: file.to_owned(), source })?;
    let mut items = Vec::new();
    parse(file, &text, open, 0, &mut items)?;
    Ok(items)
}

fn parse(
    file: &Path,
    text: &str,
    open: Open<'_>,
    depth: usize,
    items: &mut Vec<Item>,
) -> Result<(), IniError> {
    let file: Arc<Path> = file.into();
    for (number, line) in text.lines().enumerate() {
        let place = Place { file: Arc::clone(&file), line: number + 1 };
        let mut rest = line.trim_matches(is_space);
        // What follows a section on its line is read like a line of its own.
        while !rest.is_empty() {
            rest = match statement(rest, &place)? {
                Statement::Comment => "",
                Statement::Include(path) => {
                    if depth >= MAX_DEPTH {
                        return Err(IniError::TooDeep { place });
                    }
                    let path = Path::new(path);
                    let text = open(path).map_err(|source| IniError::Include {
                        place: place.clone(),
                        file: path.to_owned(),
                        source,
                    })?;
                    parse(path, &text, open, depth + 1, items)?;
                    ""
                }
                Statement::Section { name, rest } => {
                    items.push(Item::Section { name: name.to_owned(), place: place.clone() });
                    rest.trim_start_matches(is_space)
                }
                Statement::Value { key, value } => {
                    let (value, place) = (value.to_owned(), place.clone());
                    items.push(Item::Value { key, value, place });
                    ""
                }
            };
        }
    }
    Ok(())
}

enum Statement<'t> {
    Comment,
    Include(&'t str),
    Section { name: &'t str, rest: &'t str },
    Value { key: String, value: &'t str },
}

fn statement<'t>(text: &'t str, place: &Place) -> Result<Statement<'t>, IniError> {
    let wrong = |expected| IniError::Syntax { place: place.clone(), expected };
    if text.starts_with(['#', ';']) {
        return Ok(Statement::Comment);
    }
    if let Some(path) = text.strip_prefix("%include") {
        return match path.strip_prefix(is_blank) {
            Some(path) => Ok(Statement::Include(path.trim_matches(is_space))),
            None => Err(wrong("expected `%include` and a file's name")),
        };
    }
    if let Some(section) = text.strip_prefix('[') {
        let (name, rest) = section.split_once(']').ok_or_else(|| wrong("expected a `]`"))?;
        return Ok(Statement::Section { name, rest });
    }
    let (key, rest) = key(text).ok_or_else(|| wrong("a quoted name has no closing `\"`"))?;
    let value = rest.trim_start_matches(is_blank).strip_prefix('=').ok_or_else(|| {
        wrong(
            "expected `name = value`; a comment begins its line with `;` or `#`, and a value \
             does not go on in the next line",
        )
    })?;
    Ok(Statement::Value { key, value: value.trim_start_matches(is_blank) })
}

/// A name and what follows it. Quoted names are PgBouncer's documentation's: its binary
/// refuses them, so nothing that it runs has them.
fn key(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|c: char| !is_name(c)).unwrap_or(text.len());
        let (key, rest) = text.split_at(end);
        return Some((key.to_owned(), rest));
    };
    let mut key = String::new();
    let mut rest = quoted;
    loop {
        let (part, after) = rest.split_once('"')?;
        key.push_str(part);
        let Some(more) = after.strip_prefix('"') else { return Some((key, after)) };
        key.push('"');
        rest = more;
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '*')
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The items of `main.ini`, one a line, where `files` are the others.
    fn said(text: &str, files: &[(&str, &str)]) -> Result<String, String> {
        let open = |path: &Path| match path.to_str() {
            Some("main.ini") => Ok(text.to_owned()),
            other => files
                .iter()
                .find(|(name, _)| Some(*name) == other)
                .map(|(_, text)| (*text).to_owned())
                .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound)),
        };
        let items = read(Path::new("main.ini"), &open).map_err(|error| error.to_string())?;
        Ok(items
            .iter()
            .map(|item| match item {
                Item::Section { name, place } => format!("{place} [{name}]\n"),
                Item::Value { key, value, place } => format!("{place} {key}={value}\n"),
            })
            .collect())
    }

    #[test]
    fn values_go_to_the_end_of_their_line_and_comments_are_whole_lines() {
        let text = "; one\n# two\n\n  [pgbouncer]  \r\nlisten_addr \t=  a, b ; c \r\nempty =\n";
        assert_eq!(
            said(text, &[]).unwrap(),
            "main.ini:4 [pgbouncer]\nmain.ini:5 listen_addr=a, b ; c\nmain.ini:6 empty=\n"
        );
    }

    #[test]
    fn what_follows_a_section_on_its_line_is_read() {
        assert_eq!(
            said("[databases] a=host=h\n[pgbouncer] ; note", &[]).unwrap(),
            "main.ini:1 [databases]\nmain.ini:1 a=host=h\nmain.ini:2 [pgbouncer]\n"
        );
    }

    #[test]
    fn an_included_file_goes_on_in_the_section_and_leaves_its_own_behind() {
        let other = ("sub/o.ini", "a = 1\n[users]\n");
        assert_eq!(
            said("[databases]\n%include sub/o.ini\nb = 2", &[other]).unwrap(),
            "main.ini:1 [databases]\nsub/o.ini:1 a=1\nsub/o.ini:2 [users]\nmain.ini:3 b=2\n"
        );
    }

    #[test]
    fn files_that_include_each_other_without_end_are_an_error() {
        let error = said("%include main.ini", &[]).unwrap_err();
        assert_eq!(error, "main.ini:1: more than 10 files include each other");
        let missing = said("\n%include no.ini", &[]).unwrap_err();
        assert!(missing.starts_with("main.ini:2: cannot read the included file `no.ini`"));
    }

    #[test]
    fn names_may_be_quoted() {
        assert_eq!(said("\"a \"\"b\" = 1", &[]).unwrap(), "main.ini:1 a \"b=1\n");
        assert!(said("\"a = 1", &[]).is_err());
    }

    #[test]
    fn what_is_no_line_of_an_ini_file_is_refused_with_its_place() {
        for text in ["\n[open", "\nword", "\n%include", "\n%INCLUDE x", "\na b = c"] {
            let error = said(text, &[]).unwrap_err();
            assert!(error.starts_with("main.ini:2: syntax error: "), "{text:?}: {error}");
        }
    }
}
