//! TLS towards clients: who uses it, with which certificates, and what changes while they are
//! there.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use forebay_seam::net::TcpStream;
use forebay_seam::sync::Mutex;
use forebay_seam::{net, time};
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::authority::put;
use super::{ask, before, believing, driver, secured, server, towards_clients};
use crate::bench::{Bench, until};
use crate::client::packet;

fn dsn(bench: &Bench, more: &str) -> String {
    format!("host=localhost hostaddr=127.0.0.1 port={} user=forebay {more}", bench.address.port())
}

/// A TCP connection on which TLS was asked for and agreed to.
pub(super) async fn agreed(bench: &Bench) -> TcpStream {
    let mut tcp = net::connect(&[bench.address]).await.unwrap();
    tcp.write_all(&packet(&80_877_103_u32.to_be_bytes())).await.unwrap();
    assert_eq!(tcp.read_u8().await.unwrap(), b'S');
    tcp
}

pub(super) fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

#[tokio::test]
async fn a_mode_says_who_uses_tls_and_who_shows_a_certificate() {
    let secured = secured().await;
    let folder = tempfile::tempdir().unwrap();
    let authority = &secured.authority;
    let ca = authority.write_own(folder.path());
    let (cert, key) = authority.write(folder.path(), "app", &[], "forebay");
    let stranger = super::Authority::new();
    let (other_cert, other_key) = stranger.write(folder.path(), "other", &[], "forebay");
    let shows = |cert: &std::path::Path, key: &std::path::Path| {
        format!("sslmode=require sslcert={} sslkey={}", cert.display(), key.display())
    };
    let (plain, bare) = ("sslmode=disable", "sslmode=require");
    let believes = format!("sslmode=verify-full sslrootcert={}", ca.display());
    let (good, bad) = (shows(&cert, &key), shows(&other_cert, &other_key));
    for (tls, in_, out) in [
        (json!({"mode": "disable"}), vec![plain], vec![bare]),
        (json!({"mode": "allow"}), vec![plain, bare, &*good, &*bad], vec![]),
        (json!({}), vec![plain, &*believes], vec![]),
        (json!({"required": true}), vec![&*believes], vec![plain]),
        (json!({"mode": "prefer", "ca_file": ca}), vec![plain, bare, &*good], vec![&*bad]),
        (json!({"mode": "require", "ca_file": ca}), vec![bare, &*good], vec![plain, &*bad]),
        (json!({"mode": "verify-ca", "ca_file": ca}), vec![&*good], vec![plain, bare, &*bad]),
    ] {
        let settings = towards_clients(authority, folder.path(), tls.clone());
        let bench = before(server(&secured.address(), json!({})), |s| s.tls = Some(settings));
        for (dsns, gets_in) in [(in_, true), (out, false)] {
            for more in dsns {
                let said = ask(dsn(&bench, more), "SELECT 'here'").await;
                assert_eq!(said == Ok("here".into()), gets_in, "{tls} {more}: {said:?}");
            }
        }
    }
}

#[tokio::test]
async fn versions_and_ciphers_are_those_that_are_set() {
    let secured = secured().await;
    let folder = tempfile::tempdir().unwrap();
    for (tls, client, works) in [
        (json!({"min_version": "1.3"}), "ssl_max_protocol_version=TLSv1.2", false),
        (json!({"max_version": "1.2"}), "ssl_min_protocol_version=TLSv1.3", false),
        (json!({"max_version": "1.2"}), "ssl_max_protocol_version=TLSv1.2", true),
        (
            json!({"ciphers": ["ECDHE-ECDSA-AES128-GCM-SHA256"]}),
            "ssl_min_protocol_version=TLSv1.3",
            false,
        ),
        (
            json!({"ciphers": ["ECDHE-ECDSA-AES128-GCM-SHA256"]}),
            "ssl_max_protocol_version=TLSv1.2",
            true,
        ),
    ] {
        let settings = towards_clients(&secured.authority, folder.path(), tls.clone());
        let bench = before(server(&secured.address(), json!({})), |s| s.tls = Some(settings));
        let said = ask(dsn(&bench, &format!("sslmode=require {client}")), "SELECT 'here'").await;
        assert_eq!(said == Ok("here".into()), works, "{tls} {client}: {said:?}");
    }
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_clients_and_a_broken_one_to_nobody() {
    let secured = secured().await;
    let folder = tempfile::tempdir().unwrap();
    let authority = &secured.authority;
    let settings = towards_clients(authority, folder.path(), json!({}));
    let files = (settings.cert.clone(), settings.key.clone());
    let bench = before(server(&secured.address(), json!({})), |s| s.tls = Some(settings));
    let shown = async || {
        let session =
            believing(authority, &[]).connect(localhost(), agreed(&bench).await).await.unwrap();
        let certificate = session.get_ref().1.peer_certificates().unwrap()[0].clone();
        (session, certificate)
    };
    let (session, first) = shown().await;
    let old = driver(session, "forebay").await.unwrap();
    authority.write(folder.path(), "gateway", &["localhost"], "another");
    until("the new certificate is shown", async || shown().await.1 != first).await;
    let (_, second) = shown().await;
    put(&files.1, "no key");
    time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(shown().await.1, second);
    // The files of a moment need not fit: the certificate is there before its key.
    let (cert, key) = authority.sign(&["localhost"], "third");
    put(&files.0, &cert);
    put(&files.1, &key);
    until("the third certificate is shown", async || shown().await.1 != second).await;
    assert_eq!(old.query_one("SELECT 1", &[]).await.unwrap().get::<_, i32>(0), 1);
}

#[tokio::test]
async fn a_reload_that_names_other_files_shows_them_and_the_old_ones_are_followed_no_more() {
    let secured = secured().await;
    let authority = &secured.authority;
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let before_it = towards_clients(authority, first.path(), json!({}));
    let (cert, key) = authority.write(second.path(), "elsewhere", &["localhost"], "elsewhere");
    let mut bench =
        before(server(&secured.address(), json!({})), |s| s.tls = Some(before_it.clone()));
    let shown = async |bench: &Bench| {
        let session =
            believing(authority, &[]).connect(localhost(), agreed(bench).await).await.unwrap();
        let certificate = session.get_ref().1.peer_certificates().unwrap()[0].clone();
        (session, certificate)
    };
    let (session, old) = shown(&bench).await;
    let client = driver(session, "forebay").await.unwrap();
    bench
        .apply(|settings| {
            let tls = settings.tls.as_mut().unwrap();
            (tls.cert, tls.key) = (cert.clone(), key.clone());
        })
        .await;
    let new = shown(&bench).await.1;
    assert_ne!(new, old);
    // What becomes of the old files is of no concern, also where they become nothing.
    std::fs::remove_file(&before_it.cert).unwrap();
    std::fs::remove_file(&before_it.key).unwrap();
    bench.apply(|_| {}).await;
    assert_eq!(shown(&bench).await.1, new);
    assert_eq!(client.query_one("SELECT 1", &[]).await.unwrap().get::<_, i32>(0), 1);
}

/// Keeps what is read.
struct Heard {
    tcp: TcpStream,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Heard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.tcp).poll_read(cx, buf);
        self.bytes.lock().extend_from_slice(&buf.filled()[before..]);
        polled
    }
}

impl AsyncWrite for Heard {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn trap_50_records_of_tls_are_no_longer_than_postgres_makes_them() {
    let secured = secured().await;
    let folder = tempfile::tempdir().unwrap();
    let settings = towards_clients(&secured.authority, folder.path(), json!({}));
    let bench = before(server(&secured.address(), json!({})), |s| s.tls = Some(settings));
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let heard = Heard { tcp: agreed(&bench).await, bytes: Arc::clone(&bytes) };
    let session = believing(&secured.authority, &[]).connect(localhost(), heard).await.unwrap();
    let client = driver(session, "forebay").await.unwrap();
    let row = client.query_one("SELECT repeat('x', 300000)", &[]).await.unwrap();
    assert_eq!(row.get::<_, String>(0).len(), 300_000);
    let bytes = bytes.lock().clone();
    let (mut rest, mut longest, mut records) = (&bytes[..], 0, 0);
    while let [_, _, _, high, low, ..] = *rest {
        let length = usize::from(u16::from_be_bytes([high, low]));
        longest = longest.max(length);
        records += 1;
        rest = rest.get(5 + length..).unwrap_or_default();
    }
    // 8 KiB of plaintext, its kind, and the tag of the cipher.
    assert!(longest <= 8192 + 17, "{longest}");
    assert!((37..80).contains(&records), "{records}");
}
