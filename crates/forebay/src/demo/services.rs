//! The world outside: TLS services with the cost of a distance, which count what they see.
//!
//! A socket that was accepted is left alone for [`DISTANCE`] before the TLS handshake
//! begins: that stands for the round trips of TCP and TLS to a service far away, and is the
//! same for whoever connects. All figures about connections, tokens and calls come from the
//! counters in here, none from the ones who call.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use forebay_seam::{net, time};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::authority::Authority;
use super::issuer::{Issuer, Tokens};
use super::model::Model;

/// What stands for the round trips of TCP and TLS.
pub(crate) const DISTANCE: Duration = Duration::from_millis(100);
/// How long a tool works on a call.
pub(crate) const WORK: Duration = Duration::from_millis(50);
/// The tool services, by name.
pub(crate) const SERVICES: [&str; 5] = ["search", "crm", "calendar", "tickets", "billing"];
/// Whose agents call them.
pub(crate) const TENANTS: [&str; 4] = ["acme", "globex", "initech", "umbrella"];
/// Says on whose behalf a call is meant to be; the credential must agree.
pub(crate) const TENANT_HEADER: &str = "x-demo-tenant";

/// What a service answers.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Counted by one service.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    connections: AtomicU64,
    handshakes: AtomicU64,
    calls: AtomicU64,
    refused: AtomicU64,
    wrong_tenant: AtomicU64,
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Sockets accepted.
    pub(crate) connections: u64,
    /// TLS handshakes that succeeded.
    pub(crate) handshakes: u64,
    /// Calls answered well.
    pub(crate) calls: u64,
    /// Calls refused for want of a valid credential.
    pub(crate) refused: u64,
    /// Calls with the credential of another tenant.
    pub(crate) wrong_tenant: u64,
}

impl Tally {
    /// One more call answered well.
    pub(crate) fn call(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// One more call refused.
    pub(crate) fn refusal(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    fn counted(&self) -> Counted {
        Counted {
            connections: self.connections.load(Ordering::Relaxed),
            handshakes: self.handshakes.load(Ordering::Relaxed),
            calls: self.calls.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            wrong_tenant: self.wrong_tenant.load(Ordering::Relaxed),
        }
    }
}

impl std::ops::Add for Counted {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            connections: self.connections + other.connections,
            handshakes: self.handshakes + other.handshakes,
            calls: self.calls + other.calls,
            refused: self.refused + other.refused,
            wrong_tenant: self.wrong_tenant + other.wrong_tenant,
        }
    }
}

/// What a service does with a request.
pub(crate) trait Answer: Send + Sync + 'static {
    /// The answer to `request`.
    fn answer(
        &self,
        request: Request<Incoming>,
        tally: &Tally,
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// A TLS service on loopback, until dropped.
pub(crate) struct Service {
    address: SocketAddr,
    tally: Arc<Tally>,
    /// Aborted with all connections when dropped.
    _tasks: JoinSet<()>,
}

impl Service {
    /// Listens, and answers as `answer` does.
    pub(crate) fn start(tls: TlsAcceptor, answer: impl Answer) -> io::Result<Self> {
        let listener = net::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        let tally = Arc::new(Tally::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, tls, Arc::clone(&tally), Arc::new(answer)));
        Ok(Self { address, tally, _tasks: tasks })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it counted so far.
    pub(crate) fn counted(&self) -> Counted {
        self.tally.counted()
    }
}

async fn accept<A: Answer>(
    listener: net::TcpListener,
    tls: TlsAcceptor,
    tally: Arc<Tally>,
    answer: Arc<A>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    tally.connections.fetch_add(1, Ordering::Relaxed);
                    let (tls, tally, answer) = (tls.clone(), Arc::clone(&tally), Arc::clone(&answer));
                    connections.spawn(serve(stream, tls, tally, answer));
                }
                // Out of file descriptors: those in use will come back.
                Err(_) => time::sleep(Duration::from_millis(10)).await,
            },
        }
    }
}

async fn serve<A: Answer>(
    stream: net::TcpStream,
    tls: TlsAcceptor,
    tally: Arc<Tally>,
    answer: Arc<A>,
) {
    time::sleep(DISTANCE).await;
    let Ok(stream) = tls.accept(stream).await else { return };
    tally.handshakes.fetch_add(1, Ordering::Relaxed);
    let service = service_fn(|request| {
        let (tally, answer) = (&tally, &answer);
        async move { Ok::<_, Infallible>(answer.answer(request, tally).await) }
    });
    // Whatever ended the connection, its client knows best.
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .await
        .ok();
}

/// A JSON answer.
pub(crate) fn json(status: StatusCode, body: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The bearer credential of `request`.
pub(crate) fn bearer(request: &Request<Incoming>) -> Option<&str> {
    request.headers().get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

/// A tool: 50 ms of work for who shows a token for this service and the right tenant.
struct Tool {
    name: &'static str,
    tokens: Arc<Tokens>,
}

impl Answer for Tool {
    async fn answer(&self, request: Request<Incoming>, tally: &Tally) -> Response<Body> {
        let holder = bearer(&request).and_then(|token| self.tokens.holder(token));
        let meant = request.headers().get(TENANT_HEADER).and_then(|value| value.to_str().ok());
        let meant = meant.map(str::to_owned);
        let Some(holder) = holder.filter(|holder| holder.service == self.name) else {
            tally.refusal();
            let why = serde_json::json!({"error": "a token for this service is needed"});
            return json(StatusCode::UNAUTHORIZED, &why);
        };
        if meant.as_deref() != Some(holder.tenant) {
            tally.wrong_tenant.fetch_add(1, Ordering::Relaxed);
        }
        if request.into_body().collect().await.is_err() {
            return json(StatusCode::BAD_REQUEST, &serde_json::json!({"error": "no body"}));
        }
        time::sleep(WORK).await;
        tally.call();
        let found =
            serde_json::json!({"service": self.name, "tenant": holder.tenant, "items": [1, 2, 3]});
        json(StatusCode::OK, &found)
    }
}

/// All services of one run: five tools, the issuer of their tokens, and a model.
pub(crate) struct Outside {
    tools: BTreeMap<&'static str, Service>,
    issuer: Service,
    model: Service,
    tokens: Arc<Tokens>,
    model_key: String,
}

impl Outside {
    /// Starts them, with all counters at zero.
    pub(crate) fn start(authority: &Authority) -> io::Result<Self> {
        let tokens = Arc::new(Tokens::default());
        let tools = SERVICES.into_iter().map(|name| {
            let tool = Tool { name, tokens: Arc::clone(&tokens) };
            Ok((name, Service::start(authority.acceptor(), tool)?))
        });
        let model = Model::new();
        Ok(Self {
            tools: tools.collect::<io::Result<_>>()?,
            issuer: Service::start(authority.acceptor(), Issuer::new(Arc::clone(&tokens)))?,
            model_key: model.key().to_owned(),
            model: Service::start(authority.acceptor(), model)?,
            tokens,
        })
    }

    /// Where the tool called `name` listens.
    pub(crate) fn tool(&self, name: &str) -> Option<SocketAddr> {
        self.tools.get(name).map(Service::address)
    }

    /// Where tokens are exchanged.
    pub(crate) fn issuer(&self) -> SocketAddr {
        self.issuer.address()
    }

    /// Where the model is.
    pub(crate) fn model(&self) -> SocketAddr {
        self.model.address()
    }

    /// The API key of the model.
    pub(crate) fn model_key(&self) -> &str {
        &self.model_key
    }

    /// The secret of `tenant` at the issuer.
    pub(crate) fn secret(&self, tenant: &str) -> &str {
        self.tokens.secret(tenant)
    }

    /// What tools, issuer and model counted together.
    pub(crate) fn counted(&self) -> Counted {
        self.tools
            .values()
            .chain([&self.issuer, &self.model])
            .fold(Counted::default(), |sum, service| sum + service.counted())
    }

    /// Token exchanges by (tenant, service).
    pub(crate) fn exchanges(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        self.tokens.exchanges()
    }
}
