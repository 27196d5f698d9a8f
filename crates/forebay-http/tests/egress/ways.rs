//! The ways in: sockets, protocols, and how a call says which destination it means.

use std::path::Path;
use std::sync::Arc;

use forebay_seam::net::{self, Listener, Permissions, UnixListener, UnixStream};
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::TlsConnector;

use crate::bench::{Agent, Agent2, Forebay, soon};
use crate::origin::Origin;

fn tool(origin: &Origin, before: &str) -> Forebay {
    Forebay::start(&format!("{before}[destinations.tool]\nwarm_up = 0\n{}", origin.settings()))
}

#[tokio::test]
async fn a_unix_socket_takes_calls_and_no_host_is_too_foreign_there() {
    let origin = Origin::echo();
    let forebay = tool(&origin, "");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("http.sock");
    let listener = UnixListener::bind(&path, &Permissions::default()).unwrap();
    let stopper = forebay.listen(listener.into());
    let mut agent = Agent::on(UnixStream::connect(&path).await.unwrap()).await;
    let call = Request::post("/tool/x").header("host", "anything.test");
    assert_eq!(agent.call(call, "over a socket").await.body, "over a socket");
    let mut agent = Agent2::on(UnixStream::connect(&path).await.unwrap()).await;
    let call = Request::post("http://localhost/tool/x");
    assert_eq!(agent.call(call, "over a socket").await.body, "over a socket");
    let page = Request::get("http://localhost/tool/").header("origin", "https://evil.test");
    assert_eq!(agent.call(page, "").await.problem(), "foreign-origin");
    drop(stopper);
    soon("the file is gone", || !path.exists()).await;
}

#[tokio::test]
async fn http_2_is_understood_without_asking_for_it() {
    let origin = Origin::echo();
    let forebay = tool(&origin, "");
    let mut agent = forebay.agent2().await;
    let got = agent.call(Request::post("http://localhost/tool/a?b=c"), "body").await;
    assert_eq!((got.status.as_u16(), got.body.as_str()), (200, "body"));
    let seen = &origin.seen()[0];
    assert_eq!((seen.target.as_str(), seen.method.as_str()), ("/a?b=c", "POST"));
    assert_eq!(seen.headers["host"], origin.address.to_string());
    let unknown = agent.call(Request::get("http://localhost/nothing/"), "").await;
    assert_eq!(unknown.problem(), "unknown-destination");
    let rebound = agent.call(Request::get("http://evil.test/tool/"), "").await;
    assert_eq!(rebound.problem(), "misdirected-request");
}

#[tokio::test]
async fn calls_of_one_http_2_connection_go_on_side_by_side() {
    let origin = Origin::echo();
    let forebay = Arc::new(tool(&origin, ""));
    let agent = forebay.agent2().await;
    let calls: Vec<_> = (0..60)
        .map(|n| {
            let mut sender = agent.sender.clone();
            tokio::spawn(async move {
                sender.ready().await.unwrap();
                let body = Full::new(format!("call {n}").into()).boxed();
                let call = Request::post("http://localhost/tool/").body(body).unwrap();
                let answer = sender.send_request(call).await.unwrap();
                assert_eq!(answer.version(), Version::HTTP_2);
                let body = answer.into_body().collect().await.unwrap().to_bytes();
                assert_eq!(body, format!("call {n}"));
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    assert_eq!(forebay.snapshot().clients, 1);
    soon("all are counted", || forebay.snapshot().destinations[0].answers.success == 60).await;
}

/// A certificate for `localhost` and its key, in `folder`.
pub(crate) fn certificate(folder: &Path) -> String {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    std::fs::write(&cert, certified.cert.pem()).unwrap();
    std::fs::write(&key, certified.signing_key.serialize_pem()).unwrap();
    format!("tls = {{ cert = \"{}\", key = \"{}\" }}\n", cert.display(), key.display())
}

pub(crate) async fn in_tls(
    forebay: &Forebay,
    folder: &Path,
    alpn: &[&[u8]],
) -> tokio_rustls::client::TlsStream<net::TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    let cert = CertificateDer::from_pem_file(folder.join("cert.pem")).unwrap();
    roots.add(cert).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from("localhost").unwrap();
    let socket = forebay.socket().await;
    TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap()
}

#[tokio::test]
async fn in_tls_an_agent_says_by_alpn_what_it_speaks() {
    let origin = Origin::echo();
    let folder = tempfile::tempdir().unwrap();
    let forebay = tool(&origin, &certificate(folder.path()));
    let stream = in_tls(&forebay, folder.path(), &[b"h2", b"http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let mut agent = Agent2::on(stream).await;
    let got = agent.call(Request::post("https://localhost/tool/"), "two").await;
    assert_eq!(got.body, "two");
    for alpn in [[b"http/1.1".as_slice()].as_slice(), &[]] {
        let mut agent = Agent::on(in_tls(&forebay, folder.path(), alpn).await).await;
        assert_eq!(agent.call(Request::post("/tool/"), "one").await.body, "one");
    }
    // In the clear nobody is understood there.
    let mut socket = forebay.socket().await;
    let hello = b"GET /tool/ HTTP/1.1\r\nhost: localhost\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut socket, hello).await.unwrap();
    let mut heard = Vec::new();
    drop(tokio::io::AsyncReadExt::read_to_end(&mut socket, &mut heard).await);
    assert!(!heard.starts_with(b"HTTP"), "{heard:?}");
    assert_eq!(origin.seen().len(), 3);
}

#[tokio::test]
async fn a_unix_socket_has_no_tls() {
    let origin = Origin::echo();
    let folder = tempfile::tempdir().unwrap();
    let forebay = tool(&origin, &certificate(folder.path()));
    let path = folder.path().join("http.sock");
    let listener = UnixListener::bind(&path, &Permissions::default()).unwrap();
    let _stopper = forebay.listen(Listener::from(listener));
    let mut agent = Agent::on(UnixStream::connect(&path).await.unwrap()).await;
    assert_eq!(agent.call(Request::post("/tool/"), "clear").await.body, "clear");
}

#[tokio::test]
async fn a_host_that_is_configured_stands_for_its_destination() {
    let (first, second) = (Origin::echo(), Origin::echo());
    let forebay = Forebay::start(&format!(
        "[destinations.one]\nhosts = [\"one.test\"]\n{}\
         [destinations.two]\nhosts = [\"two.test:8080\", \"TWO.test\"]\n{}",
        first.settings(),
        second.settings(),
    ));
    let (one, two) = (|| first.seen().len(), || second.seen().len());
    let host = |host| Request::get("/v1/x").header("host", host);
    assert_eq!(forebay.call(host("one.test")).await.status, 200);
    assert_eq!(forebay.call(host("One.Test:6480")).await.status, 200);
    assert_eq!((one(), two()), (2, 0));
    assert!(first.seen().iter().all(|seen| seen.target == "/v1/x"));
    assert_eq!(forebay.call(host("two.test")).await.status, 200);
    assert_eq!(forebay.call(host("two.test:8080")).await.status, 200);
    // A path names nobody where the host does: here it is the service's.
    let both = Request::get("/one/x").header("host", "two.test");
    assert_eq!(forebay.call(both).await.status, 200);
    assert_eq!((one(), two()), (2, 3));
    // As a proxy (HTTP_PROXY), and over HTTP/2.
    let absolute = Request::get("http://one.test/v1/x?y").header("host", "one.test");
    assert_eq!(forebay.call(absolute).await.status, 200);
    let mut agent = forebay.agent2().await;
    assert_eq!(agent.call(Request::get("http://one.test/v2"), "").await.status, 200);
    assert_eq!(one(), 4);
    assert_eq!(first.seen()[3].target, "/v2");
    let foreign = Request::get("http://three.test/").header("host", "three.test");
    assert_eq!(forebay.call(foreign).await.problem(), "misdirected-request");
    assert_eq!(forebay.get("/one/x").await.status, 200);
}
