//! Unix sockets on both sides.

use forebay_seam::net::{Permissions, UnixListener};
use forebay_seam::task::Stopper;
use serde_json::json;

use super::{ask, before, secured, server};

#[tokio::test]
async fn clients_and_servers_are_met_at_unix_sockets() {
    let secured = secured().await;
    let folder = secured.cluster.folder().to_str().unwrap();
    let at = format!("unix:{folder}/.s.PGSQL.{}", secured.cluster.port());
    // What libpq does: no TLS there, whatever is asked.
    let bench = before(server(&at, json!({ "sslmode": "require" })), |_| {});
    let here = tempfile::tempdir().unwrap();
    let path = here.path().join(".s.PGSQL.7777");
    let listener = UnixListener::bind(&path, &Permissions::default()).unwrap();
    let (_stopper, stop) = Stopper::new();
    let gateway = bench.gateway.clone();
    drop(tokio::spawn(async move { gateway.serve(listener, stop).await }));
    let dsn = format!("host={} port=7777 user=forebay", here.path().display());
    let whence = "SELECT coalesce(host(client_addr), 'socket') || ' ' || ssl
                  FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)
                  WHERE pid = pg_backend_pid()";
    assert_eq!(ask(dsn, whence).await.unwrap(), "socket false");
    bench.all_home().await;
}

#[tokio::test]
async fn tls_is_neither_offered_nor_required_on_a_unix_socket() {
    use crate::client::{packet, startup};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let secured = secured().await;
    let folder = tempfile::tempdir().unwrap();
    let tls = super::towards_clients(&secured.authority, folder.path(), json!({"mode": "require"}));
    let bench = before(server(&secured.address(), json!({})), |settings| settings.tls = Some(tls));
    let path = folder.path().join(".s.PGSQL.7778");
    let listener = UnixListener::bind(&path, &Permissions::default()).unwrap();
    let (_stopper, stop) = Stopper::new();
    let gateway = bench.gateway.clone();
    drop(tokio::spawn(async move { gateway.serve(listener, stop).await }));
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    stream.write_all(&packet(&80_877_103_u32.to_be_bytes())).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'N');
    stream.write_all(&startup(&[("user", "forebay"), ("database", "postgres")])).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'R');
}
