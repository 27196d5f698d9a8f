//! How soon a TCP peer that is gone without a word is noticed: keepalive where nothing is under
//! way, and a limit to how long what was sent may stay unacknowledged.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// How a TCP connection is watched over by the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// Probes of a silent connection; `None`: it may be silent for ever.
    pub keepalive: Option<Keepalive>,
    /// How long what was sent may stay unacknowledged (`TCP_USER_TIMEOUT`); also how long the
    /// other side may take nothing. `None`: about a quarter of an hour. Linux only.
    pub user_timeout: Option<Duration>,
}

/// Probes of a silent connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// How long it is silent before it is asked.
    pub idle: Duration,
    /// Pause between questions.
    pub interval: Duration,
    /// Questions without an answer after which it is dead.
    pub retries: u32,
}

impl Default for Tuning {
    /// A vanished peer is noticed within 30 s of silence.
    fn default() -> Self {
        let (idle, interval) = (Duration::from_secs(15), Duration::from_secs(5));
        Self { keepalive: Some(Keepalive { idle, interval, retries: 3 }), user_timeout: None }
    }
}

impl Tuning {
    pub(super) fn apply(&self, socket: &SockRef<'_>) -> io::Result<()> {
        match self.keepalive {
            None => socket.set_keepalive(false)?,
            Some(Keepalive { idle, interval, retries }) => {
                let probes = TcpKeepalive::new().with_time(idle).with_interval(interval);
                socket.set_tcp_keepalive(&probes.with_retries(retries))?;
            }
        }
        set_user_timeout(socket, self.user_timeout)
    }
}

#[cfg(target_os = "linux")]
pub(super) fn set_user_timeout(socket: &SockRef<'_>, limit: Option<Duration>) -> io::Result<()> {
    socket.set_tcp_user_timeout(limit)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn set_user_timeout(_: &SockRef<'_>, _: Option<Duration>) -> io::Result<()> {
    Ok(())
}
