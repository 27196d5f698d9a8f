//! The system's log: datagrams to `/dev/log`, as `syslog(3)` sends them (RFC 3164).

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process;

use forebay_seam::time;
use jiff::{Timestamp, tz::TimeZone};
use tracing::Level;

use crate::config::{SyslogFacility, SyslogSettings};

const SOCKET: &str = "/dev/log";

/// A connection to the system's log.
pub(super) struct Syslog {
    socket: UnixDatagram,
    path: PathBuf,
    facility: u8,
    ident: String,
}

impl Syslog {
    /// # Errors
    /// When the system gives no socket.
    pub(super) fn open(settings: &SyslogSettings) -> io::Result<Self> {
        Self::at(Path::new(SOCKET), settings)
    }

    fn at(path: &Path, settings: &SyslogSettings) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        // A log that does not keep up loses lines.
        socket.set_nonblocking(true)?;
        let facility = code(settings.facility);
        let path = path.to_owned();
        Ok(Self { socket, path, facility, ident: settings.ident.clone() })
    }

    /// Sends `line`, of which the end is cut off.
    pub(super) fn send(&self, level: Level, line: &[u8]) {
        let message = self.message(level, line.trim_ascii_end());
        drop(self.socket.send_to(&message, &self.path));
    }

    fn message(&self, level: Level, line: &[u8]) -> Vec<u8> {
        let priority = self.facility * 8 + severity(level);
        let zone = TimeZone::system();
        let now = Timestamp::try_from(time::wall_now()).unwrap_or_default().to_zoned(zone);
        let at = now.strftime("%b %e %H:%M:%S");
        let mut message =
            format!("<{priority}>{at} {}[{}]: ", self.ident, process::id()).into_bytes();
        message.extend_from_slice(line);
        message
    }
}

fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

fn code(facility: SyslogFacility) -> u8 {
    match facility {
        SyslogFacility::User => 1,
        SyslogFacility::Daemon => 3,
        SyslogFacility::Auth => 4,
        SyslogFacility::Authpriv => 10,
        SyslogFacility::Local0 => 16,
        SyslogFacility::Local1 => 17,
        SyslogFacility::Local2 => 18,
        SyslogFacility::Local3 => 19,
        SyslogFacility::Local4 => 20,
        SyslogFacility::Local5 => 21,
        SyslogFacility::Local6 => 22,
        SyslogFacility::Local7 => 23,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_priority_its_time_and_who_said_it() {
        let settings = SyslogSettings { facility: SyslogFacility::Local0, ident: "pool".into() };
        let syslog = Syslog::open(&settings).unwrap();
        let message = String::from_utf8(syslog.message(Level::WARN, b"hello")).unwrap();
        assert!(message.starts_with("<132>"), "{message}");
        assert!(message.ends_with(&format!(" pool[{}]: hello", process::id())), "{message}");
    }

    #[test]
    fn lines_arrive_where_the_system_takes_them_and_nobody_there_is_no_trouble() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let settings = SyslogSettings { facility: SyslogFacility::Daemon, ident: "pool".into() };
        let syslog = Syslog::at(&path, &settings).unwrap();
        syslog.send(Level::INFO, b"nobody hears this\n");
        let system = UnixDatagram::bind(&path).unwrap();
        syslog.send(Level::ERROR, b"it burns\n");
        let mut heard = [0; 200];
        let length = system.recv(&mut heard).unwrap();
        let heard = std::str::from_utf8(&heard[..length]).unwrap();
        // daemon.err, and no end of line.
        assert!(heard.starts_with("<27>") && heard.ends_with("]: it burns"), "{heard}");
    }
}
