//! Direct TLS (PostgreSQL 17): a client that begins with its handshake.

use forebay_seam::net;
use forebay_seam::time;
use serde_json::json;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::clients::localhost;
use super::{before, believing, driver, secured, server, towards_clients};
use crate::bench::Bench;

const ALPN: &[u8] = b"postgresql";

async fn with_tls(folder: &tempfile::TempDir) -> Bench {
    let secured = secured().await;
    let settings = towards_clients(&secured.authority, folder.path(), json!({}));
    before(server(&secured.address(), json!({})), |s| s.tls = Some(settings))
}

#[tokio::test]
async fn a_client_may_begin_with_its_handshake() {
    let folder = tempfile::tempdir().unwrap();
    let bench = with_tls(&folder).await;
    let authority = &secured().await.authority;
    let tcp = net::connect(&[bench.address]).await.unwrap();
    let session = believing(authority, &[ALPN]).connect(localhost(), tcp).await.unwrap();
    assert_eq!(session.get_ref().1.alpn_protocol(), Some(ALPN));
    let client = driver(session, "forebay").await.unwrap();
    assert_eq!(client.query_one("SELECT 2", &[]).await.unwrap().get::<_, i32>(0), 2);
}

#[tokio::test]
async fn a_handshake_may_come_byte_by_byte() {
    let folder = tempfile::tempdir().unwrap();
    let bench = with_tls(&folder).await;
    let authority = &secured().await.authority;
    let (near, far) = tokio::io::duplex(64 * 1024);
    let tcp = net::connect(&[bench.address]).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    drop(tokio::spawn(async move {
        let (mut from, mut to) = tcp.into_split();
        let (mut down, mut up) = tokio::io::split(far);
        let slowly = async {
            let mut byte = [0];
            while down.read_exact(&mut byte).await.is_ok() {
                if to.write_all(&byte).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(slowly, tokio::io::copy(&mut from, &mut up))
    }));
    let session = believing(authority, &[ALPN]).connect(localhost(), near).await.unwrap();
    let client = driver(session, "forebay").await.unwrap();
    assert_eq!(client.query_one("SELECT 2", &[]).await.unwrap().get::<_, i32>(0), 2);
}

#[tokio::test]
async fn direct_tls_without_the_name_of_the_protocol_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let bench = with_tls(&folder).await;
    let authority = &secured().await.authority;
    for alpn in [&[][..], &[b"http/1.1".as_slice()]] {
        let tcp = net::connect(&[bench.address]).await.unwrap();
        let refused = match believing(authority, alpn).connect(localhost(), tcp).await {
            Ok(session) => driver(session, "forebay").await.is_err(),
            Err(_) => true,
        };
        assert!(refused, "{alpn:?}");
    }
}

#[tokio::test]
async fn direct_tls_to_a_gateway_without_certificate_and_nonsense_are_closed() {
    let folder = tempfile::tempdir().unwrap();
    let secured = secured().await;
    let bare = before(server(&secured.address(), json!({})), |_| {});
    let tcp = net::connect(&[bare.address]).await.unwrap();
    let tried = believing(&secured.authority, &[ALPN]).connect(localhost(), tcp).await;
    assert!(tried.is_err());
    let bench = with_tls(&folder).await;
    for nonsense in [&b"\x16\x03\x01\x00\x05hello"[..], b"\x16\xff\xff\xff\xff\xff", b"\x16"] {
        let mut tcp = net::connect(&[bench.address]).await.unwrap();
        tcp.write_all(nonsense).await.unwrap();
        tcp.shutdown().await.unwrap();
        let mut said = Vec::new();
        let ended = time::timeout(Duration::from_secs(10), tcp.read_to_end(&mut said)).await;
        assert!(ended.is_ok(), "{nonsense:?}");
    }
}

#[tokio::test]
async fn trap_46_tls_is_not_begun_twice() {
    let folder = tempfile::tempdir().unwrap();
    let bench = with_tls(&folder).await;
    let authority = &secured().await.authority;
    let tcp = net::connect(&[bench.address]).await.unwrap();
    let mut session = believing(authority, &[ALPN]).connect(localhost(), tcp).await.unwrap();
    let request = crate::client::packet(&80_877_103_u32.to_be_bytes());
    session.write_all(&request).await.unwrap();
    assert_eq!(session.read_u8().await.unwrap(), b'E');
}
