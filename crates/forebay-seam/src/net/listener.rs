//! What accepts connections, over TCP or at a Unix socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};

use super::{Address, Peer, Socket, Tuning, UnixListener};

/// Accepts connections.
#[derive(Debug)]
pub enum Listener {
    /// Over the network.
    Tcp(TcpListener),
    /// From processes of this machine.
    Unix(UnixListener),
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

impl Listener {
    /// The next connection and who it is.
    ///
    /// # Errors
    /// Usually that no file descriptor is left.
    ///
    /// # Cancel safety
    /// Dropped, no connection is lost.
    pub async fn accept(&self) -> io::Result<(Socket, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, from) = listener.accept().await?;
                Ok((stream.into(), Peer::Tcp(from)))
            }
            Self::Unix(listener) => {
                let (stream, from) = listener.accept().await?;
                Ok((stream.into(), from))
            }
        }
    }

    /// Accepts who waits in line now, and closes: who had connected already is not refused, also
    /// where another process listens at the same port, to whom the system will not move them.
    ///
    /// # Errors
    /// What the system says of the socket; `WouldBlock` is the end of the line.
    pub fn last(self) -> io::Result<Vec<(Socket, Peer)>> {
        let mut waiting = Vec::new();
        if let Self::Tcp(listener) = self {
            let listener = listener.into_std()?;
            while let Ok((stream, from)) = listener.accept() {
                stream.set_nonblocking(true)?;
                waiting.push((TcpStream::from_std(stream)?.into(), Peer::Tcp(from)));
            }
        }
        Ok(waiting)
    }

    /// What it accepts from now on is watched over like this.
    ///
    /// # Errors
    /// When the socket is already closed.
    pub fn tune(&self, tuning: &Tuning) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => tuning.apply(&SockRef::from(listener)),
            Self::Unix(_) => Ok(()),
        }
    }

    /// Where it listens; the port that the system chose, where it was asked to.
    ///
    /// # Errors
    /// When the socket is already closed.
    pub fn address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            Self::Unix(listener) => Ok(Address::Unix(listener.path().into())),
        }
    }
}
