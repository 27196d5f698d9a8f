//! TLS towards servers: libpq's modes, client certificates, revocations, and whom a login is
//! bound to.

use std::sync::Arc;

use forebay_seam::net;
use forebay_seam::sync::Mutex;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::authority::{Authority, put};
use super::{SCRAM, before, secured, server, with_scram};
use crate::bench::{Bench, until};
use crate::client::{Client, cancel_request, query, show, startup};

const ENCRYPTED: &str = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";

/// What the user's first question is answered, or why it is not.
async fn first(bench: &Bench, user: &str, question: &str) -> Result<String, String> {
    let first = startup(&[("user", user), ("database", "postgres")]);
    Ok(Client::start(bench.address, &first).await?.value(question).await)
}

#[tokio::test]
async fn a_server_is_believed_as_sslmode_says() {
    let secured = secured().await;
    let folder = tempfile::tempdir().unwrap();
    let ca = secured.authority.write_own(folder.path());
    let other = folder.path().join("stranger.crt");
    put(&other, Authority::new().pem());
    let (port, named) = (secured.cluster.port(), secured.address());
    let numbered = format!("127.0.0.1:{port}");
    for (mode, address, roots, encrypted) in [
        ("disable", &numbered, None, Some("f")),
        ("allow", &numbered, None, Some("f")),
        ("prefer", &numbered, None, Some("t")),
        ("require", &numbered, None, Some("t")),
        ("require", &numbered, Some(&ca), Some("t")),
        ("require", &numbered, Some(&other), None),
        ("verify-ca", &numbered, Some(&ca), Some("t")),
        ("verify-ca", &numbered, Some(&other), None),
        ("verify-full", &named, Some(&ca), Some("t")),
        ("verify-full", &numbered, Some(&ca), None),
        ("verify-full", &named, None, None),
    ] {
        let bench = before(server(address, json!({"sslmode": mode, "sslrootcert": roots})), |_| {});
        let said = first(&bench, "forebay", ENCRYPTED).await;
        let as_expected = match encrypted {
            Some(expected) => said == Ok(expected.to_owned()),
            None => said.is_err(),
        };
        assert!(as_expected, "{mode} {address} {roots:?}: {said:?}");
    }
}

#[tokio::test]
async fn a_server_may_ask_for_our_certificate_and_its_version_is_ours_to_choose() {
    let secured = secured().await;
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = secured.authority.write(folder.path(), "ours", &[], "certified");
    let certified = |more: serde_json::Value| {
        let mut settings = json!({"sslmode": "require", "sslcert": cert, "sslkey": key});
        settings.as_object_mut().unwrap().append(&mut more.as_object().unwrap().clone());
        before(server(&secured.address(), settings), |_| {})
    };
    let version = "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let bench = certified(json!({}));
    assert_eq!(first(&bench, "certified", version).await.unwrap(), "TLSv1.3");
    let bench = certified(json!({"ssl_max_version": "1.2"}));
    assert_eq!(first(&bench, "certified", version).await.unwrap(), "TLSv1.2");
    let bare = before(server(&secured.address(), json!({"sslmode": "require"})), |_| {});
    assert!(first(&bare, "certified", version).await.is_err());
}

#[tokio::test]
async fn a_certificate_that_was_revoked_is_not_believed_from_the_moment_the_list_says_so() {
    let secured = secured().await;
    let folder = tempfile::tempdir().unwrap();
    let (ca, list) = (secured.authority.write_own(folder.path()), folder.path().join("list"));
    put(&list, &secured.authority.revoke(&["somebody"]));
    let settings = json!({"sslmode": "verify-full", "sslrootcert": ca, "sslcrl": list});
    let bench = before(server(&secured.address(), settings), |_| {});
    assert_eq!(first(&bench, "forebay", ENCRYPTED).await.unwrap(), "t");
    put(&list, &secured.authority.revoke(&["server"]));
    until("the server is not believed", async || {
        bench.gateway.renew("main");
        let first = startup(&[("user", "forebay"), ("database", "postgres")]);
        match Client::start(bench.address, &first).await {
            Ok(mut client) => client.query("SELECT 1").await.starts_with("E["),
            Err(_) => true,
        }
    })
    .await;
}

#[tokio::test]
async fn a_login_is_bound_to_its_channel_where_that_is_possible() {
    let secured = secured().await;
    let (own, question) = (secured.address(), "SELECT current_user");
    for (mode, binding, works) in [
        ("require", "prefer", true),
        ("require", "require", true),
        ("require", "disable", true),
        ("disable", "prefer", true),
        ("prefer", "require", true),
        ("allow", "require", false),
    ] {
        let settings = server(&own, json!({"sslmode": mode, "channel_binding": binding}));
        let bench = before(settings, with_scram);
        let said = first(&bench, SCRAM.0, question).await;
        assert_eq!(said.is_ok(), works, "{mode} {binding}: {said:?}");
        // Who needs no proof binds to nothing.
        let said = first(&bench, "forebay", question).await;
        assert_eq!(said.is_ok(), binding != "require", "{mode} {binding}: {said:?}");
    }
}

/// The codes of the first packets that come through to the server.
async fn listens_in(secured: &'static super::Secured) -> (u16, Arc<Mutex<Vec<u32>>>) {
    let listener = net::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let port = listener.local_addr().unwrap().port();
    let codes = Arc::<Mutex<Vec<u32>>>::default();
    let heard = Arc::clone(&codes);
    drop(tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let heard = Arc::clone(&heard);
            drop(tokio::spawn(async move {
                let mut first = [0; 8];
                near.read_exact(&mut first).await?;
                let code = first.last_chunk().map_or(0, |code| u32::from_be_bytes(*code));
                heard.lock().push(code);
                let mut far = net::connect(&[secured.cluster.address()]).await?;
                far.write_all(&first).await?;
                tokio::io::copy_bidirectional(&mut near, &mut far).await
            }));
        }
    }));
    (port, codes)
}

#[tokio::test]
async fn a_cancel_is_encrypted_where_the_connection_that_it_is_for_is() {
    const CANCEL: u32 = 80_877_102;
    const TLS: u32 = 80_877_103;
    let secured = secured().await;
    let folder = tempfile::tempdir().unwrap();
    let ca = secured.authority.write_own(folder.path());
    for (mode, encrypted) in
        [("disable", false), ("allow", false), ("prefer", true), ("verify-full", true)]
    {
        let (port, codes) = listens_in(secured).await;
        let settings = json!({"sslmode": mode, "sslrootcert": ca});
        let bench = before(server(&format!("localhost:{port}"), settings), |_| {});
        let mut client = bench.client().await;
        client.send(&query("SELECT pg_sleep(60)")).await;
        until("it runs", async || bench.leased() == 1).await;
        codes.lock().clear();
        let key = client.key.clone();
        Client::bare(bench.address).await.send(&cancel_request(&key)).await;
        let told = show(&client.until_ready(1).await);
        assert!(told.contains("E[57014 ") && told.ends_with("Z[I]"), "{mode}: {told}");
        let expected = if encrypted { TLS } else { CANCEL };
        let codes = codes.lock();
        assert!(codes.contains(&expected), "{mode}: {codes:?}");
        assert_eq!(codes.contains(&CANCEL), !encrypted, "{mode}: {codes:?}");
    }
}

/// What somebody who stands between does to what the server offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Between {
    OnlyListens,
    /// Takes channel binding out of it.
    Strips,
}

/// Stands between with a certificate of its own. Nothing but channel binding would notice.
async fn stands_between(secured: &'static super::Secured, between: Between) -> u16 {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = Authority::new().write(folder.path(), "own", &["localhost"], "own");
    let acceptor = acceptor(&cert, &key);
    let listener = net::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let port = listener.local_addr().unwrap().port();
    let connector = super::believing(&secured.authority, &[]);
    drop(tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let (acceptor, connector) = (acceptor.clone(), connector.clone());
            drop(tokio::spawn(async move {
                let mut request = [0; 8];
                near.read_exact(&mut request).await?;
                near.write_all(b"S").await?;
                let mut near = acceptor.accept(near).await?;
                let mut far = net::connect(&[secured.cluster.address()]).await?;
                far.write_all(&request).await?;
                assert_eq!(far.read_u8().await?, b'S');
                let mut far = connector.connect(super::clients::localhost(), far).await?;
                if between == Between::Strips {
                    let mut startup = vec![0; 4096];
                    let n = near.read(&mut startup).await?;
                    far.write_all(&startup[..n]).await?;
                    let mut offer = vec![0; 4096];
                    let n = far.read(&mut offer).await?;
                    assert!(offer[..n].windows(5).any(|part| part == b"-PLUS"));
                    near.write_all(b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0").await?;
                }
                tokio::io::copy_bidirectional(&mut near, &mut far).await
            }));
        }
    }));
    port
}

pub(super) fn acceptor(cert: &std::path::Path, key: &std::path::Path) -> tokio_rustls::TlsAcceptor {
    use rustls::pki_types::pem::PemObject;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![rustls::pki_types::CertificateDer::from_pem_file(cert).unwrap()],
            rustls::pki_types::PrivateKeyDer::from_pem_file(key).unwrap(),
        )
        .unwrap();
    tokio_rustls::TlsAcceptor::from(Arc::new(config))
}

#[tokio::test]
async fn somebody_who_stands_between_with_another_certificate_is_noticed() {
    let secured = secured().await;
    for (between, binding, works) in [
        (Between::OnlyListens, "disable", true),
        (Between::OnlyListens, "prefer", false),
        (Between::OnlyListens, "require", false),
        // The server hears that its offer did not arrive.
        (Between::Strips, "prefer", false),
        (Between::Strips, "require", false),
    ] {
        let port = stands_between(secured, between).await;
        let settings = json!({"sslmode": "require", "channel_binding": binding});
        let bench = before(server(&format!("localhost:{port}"), settings), with_scram);
        let said = first(&bench, SCRAM.0, "SELECT 'mine'").await;
        assert_eq!(said == Ok("mine".into()), works, "{between:?} {binding}: {said:?}");
    }
}

#[tokio::test]
async fn direct_tls_is_spoken_with_a_server_that_says_so_and_with_no_other() {
    let secured = secured().await;
    for speaks in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = Authority::new().write(folder.path(), "own", &["localhost"], "own");
        let mut config = rustls::ServerConfig::clone(acceptor(&cert, &key).config());
        if speaks {
            config.alpn_protocols = vec![b"postgresql".to_vec()];
        }
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = net::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let port = listener.local_addr().unwrap().port();
        // A PostgreSQL 17, as far as its first byte is concerned.
        drop(tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                drop(tokio::spawn(async move {
                    let mut near = acceptor.accept(near).await?;
                    let mut far = net::connect(&[secured.cluster.address()]).await?;
                    tokio::io::copy_bidirectional(&mut near, &mut far).await
                }));
            }
        }));
        let settings = json!({"sslmode": "require", "sslnegotiation": "direct"});
        let bench = before(server(&format!("localhost:{port}"), settings), |_| {});
        let said = first(&bench, "forebay", "SELECT 'here'").await;
        assert_eq!(said == Ok("here".into()), speaks, "{said:?}");
    }
}
