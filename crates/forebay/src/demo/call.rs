//! One HTTP call over a connection of its own, as a tool makes it that is written as a
//! function: connect, ask, read the answer, hang up.
//!
//! Without Forebay that is TLS to the service, and a token exchange before; with Forebay it
//! is a plain connection on the same machine. The workloads ask a [`Way`] and do not know
//! which it is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_seam::{net, time};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::authority::Authority;
use super::services::{Outside, TENANT_HEADER};

/// How agents reach the services.
#[derive(Clone)]
pub(crate) enum Way {
    /// Straight, with credentials of their own.
    Direct {
        /// Trusts the services.
        tls: TlsConnector,
        /// The services.
        outside: Arc<Outside>,
    },
    /// Through Forebay at this address; an agent has nothing but its tenant's key, which
    /// here is called as the tenant itself with [`KEY_PREFIX`] in front.
    Forebay(SocketAddr),
}

/// What stands before a tenant's name in its key: keys of a demo are no secret.
pub(crate) const KEY_PREFIX: &str = "key-of-";

/// How long a client waits for the whole of an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(#[from] std::io::Error),
    /// The connection failed under way.
    #[error("the call broke off: {0}")]
    Http(#[from] hyper::Error),
    /// No answer in time.
    #[error("no answer within {}s", PATIENCE.as_secs())]
    Timeout,
    /// The request could not be written down.
    #[error("no valid request: {0}")]
    Request(#[from] hyper::http::Error),
    /// An answer, but not the wanted one.
    #[error("answered {status}: {text}")]
    Status {
        /// The status.
        status: StatusCode,
        /// How the answer begins.
        text: String,
    },
    /// No token in the issuer's answer.
    #[error("the issuer's answer holds no token")]
    NoToken,
}

impl Way {
    /// Without Forebay.
    pub(crate) fn direct(authority: &Authority, outside: &Arc<Outside>) -> Self {
        Self::Direct { tls: authority.connector(), outside: Arc::clone(outside) }
    }

    /// A call of `tenant`'s agent to the tool `service`.
    pub(crate) async fn tool(&self, tenant: &str, service: &str) -> Result<(), CallError> {
        let body = r#"{"question":"what is new?"}"#;
        let request = Request::post("/v1/run").header(TENANT_HEADER, tenant);
        let request = request.header(CONTENT_TYPE, "application/json");
        match self {
            Self::Direct { tls, outside } => {
                let token = exchange(tls, outside, tenant, service).await?;
                let address = outside.tool(service).ok_or(CallError::NoToken)?;
                let request = request.header(AUTHORIZATION, format!("Bearer {token}"));
                over_tls(tls, address, request, body).await?;
            }
            Self::Forebay(address) => {
                let request = request
                    .uri(format!("/{service}/v1/run"))
                    .header("x-forebay-key", format!("{KEY_PREFIX}{tenant}"));
                plain(*address, request, body).await?;
            }
        }
        Ok(())
    }

    /// A call of `tenant`'s agent to the model, until its answer has ended.
    pub(crate) async fn model(&self, tenant: &str, traceparent: &str) -> Result<(), CallError> {
        let body = r#"{"model":"stand-in","stream":true,"messages":[]}"#;
        let request = Request::post("/v1/chat/completions").header("traceparent", traceparent);
        let request = request.header(CONTENT_TYPE, "application/json");
        match self {
            Self::Direct { tls, outside } => {
                let key = format!("Bearer {}", outside.model_key());
                let request = request.header(AUTHORIZATION, key);
                over_tls(tls, outside.model(), request, body).await?;
            }
            Self::Forebay(address) => {
                let request = request
                    .uri("/llm/v1/chat/completions")
                    .header("x-forebay-key", format!("{KEY_PREFIX}{tenant}"));
                plain(*address, request, body).await?;
            }
        }
        Ok(())
    }
}

/// A token for `service`, from the issuer.
async fn exchange(
    tls: &TlsConnector,
    outside: &Outside,
    tenant: &str,
    service: &str,
) -> Result<String, CallError> {
    let form = format!(
        "grant_type=client_credentials&client_id={tenant}&client_secret={}&audience={service}",
        outside.secret(tenant)
    );
    let request = Request::post("/token").header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    let answer = over_tls(tls, outside.issuer(), request, &form).await?;
    let answer: serde_json::Value =
        serde_json::from_slice(&answer).map_err(|_| CallError::NoToken)?;
    answer
        .get("access_token")
        .and_then(serde_json::Value::as_str)
        .map(str::to_owned)
        .ok_or(CallError::NoToken)
}

/// What an admin port answers to a GET.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Result<Bytes, CallError> {
    plain(address, Request::get(path), "").await
}

async fn over_tls(
    tls: &TlsConnector,
    address: SocketAddr,
    request: hyper::http::request::Builder,
    body: &str,
) -> Result<Bytes, CallError> {
    let stream = net::connect(&[address]).await?;
    let stream = tls.connect(ServerName::IpAddress(address.ip().into()), stream).await?;
    ask(stream, address, request, body).await
}

async fn plain(
    address: SocketAddr,
    request: hyper::http::request::Builder,
    body: &str,
) -> Result<Bytes, CallError> {
    ask(net::connect(&[address]).await?, address, request, body).await
}

/// Asks over `stream`, reads the whole answer and hangs up.
async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    address: SocketAddr,
    request: hyper::http::request::Builder,
    body: &str,
) -> Result<Bytes, CallError> {
    let request = request
        .header(HOST, address.to_string())
        .header(CONNECTION, "close")
        .body(Full::new(Bytes::from(body.to_owned())))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        Ok::<_, hyper::Error>((status, response.into_body().collect().await?.to_bytes()))
    };
    tokio::pin!(connection);
    tokio::pin!(exchange);
    let (status, answer) = tokio::select! {
        biased;
        answer = &mut exchange => answer?,
        ended = &mut connection => { ended?; exchange.await? }
        () = time::sleep(PATIENCE) => return Err(CallError::Timeout),
    };
    if status.is_success() {
        return Ok(answer);
    }
    let text = String::from_utf8_lossy(answer.get(..200).unwrap_or(&answer)).into_owned();
    Err(CallError::Status { status, text })
}
