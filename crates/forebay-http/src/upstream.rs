//! Connections to one service: the HTTP side of the engine.
//!
//! A connection is hyper's sender and the task that reads and writes the socket. The task
//! ends, and the socket closes, with the sender's owner: a call that is over in the middle
//! takes its connection along, and the service sees the close at once.

use std::fmt;
use std::io;
use std::sync::Arc;

use forebay_pool::{ConnectFailure, Connector, FailureKind};
use forebay_seam::net;
use forebay_seam::task::Spawner;
use hyper::body::Body;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;

use crate::target::{Scheme, Target};
use crate::tls;
use crate::upload::Upload;

/// Bytes of an answer's head, and of what is read ahead of its reader.
const BUFFER: usize = 64 * 1024;
/// Fields of an answer's head.
const FIELDS: usize = 128;

/// On whose behalf a connection is open. It never changes hands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Identity {
    /// Every tenant: they have the same credential, or may share connections.
    Common,
    /// One tenant, with a credential of its own.
    Tenant(Arc<str>),
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Common => f.write_str("common"),
            Self::Tenant(tenant) => write!(f, "tenant {tenant}"),
        }
    }
}

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

/// A connection: closed when dropped.
pub(crate) struct Connection<B> {
    sender: SendRequest<B>,
    /// Dropped, it ends the connection's task.
    life: Option<oneshot::Sender<()>>,
}

impl<B> Connection<B> {
    /// hyper's handle.
    pub(crate) fn sender(&mut self) -> &mut SendRequest<B> {
        &mut self.sender
    }

    /// Closes the socket, whatever is on it.
    pub(crate) fn close(&mut self) {
        drop(self.life.take());
    }

    /// Whether a call can be sent now.
    pub(crate) fn is_ready(&self) -> bool {
        self.life.is_some() && self.sender.is_ready() && !self.sender.is_closed()
    }

    /// Whether it has come to its end.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
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
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + 'static,
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
        Scheme::Plain => speak(stream, host, spawner).await,
        Scheme::Tls(name) => {
            let stream = tls
                .connect(name.clone(), stream)
                .await
                .map_err(|source| OpenError::Tls { host: host.clone(), source })?;
            speak(stream, host, spawner).await
        }
    }
}

async fn speak<B, S>(stream: S, host: &str, spawner: &Spawner) -> Result<Connection<B>, OpenError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(BUFFER)
        .max_headers(FIELDS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|source| OpenError::Http { host: host.to_owned(), source })?;
    let (life, ends) = oneshot::channel::<()>();
    spawner.spawn(async move {
        tokio::select! {
            // The exchange hears of an error too, and says it where it matters.
            ended = connection.with_upgrades() => drop(ended),
            _ = ends => {}
        }
    });
    Ok(Connection { sender, life: Some(life) })
}

/// Opens connections to one destination.
pub(crate) struct Opener {
    target: Arc<Target>,
    tls: TlsConnector,
    spawner: Spawner,
}

impl Opener {
    /// Opens connections to `target`. Inside a runtime.
    pub(crate) fn new(target: Arc<Target>, tls: TlsConnector) -> Self {
        Self { target, tls, spawner: Spawner::current() }
    }
}

impl Connector for Opener {
    type Identity = Identity;
    type Connection = Connection<Upload>;

    async fn connect(&self, _: &Identity) -> Result<Connection<Upload>, ConnectFailure> {
        let mut connection = open(&self.target, &self.tls, &self.spawner)
            .await
            .map_err(|error| ConnectFailure::new(FailureKind::Unreachable, error))?;
        connection.sender.ready().await.map_err(|source| {
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
        connection.sender.ready().await.ok()?;
        Some(connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_on_a_connection_that_was_just_closed_comes_back_untouched() {
        let (ours, theirs) = tokio::io::duplex(1024);
        let mut connection =
            speak::<Upload, _>(ours, "api.test", &Spawner::current()).await.unwrap();
        connection.sender().ready().await.unwrap();
        drop(theirs);
        let sending = connection.sender().try_send_request(http::Request::new(Upload::empty()));
        assert!(sending.await.unwrap_err().take_message().is_some());
    }

    #[tokio::test]
    async fn a_closed_connection_closes_its_socket_and_takes_no_call() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let mut connection =
            speak::<Upload, _>(ours, "api.test", &Spawner::current()).await.unwrap();
        connection.sender().ready().await.unwrap();
        assert!(connection.is_ready());
        connection.close();
        assert!(!connection.is_ready());
        let mut heard = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut theirs, &mut heard).await.unwrap();
        assert!(heard.is_empty() && connection.is_closed());
    }
}
