//! Sockets that a service manager has opened for us and passes on (systemd.socket(5),
//! sd_listen_fds(3)): they are there before we are, so a restart refuses nobody.
//!
//! Always true: what is passed to another process is left alone, and the file of a Unix socket
//! stays, since it is the manager's.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use forebay_seam::net::{Listener, UnixListener};
use listenfd::ListenFd;

use super::inherited_tcp;

/// Those that nobody has taken yet.
#[derive(Debug, Default)]
pub(super) struct Given(Vec<Socket>);

#[derive(Debug)]
enum Socket {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

impl Socket {
    /// The address at which it listens, as settings write it.
    fn address(&self) -> Option<String> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok().map(|address| address.to_string()),
            Self::Unix(listener) => {
                let address = listener.local_addr().ok()?;
                address.as_pathname().map(|path| path.display().to_string())
            }
        }
    }
}

impl Given {
    /// What the environment says is for this process. Once: a socket has one owner.
    pub(super) fn take() -> Self {
        let mut passed = ListenFd::from_env();
        let sockets = (0..passed.len()).filter_map(|number| {
            if let Ok(tcp) = passed.take_tcp_listener(number) {
                return tcp.map(Socket::Tcp);
            }
            match passed.take_unix_listener(number) {
                Ok(unix) => unix.map(Socket::Unix),
                Err(error) => {
                    tracing::warn!(%error, "a socket of the service manager is not used");
                    None
                }
            }
        });
        Self(sockets.collect())
    }

    /// The one that listens at `address`.
    pub(super) fn at(&mut self, address: &str) -> Option<OwnedFd> {
        let place =
            self.0.iter().position(|socket| socket.address().as_deref() == Some(address))?;
        Some(match self.0.swap_remove(place) {
            Socket::Tcp(listener) => listener.into(),
            Socket::Unix(listener) => listener.into(),
        })
    }

    /// All that are left. Inside a runtime.
    ///
    /// # Errors
    /// When the runtime does not take one.
    pub(super) fn rest(&mut self) -> io::Result<Vec<Listener>> {
        let rest = self.0.drain(..).map(|socket| match socket {
            Socket::Tcp(listener) => inherited_tcp(listener.into()).map(Listener::from),
            Socket::Unix(listener) => {
                let address = listener.local_addr()?;
                let path = address.as_pathname().map_or_else(PathBuf::new, PathBuf::from);
                let listener = UnixListener::inherited(listener, &path)?;
                listener.leaver().leave();
                Ok(listener.into())
            }
        });
        rest.collect()
    }
}
