//! Where log lines go: to stderr, into a file, to the system's log.
//!
//! Knows nothing of who waits: [`super::outlet`] calls from a thread of its own. The file is opened again when somebody asks, so that it can be moved away.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use forebay_seam::sync::Mutex;
use tracing::Level;

use super::syslog::Syslog;
use crate::config::LogSettings;

/// All places that lines go to. Cheap to clone.
#[derive(Clone)]
pub struct Outputs(Arc<Inner>);

struct Inner {
    stderr: bool,
    file: Option<LogFile>,
    syslog: Option<Syslog>,
}

struct LogFile {
    path: PathBuf,
    file: Mutex<File>,
}

impl Outputs {
    /// Those that `settings` name.
    ///
    /// # Errors
    /// When the file cannot be opened, or there is no system's log.
    pub(super) fn open(settings: &LogSettings) -> io::Result<Self> {
        let open_file = |path: &PathBuf| {
            let file = Mutex::new(open(path)?);
            io::Result::Ok(LogFile { path: path.clone(), file })
        };
        Ok(Self(Arc::new(Inner {
            stderr: settings.stderr,
            file: settings.file.as_ref().map(open_file).transpose()?,
            syslog: settings.syslog.as_ref().map(Syslog::open).transpose()?,
        })))
    }

    /// Writes one line, wherever it goes to.
    ///
    /// # Errors
    /// When it was lost on one of its ways.
    pub(super) fn write(&self, level: Level, line: &[u8]) -> io::Result<()> {
        let Inner { stderr, file, syslog } = &*self.0;
        let to_stderr = if *stderr { io::stderr().write_all(line) } else { Ok(()) };
        let to_file = file.as_ref().map_or(Ok(()), |log| log.file.lock().write_all(line));
        if let Some(syslog) = syslog {
            syslog.send(level, line);
        }
        to_stderr.and(to_file)
    }

    /// Opens the file anew: after a rotation the old one is another's.
    pub fn reopen(&self) {
        let Some(log) = &self.0.file else { return };
        match open(&log.path) {
            Ok(file) => *log.file.lock() = file,
            Err(error) => {
                tracing::warn!(%error, file = %log.path.display(), "the log cannot be opened anew");
            }
        }
    }
}

fn open(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_moved_away_is_opened_anew_when_asked() {
        let directory = tempfile::tempdir().unwrap();
        let (path, moved) = (directory.path().join("log"), directory.path().join("log.1"));
        let settings =
            LogSettings { stderr: false, file: Some(path.clone()), ..LogSettings::default() };
        let outputs = Outputs::open(&settings).unwrap();
        outputs.write(Level::INFO, b"one\n").unwrap();
        std::fs::rename(&path, &moved).unwrap();
        outputs.write(Level::INFO, b"two\n").unwrap();
        outputs.reopen();
        outputs.write(Level::INFO, b"three\n").unwrap();
        assert_eq!(std::fs::read_to_string(moved).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "three\n");
    }
}
