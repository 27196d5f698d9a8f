//! Which names of the system, or of certificates, may log in as which user: pg_ident.conf.
//!
//! Each line has the map's name, the system's name and the user. A system's name that begins
//! with `/` is a regular expression, and `\1` in the user is what its first group matched.

use std::fs;
use std::path::{Path, PathBuf};

use regex_lite::Regex;

use super::hba::FileError;
use super::lines::{self, Line};

/// The maps of one file.
#[derive(Default)]
pub(crate) struct Maps(Vec<Entry>);

struct Entry {
    map: String,
    system: System,
    user: User,
}

enum System {
    Name(String),
    Pattern(Regex),
}

enum User {
    /// With `\1` where the pattern's group belongs.
    Name(String),
    Pattern(Regex),
    All,
}

impl Maps {
    /// Reads `file`.
    ///
    /// # Errors
    /// A file that cannot be read, or the first line that is wrong.
    pub(crate) fn read(file: &Path) -> Result<Self, FileError> {
        let text = fs::read_to_string(file)
            .map_err(|source| FileError::Read { file: file.to_owned(), source })?;
        let file: PathBuf = file.to_owned();
        parse(&text).map_err(|(line, what)| FileError::Line { file, line, what })
    }

    /// May who is `system` there log in as `user`, by the map called `map`? Without a map the
    /// names must be the same.
    pub(crate) fn allows(&self, map: Option<&str>, system: &str, user: &str) -> bool {
        let Some(map) = map else { return system == user };
        self.0.iter().filter(|entry| entry.map == map).any(|entry| entry.allows(system, user))
    }

    /// Is there a map of this name?
    pub(crate) fn has(&self, map: &str) -> bool {
        self.0.iter().any(|entry| entry.map == map)
    }
}

impl Entry {
    fn allows(&self, system: &str, user: &str) -> bool {
        let group = match &self.system {
            System::Name(name) => (name == system).then_some(None),
            System::Pattern(pattern) => {
                pattern.captures(system).map(|found| found.get(1).map(|group| group.as_str()))
            }
        };
        let Some(group) = group else { return false };
        match &self.user {
            User::All => true,
            User::Pattern(pattern) => pattern.is_match(user),
            User::Name(name) => match group {
                Some(group) => name.replacen("\\1", group, 1) == user,
                None => name == user,
            },
        }
    }
}

fn parse(text: &str) -> Result<Maps, lines::Wrong> {
    let mut maps = Vec::new();
    for Line { number, fields } in lines::lines(text)? {
        let wrong = |what: String| (number, what);
        let words: Vec<_> = fields.into_iter().flatten().collect();
        let [map, system, user] = words.as_slice() else {
            return Err(wrong("write MAP SYSTEM-NAME USER".into()));
        };
        let pattern = |text: &str| {
            Regex::new(text).map_err(|error| wrong(format!("`/{text}` is no pattern: {error}")))
        };
        let system = match system.behind('/') {
            Some(text) => System::Pattern(pattern(text)?),
            None => System::Name(system.text.clone()),
        };
        let user = match user.behind('/') {
            Some(text) => User::Pattern(pattern(text)?),
            None if user.is("all") => User::All,
            None if user.behind('+').is_some() => {
                let what = "roles of the server are not known here: name the users, not `+role`";
                return Err(wrong(what.into()));
            }
            None => User::Name(user.text.clone()),
        };
        if let (System::Pattern(pattern), User::Name(name)) = (&system, &user)
            && name.contains("\\1")
            && pattern.captures_len() < 2
        {
            return Err(wrong(format!("`{name}` wants a group, and the pattern has none")));
        }
        maps.push(Entry { map: map.text.clone(), system, user });
    }
    Ok(Maps(maps))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_says_who_may_be_whom() {
        let maps = "mail /^(.*)@example\\.com$ \\1\nmail /^(.*)@example\\.com$ guest\n\
                    local root app\nlocal \"bob\" all\nlocal /^ci- /^test_[a-z]+$\n";
        let maps = parse(maps).unwrap_or_else(|_| panic!("it is no map"));
        let allows = |map, system, user| maps.allows(Some(map), system, user);
        assert!(allows("mail", "ann@example.com", "ann"));
        assert!(allows("mail", "ann@example.com", "guest"));
        assert!(!allows("mail", "ann@example.com", "bob"));
        assert!(!allows("mail", "ann@example.com.evil", "ann"));
        assert!(allows("local", "root", "app") && !allows("local", "root", "root"));
        assert!(allows("local", "bob", "anybody"));
        assert!(allows("local", "ci-7", "test_a") && !allows("local", "ci-7", "app"));
        assert!(!allows("none", "ann", "ann"));
        assert!(maps.allows(None, "ann", "ann") && !maps.allows(None, "ann", "bob"));
        assert!(maps.has("mail") && !maps.has("none"));
    }

    #[test]
    fn a_wrong_line_is_named() {
        let line = |text| parse(text).err().map(|(line, _)| line);
        assert_eq!(line("# x\n\na b"), Some(3));
        assert_eq!(line("a /( b"), Some(1));
        assert_eq!(line("a b +c"), Some(1));
        assert_eq!(line("a /x \\1"), Some(1));
        assert_eq!(line("a x c d"), Some(1));
    }
}
