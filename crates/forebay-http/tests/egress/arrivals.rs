//! Agents that are known by how they came: the user of a Unix socket, the certificate of a TLS
//! connection. The service says which tenant's credential it saw; nothing that an agent writes
//! changes that.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forebay_seam::net::{Permissions, TcpStream, UnixListener, UnixStream};
use http::Request;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::bench::{Agent, Agent2, Forebay, Got};
use crate::origin::{Origin, reply};

/// A service that says which credential came.
fn teller() -> Origin {
    Origin::start(
        |call| async move { reply(200, call.headers()["authorization"].as_bytes().to_vec()) },
    )
}

/// Two tenants with credentials of their own, of whom `acme` is also known by `acmes`.
fn settings(origin: &Origin, acmes: &str, before: &str) -> String {
    format!(
        "{before}[tenants.acme]\nkey = \"key-a\"\n{acmes}\n[tenants.zeta]\nkey = \"key-z\"\n\
         uids = [4000000000]\ncertificates = [\"dns:zeta.test\"]\n\
         [destinations.tool]\nwarm_up = 0\n{}\
         tenants.acme = {{ type = \"bearer\", secret = \"of-acme\" }}\n\
         tenants.zeta = {{ type = \"bearer\", secret = \"of-zeta\" }}\n",
        origin.settings()
    )
}

/// Every claim to be `zeta` that an agent can write, but for its key.
fn claims(target: &str) -> http::request::Builder {
    ["x-forebay-tenant", "x-tenant", "x-tenant-id", "x-forwarded-user", "x-remote-user"]
        .into_iter()
        .fold(Request::get(target), |call, name| call.header(name, "zeta"))
        .header("x-forwarded-client-cert", "Subject=\"CN=zeta.test\";DNS=zeta.test")
        .header("x-ssl-client-s-dn", "CN=zeta.test")
        .header("forwarded", "for=\"unix:zeta\"")
        .header("baggage", "tenant=zeta,forebay.tenant=zeta")
}

fn seen(got: &Got) -> (u16, &str) {
    (got.status.as_u16(), if got.status == 200 { &got.body } else { "" })
}

#[tokio::test]
async fn the_kernel_says_who_calls_on_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let us = std::fs::metadata(folder.path()).unwrap().uid();
    for (acmes, expected) in
        [(format!("uids = [{us}]"), (200, "Bearer of-acme")), (String::new(), (401, ""))]
    {
        let origin = teller();
        let forebay = Forebay::start(&settings(&origin, &acmes, ""));
        let path = folder.path().join(format!("{}.sock", acmes.len()));
        let listener = UnixListener::bind(&path, &Permissions::default()).unwrap();
        let _stopper = forebay.listen(listener.into());
        let socket = || async { UnixStream::connect(&path).await.unwrap() };
        let got = Agent::on(socket().await).await.call(claims("/tool/"), "").await;
        assert_eq!(seen(&got), expected);
        let got = Agent2::on(socket().await).await.call(claims("http://localhost/tool/"), "").await;
        assert_eq!(seen(&got), expected);
        // Another tenant's key is no way around it where the user proves one.
        let with_key = claims("/tool/").header("x-forebay-key", "key-z");
        let got = Agent::on(socket().await).await.call(with_key, "").await;
        let expected = if acmes.is_empty() { (200, "Bearer of-zeta") } else { (401, "") };
        assert_eq!(seen(&got), expected);
        // Over TCP nobody's user is known.
        let got = forebay.agent().await.call(claims("/tool/"), "").await;
        assert_eq!(seen(&got), (401, ""));
    }
}

/// Whose signature is on a certificate.
struct Authority {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { params, key, pem }
    }

    /// A certificate with one name, and its key.
    fn issue(&self, name: SanType) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![name];
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_params(&self.params, &self.key);
        let signed = params.signed_by(&key, &issuer).unwrap();
        (signed.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

/// The settings of a listener that asks for certificates of `authority`, in `folder`.
fn asking(folder: &Path, authority: &Authority) -> String {
    let file = |name: &str, text: String| -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let cert = file("cert.pem", own.cert.pem());
    let key = file("key.pem", own.signing_key.serialize_pem());
    let ca = file("agents.pem", authority.pem.clone());
    format!(
        "tls = {{ cert = \"{}\", key = \"{}\", ca_file = \"{}\" }}\n",
        cert.display(),
        key.display(),
        ca.display()
    )
}

async fn shown(
    forebay: &Forebay,
    folder: &Path,
    certificate: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("cert.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match certificate {
        Some((cert, key)) => config.with_client_auth_cert(vec![cert], key).unwrap(),
        None => config.with_no_client_auth(),
    };
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, forebay.socket().await).await.unwrap()
}

#[tokio::test]
async fn a_certificate_says_who_calls_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, origin) = (Authority::new(), teller());
    let asking = asking(folder.path(), &authority);
    let acmes = "certificates = [\"uri:spiffe://test/acme\"]";
    let forebay = Forebay::start(&settings(&origin, acmes, &asking));
    let acme = || authority.issue(SanType::URI("spiffe://test/acme".try_into().unwrap()));
    for (certificate, key, expected) in [
        (Some(acme()), None, (200, "Bearer of-acme")),
        (Some(authority.issue(dns("zeta.test"))), None, (200, "Bearer of-zeta")),
        // Another tenant's key is no way around it.
        (Some(acme()), Some("key-z"), (401, "")),
        (Some(acme()), Some("key-a"), (200, "Bearer of-acme")),
        // Good, but nobody's: it proves nothing, a key does.
        (Some(authority.issue(dns("stranger.test"))), None, (401, "")),
        (Some(authority.issue(dns("stranger.test"))), Some("key-z"), (200, "Bearer of-zeta")),
        // A name in another place is another name.
        (Some(authority.issue(dns("spiffe.test.acme"))), None, (401, "")),
        (None, None, (401, "")),
        (None, Some("key-a"), (200, "Bearer of-acme")),
    ] {
        let what = (certificate.is_some(), key);
        let mut agent = Agent::on(shown(&forebay, folder.path(), certificate).await).await;
        let call = match key {
            Some(key) => claims("/tool/").header("x-forebay-key", key),
            None => claims("/tool/"),
        };
        let got = agent.call(call, "").await;
        assert_eq!(seen(&got), expected, "{what:?}");
    }
}

#[tokio::test]
async fn a_certificate_that_nobody_signed_whom_we_believe_ends_the_handshake() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, origin) = (Authority::new(), teller());
    let asking = asking(folder.path(), &authority);
    let forebay = Forebay::start(&settings(&origin, "", &asking));
    let forged = Authority::new().issue(dns("zeta.test"));
    let mut stream = shown(&forebay, folder.path(), Some(forged)).await;
    // In TLS 1.3 the refusal comes behind the handshake.
    let call = b"GET /tool/ HTTP/1.1\r\nhost: localhost\r\n\r\n";
    drop(tokio::io::AsyncWriteExt::write_all(&mut stream, call).await);
    let mut heard = Vec::new();
    let ended = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut heard).await;
    assert!(ended.is_err() && heard.is_empty(), "{ended:?} {heard:?}");
    assert!(origin.seen().is_empty());
}
