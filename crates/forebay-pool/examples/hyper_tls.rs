//! HTTPS by hyper and rustls: a connector whose connections are kept alive, and two classes
//! that share a budget of four. The service is its own, on loopback.
//!
//! `cargo run -p forebay-pool --example hyper_tls`
#![allow(clippy::disallowed_methods, reason = "who embeds the pool uses tokio as it is")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{error::Error, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use forebay_pool::{
    Ask, Budget, ClassName, ClassSettings, Condition, ConnectFailure, Connector, FailureKind, Kind,
    Pool, PoolSettings, Request, Share, TraceId,
};
use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{body::Incoming, http, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::{TcpListener, TcpStream};
use tokio::{spawn, task::JoinSet, time::sleep};
use tokio_rustls::{TlsAcceptor, TlsConnector};

type Response = hyper::Response<Full<Bytes>>;
type Failure = Box<dyn Error + Send + Sync>;

/// All that the protocol has to bring. Connections are told apart by tenant.
struct Https {
    address: SocketAddr,
    name: ServerName<'static>,
    tls: TlsConnector,
}

impl Connector for Https {
    type Identity = &'static str;
    type Connection = SendRequest<Empty<Bytes>>;

    async fn connect(&self, _: &&'static str) -> Result<Self::Connection, ConnectFailure> {
        let stream = TcpStream::connect(self.address).await.map_err(unreachable)?;
        let stream = self.tls.connect(self.name.clone(), stream).await.map_err(unreachable)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(unreachable)?;
        spawn(connection); // ends when the sender is dropped or the service hangs up
        Ok(sender)
    }

    /// The service may have hung up while the connection was idle.
    fn is_open(&self, sender: &mut Self::Connection) -> bool {
        !sender.is_closed()
    }

    /// HTTP/1.1 has nothing to ask with that would cost the service nothing.
    async fn probe(&self, sender: Self::Connection) -> Option<Self::Connection> {
        Some(sender).filter(|sender| !sender.is_closed())
    }

    /// Ready means that the last exchange is over, and nothing else is kept of it. hyper ends
    /// the connection of an answer that was not read to its end.
    async fn reset(&self, mut sender: Self::Connection) -> Option<Self::Connection> {
        sender.ready().await.ok().map(|()| sender)
    }
}

fn unreachable(error: impl Error + Send + Sync + 'static) -> ConnectFailure {
    ConnectFailure::new(FailureKind::Unreachable, error)
}

/// One exchange on one lease, which is held until the answer was read to its end.
async fn get(pool: Pool<Https>, ask: Ask<&'static str>, path: &str) -> Result<Bytes, Failure> {
    let mut lease = pool.checkout(ask).await?;
    let request = hyper::Request::get(path).header("host", "localhost").body(Empty::new())?;
    let answer = lease.send_request(request).await?.collect().await?.to_bytes();
    let is_kept = lease.ready().await.is_ok(); // not after `connection: close`
    lease.give_back(if is_kept { Condition::Clean } else { Condition::Broken });
    Ok(answer)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let (address, certificate, handshakes) = serve().await?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate)?;
    let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("localhost")?;

    let two = Share::Seats(2);
    let people = ClassSettings { kind: Kind::Core, guarantee: two, ..Default::default() };
    let crawlers = ClassSettings { ceiling: Some(two), ..Default::default() };
    let mut settings = PoolSettings::new("service", Budget::Fixed(4));
    settings.ai_share = 50; // percent
    settings.classes =
        vec![(ClassName::new("people"), people), (ClassName::new("crawlers"), crawlers)];
    let pool = Pool::new(Https { address, name, tls: Arc::new(tls).into() }, settings);
    let people = pool.class("people").ok_or("configured above")?;
    let crawlers = pool.class("crawlers").ok_or("configured above")?;

    // Four requests call five times at once each: of a queue's places each takes one.
    let mut crawls = JoinSet::new();
    for number in 1..=4 {
        let trace = TraceId::from_traceparent(&format!("00-{number:032x}-{number:016x}-01"));
        let mut ask = Ask::new("acme", crawlers);
        ask.request = trace.map(|trace| Request::new("acme".into(), trace));
        (0..5).for_each(|_| drop(crawls.spawn(get(pool.clone(), ask.clone(), "/crawl"))));
    }
    for _ in 0..5 {
        get(pool.clone(), Ask::new("acme", people), "/").await?;
    }
    let crawls: Vec<_> = crawls.join_all().await.into_iter().collect::<Result<_, _>>()?;
    println!("{} crawls, {} handshakes", crawls.len(), handshakes.load(Ordering::Relaxed));

    get(pool.clone(), Ask::new("acme", people), "/last").await?;
    get(pool.clone(), Ask::new("acme", people), "/").await?;
    let picture = pool.snapshot();
    println!("the service hung up: {} closed, the next call had another", picture.closed.broken);
    for class in &picture.classes {
        println!("{}: {} leases, {} waited", class.class, class.checkouts, class.waited);
    }
    pool.drain(Instant::now() + Duration::from_secs(5)).await;
    Ok(())
}

/// A service that takes 20 ms for each call, and counts its handshakes.
async fn serve() -> Result<(SocketAddr, CertificateDer<'static>, Arc<AtomicU32>), Failure> {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der())?;
    let certificate = own.cert.der().clone();
    let tls = rustls::ServerConfig::builder().with_no_client_auth();
    let tls = TlsAcceptor::from(Arc::new(tls.with_single_cert(vec![certificate.clone()], key)?));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (address, handshakes) = (listener.local_addr()?, Arc::new(AtomicU32::new(0)));
    let count = Arc::clone(&handshakes);
    spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (tls, count) = (tls.clone(), Arc::clone(&count));
            spawn(async move {
                let stream = TokioIo::new(tls.accept(stream).await?);
                count.fetch_add(1, Ordering::Relaxed);
                http1::Builder::new().serve_connection(stream, service_fn(answer)).await?;
                Ok::<(), Failure>(())
            });
        }
    });
    Ok((address, certificate, handshakes))
}

async fn answer(call: hyper::Request<Incoming>) -> Result<Response, http::Error> {
    sleep(Duration::from_millis(20)).await;
    let keep = if call.uri().path() == "/last" { "close" } else { "keep-alive" };
    hyper::Response::builder().header("connection", keep).body(Full::from("hello"))
}
