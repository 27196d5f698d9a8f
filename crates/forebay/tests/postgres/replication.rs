//! Replication connections in session pooling: PostgreSQL's own tools do not notice Forebay.

use std::process::Command;

use forebay::demo::postgres_binaries;
use forebay_postgres::settings::PoolMode;

use crate::bench::{Bench, USER, start, until};
use crate::client::{Client, Message, copy_data, copy_done, field, query, show, startup};

/// Runs a program of PostgreSQL's.
async fn tool(name: &str, arguments: &[&str]) {
    let mut command = Command::new(postgres_binaries::find().unwrap().folder().join(name));
    command.args(arguments);
    let ran = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(ran.status.success(), "{name}: {}", String::from_utf8_lossy(&ran.stderr));
}

/// As [`tool`], for a program that connects.
async fn tool_through(bench: &Bench, name: &str, arguments: &[&str]) {
    let port = bench.address.port().to_string();
    let to = ["-h", "127.0.0.1", "-p", &port, "-U", USER, "-w"];
    tool(name, &[&to, arguments].concat()).await;
}

async fn replicating(bench: &Bench, how: &str) -> Result<Client, String> {
    Client::connect(bench.address, &bench.database, &[("replication", how)]).await
}

fn replications(bench: &Bench) -> u32 {
    bench.gateway.snapshot().replications["main"]
}

/// What the walsender sends of a change, in the test decoder's words.
fn change(message: &Message) -> String {
    // XLogData: a tag, two positions and a time before it.
    String::from_utf8_lossy(message.body.get(25..).unwrap_or_default()).into_owned()
}

#[tokio::test]
async fn backups_and_streams_pass_in_session_pooling() {
    let logical = vec![("wal_level".to_owned(), "logical".to_owned())];
    let cluster = tokio::task::spawn_blocking(|| start(logical)).await.unwrap();
    let bench = Bench::before(cluster.address(), "postgres", 1, |settings| {
        settings.pool_mode = PoolMode::Session;
        settings.servers.get_mut("main").unwrap().replication_connections = 2;
    });
    let mut direct = bench.direct().await;
    direct.query("CREATE TABLE t (n int); CREATE ROLE plain LOGIN").await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();

    // Two connections at once: the files, and the log that is written meanwhile.
    let backup = path("backup");
    tool_through(&bench, "pg_basebackup", &["-D", &backup, "-X", "stream", "-c", "fast"]).await;
    tool("pg_verifybackup", &[&backup]).await;

    let (slot, out, log) = (["-d", "postgres", "-S", "tool"], path("changes"), path("log"));
    let create = ["--create-slot", "-P", "test_decoding"];
    tool_through(&bench, "pg_recvlogical", &[&slot[..], &create].concat()).await;
    direct.query("INSERT INTO t VALUES (41)").await;
    let here = direct.value("SELECT pg_current_wal_insert_lsn()").await;
    let receive = ["--start", "-f", &out, "--endpos", &here, "--no-loop"];
    tool_through(&bench, "pg_recvlogical", &[&slot[..], &receive].concat()).await;
    let changes = std::fs::read_to_string(&out).unwrap();
    assert!(changes.contains("table public.t: INSERT: n[integer]:41"), "{changes}");
    std::fs::create_dir(&log).unwrap();
    let receive = ["-D", &log, "--endpos", &here, "--no-loop", "--synchronous"];
    tool_through(&bench, "pg_receivewal", &receive).await;
    assert!(std::fs::read_dir(&log).unwrap().count() > 0);

    // The same by hand: a stream begins, is left, and the connection serves on.
    until("the tools have gone", async || replications(&bench) == 0).await;
    let mut client = replicating(&bench, "database").await.unwrap();
    assert!(client.query("IDENTIFY_SYSTEM").await.contains("|postgres] C[IDENTIFY_SYSTEM] Z[I]"));
    assert_eq!(client.value("SELECT count(*) FROM t").await, "1");
    client.query("CREATE_REPLICATION_SLOT hand TEMPORARY LOGICAL test_decoding").await;
    client.send(&query("START_REPLICATION SLOT hand LOGICAL 0/0")).await;
    assert_eq!(show(&client.until_tag(b'W').await), "W");
    direct.query("INSERT INTO t VALUES (42)").await;
    loop {
        let message = client.receive().await.unwrap();
        if change(&message).contains("INSERT: n[integer]:42") {
            break;
        }
    }
    // A word of the standby's, and the end of the stream.
    let status = format!("r{}", "\0".repeat(33));
    client.send(&[copy_data(&status), copy_done()].concat()).await;
    let end = show(&client.until_ready(1).await);
    assert!(end.ends_with("Z[I]") && !end.contains("E["), "{end}");

    // Bounded by a limit of their own; who may replicate is the server's to say.
    let second = replicating(&bench, "on").await.unwrap();
    let refused = replicating(&bench, "true").await.err().unwrap();
    assert_eq!(refused, "E[53300 sorry, too many replication connections already: 2]");
    drop(second);
    until("it is counted no more", async || replications(&bench) == 1).await;
    let plain = [("replication", "database"), ("user", "plain")];
    let first = startup(&[&plain[..], &[("database", "postgres")]].concat());
    let refused = Client::start(bench.address, &first).await.err().unwrap();
    assert!(refused.starts_with("E[42501 "), "{refused}");
    let refused = replicating(&bench, "perhaps").await.err().unwrap();
    assert_eq!(refused, "E[22023 invalid value for parameter \"replication\": \"perhaps\"]");
    assert_eq!(bench.leased(), 0);

    drop(bench);
    let end = show(&client.until_tag(b'E').await);
    assert!(end.ends_with("E[57P01 terminating connection because the server is shutting down]"));
}

#[tokio::test]
async fn in_transaction_pooling_replication_is_refused_with_what_to_do() {
    let bench = Bench::start(1).await;
    let mut client = Client::bare(bench.address).await;
    let parameters = [("user", USER), ("database", &*bench.database), ("replication", "database")];
    client.send(&startup(&parameters)).await;
    let refused = client.receive().await.unwrap();
    assert!(show(std::slice::from_ref(&refused)).starts_with("E[0A000 replication needs"));
    let hint = field(&refused, b'H');
    assert!(hint.starts_with("Set `pool_mode = \"session\"` for it"), "{hint}");
    // Not asked for is not refused.
    let no = [("replication", "off")];
    Client::connect(bench.address, &bench.database, &no).await.unwrap();
}
