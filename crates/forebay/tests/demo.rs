//! The demo as a command: what it refuses, and that it cleans up.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use forebay::demo::cluster::{Cluster, ClusterSettings};
use forebay::demo::postgres_binaries;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio_postgres::NoTls;

fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.arg("demo").args(arguments);
    command
}

#[test]
fn an_unknown_scenario_is_refused_with_the_known_ones() {
    let output = demo(&["--scenario", "calm"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("storm") && said.contains("neighbour"), "{said}");
}

#[test]
fn a_dsn_that_cannot_be_used_is_wrong_usage() {
    for (dsn, why) in
        [("host=/run/postgresql", "TCP"), ("postgres://somebody@127.0.0.1:1/postgres", "refused")]
    {
        let output = demo(&["--dsn", dsn]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(said.contains("--dsn") && said.contains(why), "{said}");
    }
}

#[tokio::test]
async fn an_existing_server_gets_its_databases_dropped_and_no_other() {
    let binaries = postgres_binaries::find().unwrap();
    let cluster = Cluster::start(&binaries, ClusterSettings::default()).unwrap();
    let (client, connection) = tokio_postgres::connect(&cluster.dsn(), NoTls).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    client.batch_execute("CREATE DATABASE forebay_demo_of_somebody").await.unwrap();
    let databases = async || {
        let rows = client.query("SELECT datname FROM pg_database ORDER BY 1", &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect::<Vec<String>>()
    };
    let before = databases().await;

    let mut child = demo(&["--scenario", "neighbour", "--dsn", &cluster.dsn()])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(said.any(|line| line.contains("logins alone, without")), "it began");
    assert_eq!(databases().await.len(), before.len() + 1);
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
    child.wait().unwrap();
    assert_eq!(databases().await, before);
}

#[test]
fn interrupted_it_leaves_nothing_behind() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let folder = tempfile::tempdir().unwrap();
        // Where root runs this, PostgreSQL's user has to get in.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let mut child = demo(&["--scenario", "storm"])
            .env("TMPDIR", folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        assert!(said.any(|line| line.contains("connection storm, without")), "it began");
        assert!(fs::read_dir(folder.path()).unwrap().count() > 0);
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
        assert!(said.any(|line| line.contains("interrupted")));
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
