//! The agents: each tool call opens a connection of its own, as tools written as functions do.
//!
//! Directly that is TLS to the issuer and to the service; through a proxy a plain connection on
//! this machine. Who has a seed makes the same calls whatever it is measured with.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::proxies::Target;

/// How long anybody waits for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// How calls are made in one run.
pub struct Road {
    pub target: Target,
    pub proxy: SocketAddr,
    pub services: Vec<SocketAddr>,
    pub issuer: SocketAddr,
    pub tls: TlsConnector,
    /// Of agents that keep their tokens; the lock is held while one is fetched.
    tokens: BTreeMap<(usize, usize), tokio::sync::Mutex<Option<String>>>,
}

/// One call.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    pub tenant: usize,
    pub service: usize,
    pub method: Retriable,
}

/// Whether a call may be sent twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retriable {
    /// `GET`.
    Yes,
    /// `POST`.
    No,
}

/// Times of what went well, and what did not.
#[derive(Default)]
pub struct Seen {
    pub millis: Vec<f64>,
    pub failed: u64,
    pub failed_retriable: u64,
    pub samples: Vec<String>,
}

impl Road {
    pub fn new(
        target: Target,
        proxy: SocketAddr,
        services: Vec<SocketAddr>,
        issuer: SocketAddr,
        tls: TlsConnector,
    ) -> Self {
        let keys = (0..crate::origin::TENANTS)
            .flat_map(|tenant| (0..services.len()).map(move |service| (tenant, service)));
        let tokens = keys.map(|key| (key, tokio::sync::Mutex::default())).collect();
        Self { target, proxy, services, issuer, tls, tokens }
    }

    /// Makes `call` over a connection of its own, with everything before it.
    pub async fn call(&self, call: Call) -> Result<()> {
        tokio::time::timeout(PATIENCE, self.call_once(call)).await.context("no answer in time")?
    }

    async fn call_once(&self, call: Call) -> Result<()> {
        let token = self.token(call).await?;
        let mut sender = self.connect(call.service).await?;
        let response = sender.send_request(self.request(call, "/run", token.as_deref())?).await?;
        let status = response.status();
        response.into_body().collect().await?;
        if !status.is_success() {
            bail!("status {}", status.as_u16());
        }
        Ok(())
    }

    /// A connection to `service`, or to what stands before it.
    pub async fn connect(&self, service: usize) -> Result<SendRequest<Full<Bytes>>> {
        match self.target {
            Target::Direct => self.over_tls(self.services[service]).await,
            _ => self.plain().await,
        }
    }

    /// The credential that an agent shows; none where Forebay has it.
    pub async fn token(&self, call: Call) -> Result<Option<String>> {
        match self.target {
            Target::Forebay => Ok(None),
            target if target.keeps_tokens() => {
                let mut kept = self.tokens[&(call.tenant, call.service)].lock().await;
                if kept.is_none() {
                    *kept = Some(self.exchange(call).await?);
                }
                Ok(kept.clone())
            }
            _ => Ok(Some(self.exchange(call).await?)),
        }
    }

    async fn exchange(&self, call: Call) -> Result<String> {
        let (mut sender, path) = match self.target {
            Target::Direct => (self.over_tls(self.issuer).await?, "/token"),
            _ => (self.plain().await?, "/issuer/token"),
        };
        let body = format!(
            "grant_type=client_credentials&client_id=tenant-{}&client_secret=secret&audience=service-{}",
            call.tenant, call.service
        );
        let request = Request::post(path)
            .header(HOST, "localhost")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::from(body))?;
        let response = sender.send_request(request).await?;
        if !response.status().is_success() {
            bail!("the issuer's status {}", response.status().as_u16());
        }
        let body = response.into_body().collect().await?.to_bytes();
        let answer: serde_json::Value = serde_json::from_slice(&body)?;
        Ok(answer["access_token"].as_str().context("no token")?.to_owned())
    }

    /// The request of `call` to `path` of its service.
    pub fn request(
        &self,
        call: Call,
        path: &str,
        token: Option<&str>,
    ) -> Result<Request<Full<Bytes>>> {
        let uri = match self.target {
            Target::Direct => path.to_owned(),
            _ => format!("/service-{}{path}", call.service),
        };
        let (method, body) = match call.method {
            Retriable::Yes => (Method::GET, Full::default()),
            Retriable::No => (Method::POST, Full::from(r#"{"question":"what is new?"}"#)),
        };
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .header(HOST, "localhost")
            .header(CONTENT_TYPE, "application/json")
            .header("x-tenant", call.tenant.to_string());
        match token {
            Some(token) => request = request.header(AUTHORIZATION, format!("Bearer {token}")),
            None => {
                let key = format!("key-of-{}-for-the-bench", call.tenant);
                request = request.header("x-forebay-key", key);
            }
        }
        Ok(request.body(body)?)
    }

    async fn plain(&self) -> Result<SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(self.proxy).await.context("connect")?;
        stream.set_nodelay(true)?;
        handshake(stream).await
    }

    async fn over_tls(&self, address: SocketAddr) -> Result<SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(address).await.context("connect")?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").expect("a name");
        handshake(self.tls.connect(name, stream).await.context("TLS")?).await
    }
}

async fn handshake<S>(stream: S) -> Result<SendRequest<Full<Bytes>>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        connection.await.ok();
    });
    Ok(sender)
}

/// The whole of `response`, as long as its frames come.
pub async fn frames(
    response: Response<hyper::body::Incoming>,
    mut each: impl FnMut(Bytes),
) -> Result<()> {
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            each(data);
        }
    }
    Ok(())
}

/// Shared by the calls of one burst.
#[derive(Clone, Default)]
pub struct Book(Arc<Mutex<Seen>>);

impl Book {
    pub fn note(&self, since: Instant, call: Call, outcome: &Result<()>) {
        let mut seen = self.0.lock().expect("nobody panics with it");
        match outcome {
            Ok(()) => seen.millis.push(since.elapsed().as_secs_f64() * 1000.0),
            Err(error) => {
                seen.failed += 1;
                seen.failed_retriable += u64::from(call.method == Retriable::Yes);
                if seen.samples.len() < 3 {
                    seen.samples.push(format!("{error:#}"));
                }
            }
        }
    }

    pub fn close(self) -> Seen {
        std::mem::take(&mut self.0.lock().expect("nobody panics with it"))
    }
}
