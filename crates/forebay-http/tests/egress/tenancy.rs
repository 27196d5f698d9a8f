//! Many tenants, each with a credential of its own, at random and with random departures: no
//! call carries another's credential, no connection of one serves another, nothing stays
//! behind.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use forebay_seam::net::{self, TcpStream};
use forebay_seam::random::Dice;
use forebay_seam::sync::Mutex;
use forebay_seam::time;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

use crate::bench::{Forebay, soon};

/// Tenants, and calls of each: 10,000 together.
const TENANTS: usize = 50;
const CALLS: usize = 200;
/// Ways to the service, each with its own pool: how fast connections are opened is paced by
/// the pool, and those who leave take theirs along.
const WAYS: usize = 4;
/// Connections of each: fewer than tenants, so that they have to make room for each other.
const BUDGET: u32 = 48;

/// What the origin found wrong, and who was seen on each of its connections.
#[derive(Default)]
struct Witness {
    wrong: Mutex<Vec<String>>,
    seen: Mutex<BTreeMap<usize, BTreeSet<usize>>>,
    calls: Mutex<usize>,
}

/// How tenant `n` proves to the service who it is.
fn kind(n: usize) -> &'static str {
    ["bearer", "header", "basic", "token", "certificate", "query"][n % 6]
}

/// The credential of tenant `n` in a call's head, if it is there and nobody else's is.
fn check(n: usize, target: &str, headers: &HeaderMap, shown: Option<&[u8]>, own: &[u8]) -> bool {
    let field = |name: &str| headers.get(name).map_or("", |value| value.to_str().unwrap());
    let basic = |n: usize| {
        let pair = format!("user-{n}:secret-{n}-");
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
    };
    let carried = match kind(n) {
        "bearer" => field("authorization") == format!("Bearer secret-{n}-"),
        "header" => field("x-secret") == format!("secret-{n}-"),
        "basic" => field("authorization") == basic(n),
        "token" => field("authorization") == format!("Bearer token-of-client-{n}-"),
        "query" => target.ends_with(&format!("key=secret-{n}-")),
        _ => shown == Some(own),
    };
    let all = format!("{target} {headers:?}");
    let others = (0..TENANTS).filter(|other| *other != n).any(|other| {
        all.contains(&format!("secret-{other}-")) || all.contains(&format!("client-{other}-"))
    });
    carried && !others && (kind(n) == "certificate") == shown.is_some()
}

/// A certificate for each tenant that needs one, in files; and what the origin believes.
struct Certificates {
    folder: TempDir,
    believed: RootCertStore,
    ders: Vec<Vec<u8>>,
}

fn certificates() -> Certificates {
    let folder = tempfile::tempdir().unwrap();
    let (mut believed, mut ders) = (RootCertStore::empty(), Vec::new());
    for n in 0..TENANTS {
        let issued = rcgen::generate_simple_self_signed(vec![format!("tenant-{n}")]).unwrap();
        let file = |kind: &str| folder.path().join(format!("{n}.{kind}"));
        std::fs::write(file("pem"), issued.cert.pem()).unwrap();
        std::fs::write(file("key"), issued.signing_key.serialize_pem()).unwrap();
        believed.add(issued.cert.der().clone()).unwrap();
        ders.push(issued.cert.der().to_vec());
    }
    Certificates { folder, believed, ders }
}

/// A service, and an issuer at `/token`, that look at every call.
async fn origin(certificates: &Certificates, witness: &Arc<Witness>) -> (SocketAddr, String) {
    let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let ca = certificates.folder.path().join("ca.pem");
    std::fs::write(&ca, certified.cert.pem()).unwrap();
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let believed = Arc::new(certificates.believed.clone());
    let verifier = WebPkiClientVerifier::builder_with_provider(believed, Arc::clone(&provider));
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.allow_unauthenticated().build().unwrap())
        .with_single_cert(vec![certified.cert.der().clone()], PrivateKeyDer::from(key))
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = net::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = listener.local_addr().unwrap();
    let (witness, ders) = (Arc::clone(witness), Arc::new(certificates.ders.clone()));
    tokio::spawn(async move {
        for connection in 0.. {
            let Ok((stream, _)) = listener.accept().await else { return };
            let (acceptor, witness) = (acceptor.clone(), Arc::clone(&witness));
            tokio::spawn(serve(stream, connection, acceptor, witness, Arc::clone(&ders)));
        }
    });
    (address, ca.display().to_string())
}

async fn serve(
    stream: TcpStream,
    connection: usize,
    acceptor: TlsAcceptor,
    witness: Arc<Witness>,
    ders: Arc<Vec<Vec<u8>>>,
) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let shown: Option<Arc<[u8]>> = shown.map(|certificate| certificate.as_ref().into());
    let service = service_fn(move |call: Request<Incoming>| {
        let (witness, shown, ders) = (Arc::clone(&witness), shown.clone(), Arc::clone(&ders));
        async move { Ok::<_, Infallible>(answer(call, connection, &witness, shown, &ders).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
    drop(served);
}

async fn answer(
    call: Request<Incoming>,
    connection: usize,
    witness: &Witness,
    shown: Option<Arc<[u8]>>,
    ders: &[Vec<u8>],
) -> Response<Full<Bytes>> {
    let (head, body) = call.into_parts();
    if head.uri.path() == "/token" {
        let form = body.collect().await.unwrap().to_bytes();
        let form = String::from_utf8(form.to_vec()).unwrap();
        let client = form.split('&').find_map(|pair| pair.strip_prefix("client_id=")).unwrap();
        let token = format!("token-of-{client}");
        // Short lives: they are fetched and renewed again and again meanwhile.
        let body = serde_json::json!({
            "access_token": token, "token_type": "Bearer", "expires_in": 1,
        });
        return Response::new(Full::new(body.to_string().into()));
    }
    let target = head.uri.to_string();
    let n: usize = head.uri.path().trim_matches('/').parse().unwrap();
    if !check(n, &target, &head.headers, shown.as_deref(), &ders[n]) {
        witness.wrong.lock().push(format!("tenant {n} ({}): {target} {:?}", kind(n), head.headers));
    }
    witness.seen.lock().entry(connection).or_default().insert(n);
    let count = {
        let mut calls = witness.calls.lock();
        *calls += 1;
        *calls
    };
    if count % 7 == 0 {
        time::sleep(Duration::from_millis((count % 3) as u64)).await;
    }
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    Response::new(Full::new(format!("{n}:{}", body.len()).into()))
}

fn settings(certificates: &Certificates, origin: SocketAddr, ca: &str, more: &str) -> String {
    let mut text = String::new();
    for n in 0..TENANTS {
        writeln!(text, "[tenants.t{n}]\nkey = \"key-{n}\"").unwrap();
    }
    for way in 0..WAYS {
        writeln!(text, "[destinations.d{way}]\nurl = \"https://{origin}\"").unwrap();
        writeln!(text, "ca_file = \"{ca}\"\nbudget = {BUDGET}\nwarm_up = 0\n{more}").unwrap();
        for n in 0..TENANTS {
            let place = certificates.folder.path().join(n.to_string());
            let place = place.display();
            let auth = match kind(n) {
                "bearer" => format!("type = \"bearer\", secret = \"secret-{n}-\""),
                "header" => {
                    format!("type = \"header\", name = \"x-secret\", secret = \"secret-{n}-\"")
                }
                "query" => format!("type = \"query\", name = \"key\", secret = \"secret-{n}-\""),
                "basic" => {
                    format!("type = \"basic\", user = \"user-{n}\", password = \"secret-{n}-\"")
                }
                "token" => format!(
                    "type = \"oauth2-client-credentials\", client_id = \"client-{n}-\", \
                     client_secret = \"s\", client_auth = \"form\", \
                     token_url = \"https://{origin}/token\", ca_file = \"{ca}\""
                ),
                _ => format!(
                    "type = \"client-certificate\", certificate = \"file:{place}.pem\", \
                     key = \"file:{place}.key\""
                ),
            };
            if more.is_empty() || !matches!(kind(n), "basic" | "certificate") {
                writeln!(text, "tenants.t{n} = {{ {auth} }}").unwrap();
            }
        }
    }
    text
}

/// The calls of tenant `n`; some of them it gives up.
async fn live(forebay: Arc<Forebay>, n: usize, seed: u64, calls: usize) -> usize {
    let mut dice = Dice::new(seed);
    let (mut agent, mut answered) = (forebay.agent().await, 0);
    for _ in 0..calls {
        let key = format!("key-{n}");
        let way = dice.next_u64() % WAYS as u64;
        let path = format!("/d{way}/{n}");
        let call = match dice.next_u64() % 2 {
            0 => Request::get(path).header("x-forebay-key", key),
            _ => Request::post(path).header("authorization", format!("Bearer {key}")),
        };
        let body = "x".repeat(usize::try_from(dice.next_u64() % 3_000).unwrap());
        let body = if call.method_ref() == Some(&http::Method::GET) { "" } else { &body };
        let patience = match dice.next_u64() % 24 {
            0 => Duration::from_micros(dice.next_u64() % 6_000),
            _ => Duration::from_secs(30),
        };
        if let Ok(got) = time::timeout(patience, agent.call(call, body)).await {
            assert_eq!(got.status, 200, "tenant {n}: {got:?}");
            assert_eq!(got.body, format!("{n}:{}", body.len()));
            answered += 1;
        } else {
            agent = forebay.agent().await;
        }
    }
    answered
}

async fn storm(
    forebay: &Arc<Forebay>,
    tenants: impl Iterator<Item = usize>,
    calls: usize,
) -> usize {
    let seed = forebay_seam::random::seed();
    println!("seed {seed}");
    let tasks: Vec<_> = tenants
        .map(|n| tokio::spawn(live(Arc::clone(forebay), n, seed ^ n as u64, calls)))
        .collect();
    let mut answered = 0;
    for task in tasks {
        answered += task.await.unwrap();
    }
    answered
}

async fn nothing_is_left(forebay: &Forebay) {
    soon("everything came home", || {
        let snapshot = forebay.snapshot();
        snapshot.clients == 0
            && snapshot.pools.iter().all(|pool| {
                let waiting: u32 = pool.classes.iter().map(|class| class.waiting).sum();
                (pool.leased, waiting, pool.opening, pool.cleaning) == (0, 0, 0, 0)
                    && pool.idle <= BUDGET
            })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_of_fifty_tenants_carries_anothers_credential_and_no_connection_serves_two() {
    let (certificates, witness) = (certificates(), Arc::<Witness>::default());
    let (address, ca) = origin(&certificates, &witness).await;
    let forebay = Arc::new(Forebay::start(&settings(&certificates, address, &ca, "")));
    let answered = storm(&forebay, 0..TENANTS, CALLS).await;
    assert!(answered > TENANTS * CALLS * 8 / 10, "{answered} of 10000 were answered");
    assert_eq!(*witness.wrong.lock(), [""; 0]);
    let mixed: Vec<_> =
        witness.seen.lock().values().filter(|seen| seen.len() > 1).cloned().collect();
    assert!(mixed.is_empty(), "{mixed:?}");
    nothing_is_left(&forebay).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_who_share_connections_never_share_credentials() {
    let (certificates, witness) = (certificates(), Arc::<Witness>::default());
    let (address, ca) = origin(&certificates, &witness).await;
    let settings = settings(&certificates, address, &ca, "share_connections = true");
    let forebay = Arc::new(Forebay::start(&settings));
    let stateless = (0..TENANTS).filter(|n| !matches!(kind(*n), "basic" | "certificate"));
    let answered = storm(&forebay, stateless, CALLS / 8).await;
    assert!(answered > 0);
    assert_eq!(*witness.wrong.lock(), [""; 0]);
    assert!(witness.seen.lock().values().any(|seen| seen.len() > 1), "nobody shared");
    nothing_is_left(&forebay).await;
}
