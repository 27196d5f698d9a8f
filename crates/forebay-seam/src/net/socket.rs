//! A connected socket, TCP or Unix, and who or what is at its other end.
//!
//! Always true: what is done for each read and write is one branch, nothing more.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready};
use tokio::net::{TcpStream, UnixStream};

use super::Tuning;

/// Where something listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(Arc<Path>),
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// Who connected to a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// From there.
    Tcp(SocketAddr),
    /// A process of this machine, as it was when it connected. The kernel vouches for it.
    Unix {
        /// Its effective user.
        uid: u32,
        /// Its effective group.
        gid: u32,
        /// Its process id, where the system tells.
        pid: Option<i32>,
    },
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix { uid, pid: Some(pid), .. } => write!(f, "process {pid} of user {uid}"),
            Self::Unix { uid, pid: None, .. } => write!(f, "a process of user {uid}"),
        }
    }
}

/// A connected socket.
#[derive(Debug)]
pub enum Socket {
    /// Over the network.
    Tcp(TcpStream),
    /// On this machine: no packets, no checksums. Boxed, so that ten thousand idle TCP sockets
    /// take no more room for it.
    Unix(Box<UnixStream>),
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        Self::Unix(Box::new(stream))
    }
}

impl Socket {
    /// Ready when something may have come.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_read_ready(cx),
            Self::Unix(unix) => unix.poll_read_ready(cx),
        }
    }

    /// Our end, as the other side sees it; nothing for a Unix socket, which the other side has
    /// reached by the path that we listen at.
    ///
    /// # Errors
    /// When the socket is already closed.
    pub fn local(&self) -> io::Result<Option<SocketAddr>> {
        match self {
            Self::Tcp(tcp) => tcp.local_addr().map(Some),
            Self::Unix(_) => Ok(None),
        }
    }

    /// Has the other side refused what was sent: is nobody there any more? Half-closed, it
    /// looks the same to a reader as closed; only something sent finds out.
    pub fn is_refused(&self) -> bool {
        let error = match self {
            Self::Tcp(tcp) => tcp.take_error(),
            Self::Unix(unix) => unix.take_error(),
        };
        !matches!(error, Ok(None))
    }

    /// Watched over like this from now on; a Unix socket needs no watching.
    ///
    /// # Errors
    /// When the socket is already closed.
    pub fn tune(&self, tuning: &Tuning) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tuning.apply(&SockRef::from(tcp)),
            Self::Unix(_) => Ok(()),
        }
    }

    /// Is it known, without asking the system, that the other side will send nothing more?
    /// What it has sent before may still be unread.
    pub fn has_ended(&self) -> bool {
        match self {
            Self::Tcp(tcp) => has_ended(tcp),
            Self::Unix(unix) => says_ended(unix.ready(Interest::READABLE)),
        }
    }

    /// Is it known, without asking the system, that nothing has come?
    pub fn is_silent(&self) -> bool {
        match self {
            Self::Tcp(tcp) => tcp.try_io(Interest::READABLE, || Ok(())).is_err(),
            Self::Unix(unix) => unix.try_io(Interest::READABLE, || Ok(())).is_err(),
        }
    }
}

/// As [`Socket::has_ended`].
pub fn has_ended(tcp: &TcpStream) -> bool {
    says_ended(tcp.ready(Interest::READABLE))
}

fn says_ended(ready: impl Future<Output = io::Result<Ready>>) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    matches!(pin!(ready).poll(&mut cx), Poll::Ready(Ok(ready)) if ready.is_read_closed())
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Unix(unix) => Pin::new(&mut **unix).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Unix(unix) => Pin::new(&mut **unix).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Self::Unix(unix) => Pin::new(&mut **unix).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The kernel has what was written.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Unix(unix) => Pin::new(&mut **unix).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;

    use super::super::{bind, connect};
    use super::*;
    use crate::time;

    #[tokio::test]
    async fn the_end_is_known_before_what_came_ahead_of_it_is_read() {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = [listener.local_addr().unwrap()];
        let (far, near) = tokio::join!(connect(&address), listener.accept());
        let (tcp_far, tcp) = (far.unwrap(), Socket::from(near.unwrap().0));
        let (unix_far, unix) = UnixStream::pair().unwrap();
        for (mut far, near) in
            [(Socket::from(tcp_far), tcp), (Socket::from(unix_far), Socket::from(unix))]
        {
            assert!(!near.has_ended());
            far.write_all(b"unread").await.unwrap();
            std::future::poll_fn(|cx| near.poll_read_ready(cx)).await.unwrap();
            assert!(!near.has_ended());
            far.shutdown().await.unwrap();
            while !near.has_ended() {
                time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
}
