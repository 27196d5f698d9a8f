//! The workbench: a gateway with given settings, and agents that call it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_http::{Gateway, HttpSettings, HttpSnapshot};
use forebay_pool::overlap::Overlaps;
use forebay_seam::net::{self, Listener, TcpStream};
use forebay_seam::task::Stopper;
use forebay_seam::time;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

/// How long anything that should happen soon may take before the test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running gateway.
pub(crate) struct Forebay {
    pub(crate) gateway: Gateway,
    pub(crate) address: SocketAddr,
    pub(crate) overlaps: Arc<Overlaps>,
    pub(crate) stopper: Stopper,
}

/// Settings, as an operator writes them below `[http]`.
pub(crate) fn settings(text: &str) -> HttpSettings {
    toml::from_str(text).unwrap()
}

impl Forebay {
    /// Starts one with the settings in `text`.
    pub(crate) fn start(text: &str) -> Self {
        let overlaps = Arc::new(Overlaps::default());
        let gateway = Gateway::new(settings(text), Arc::clone(&overlaps), Arc::default()).unwrap();
        let listener = net::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let (stopper, stop) = Stopper::new();
        let serving = gateway.clone();
        tokio::spawn(async move { serving.serve(listener.into(), stop).await });
        Self { gateway, address, overlaps, stopper }
    }

    /// Lets it listen at `listener` besides.
    pub(crate) fn listen(&self, listener: Listener) -> Stopper {
        let (stopper, stop) = Stopper::new();
        let serving = self.gateway.clone();
        tokio::spawn(async move { serving.serve(listener, stop).await });
        stopper
    }

    /// An agent of HTTP/2, connected.
    pub(crate) async fn agent2(&self) -> Agent2 {
        Agent2::on(self.socket().await).await
    }

    /// An agent, connected.
    pub(crate) async fn agent(&self) -> Agent {
        Agent::on(self.socket().await).await
    }

    /// A bare socket to it.
    pub(crate) async fn socket(&self) -> TcpStream {
        net::connect(&[self.address]).await.unwrap()
    }

    /// Gets `path` on a connection of its own.
    pub(crate) async fn get(&self, path: &str) -> Got {
        self.call(Request::get(path)).await
    }

    /// Sends a call without a body on a connection of its own.
    pub(crate) async fn call(&self, request: http::request::Builder) -> Got {
        self.agent().await.call(request, "").await
    }

    pub(crate) fn snapshot(&self) -> HttpSnapshot {
        self.gateway.snapshot()
    }

    /// How often calls to the only destination were refused for `reason`.
    pub(crate) fn refused(&self, reason: &str) -> u64 {
        let snapshot = self.snapshot();
        let refusals = snapshot.destinations.iter().flat_map(|d| &d.refusals);
        refusals.chain(&snapshot.refusals).filter(|r| r.reason == reason).map(|r| r.count).sum()
    }
}

/// An agent with one connection. Gone when dropped.
pub(crate) struct Agent {
    sender: SendRequest<BoxBody<Bytes, std::convert::Infallible>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An agent of HTTP/2 with one connection. Gone when dropped.
pub(crate) struct Agent2 {
    pub(crate) sender: http2::SendRequest<Outgoing>,
    task: tokio::task::JoinHandle<()>,
}

/// A body of an agent's.
pub(crate) type Outgoing = BoxBody<Bytes, std::convert::Infallible>;

impl Drop for Agent2 {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Agent2 {
    /// One on `stream`.
    pub(crate) async fn on<S>(stream: S) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        let task = tokio::spawn(async move { drop(connection.await) });
        Self { sender, task }
    }

    /// Sends a call to `path` at `localhost`, and reads the head of the answer.
    pub(crate) async fn send(
        &mut self,
        request: http::request::Builder,
        body: Outgoing,
    ) -> Response<Incoming> {
        self.sender.ready().await.unwrap();
        let response = self.sender.send_request(request.body(body).unwrap());
        time::timeout(PATIENCE, response).await.unwrap().unwrap()
    }

    /// Sends a call with `body`, and reads the whole answer.
    pub(crate) async fn call(&mut self, request: http::request::Builder, body: &str) -> Got {
        let body = Full::new(Bytes::from(body.to_owned())).boxed();
        Got::read(self.send(request, body).await).await
    }
}

impl Agent {
    /// One on `stream`.
    pub(crate) async fn on<S>(stream: S) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let task = tokio::spawn(async move { drop(connection.with_upgrades().await) });
        Self { sender, task }
    }

    /// Sends a call with `body`, and reads the whole answer.
    pub(crate) async fn call(&mut self, request: http::request::Builder, body: &str) -> Got {
        Got::read(self.send(request, body).await).await
    }

    /// Sends a call with `body`; is the answer 200, and whole?
    pub(crate) async fn is_answered(
        &mut self,
        request: http::request::Builder,
        body: &str,
    ) -> bool {
        let body = Full::new(Bytes::from(body.to_owned())).boxed();
        let call = request.header("host", "localhost").body(body).unwrap();
        let Ok(answer) = self.sender.send_request(call).await else { return false };
        answer.status() == 200 && answer.into_body().collect().await.is_ok()
    }

    /// Sends a call with `body`, and reads the head of the answer.
    pub(crate) async fn send(
        &mut self,
        request: http::request::Builder,
        body: &str,
    ) -> Response<Incoming> {
        self.send_body(request, Full::new(Bytes::from(body.to_owned())).boxed()).await
    }

    /// Sends a call with a body that may come in pieces.
    pub(crate) async fn send_body(
        &mut self,
        request: http::request::Builder,
        body: BoxBody<Bytes, std::convert::Infallible>,
    ) -> Response<Incoming> {
        self.sender.ready().await.unwrap();
        let request = match request.headers_ref() {
            Some(headers) if headers.contains_key("host") => request,
            _ => request.header("host", "localhost"),
        };
        let response = self.sender.send_request(request.body(body).unwrap());
        time::timeout(PATIENCE, response).await.unwrap().unwrap()
    }
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    pub(crate) trailers: HeaderMap,
}

impl Got {
    /// Reads `response` to its end.
    pub(crate) async fn read(response: Response<Incoming>) -> Self {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap();
        let trailers = body.trailers().cloned().unwrap_or_default();
        let body = String::from_utf8(body.to_bytes().to_vec()).unwrap();
        Self { status: parts.status, headers: parts.headers, body, trailers }
    }

    /// The last part of a problem's type.
    pub(crate) fn problem(&self) -> String {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        body["type"].as_str().unwrap().trim_start_matches("urn:forebay:problem:").to_owned()
    }

    /// A header's value, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// Waits until `happened` says so.
pub(crate) async fn soon(what: &str, mut happened: impl FnMut() -> bool) {
    let begun = time::now();
    while !happened() {
        assert!(time::now() < begun + PATIENCE, "did not happen: {what}");
        time::sleep(Duration::from_millis(2)).await;
    }
}

/// The next frame of an answer's body, as text.
pub(crate) async fn frame(body: &mut Incoming) -> Option<String> {
    let frame = time::timeout(PATIENCE, body.frame()).await.unwrap()?;
    let bytes = frame.ok()?.into_data().ok()?;
    Some(String::from_utf8(bytes.to_vec()).unwrap())
}
