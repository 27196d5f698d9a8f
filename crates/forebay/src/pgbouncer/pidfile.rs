//! The file that says which process runs: there while it does, and only one at a time.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PidfileError {
    /// Another process runs.
    #[error("pidfile `{}` exists, another instance running? Stop it, or remove the file", .0.display())]
    Taken(PathBuf),
    /// The file cannot be read or written.
    #[error("pidfile `{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

/// The file of this process. Removed when this is dropped, unless it is another's by then.
#[derive(Debug)]
pub(super) struct Pidfile {
    path: PathBuf,
}

impl Pidfile {
    /// Writes the file. One that a dead process left is replaced.
    ///
    /// # Errors
    /// When another process runs, or the file cannot be written.
    pub(super) fn write(path: &Path) -> Result<Self, PidfileError> {
        check(path)?;
        let failed = failed(path);
        let mut file =
            OpenOptions::new().write(true).create_new(true).open(path).map_err(failed)?;
        let written = Self { path: path.to_owned() };
        writeln!(file, "{}", process::id()).map_err(failed)?;
        Ok(written)
    }

    /// Writes the file in place of the one of the process that this one takes over from.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn replace(path: &Path) -> Result<Self, PidfileError> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        fs::write(&beside, format!("{}\n", process::id())).map_err(failed(path))?;
        fs::rename(&beside, path).map_err(failed(path))?;
        Ok(Self { path: path.to_owned() })
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> PidfileError + Copy {
    |source| PidfileError::Io { path: path.to_owned(), source }
}

/// Looks whether the file is free; removes one that a dead process left.
///
/// # Errors
/// When another process runs, or the file cannot be read or removed.
pub(super) fn check(path: &Path) -> Result<(), PidfileError> {
    let failed = failed(path);
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let pid = text.trim().parse().ok().filter(|pid| *pid > 0).map(Pid::from_raw);
    // A process of another user is alive too; only "no such process" is not.
    let dead = pid.is_some_and(|pid| kill(pid, None) == Err(Errno::ESRCH));
    if !dead {
        return Err(PidfileError::Taken(path.to_owned()));
    }
    fs::remove_file(path).map_err(failed)
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        let is_ours = |text: String| text.trim() == process::id().to_string();
        // Else another process has taken over, or somebody has done our work.
        if fs::read_to_string(&self.path).is_ok_and(is_ours) {
            drop(fs::remove_file(&self.path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_there_as_long_as_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        let file = Pidfile::write(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", process::id()));
        assert!(matches!(Pidfile::write(&path), Err(PidfileError::Taken(_))));
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn who_takes_over_has_the_file_and_who_was_there_before_leaves_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        let before = Pidfile::write(&path).unwrap();
        let now = Pidfile::replace(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", process::id()));
        fs::write(&path, "1\n").unwrap();
        drop((before, now));
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
    }

    #[test]
    fn what_a_dead_process_left_is_replaced_and_what_is_no_number_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        let mut child = process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        fs::write(&path, child.id().to_string()).unwrap();
        drop(Pidfile::write(&path).unwrap());
        fs::write(&path, "not a pid").unwrap();
        assert!(matches!(Pidfile::write(&path), Err(PidfileError::Taken(_))));
    }
}
