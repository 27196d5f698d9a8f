//! Connections to one service: the HTTP side of the engine.
//!
//! A connection is hyper's sender and the task that reads and writes the socket. The task
//! ends, and the socket closes, with the sender's owner: a call that is over in the middle
//! takes its connection along, and the service sees the close at once.

use std::future::Future;
use std::io;
use std::sync::Arc;

use forebay_pool::{ConnectFailure, Connector, FailureKind};
use forebay_seam::net;
use forebay_seam::task::Spawner;
use hyper::body::Body;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;

use crate::connection::{Connection, Protocol};
use crate::target::{Scheme, Target};
use crate::tls;
use crate::upload::Upload;
use crate::wallet::{Identity, Wallet};
use crate::wardrobe::Wardrobe;

/// Bytes of an answer's head, and of what is read ahead of its reader.
const BUFFER: usize = 64 * 1024;
/// Bytes of an answer's head on HTTP/2, as they count there (RFC 9113, 6.5.2).
const HEAD: u32 = 64 * 1024;
/// Fields of an answer's head.
const FIELDS: usize = 128;

/// Why a service could not be reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("the name `{host}` cannot be resolved: {source}")]
    Resolve { host: String, source: io::Error },
    #[error("`{host}:{port}` does not take the connection: {source}")]
    Connect { host: String, port: u16, source: io::Error },
    #[error("TLS with `{host}` failed: {}", tls::reason(source))]
    Tls { host: String, source: io::Error },
    #[error("`{host}` speaks no HTTP/1.1: {source}")]
    Http { host: String, source: hyper::Error },
}

/// Opens a connection to `target`: name, socket, TLS, HTTP.
///
/// # Cancel safety
/// Dropped, whatever was opened so far is closed.
pub(crate) async fn open<B>(
    target: &Target,
    tls: &TlsConnector,
    spawner: &Spawner,
) -> Result<Connection<B>, OpenError>
where
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + Unpin + 'static,
{
    let (host, port) = (&target.host, target.port);
    let addresses = net::resolve(host, port)
        .await
        .map_err(|source| OpenError::Resolve { host: host.clone(), source })?;
    let stream = net::connect(&addresses).await.map_err(|source| OpenError::Connect {
        host: host.clone(),
        port,
        source,
    })?;
    match &target.scheme {
        Scheme::Plain => speak(stream, Protocol::Http1, target, spawner).await,
        Scheme::Tls(name) => {
            let stream = tls
                .connect(name.clone(), stream)
                .await
                .map_err(|source| OpenError::Tls { host: host.clone(), source })?;
            let protocol = match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => Protocol::Http2,
                Some(_) | None => Protocol::Http1,
            };
            speak(stream, protocol, target, spawner).await
        }
    }
}

async fn speak<B, S>(
    stream: S,
    protocol: Protocol,
    target: &Target,
    spawner: &Spawner,
) -> Result<Connection<B>, OpenError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + Unpin + 'static,
{
    let no_http = |source| OpenError::Http { host: target.host.clone(), source };
    match protocol {
        Protocol::Http1 => {
            let (sender, connection) = http1::Builder::new()
                .max_buf_size(BUFFER)
                .max_headers(FIELDS)
                .handshake(TokioIo::new(stream))
                .await
                .map_err(no_http)?;
            let (life, ends) = oneshot::channel::<()>();
            spawner.spawn(async move {
                tokio::select! {
                    // The exchange hears of an error too, and says it where it matters.
                    ended = connection.with_upgrades() => drop(ended),
                    _ = ends => {}
                }
            });
            Ok(Connection::alone(sender, life, target.addressee()))
        }
        Protocol::Http2 => {
            let (sender, connection) = http2::Builder::new(Hands(spawner.clone()))
                .max_header_list_size(HEAD)
                .handshake(TokioIo::new(stream))
                .await
                .map_err(no_http)?;
            spawner.spawn(async move { drop(connection.await) });
            Ok(Connection::stream(sender, target.addressee()))
        }
    }
}

/// Runs what an HTTP/2 connection does besides.
#[derive(Clone)]
struct Hands(Spawner);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Hands {
    fn execute(&self, work: F) {
        self.0.spawn(work);
    }
}

/// Opens connections to one destination.
pub(crate) struct Opener {
    target: Arc<Target>,
    wallet: Arc<Wallet>,
    wardrobe: Wardrobe,
    spawner: Spawner,
}

impl Opener {
    /// Opens connections to `target`, with the certificates in `wallet`. Inside a runtime.
    pub(crate) fn new(target: Arc<Target>, tls: TlsConnector, wallet: Arc<Wallet>) -> Self {
        Self { target, wallet, wardrobe: Wardrobe::new(tls), spawner: Spawner::current() }
    }
}

impl Connector for Opener {
    type Identity = Identity;
    type Connection = Connection<Upload>;

    async fn connect(&self, identity: &Identity) -> Result<Connection<Upload>, ConnectFailure> {
        let certificate = self.wallet.certificate(identity);
        let tls = self.wardrobe.connector(certificate.as_deref());
        let mut connection = open(&self.target, &tls, &self.spawner)
            .await
            .map_err(|error| ConnectFailure::new(FailureKind::Unreachable, error))?;
        connection.ready().await.map_err(|source| {
            let host = self.target.host.clone();
            ConnectFailure::new(FailureKind::Unreachable, OpenError::Http { host, source })
        })?;
        Ok(connection)
    }

    fn is_open(&self, connection: &mut Connection<Upload>) -> bool {
        connection.is_ready()
    }

    /// HTTP/1.1 has no question that is not a call. The connection's task reads the socket
    /// all the time, so a close by the service is known without asking.
    async fn probe(&self, connection: Connection<Upload>) -> Option<Connection<Upload>> {
        connection.is_ready().then_some(connection)
    }

    /// Waits until the last exchange is over on the wire. A connection on which an answer or
    /// a body is unfinished never gets there: the engine closes it at its deadline.
    async fn reset(&self, mut connection: Connection<Upload>) -> Option<Connection<Upload>> {
        connection.ready().await.ok()?;
        Some(connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_on_a_connection_that_was_just_closed_comes_back_untouched() {
        let target = Target::parse("http://api.test").unwrap();
        let (ours, theirs) = tokio::io::duplex(1024);
        let mut connection =
            speak::<Upload, _>(ours, Protocol::Http1, &target, &Spawner::current()).await.unwrap();
        connection.ready().await.unwrap();
        drop(theirs);
        let sending = connection.send(http::Request::new(Upload::empty()));
        assert!(sending.await.unwrap_err().take_message().is_some());
    }

    #[tokio::test]
    async fn a_closed_connection_closes_its_socket_and_takes_no_call() {
        let target = Target::parse("http://api.test").unwrap();
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let mut connection =
            speak::<Upload, _>(ours, Protocol::Http1, &target, &Spawner::current()).await.unwrap();
        connection.ready().await.unwrap();
        assert!(connection.is_ready());
        assert_eq!(connection.abandon(), forebay_pool::Condition::Broken);
        assert!(!connection.is_ready());
        let mut heard = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut theirs, &mut heard).await.unwrap();
        assert!(heard.is_empty() && connection.is_closed());
    }
}
