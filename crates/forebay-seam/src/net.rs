//! Sockets: TCP and Unix sockets towards clients, servers and services, with the options that a
//! gateway wants (no delay, keepalive). A listener has them for all that it accepts: five system
//! calls fewer for each client.
#![allow(clippy::disallowed_methods, reason = "this module is the door")]

pub mod handover;
mod listener;
mod mode;
mod socket;
mod unix;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
pub use tokio::net::{TcpListener, TcpStream, UnixStream};

pub use listener::Listener;
pub use mode::SocketMode;
pub use socket::{Address, Peer, Socket};
pub use unix::{Leaver, Permissions, UnixListener};

const BACKLOG: i32 = 4096;

/// Listens on `address`, with a backlog that takes a storm of connects. Accepted connections
/// inherit the listener's options, those of [`tune`].
///
/// # Errors
/// What `bind` or `listen` say: the address is in use, or not ours.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM.cloexec(), None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    tune_socket(&SockRef::from(&socket))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Connects to the first address that answers.
///
/// # Errors
/// The last address's error.
pub async fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut last = nowhere();
    for address in addresses {
        match connect_tcp(*address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// As [`connect`], also to Unix sockets; says which address it was.
///
/// # Errors
/// The last address's error.
pub async fn reach(addresses: &[Address]) -> io::Result<(Socket, &Address)> {
    let mut last = nowhere();
    for address in addresses {
        let connected = match address {
            Address::Tcp(address) => connect_tcp(*address).await.map(Socket::Tcp),
            Address::Unix(path) => UnixStream::connect(path).await.map(Socket::from),
        };
        match connected {
            Ok(socket) => return Ok((socket, address)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn connect_tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    tune(&stream)?;
    Ok(stream)
}

fn nowhere() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the name has no address")
}

/// The addresses of `host` (a name, an IPv4 or an IPv6 address).
///
/// # Errors
/// When the name cannot be resolved.
pub async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host((host, port)).await?.collect())
}

/// No delay, and keepalive that notices a vanished peer within about 30 s.
///
/// # Errors
/// When the socket is already closed.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    tune_socket(&SockRef::from(stream))
}

fn tune_socket(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5))
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_listener_accepts_has_no_delay_and_keepalive() {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = [listener.local_addr().unwrap()];
        let (asked, accepted) = tokio::join!(connect(&address), listener.accept());
        let (asked, (accepted, _)) = (asked.unwrap(), accepted.unwrap());
        for stream in [&asked, &accepted] {
            let socket = SockRef::from(stream);
            assert!(socket.tcp_nodelay().unwrap());
            assert!(socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(15));
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(5));
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
        }
    }
}
