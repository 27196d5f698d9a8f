//! One process takes over from another, under load.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use forebay_seam::time;
use serde_json::Value;

use crate::bench::{Bench, USER};
use crate::client::Client;

/// A `forebay` process; killed when dropped.
struct Process {
    child: Child,
    address: SocketAddr,
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill().and_then(|()| self.child.wait()));
    }
}

impl Process {
    /// Runs until it listens.
    async fn start(config: &Path) -> Self {
        let config = config.to_owned();
        let started = tokio::task::spawn_blocking(move || Self::start_now(&config));
        started.await.unwrap()
    }

    fn start_now(config: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_forebay"))
            .args([Path::new("run"), config])
            .env_remove("FOREBAY_LOG")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("it ended").unwrap();
            let line: Value = serde_json::from_str(&line).expect(&line);
            if line["message"] == "Forebay listens" {
                break line["postgres"].as_str().unwrap().parse().unwrap();
            }
        };
        // Nobody reads the rest, and it must not stop the writer.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }

    async fn ends_well(mut self) -> bool {
        let waited = tokio::task::spawn_blocking(move || self.child.wait().unwrap().success());
        time::timeout(Duration::from_secs(20), waited).await.unwrap().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_under_load_refuses_nobody_and_breaks_no_transaction() {
    const BUDGET: u32 = 6;
    let bench = Bench::start(1).await;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("forebay.toml");
    let text = format!(
        "stop_timeout = \"16s\"\n[log]\nformat = \"json\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [restart]\nsocket = \"{}\"\n[postgres]\nlisten = \"127.0.0.1:0\"\nauth = \"trust\"\n\
         [postgres.servers.main]\naddress = \"{}\"\nsslmode = \"disable\"\n\
         budget = {BUDGET}\nai_share = 100\n",
        folder.path().join("restart").display(),
        bench.server,
    );
    std::fs::write(&config, text).unwrap();
    let old = Process::start(&config).await;
    let address = old.address;

    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let dsn = format!("postgres://{USER}@{address}/{}", bench.database);
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (stop, done, dsn) = (Arc::clone(&stop), Arc::clone(&done), dsn.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let (mut client, connection) =
                        tokio_postgres::connect(&dsn, tokio_postgres::NoTls).await.unwrap();
                    let connection = tokio::spawn(connection);
                    for _ in 0..3 {
                        let transaction = client.transaction().await.unwrap();
                        transaction.query_one("SELECT 1", &[]).await.unwrap();
                        transaction.query_one("SELECT pg_sleep(0.002)", &[]).await.unwrap();
                        transaction.commit().await.unwrap();
                    }
                    drop(client);
                    connection.await.unwrap().unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut long = Client::connect(address, &bench.database, &[]).await.unwrap();
    long.query("BEGIN; CREATE TEMP TABLE mine ON COMMIT DROP AS SELECT 7 AS x").await;

    let watched = Arc::clone(&stop);
    let mut direct = bench.direct().await;
    let watch = tokio::spawn(async move {
        let mut most = 0;
        while !watched.load(Ordering::Relaxed) {
            let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                        AND client_port IS NOT NULL AND pid <> pg_backend_pid()";
            most = most.max(direct.value(open).await.parse::<u32>().unwrap());
            time::sleep(Duration::from_millis(5)).await;
        }
        most
    });

    let before = done.load(Ordering::Relaxed);
    let new = Process::start(&config).await;
    assert_eq!(new.address, address, "the same socket");
    let taken_over = done.load(Ordering::Relaxed);
    crate::bench::until("the successor serves", async || {
        done.load(Ordering::Relaxed) > taken_over + 40
    })
    .await;
    assert_eq!(long.value("SELECT x FROM mine").await, "7", "it goes on where it began");
    assert_eq!(long.query("COMMIT").await, "C[COMMIT] Z[I]");
    drop(long);
    assert!(old.ends_well().await);
    stop.store(true, Ordering::Relaxed);
    for client in load {
        client.await.unwrap();
    }
    let most = watch.await.unwrap();
    assert!(most <= BUDGET + 1, "{most} connections, {before}");
}
