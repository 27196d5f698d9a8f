//! A TLS service for tests, which does what its handler says and remembers what it saw.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use forebay_seam::net::{self, TcpStream};
use forebay_seam::sync::Mutex;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempPath;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;

pub(crate) type Reply = Response<BoxBody<Bytes, Infallible>>;
type Handler =
    dyn Fn(Request<Incoming>) -> Pin<Box<dyn Future<Output = Reply> + Send>> + Send + Sync;

/// The head of a call, remembered.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The number of the connection it came on, from 0.
    pub(crate) connection: usize,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
}

#[derive(Default)]
struct Records {
    opened: AtomicUsize,
    open: AtomicUsize,
    seen: Mutex<Vec<Seen>>,
}

/// The service.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    ca: TempPath,
    records: Arc<Records>,
    cut: watch::Sender<()>,
}

impl Origin {
    /// Starts one that answers as `handler` says.
    pub(crate) fn start<F, R>(handler: F) -> Self
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
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], PrivateKeyDer::from(key))
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = net::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let records = Arc::new(Records::default());
        let handler: Arc<Handler> = Arc::new(move |call| Box::pin(handler(call)));
        let kept = Arc::clone(&records);
        let (cut, mut cuts) = watch::channel(());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection = kept.opened.fetch_add(1, Ordering::SeqCst);
                let (acceptor, records) = (acceptor.clone(), Arc::clone(&kept));
                let served = serve(stream, connection, acceptor, Arc::clone(&handler), records);
                // Who comes later is not cut.
                cuts.mark_unchanged();
                let mut cuts = cuts.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        () = served => {}
                        _ = cuts.changed() => {}
                    }
                });
            }
        });
        Self { address, ca, records, cut }
    }

    /// One that answers every call with its own body.
    pub(crate) fn echo() -> Self {
        Self::start(|call| async move {
            let body = call.into_body().collect().await;
            Response::new(Full::new(body.map(|b| b.to_bytes()).unwrap_or_default()).boxed())
        })
    }

    /// `url = …` and `ca_file = …` of a destination that is this service.
    pub(crate) fn settings(&self) -> String {
        format!("url = \"https://{}\"\nca_file = \"{}\"\n", self.address, self.ca().display())
    }

    /// The file of its certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.ca.to_path_buf()
    }

    /// Closes every connection, whatever is on it.
    pub(crate) fn cut(&self) {
        self.cut.send(()).unwrap();
    }

    /// Connections so far.
    pub(crate) fn opened(&self) -> usize {
        self.records.opened.load(Ordering::SeqCst)
    }

    /// Connections with a finished handshake that are open now.
    pub(crate) fn open(&self) -> usize {
        self.records.open.load(Ordering::SeqCst)
    }

    /// The heads of all calls so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.records.seen.lock().clone()
    }
}

/// One more connection is open, until this is dropped.
struct Open(Arc<Records>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn serve(
    stream: TcpStream,
    connection: usize,
    acceptor: TlsAcceptor,
    handler: Arc<Handler>,
    records: Arc<Records>,
) {
    net::tune(&stream).unwrap();
    let Ok(stream) = acceptor.accept(stream).await else { return };
    records.open.fetch_add(1, Ordering::SeqCst);
    let _open = Open(Arc::clone(&records));
    let service = service_fn(move |request: Request<Incoming>| {
        let seen = Seen {
            connection,
            method: request.method().to_string(),
            target: request.uri().to_string(),
            headers: request.headers().clone(),
        };
        records.seen.lock().push(seen);
        let reply = handler(request);
        async move { Ok::<_, Infallible>(reply.await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
    drop(served);
}

/// An answer of `status` with `body`.
pub(crate) fn reply(status: u16, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()).boxed());
    *reply.status_mut() = StatusCode::from_u16(status).unwrap();
    reply
}

/// A body of unknown length: what is sent on the channel, a frame at a time.
pub(crate) fn frames(frames: mpsc::Receiver<Bytes>) -> BoxBody<Bytes, Infallible> {
    Frames(frames).boxed()
}

struct Frames(mpsc::Receiver<Bytes>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}
