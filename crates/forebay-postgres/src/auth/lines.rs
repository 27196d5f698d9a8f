//! Lines of fields, as pg_hba.conf and pg_ident.conf have them: fields between blanks, lists
//! with commas, words in quotes, `#` before a comment, `\` at the end of a line that goes on.
//!
//! Knows no meaning: only that a quoted word is no keyword.

use std::path::Path;
use std::{fs, io};

/// A word, and whether it stood in quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) text: String,
    pub(crate) quoted: bool,
}

impl Word {
    /// Is it this keyword?
    pub(crate) fn is(&self, keyword: &str) -> bool {
        !self.quoted && self.text == keyword
    }

    /// What stands behind `prefix`, where that is meant and not quoted.
    pub(crate) fn behind(&self, prefix: char) -> Option<&str> {
        self.text.strip_prefix(prefix).filter(|_| !self.quoted)
    }
}

/// One line with something in it: its number (the first has 1), and its fields, each a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) number: usize,
    pub(crate) fields: Vec<Vec<Word>>,
}

/// What is wrong in which line.
pub(crate) type Wrong = (usize, String);

/// Lists that name files that name files: no more of them than these.
const DEEPEST: usize = 10;

/// Reads the lines of `text`.
///
/// # Errors
/// A quote that is not closed.
pub(crate) fn lines(text: &str) -> Result<Vec<Line>, Wrong> {
    let mut lines = Vec::new();
    let mut rest = (1..).zip(text.lines());
    while let Some((number, text)) = rest.next() {
        let mut whole = text.to_owned();
        while let Some(more) = whole.strip_suffix('\\') {
            let next = rest.next().map(|(_, text)| text).unwrap_or_default();
            whole = format!("{more}{next}");
        }
        let fields = fields(&whole).map_err(|what| (number, what.to_owned()))?;
        if !fields.is_empty() {
            lines.push(Line { number, fields });
        }
    }
    Ok(lines)
}

fn fields(text: &str) -> Result<Vec<Vec<Word>>, &'static str> {
    let mut fields: Vec<Vec<Word>> = Vec::new();
    let mut word: Option<Word> = None;
    let mut goes_on = false;
    let mut in_quotes = false;
    let mut chars = text.chars().peekable();
    let mut end = |word: &mut Option<Word>, goes_on: &mut bool| {
        let Some(word) = word.take() else { return };
        match fields.last_mut().filter(|_| *goes_on) {
            Some(list) => list.push(word),
            None => fields.push(vec![word]),
        }
        *goes_on = false;
    };
    while let Some(c) = chars.next() {
        let begun = || Word { text: String::new(), quoted: false };
        match c {
            '"' if in_quotes && chars.peek() == Some(&'"') => {
                word.get_or_insert_with(begun).text.extend(chars.next());
            }
            '"' => {
                in_quotes = !in_quotes;
                let word = word.get_or_insert_with(begun);
                // Quotes in the middle, as in map="x", leave the word what it is.
                word.quoted |= in_quotes && word.text.is_empty();
            }
            c if in_quotes => word.get_or_insert_with(begun).text.push(c),
            '#' => break,
            ',' => {
                end(&mut word, &mut goes_on);
                goes_on = true;
            }
            c if c.is_whitespace() => end(&mut word, &mut goes_on),
            c => word.get_or_insert_with(begun).text.push(c),
        }
    }
    if in_quotes {
        return Err("a quote is not closed");
    }
    end(&mut word, &mut goes_on);
    Ok(fields)
}

/// Puts in place of each `@file` the words of that file, which is beside `beside`.
///
/// # Errors
/// A file that cannot be read, or that names itself.
pub(crate) fn with_files(list: Vec<Word>, beside: &Path) -> Result<Vec<Word>, String> {
    let mut out = Vec::new();
    put_files(list, beside, DEEPEST, &mut out)?;
    Ok(out)
}

fn put_files(
    list: Vec<Word>,
    beside: &Path,
    depth: usize,
    out: &mut Vec<Word>,
) -> Result<(), String> {
    for word in list {
        let Some(name) = word.behind('@').filter(|name| !name.is_empty()) else {
            out.push(word);
            continue;
        };
        let file = beside.parent().unwrap_or(Path::new("")).join(name);
        let wrong = |what: &str| format!("cannot use the list `{}`: {what}", file.display());
        let Some(depth) = depth.checked_sub(1) else {
            return Err(wrong("lists name each other without end"));
        };
        let text = fs::read_to_string(&file).map_err(|error: io::Error| wrong(&error.to_string()));
        let lines = lines(&text?).map_err(|(line, what)| wrong(&format!("line {line}: {what}")))?;
        let words = lines.into_iter().flat_map(|line| line.fields).flatten().collect();
        put_files(words, &file, depth, out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> String {
        let show = |word: &Word| {
            if word.quoted { format!("'{}'", word.text) } else { word.text.clone() }
        };
        let list = |list: &Vec<Word>| list.iter().map(show).collect::<Vec<_>>().join(",");
        let line = |line: Line| {
            let fields: Vec<_> = line.fields.iter().map(list).collect();
            format!("{}: {}", line.number, fields.join(" "))
        };
        lines(text).unwrap().into_iter().map(line).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn fields_are_cut_as_postgres_cuts_them() {
        assert_eq!(
            shown("host a,b , \"c d\"\tall # x\n\n# no\nlocal x"),
            "1: host a,b,'c d' all; 4: local x"
        );
        assert_eq!(shown("a \\\n b\nc"), "1: a b; 3: c");
        assert_eq!(shown("\"a\"\"b\" map=\"x y\" \"\""), "1: 'a\"b' map=x y ''");
        assert_eq!(lines("ok\nho\"st"), Err((2, "a quote is not closed".into())));
    }

    #[test]
    fn a_list_may_be_in_a_file_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let hba = folder.path().join("hba.conf");
        fs::write(folder.path().join("names"), "a, b\n\"@c\" @more\n").unwrap();
        fs::write(folder.path().join("more"), "d # e\n").unwrap();
        fs::write(folder.path().join("loop"), "@loop").unwrap();
        let list = |name: &str| {
            let word = Word { text: format!("@{name}"), quoted: false };
            let words = with_files(vec![word], &hba)?;
            Ok::<_, String>(words.into_iter().map(|word| word.text).collect::<Vec<_>>())
        };
        assert_eq!(list("names").unwrap(), ["a", "b", "@c", "d"]);
        assert!(list("loop").unwrap_err().contains("without end"));
        assert!(list("missing").unwrap_err().contains("missing"));
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in "[a-z\",\\\\#@ \n]{0,60}") {
            let _ = lines(&text).is_ok();
        }
    }
}
