//! Where PostgreSQL's server programs are on this machine.
//!
//! Asked in order: `pg_config --bindir`, the folders of PATH, then the versioned folders of
//! Debian, PGDG, Homebrew, Postgres.app and others, newest version first. A folder counts
//! when both `initdb` and `postgres` are in it and may be run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use nix::unistd::{AccessFlags, access};

/// Folders in which packagers keep one folder of programs per version: (where, how the name
/// begins, what follows it).
const VERSIONED: [(&str, &str, &str); 10] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/usr/lib64", "pgsql", "bin"),
    ("/opt/homebrew/opt", "postgresql", "bin"),
    ("/usr/local/opt", "postgresql", "bin"),
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
    ("/Library/PostgreSQL", "", "bin"),
    ("/opt/local/lib", "postgresql", "bin"),
    ("/usr/local", "pgsql", "bin"),
];

/// The folder with PostgreSQL's server programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    folder: PathBuf,
}

/// No PostgreSQL on this machine.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "no PostgreSQL server programs (initdb, postgres) found by pg_config, in PATH or in the \
     usual folders. Get them with one of
  apt-get install postgresql          (Debian, Ubuntu)
  dnf install postgresql-server       (Fedora, RHEL)
  brew install postgresql@17          (macOS)
or name a server that runs: --dsn postgres://user:password@host:5432/postgres"
)]
pub struct NotFound;

impl Binaries {
    /// The programs in `folder`, if it has them.
    pub fn in_folder(folder: &Path) -> Option<Self> {
        let runs = |name: &str| {
            let program = folder.join(name);
            program.is_file() && access(&program, AccessFlags::X_OK).is_ok()
        };
        (runs("initdb") && runs("postgres")).then(|| Self { folder: folder.to_owned() })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The path of the program called `name`.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// The programs of this machine.
///
/// # Errors
/// [`NotFound`], which says how to get them.
pub fn find() -> Result<Binaries, NotFound> {
    let path: Vec<PathBuf> =
        env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default();
    find_in(&path, Path::new("/"))
}

/// As [`find`], with the folders of `path`, and the usual folders below `root`.
fn find_in(path: &[PathBuf], root: &Path) -> Result<Binaries, NotFound> {
    bindir(path)
        .into_iter()
        .chain(path.iter().cloned())
        .chain(versioned(root))
        .find_map(|folder| Binaries::in_folder(&folder))
        .ok_or(NotFound)
}

/// What the first `pg_config` of `path` says.
fn bindir(path: &[PathBuf]) -> Option<PathBuf> {
    let program = path.iter().map(|folder| folder.join("pg_config")).find(|p| p.is_file())?;
    let output = Command::new(program).arg("--bindir").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(PathBuf::from(text.trim_end()))
}

/// The usual folders below `root` that exist, newest version first.
fn versioned(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (parent, prefix, suffix) in VERSIONED {
        let parent = root.join(parent.trim_start_matches('/'));
        let Ok(entries) = fs::read_dir(parent) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if let Some(version) = name.to_str().and_then(|name| name.strip_prefix(prefix)) {
                found.push((version_of(version), entry.path().join(suffix)));
            }
        }
    }
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, folder)| folder).collect()
}

/// The version in what follows a folder's prefix: `@17`, `-16`, `9.6`; none counts as 0.
fn version_of(text: &str) -> (u32, u32) {
    let mut numbers = text
        .split(|c: char| !c.is_ascii_digit())
        .filter(|part| !part.is_empty())
        .map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn program(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn install(folder: &Path) {
        program(&folder.join("initdb"), "");
        program(&folder.join("postgres"), "");
    }

    #[test]
    fn the_newest_of_the_versioned_folders_is_taken() {
        let root = tempfile::tempdir().unwrap();
        for version in ["9.6", "15", "17"] {
            install(&root.path().join("usr/lib/postgresql").join(version).join("bin"));
        }
        install(&root.path().join("opt/homebrew/opt/postgresql@16/bin"));
        let found = find_in(&[], root.path()).unwrap();
        assert_eq!(found.folder(), root.path().join("usr/lib/postgresql/17/bin"));
    }

    #[test]
    fn a_folder_of_path_comes_before_the_versioned_ones() {
        let root = tempfile::tempdir().unwrap();
        install(&root.path().join("usr/lib/postgresql/17/bin"));
        let own = root.path().join("own");
        install(&own);
        let found = find_in(std::slice::from_ref(&own), root.path()).unwrap();
        assert_eq!(found.folder(), own);
    }

    #[test]
    fn pg_config_comes_first() {
        let root = tempfile::tempdir().unwrap();
        let (bin, server) = (root.path().join("bin"), root.path().join("server"));
        install(&bin);
        install(&server);
        program(&bin.join("pg_config"), &format!("#!/bin/sh\necho {}\n", server.display()));
        assert_eq!(find_in(&[bin], root.path()).unwrap().folder(), server);
    }

    #[test]
    fn client_programs_alone_are_not_a_server() {
        let root = tempfile::tempdir().unwrap();
        program(&root.path().join("usr/lib/postgresql/17/bin/psql"), "");
        let error = find_in(&[], root.path()).unwrap_err().to_string();
        for help in ["apt-get install postgresql", "brew install", "dnf install", "--dsn"] {
            assert!(error.contains(help), "{error}");
        }
    }

    #[test]
    fn a_program_that_may_not_be_run_does_not_count() {
        let root = tempfile::tempdir().unwrap();
        let bin = root.path().join("usr/pgsql-16/bin");
        install(&bin);
        fs::set_permissions(bin.join("postgres"), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(find_in(&[], root.path()).is_err());
    }
}
