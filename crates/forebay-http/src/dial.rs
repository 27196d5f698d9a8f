//! From a name to a connection: addresses, socket, TLS, HTTP.
//!
//! Knows no pool. Several addresses are tried, each a moment after the one before it or as
//! soon as that has failed; the first to answer is taken (RFC 8305, light). Always true: what
//! was opened on the way is closed when the attempt is dropped.

mod heard;

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use forebay_seam::net::{self, TcpStream};
use forebay_seam::sync::Mutex;
use forebay_seam::task::Spawner;
use forebay_seam::time;
use hyper::body::Body;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::HandshakeKind;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;

use crate::addresses::{Addresses, NoAddress};
use crate::berths::Socket;
use crate::connection::{Connection, Protocol};
use crate::frames::Followed;
use crate::link::{Birth, Link};
use crate::piping::Hands;
use crate::site::Site;
use crate::target::{Scheme, Target};
use crate::tls;
use heard::Heard;

/// Bytes of an answer's head, and of what is read ahead of its reader.
const BUFFER: usize = 64 * 1024;
/// Bytes of an answer's head on HTTP/2, as they count there (RFC 9113, 6.5.2).
const HEAD: u32 = 64 * 1024;
/// Read ahead of a stream's reader, and of all readers of a connection (RFC 9113, 6.9).
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// Written ahead of a stream.
const SEND_BUFFER: usize = 256 * 1024;
/// The next address is tried when the one before has not answered for so long (RFC 8305, 5:
/// the recommended delay).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);
/// A connection of HTTP/2 that does not answer a ping for so long is dead.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a service could not be reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("the name `{host}` leads nowhere: {source}")]
    Resolve { host: String, source: NoAddress },
    #[error("`{host}:{port}` does not take the connection: {source}")]
    Connect { host: String, port: u16, source: io::Error },
    #[error("TLS with `{host}` failed: {}", tls::reason(source))]
    Tls { host: String, source: io::Error },
    #[error("`{host}` speaks no HTTP that we know: {source}")]
    Http { host: String, source: hyper::Error },
    #[error("`{host}` does not speak HTTP/2, which is all that is allowed here")]
    NoHttp2 { host: String },
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
    #[error("`{host}` has as many connections as it may have, and none to spare")]
    Full { host: String },
}

/// The socket, which can be looked at while hyper has it.
type Kept = Arc<Mutex<TcpStream>>;

struct Shared(Kept);

/// Bytes both ways, encrypted or not.
trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Bytes for S {}

/// A socket on which TLS is done.
pub(crate) struct Line {
    stream: Box<dyn Bytes>,
    socket: Option<Kept>,
    pub(crate) protocol: Protocol,
    address: Option<SocketAddr>,
}

impl Line {
    /// What a link is told of it.
    pub(crate) fn birth(&self) -> Birth {
        Birth {
            protocol: self.protocol,
            address: self.address,
            socket: self.socket.clone(),
            identity: None,
            certificate: None,
            expires: None,
        }
    }
}

/// Opens a line to `target`, whose addresses are those of `site`. `plain` is what is spoken
/// where nothing negotiates.
///
/// # Errors
/// Why there is none. The address that failed is told to `site`.
///
/// # Cancel safety
/// Dropped, whatever was opened so far is closed.
pub(crate) async fn dial(
    target: &Target,
    site: &Site,
    tls: &TlsConnector,
    plain: Protocol,
) -> Result<Line, OpenError> {
    let (host, port) = (&target.host, target.port);
    let addresses = site.addresses.to_try().await;
    let addresses =
        addresses.map_err(|source| OpenError::Resolve { host: host.clone(), source })?;
    let (stream, address) = race(&addresses, &site.addresses)
        .await
        .map_err(|source| OpenError::Connect { host: host.clone(), port, source })?;
    let socket = Arc::new(Mutex::new(stream));
    let stream = Shared(Arc::clone(&socket));
    let Scheme::Tls(name) = &target.scheme else {
        let stream = Box::new(stream);
        return Ok(Line { stream, socket: Some(socket), protocol: plain, address: Some(address) });
    };
    let stream = tls.connect(name.clone(), stream).await.map_err(|source| {
        site.addresses.failed(address);
        OpenError::Tls { host: host.clone(), source }
    })?;
    let session = stream.get_ref().1;
    let kind = match session.handshake_kind() {
        Some(HandshakeKind::Resumed) => &site.counts.tls_resumed,
        Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest) | None => {
            &site.counts.tls_full
        }
    };
    kind.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let protocol = match session.alpn_protocol() {
        Some(b"h2") => Protocol::Http2,
        Some(_) | None => Protocol::Http1,
    };
    let stream = Box::new(stream);
    Ok(Line { stream, socket: Some(socket), protocol, address: Some(address) })
}

type Try<'t> = (SocketAddr, Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send + 't>>);

/// The first of `addresses` to answer; what failed, or was too slow, is told.
async fn race(addresses: &[SocketAddr], told: &Addresses) -> io::Result<(TcpStream, SocketAddr)> {
    let connect = |address: SocketAddr| -> Try<'_> {
        (address, Box::pin(async move { net::connect(&[address]).await }))
    };
    let mut rest = addresses.iter().copied();
    let mut tries: Vec<Try<'_>> = rest.next().map(connect).into_iter().collect();
    let mut timer = pin!(time::sleep(NEXT_ADDRESS));
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    if tries.is_empty() {
        return Err(last);
    }
    poll_fn(|cx| {
        loop {
            let mut ended = None;
            for (place, (address, attempt)) in tries.iter_mut().enumerate() {
                if let Poll::Ready(outcome) = attempt.as_mut().poll(cx) {
                    ended = Some((place, *address, outcome));
                    break;
                }
            }
            match ended {
                Some((place, address, Ok(stream))) => {
                    // Those before it had their chance.
                    tries.iter().take(place).for_each(|(slow, _)| told.failed(*slow));
                    return Poll::Ready(Ok((stream, address)));
                }
                Some((place, address, Err(error))) => {
                    told.failed(address);
                    last = error;
                    drop(tries.remove(place));
                    match rest.next() {
                        Some(next) => tries.push(connect(next)),
                        None if tries.is_empty() => {
                            let none = io::Error::from(io::ErrorKind::NotFound);
                            return Poll::Ready(Err(std::mem::replace(&mut last, none)));
                        }
                        None => {}
                    }
                }
                None => {
                    if timer.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    let Some(next) = rest.next() else { return Poll::Pending };
                    tries.push(connect(next));
                    time::reset(timer.as_mut(), time::now() + NEXT_ADDRESS);
                }
            }
        }
    })
    .await
}

/// A connection of HTTP/1.1 on `line`. `socket` is kept until it is closed.
///
/// # Errors
/// When the other side does not speak it.
pub(crate) async fn speak_http1<B>(
    line: Line,
    link: Arc<Link>,
    socket: Option<Socket>,
    target: &Target,
    spawner: &Spawner,
) -> Result<Connection<B>, OpenError>
where
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + 'static,
{
    // Fields are as many as hyper allows by itself, 100: for a number that is set it clears room
    // in each head.
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(BUFFER)
        .handshake(TokioIo::new(Heard::new(line.stream, socket)))
        .await
        .map_err(|source| OpenError::Http { host: target.host.clone(), source })?;
    let (life, ends) = oneshot::channel::<()>();
    spawner.spawn(async move {
        tokio::select! {
            // The exchange hears of an error too, and says it where it matters.
            ended = connection.with_upgrades() => drop(ended),
            _ = ends => {}
        }
    });
    Ok(Connection::alone(sender, life, link, target.addressee()))
}

/// A connection of HTTP/2 on `line`, which is asked each `ping` whether it still answers.
/// `socket` is kept until it is closed.
///
/// # Errors
/// When the other side does not speak it.
pub(crate) async fn speak_http2<B>(
    line: Line,
    link: Arc<Link>,
    socket: Socket,
    ping: Duration,
    (target, spawner): (&Target, &Spawner),
) -> Result<http2::SendRequest<B>, OpenError>
where
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + Unpin + 'static,
{
    let hands = Hands::new(spawner.clone(), Arc::clone(&link.piping));
    let (sender, connection) = http2::Builder::new(hands)
        .timer(TokioTimer::new())
        .max_header_list_size(HEAD)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(ping)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(Followed::new(line.stream, link, socket)))
        .await
        .map_err(|source| OpenError::Http { host: target.host.clone(), source })?;
    spawner.spawn(async move { drop(connection.await) });
    Ok(sender)
}

/// A connection of HTTP/1.1 to `target`, whose addresses are those of `site`: it belongs to no
/// pool.
///
/// # Errors
/// Why there is none.
///
/// # Cancel safety
/// Dropped, whatever was opened so far is closed.
pub(crate) async fn open<B>(
    target: &Target,
    site: &Arc<Site>,
    tls: &TlsConnector,
    spawner: &Spawner,
) -> Result<Connection<B>, OpenError>
where
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + 'static,
{
    let line = dial(target, site, tls, Protocol::Http1).await?;
    let link = Link::new(Arc::clone(site), line.birth());
    speak_http1(line, link, None, target, spawner).await
}

impl AsyncRead for Shared {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.lock()).poll_read(cx, buf)
    }
}

impl AsyncWrite for Shared {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.lock()).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.lock()).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.lock()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.lock()).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
