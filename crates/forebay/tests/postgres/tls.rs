//! TLS and Unix sockets beside a PostgreSQL that has both, with certificates of our own.

mod authority;
mod clients;
mod direct;
mod hostile_servers;
mod servers;
mod unix_sockets;

use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, OnceLock};

use forebay::demo::cluster::{Cluster, ClusterSettings};
use forebay::demo::postgres_binaries;
use forebay_postgres::PostgresSettings;
use forebay_postgres::settings::{ClientTls, ServerSettings, UserSettings};
use serde_json::{Value, json};

use crate::bench::Bench;
use authority::Authority;

/// A role that logs in by SCRAM, and its password.
pub(crate) const SCRAM: (&str, &str) = ("scrambled", "correct horse");

/// A PostgreSQL with TLS, and who signed its certificate.
pub(crate) struct Secured {
    pub(crate) cluster: Cluster,
    pub(crate) authority: Authority,
}

impl Secured {
    /// `host:port`, by a name that its certificate has.
    pub(crate) fn address(&self) -> String {
        format!("localhost:{}", self.cluster.port())
    }
}

/// The one that all tests here share.
pub(crate) async fn secured() -> &'static Secured {
    static SHARED: OnceLock<Secured> = OnceLock::new();
    tokio::task::spawn_blocking(|| SHARED.get_or_init(start)).await.unwrap()
}

fn start() -> Secured {
    let authority = Authority::new();
    let (cert, key) = authority.sign(&["localhost"], "server");
    let settings = ClusterSettings {
        max_connections: 100,
        settings: [
            ("ssl", "on"),
            ("ssl_ca_file", "root.crt"),
            ("ssl_min_protocol_version", "TLSv1.2"),
        ]
        .map(|(name, value)| (name.into(), value.into()))
        .into(),
        hba: vec![
            format!("host all {} 127.0.0.1/32 scram-sha-256", SCRAM.0),
            "hostssl all certified 127.0.0.1/32 cert".into(),
            "local all all trust".into(),
            "host all all 127.0.0.1/32 trust".into(),
        ],
        files: vec![
            ("server.crt".into(), cert),
            ("server.key".into(), key),
            ("root.crt".into(), authority.pem().to_owned()),
        ],
    };
    let cluster = Cluster::start(&postgres_binaries::find().unwrap(), settings).unwrap();
    let made = format!(
        "CREATE ROLE {} LOGIN PASSWORD '{}'; CREATE ROLE certified LOGIN",
        SCRAM.0, SCRAM.1
    );
    let socket = cluster.folder().to_str().unwrap();
    let done = psql(&format!("host={socket} port={} user=forebay", cluster.port()), &made);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Secured { cluster, authority }
}

/// psql's answer to one question.
pub(crate) fn psql(dsn: &str, question: &str) -> Output {
    let mut command = Command::new("psql");
    command.args(["-XAtq", "-d", &format!("{dsn} dbname=postgres connect_timeout=10")]);
    // Whoever runs the tests may have files of their own.
    command.env("HOME", "/nonexistent").args(["-c", question]).output().unwrap()
}

/// What psql printed, or why not.
pub(crate) async fn ask(dsn: String, question: &'static str) -> Result<String, String> {
    let output = tokio::task::spawn_blocking(move || psql(&dsn, question)).await.unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Settings of a server at `address`, with `more`.
pub(crate) fn server(address: &str, more: Value) -> ServerSettings {
    let mut settings = json!({
        "address": address, "budget": 2, "warm_up": 0, "ai_share": 100, "sslmode": "disable",
    });
    settings.as_object_mut().unwrap().append(&mut more.as_object().unwrap().clone());
    serde_json::from_value(settings).unwrap()
}

/// A gateway in front of `server`.
pub(crate) fn before(server: ServerSettings, change: impl FnOnce(&mut PostgresSettings)) -> Bench {
    let nowhere = ([127, 0, 0, 1], 1).into();
    Bench::before(nowhere, "postgres", 1, |settings| {
        settings.servers.insert("main".into(), server);
        change(settings);
    })
}

/// Lets the role that logs in by SCRAM through.
pub(crate) fn with_scram(settings: &mut PostgresSettings) {
    let user: UserSettings = serde_json::from_value(json!({ "server_password": SCRAM.1 })).unwrap();
    settings.users.insert(SCRAM.0.into(), user);
    settings.users.insert("forebay".into(), UserSettings::default());
}

/// TLS towards clients with a certificate for `localhost`, in `folder`, and `more`.
pub(crate) fn towards_clients(authority: &Authority, folder: &Path, more: Value) -> ClientTls {
    let (cert, key) = authority.write(folder, "gateway", &["localhost"], "gateway");
    let mut settings = json!({ "cert": cert, "key": key });
    settings.as_object_mut().unwrap().append(&mut more.as_object().unwrap().clone());
    serde_json::from_value(settings).unwrap()
}

/// A driver over `stream`.
pub(crate) async fn driver<S>(stream: S, user: &str) -> Result<tokio_postgres::Client, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let mut config = tokio_postgres::Config::new();
    config.user(user).dbname("postgres");
    let connected = config.connect_raw(stream, tokio_postgres::NoTls).await;
    let (client, connection) = connected.map_err(|error| error.to_string())?;
    drop(tokio::spawn(connection));
    Ok(client)
}

/// A client's side of TLS that believes `authority`.
pub(crate) fn believing(authority: &Authority, alpn: &[&[u8]]) -> tokio_rustls::TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    tokio_rustls::TlsConnector::from(Arc::new(config))
}
