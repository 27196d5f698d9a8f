//! Sockets: TCP and Unix sockets towards clients, servers and services, with the options that a
//! gateway wants (no delay, keepalive). A listener has them for all that it accepts: five system
//! calls fewer for each client.
#![allow(clippy::disallowed_methods, reason = "this module is the door")]

pub mod handover;
mod lies;
mod listener;
mod mode;
mod socket;
mod tuning;
mod unix;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
pub use tokio::net::{TcpListener, TcpStream, UnixStream};

pub use lies::{Lies, look};
pub use listener::Listener;
pub use mode::SocketMode;
pub use socket::{Address, Peer, Socket, has_ended};
pub use tuning::{Keepalive, Tuning};
pub use unix::{Leaver, Permissions, UnixListener};

const BACKLOG: i32 = 4096;

/// Listens on `address`, with a backlog that takes a storm of connects. Accepted connections
/// inherit the listener's options, those of [`tune`].
///
/// # Errors
/// What `bind` or `listen` say: the address is in use, or not ours.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    listen(address, Port::Ours)
}

/// As [`bind`], at a port that other processes of this user may listen at besides: the system
/// shares connections out among all who do (`SO_REUSEPORT`, socket(7)).
///
/// # Errors
/// As [`bind`]; also when somebody listens there who does not share.
pub fn bind_shared(address: SocketAddr) -> io::Result<TcpListener> {
    listen(address, Port::Shared)
}

/// Whose a port is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Port {
    Ours,
    Shared,
}

fn listen(address: SocketAddr, port: Port) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM.cloexec(), None)?;
    socket.set_reuse_address(true)?;
    if port == Port::Shared {
        socket.set_reuse_port(true)?;
    }
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

/// How long what was sent over `stream` may stay unacknowledged from now on
/// ([`Tuning::user_timeout`]).
///
/// # Errors
/// When the socket is already closed.
pub fn set_user_timeout(stream: &TcpStream, limit: Option<Duration>) -> io::Result<()> {
    tuning::set_user_timeout(&SockRef::from(stream), limit)
}

/// No delay, and keepalive that notices a vanished peer within about 30 s ([`Tuning::default`]).
///
/// # Errors
/// When the socket is already closed.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    tune_socket(&SockRef::from(stream))
}

fn tune_socket(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    Tuning::default().apply(socket)
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

    #[tokio::test]
    async fn what_a_tuned_listener_accepts_is_watched_over_as_it_is() {
        let listener = Listener::from(bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap());
        let (idle, interval) = (Duration::from_secs(7), Duration::from_secs(2));
        let keepalive = Some(Keepalive { idle, interval, retries: 4 });
        let user_timeout = Some(Duration::from_secs(9));
        listener.tune(&Tuning { keepalive, user_timeout }).unwrap();
        let Address::Tcp(address) = listener.address().unwrap() else { panic!("it is TCP") };
        let accept = async || match listener.accept().await.unwrap() {
            (Socket::Tcp(accepted), _) => accepted,
            (Socket::Unix(_), _) => panic!("it is TCP"),
        };
        let (_asked, accepted) = tokio::join!(connect(std::slice::from_ref(&address)), accept());
        let socket = SockRef::from(&accepted);
        assert_eq!(socket.tcp_keepalive_time().unwrap(), idle);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), interval);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 4);
        if cfg!(target_os = "linux") {
            assert_eq!(socket.tcp_user_timeout().unwrap(), user_timeout);
        }
        listener.tune(&Tuning { keepalive: None, user_timeout: None }).unwrap();
        let (_asked, accepted) = tokio::join!(connect(std::slice::from_ref(&address)), accept());
        assert!(!SockRef::from(&accepted).keepalive().unwrap());
    }
}
