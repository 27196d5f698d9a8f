//! A service that speaks HTTP/2 where it may, and says what became of its connections.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use forebay_seam::net::{self, TcpStream};
use forebay_seam::sync::Mutex;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempPath;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::origin::Reply;

type Handler =
    dyn Fn(Request<Incoming>) -> Pin<Box<dyn Future<Output = Reply> + Send>> + Send + Sync;

/// What it offers in the handshake, or speaks without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    Http1,
    /// HTTP/2, with so many streams on a connection.
    Http2(u32),
    /// HTTP/2 without TLS.
    Clear(u32),
}

#[derive(Default)]
struct Records {
    opened: AtomicUsize,
    open: AtomicUsize,
    calls: Mutex<Vec<usize>>,
}

pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    speaks: Speaks,
    ca: TempPath,
    records: Arc<Records>,
    leave: watch::Sender<()>,
}

impl Service {
    pub(crate) fn start<F, R>(speaks: Speaks, handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
        R: Future<Output = Reply> + Send + 'static,
    {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certified = rcgen::generate_simple_self_signed(names).unwrap();
        let ca = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        std::fs::write(&ca, certified.cert.pem()).unwrap();
        let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], PrivateKeyDer::from(key))
            .unwrap();
        config.alpn_protocols = match speaks {
            Speaks::Http1 => vec![b"http/1.1".to_vec()],
            Speaks::Http2(_) | Speaks::Clear(_) => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        };
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = net::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let records = Arc::new(Records::default());
        let handler: Arc<Handler> = Arc::new(move |call| Box::pin(handler(call)));
        let (leave, leaving) = watch::channel(());
        let kept = Arc::clone(&records);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = kept.opened.fetch_add(1, Ordering::SeqCst);
                let (acceptor, records) = (acceptor.clone(), Arc::clone(&kept));
                let (handler, mut leaving) = (Arc::clone(&handler), leaving.clone());
                leaving.mark_unchanged();
                tokio::spawn(async move {
                    records.open.fetch_add(1, Ordering::SeqCst);
                    let calls = Arc::clone(&records);
                    let on_call = move |call| {
                        calls.calls.lock().push(number);
                        handler(call)
                    };
                    converse(stream, speaks, acceptor, on_call, leaving).await;
                    records.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, speaks, ca, records, leave }
    }

    /// `url` and `ca_file` of a destination that is this service.
    pub(crate) fn settings(&self) -> String {
        match self.speaks {
            Speaks::Clear(_) => format!("url = \"http://{}\"\n", self.address),
            Speaks::Http1 | Speaks::Http2(_) => {
                let ca = self.ca.display();
                format!("url = \"https://{}\"\nca_file = \"{ca}\"\n", self.address)
            }
        }
    }

    /// Connections so far.
    pub(crate) fn opened(&self) -> usize {
        self.records.opened.load(Ordering::SeqCst)
    }

    /// Connections that are open now.
    pub(crate) fn open(&self) -> usize {
        self.records.open.load(Ordering::SeqCst)
    }

    /// The numbers of the connections on which calls came, in their order.
    pub(crate) fn calls(&self) -> Vec<usize> {
        self.records.calls.lock().clone()
    }

    /// Says on all connections of now that it is about to go; what runs ends.
    pub(crate) fn leave(&self) {
        self.leave.send(()).unwrap();
    }
}

async fn converse<R>(
    stream: TcpStream,
    speaks: Speaks,
    acceptor: TlsAcceptor,
    handler: impl Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    leaving: watch::Receiver<()>,
) where
    R: Future<Output = Reply> + Send + 'static,
{
    net::tune(&stream).unwrap();
    if let Speaks::Clear(streams) = speaks {
        return serve_http2(stream, streams, handler, leaving).await;
    }
    let Ok(stream) = acceptor.accept(stream).await else { return };
    match (stream.get_ref().1.alpn_protocol(), speaks) {
        (Some(b"h2"), Speaks::Http2(streams)) => {
            serve_http2(stream, streams, handler, leaving).await;
        }
        _ => {
            let service = service_fn(move |call| {
                let reply = handler(call);
                async move { Ok::<_, Infallible>(reply.await) }
            });
            let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            drop(serving.await);
        }
    }
}

async fn serve_http2<S, R>(
    stream: S,
    streams: u32,
    handler: impl Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    mut leaving: watch::Receiver<()>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    R: Future<Output = Reply> + Send + 'static,
{
    let service = service_fn(move |call| {
        let reply = handler(call);
        async move { Ok::<_, Infallible>(reply.await) }
    });
    let mut serving = pin!(
        http2::Builder::new(TokioExecutor::new())
            .max_concurrent_streams(streams)
            .serve_connection(TokioIo::new(stream), service)
    );
    tokio::select! {
        ended = serving.as_mut() => return drop(ended),
        _ = leaving.changed() => serving.as_mut().graceful_shutdown(),
    }
    drop(serving.await);
}
