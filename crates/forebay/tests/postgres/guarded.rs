//! A PostgreSQL that asks everybody for a proof, with TLS where it is wanted, and a driver that
//! gives proofs: what tests of authentication need.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use forebay::demo::cluster::{Cluster, ClusterSettings};
use forebay::demo::postgres_binaries;
use forebay_postgres::PostgresSettings;
use forebay_postgres::settings::{ClientAuth, ClientTls, DatabaseSettings, UserSettings};
use forebay_seam::secret::SecretRef;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OnceCell;
use tokio_postgres::config::{ChannelBinding as Wanted, SslMode};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};

use crate::bench::Bench;

/// The password of all users.
pub(crate) const RIGHT: &str = "correct horse battery staple";
/// Has a SCRAM verifier.
pub(crate) const ANN: &str = "ann";
/// Has an MD5 hash.
pub(crate) const BOB: &str = "bob";
/// Its password was good until the year 2000.
pub(crate) const EXPIRED: &str = "expired";
/// Is there, and may not log in.
pub(crate) const ASLEEP: &str = "asleep";
/// May read pg_authid.
pub(crate) const ASKER: &str = "asker";

/// A server that nobody enters without a proof.
pub(crate) struct Guarded {
    cluster: Cluster,
    folder: tempfile::TempDir,
    /// Of the certificate that gateways show.
    binding: Vec<u8>,
    /// Signs the certificates of clients.
    issuer: Issuer<'static, KeyPair>,
    /// What pg_authid has, by user.
    pub(crate) stored: BTreeMap<String, String>,
}

/// The one that all tests of the process share.
pub(crate) async fn guarded() -> &'static Guarded {
    static SHARED: OnceCell<Guarded> = OnceCell::const_new();
    SHARED.get_or_init(Guarded::start).await
}

impl Guarded {
    async fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cert.pem"), &cert).unwrap();
        std::fs::write(folder.path().join("key.pem"), &key).unwrap();
        let binding = sha256(made.cert.der());
        let mut authority = CertificateParams::default();
        authority.distinguished_name.push(DnType::CommonName, "clients' authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let signs = KeyPair::generate().unwrap();
        let pem = authority.self_signed(&signs).unwrap().pem();
        std::fs::write(folder.path().join("authority.pem"), pem).unwrap();
        let issuer = Issuer::new(authority, signs);
        let start = move || {
            let settings = ClusterSettings {
                settings: vec![("ssl".into(), "on".into())],
                // Whatever is stored decides: MD5 or SCRAM.
                hba: vec!["host all all 127.0.0.1/32 md5".into()],
                files: vec![("server.crt".into(), cert), ("server.key".into(), key)],
                ..ClusterSettings::default()
            };
            Cluster::start(&postgres_binaries::find().unwrap(), settings).unwrap()
        };
        let cluster = tokio::task::spawn_blocking(start).await.unwrap();
        let admin = connect(&cluster.dsn()).await;
        let roles = format!(
            "CREATE ROLE {ANN} LOGIN PASSWORD '{RIGHT}'; \
             CREATE ROLE {EXPIRED} LOGIN PASSWORD '{RIGHT}' VALID UNTIL '2000-01-01'; \
             CREATE ROLE {ASLEEP} NOLOGIN PASSWORD '{RIGHT}'; \
             CREATE ROLE {ASKER} LOGIN PASSWORD '{RIGHT}'; \
             GRANT SELECT ON pg_catalog.pg_authid TO {ASKER}; \
             SET password_encryption = md5; CREATE ROLE {BOB} LOGIN PASSWORD '{RIGHT}'"
        );
        admin.batch_execute(&roles).await.unwrap();
        let rows = admin.query("SELECT rolname::text, rolpassword FROM pg_authid", &[]).await;
        let rows = rows.unwrap().into_iter();
        let stored = rows.filter_map(|row| Some((row.get(0), row.get::<_, Option<String>>(1)?)));
        let stored = stored.collect();
        Self { cluster, folder, binding, issuer, stored }
    }

    /// The server's superuser.
    pub(crate) async fn admin(&self) -> tokio_postgres::Client {
        connect(&self.cluster.dsn()).await
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.cluster.address()
    }

    /// A gateway in front of it, with TLS towards clients. Nobody is listed.
    pub(crate) fn gateway(
        &self,
        auth: ClientAuth,
        change: impl FnOnce(&mut PostgresSettings),
    ) -> Bench {
        Bench::before(self.address(), "postgres", 20, |settings| {
            settings.auth = auth;
            let (cert, key) = (self.path("cert.pem"), self.path("key.pem"));
            settings.tls = Some(tls_settings(cert, key));
            let database = DatabaseSettings::default();
            settings.databases.insert("postgres".into(), database);
            change(settings);
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file with `text`.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    /// TLS that binds to the certificate of the gateways.
    pub(crate) fn tls(&self) -> Way {
        Way::Tls(self.binding.clone())
    }

    /// Who signs the certificates of clients.
    pub(crate) fn authority(&self) -> PathBuf {
        self.path("authority.pem")
    }

    /// TLS with a certificate made out for `name`, or without one.
    pub(crate) fn with_certificate(&self, name: Option<&str>) -> Way {
        let Some(name) = name else { return self.tls() };
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = key.serialize_der();
        Way::Certified { binding: self.binding.clone(), certificate, key }
    }
}

fn tls_settings(cert: PathBuf, key: PathBuf) -> ClientTls {
    serde_json::from_value(serde_json::json!({ "cert": cert, "key": key })).unwrap()
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13();
    suite.unwrap().common.hash_provider.hash(bytes).as_ref().to_vec()
}

async fn connect(dsn: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(dsn, tokio_postgres::NoTls).await.unwrap();
    drop(tokio::spawn(connection));
    client
}

/// A user that is listed with `secret`.
pub(crate) fn listed(settings: &mut PostgresSettings, user: &str, secret: &str) {
    let password = Some(SecretRef::new(secret));
    let listed = UserSettings { password, ..UserSettings::default() };
    settings.users.insert(user.into(), listed);
}

/// How a driver comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    Plain,
    /// With TLS; SCRAM is bound to this hash of a certificate.
    Tls(Vec<u8>),
    /// The same, with a certificate and its key.
    Certified {
        binding: Vec<u8>,
        certificate: CertificateDer<'static>,
        key: Vec<u8>,
    },
}

/// Why a login failed: the SQLSTATE and the words.
pub(crate) type Refused = (String, String);

/// Logs in with a real driver.
pub(crate) async fn log_in(
    bench: &Bench,
    way: &Way,
    user: &str,
    password: &str,
) -> Result<tokio_postgres::Client, Refused> {
    log_in_bound(bench, way, user, password, Wanted::Prefer).await
}

/// As [`log_in`], saying whether the login has to be bound to TLS.
pub(crate) async fn log_in_bound(
    bench: &Bench,
    way: &Way,
    user: &str,
    password: &str,
    wanted: Wanted,
) -> Result<tokio_postgres::Client, Refused> {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(bench.address.port());
    config.user(user).password(password).dbname(&bench.database).channel_binding(wanted);
    let refused = |error: tokio_postgres::Error| match error.as_db_error() {
        Some(said) => (said.code().code().to_owned(), said.message().to_owned()),
        None => ("driver".to_owned(), format!("{error:?}")),
    };
    match way {
        Way::Plain => {
            config.ssl_mode(SslMode::Disable);
            let connected = config.connect(tokio_postgres::NoTls).await;
            let (client, connection) = connected.map_err(refused)?;
            drop(tokio::spawn(connection));
            Ok(client)
        }
        Way::Tls(_) | Way::Certified { .. } => {
            config.ssl_mode(SslMode::Require);
            let connected = config.connect(Tls(way.clone())).await;
            let (client, connection) = connected.map_err(refused)?;
            drop(tokio::spawn(connection));
            Ok(client)
        }
    }
}

/// TLS for a driver; trusts everybody, since the binding is what is tested.
#[derive(Clone)]
struct Tls(Way);

/// A TLS stream and what SCRAM is bound to.
struct Bound {
    tls: Pin<Box<tokio_rustls::client::TlsStream<tokio_postgres::Socket>>>,
    binding: Vec<u8>,
}

impl MakeTlsConnect<tokio_postgres::Socket> for Tls {
    type Stream = Bound;
    type TlsConnect = Self;
    type Error = io::Error;

    fn make_tls_connect(&mut self, _: &str) -> Result<Self, io::Error> {
        Ok(self.clone())
    }
}

impl TlsConnect<tokio_postgres::Socket> for Tls {
    type Stream = Bound;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Bound>> + Send>>;

    fn connect(self, socket: tokio_postgres::Socket) -> Self::Future {
        Box::pin(async move {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .map_err(io::Error::other)?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody));
            let (binding, config) = match self.0 {
                Way::Plain => (Vec::new(), config.with_no_client_auth()),
                Way::Tls(binding) => (binding, config.with_no_client_auth()),
                Way::Certified { binding, certificate, key } => {
                    let key = PrivatePkcs8KeyDer::from(key).into();
                    let config = config.with_client_auth_cert(vec![certificate], key);
                    (binding, config.map_err(io::Error::other)?)
                }
            };
            let name = ServerName::try_from("localhost").unwrap();
            let tls = tokio_rustls::TlsConnector::from(Arc::new(config));
            let tls = Box::pin(tls.connect(name, socket).await?);
            Ok(Bound { tls, binding })
        })
    }
}

impl TlsStream for Bound {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::tls_server_end_point(self.binding.clone())
    }
}

impl AsyncRead for Bound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.tls.as_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for Bound {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.tls.as_mut().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tls.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tls.as_mut().poll_shutdown(cx)
    }
}

#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.signature_verification_algorithms.supported_schemes()
    }
}
