//! `userlist.txt`, as PgBouncer reads it: `"user" "secret"` on each line, quotes doubled within,
//! the rest of the line ignored, `;` before a comment.
//!
//! Never shows a secret: errors name the file and the line.

use std::path::{Path, PathBuf};
use std::{fs, io};

use forebay_seam::secret::SecretString;
use zeroize::Zeroize;

/// The longest name that is read.
const LONGEST_NAME: usize = 128;
/// The longest secret that is read: PostgreSQL takes no longer password.
const LONGEST_SECRET: usize = 65_535;

/// Why a list of users cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UserlistError {
    #[error("cannot read the list of users `{}`: {source}", file.display())]
    Read { file: PathBuf, source: io::Error },
    #[error("{}, line {line}: {what}", file.display())]
    Line { file: PathBuf, line: usize, what: &'static str },
}

/// One line.
pub(crate) struct Entry {
    pub(crate) line: usize,
    pub(crate) user: String,
    /// Nothing where a user has an empty one: who may log in only where no password is asked
    /// for.
    pub(crate) secret: Option<SecretString>,
}

/// Reads `file`.
///
/// # Errors
/// A file that cannot be read, or the first line that is none.
pub(crate) fn read(file: &Path) -> Result<Vec<Entry>, UserlistError> {
    let mut text = fs::read_to_string(file)
        .map_err(|source| UserlistError::Read { file: file.to_owned(), source })?;
    let entries = parse(&text);
    text.zeroize();
    entries.map_err(|(line, what)| UserlistError::Line { file: file.to_owned(), line, what })
}

fn parse(text: &str) -> Result<Vec<Entry>, (usize, &'static str)> {
    let mut entries = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        let text = text.trim_start();
        if text.is_empty() || text.starts_with([';', '#']) {
            continue;
        }
        let wrong = |what| (line, what);
        let usage = "write \"user\" \"secret\", both in quotes, a quote within doubled";
        let rest = text.strip_prefix('"').ok_or(wrong(usage))?;
        let (user, rest) = quoted(rest).ok_or(wrong(usage))?;
        let rest = rest.trim_start().strip_prefix('"').ok_or(wrong(usage))?;
        let (mut secret, _) = quoted(rest).ok_or(wrong(usage))?;
        if user.is_empty() || user.len() > LONGEST_NAME {
            return Err(wrong("the user's name is empty, or longer than 128 bytes"));
        }
        if secret.len() > LONGEST_SECRET {
            return Err(wrong("the secret is longer than 65535 bytes"));
        }
        let kept = (!secret.is_empty()).then(|| SecretString::from(secret.as_str()));
        secret.zeroize();
        entries.push(Entry { line, user, secret: kept });
    }
    Ok(entries)
}

/// What stands before the closing quote, and what behind it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut rest = text;
    loop {
        let (before, after) = rest.split_once('"')?;
        out.push_str(before);
        match after.strip_prefix('"') {
            Some(more) => {
                out.push('"');
                rest = more;
            }
            None => return Some((out, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use forebay_seam::secret::ExposeSecret;
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Vec<(usize, String, String)> {
        let entries = parse(text).unwrap();
        let secret = |e: &Entry| e.secret.as_ref().map(|s| s.expose_secret().to_owned());
        let shown = |e: Entry| (e.line, e.user.clone(), secret(&e).unwrap_or_default());
        entries.into_iter().map(shown).collect()
    }

    #[test]
    fn a_list_is_read_as_pgbouncer_reads_it() {
        let list = "; a comment\n\n\"app\" \"pass \"\"word\"\"\"\n  \"o\"\"neil\"\t\"\" old stuff\r\n\
                    \"b\" \"md5deadbeef\" ; why\n";
        let entry = |line, user: &str, secret: &str| (line, user.to_owned(), secret.to_owned());
        let expected = [
            entry(3, "app", "pass \"word\""),
            entry(4, "o\"neil", ""),
            entry(5, "b", "md5deadbeef"),
        ];
        assert_eq!(read(list), expected);
    }

    #[test]
    fn a_line_that_is_none_is_named_without_its_secret() {
        for bad in ["app \"x\"", "\"app\"", "\"app\" x", "\"app\" \"x", "\"\" \"x\""] {
            let (line, what) = parse(&format!("\"a\" \"b\"\n{bad}")).err().unwrap();
            assert_eq!(line, 2, "{bad}: {what}");
        }
    }

    proptest! {
        #[test]
        fn what_is_quoted_comes_back(user in "[^\r\n]{1,20}", secret in "[^\r\n]{0,40}") {
            let quote = |text: &str| text.replace('"', "\"\"");
            let line = format!("\"{}\" \"{}\"", quote(&user), quote(&secret));
            prop_assert_eq!(read(&line), vec![(1, user, secret)]);
        }
    }
}
