//! What is wrong in a configuration, and how that is shown: file, line, column, key, the
//! line itself with a caret, and what would be right.
//!
//! Knows no TOML and no settings. Always true: what lies in a hidden span is never shown.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Path of the key, such as `postgres.servers.main.address`; empty where the text is no
    /// TOML and there are no keys.
    pub at: String,
    /// What is wrong and what would be right.
    pub reason: String,
    pub(super) span: Option<Range<usize>>,
}

impl Problem {
    /// `reason` is wrong with the key `at`.
    pub(super) fn new(at: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { at: at.into(), reason: reason.into(), span: None }
    }

    /// The bytes of the text that it is about.
    pub(super) fn spanning(mut self, span: Option<Range<usize>>) -> Self {
        self.span = span;
        self
    }
}

/// A configuration that cannot be used: everything that is wrong with it, in the order of
/// the text.
#[derive(Debug)]
pub struct Report {
    file: PathBuf,
    text: String,
    problems: Vec<Problem>,
}

impl Report {
    /// `problems` of `text`, which stands in `file`. What lies in the spans `hidden` is
    /// replaced by dots: it may be secret.
    pub(super) fn new(
        file: &Path,
        text: &str,
        mut problems: Vec<Problem>,
        hidden: &[Range<usize>],
    ) -> Self {
        problems.sort_by_key(|p| p.span.as_ref().map_or(usize::MAX, |span| span.start));
        Self { file: file.to_owned(), text: hide(text, hidden), problems }
    }

    /// Everything that is wrong.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

/// `text` with dots for every character in `hidden`: as many bytes, so that spans still hold.
pub(super) fn hide(text: &str, hidden: &[Range<usize>]) -> String {
    text.char_indices()
        .flat_map(|(at, c)| {
            let secret = c != '\n' && hidden.iter().any(|span| span.contains(&at));
            let (c, times) = if secret { ('.', c.len_utf8()) } else { (c, 1) };
            std::iter::repeat_n(c, times)
        })
        .collect()
}

/// Line and column, from 1 on, of the byte `at`; the line; and the column in bytes.
fn position(text: &str, at: usize) -> (usize, usize, &str, usize) {
    let at = (0..=at.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    let (before, after) = text.split_at(at);
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line_before = before.get(start..).unwrap_or_default();
    let end = at + after.find('\n').unwrap_or(after.len());
    let line = text.get(start..end).unwrap_or_default().trim_end_matches('\r');
    (before.matches('\n').count() + 1, line_before.chars().count() + 1, line, at - start)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            self.show(f, problem)?;
        }
        Ok(())
    }
}

impl Report {
    fn show(&self, f: &mut fmt::Formatter<'_>, problem: &Problem) -> fmt::Result {
        let file = self.file.display();
        let key = if problem.at.is_empty() { String::new() } else { format!("{}: ", problem.at) };
        let Some(span) = &problem.span else {
            return writeln!(f, "{file}: {key}{}", problem.reason);
        };
        let (number, column, line, offset) = position(&self.text, span.start);
        let width = line
            .get(offset..(offset + span.len()).min(line.len()))
            .map_or(1, |marked| marked.chars().count().max(1));
        // Tabs stay tabs, so that the caret stands below what it marks.
        let indent: String =
            line.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let gutter = " ".repeat(number.to_string().len());
        writeln!(f, "{file}:{number}:{column}: {key}{}", problem.reason)?;
        writeln!(f, "{gutter} |")?;
        writeln!(f, "{number} | {}", shown(line))?;
        writeln!(f, "{gutter} | {indent}{}", "^".repeat(width))
    }
}

/// `line` without control characters, which could drive the reader's terminal.
fn shown(line: &str) -> String {
    line.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(text: &str, span: Range<usize>, hidden: &[Range<usize>]) -> String {
        let problem = Problem::new("a.b", "no").spanning(Some(span));
        Report::new(Path::new("f.toml"), text, vec![problem], hidden).to_string()
    }

    #[test]
    fn a_problem_is_shown_with_its_line_and_a_caret() {
        assert_eq!(
            report("x = 1\n[a]\nb = \"é\"\n", 14..18, &[]),
            "f.toml:3:5: a.b: no\n  |\n3 | b = \"é\"\n  |     ^^^\n"
        );
    }

    #[test]
    fn the_end_of_the_text_and_beyond_it_can_be_marked() {
        assert!(report("x = \"", 5..5, &[]).contains("f.toml:1:6"));
        assert!(report("", 9..12, &[]).contains("f.toml:1:1"));
    }

    #[test]
    fn what_is_hidden_is_not_shown() {
        let shown = report("b = \"hünter2\"\n", 0..1, &[Range { start: 4, end: 14 }]);
        assert!(shown.contains("b = ..........\n"), "{shown}");
    }

    #[test]
    fn problems_come_in_the_order_of_the_text() {
        let at = |name: &str, span| Problem::new(name, "no").spanning(span);
        let problems = vec![at("last", None), at("b", Some(6..7)), at("a", Some(0..1))];
        let report = Report::new(Path::new("f"), "a = 1\nb = 2", problems, &[]);
        let order: Vec<_> = report.problems().iter().map(|p| p.at.as_str()).collect();
        assert_eq!(order, ["a", "b", "last"]);
    }
}
