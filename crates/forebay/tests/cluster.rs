//! A private cluster runs, and leaves nothing behind.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use forebay::demo::cluster::{Cluster, ClusterError, ClusterSettings};
use forebay::demo::postgres_binaries;
use tokio_postgres::NoTls;

fn start(settings: ClusterSettings) -> Result<Cluster, ClusterError> {
    Cluster::start(&postgres_binaries::find().unwrap(), settings)
}

async fn ask(dsn: &str, question: &str) -> Result<String, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(dsn, NoTls).await?;
    let driver = tokio::spawn(connection);
    let answer = client.query_one(question, &[]).await?.get(0);
    drop(client);
    driver.await.unwrap()?;
    Ok(answer)
}

fn lives(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
        || (cfg!(not(target_os = "linux"))
            && Command::new("ps").args(["-p", &pid.to_string()]).status().unwrap().success())
}

#[tokio::test]
async fn a_cluster_answers_restarts_with_its_data_and_leaves_nothing_behind() {
    let settings = ClusterSettings {
        max_connections: 17,
        settings: vec![("application_name".into(), "it's here".into())],
        ..ClusterSettings::default()
    };
    let mut cluster = start(settings).unwrap();
    assert_eq!(ask(&cluster.dsn(), "SHOW max_connections").await.unwrap(), "17");
    assert_eq!(ask(&cluster.dsn(), "SHOW application_name").await.unwrap(), "it's here");

    let keep = "SELECT lo_from_bytea(4711, 'kept')::text";
    assert_eq!(ask(&cluster.dsn(), keep).await.unwrap(), "4711");
    let port = cluster.port();
    cluster.stop().unwrap();
    assert!(ask(&cluster.dsn(), "SELECT 'x'").await.is_err());
    cluster.restart().unwrap();
    assert_eq!(cluster.port(), port);
    let kept = "SELECT encode(lo_get(4711), 'escape')";
    assert_eq!(ask(&cluster.dsn(), kept).await.unwrap(), "kept");

    let (pid, folder) = (cluster.pid().unwrap(), cluster.folder().to_owned());
    assert!(lives(pid) && folder.exists());
    drop(cluster);
    assert!(!lives(pid) && !folder.exists());
}

#[tokio::test]
async fn a_wrong_password_is_refused() {
    let cluster = start(ClusterSettings::default()).unwrap();
    let dsn = cluster.dsn().replace(cluster.password(), "wrong");
    let error = ask(&dsn, "SELECT 'x'").await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "28P01");
}

#[tokio::test]
async fn lines_of_hba_and_files_are_the_servers() {
    let settings = ClusterSettings {
        hba: vec!["host all all 127.0.0.1/32 trust".into()],
        files: vec![("note".into(), "for the server".into())],
        ..ClusterSettings::default()
    };
    let cluster = start(settings).unwrap();
    let dsn = cluster.dsn().replace(cluster.password(), "any");
    assert_eq!(ask(&dsn, "SELECT pg_read_file('note')").await.unwrap(), "for the server");
}

#[test]
fn a_server_that_does_not_start_says_why_and_leaves_nothing_behind() {
    let settings = ClusterSettings {
        settings: vec![("no_such_setting".into(), "on".into())],
        ..ClusterSettings::default()
    };
    let Err(error) = start(settings) else { panic!("it started") };
    assert!(error.to_string().contains("no_such_setting"), "{error}");
}

/// Runs this test's own program a second time, which starts a cluster and is then killed.
#[test]
fn a_process_that_is_killed_leaves_nothing_behind() {
    const INNER: &str = "FOREBAY_TEST_IS_TO_BE_KILLED";
    const NAME: &str = "a_process_that_is_killed_leaves_nothing_behind";
    if std::env::var_os(INNER).is_some() {
        let cluster = start(ClusterSettings::default()).unwrap();
        println!("\nstarted {} {}", cluster.pid().unwrap(), cluster.folder().display());
        thread::sleep(Duration::from_secs(60));
        return;
    }
    let mut inner = Command::new(std::env::current_exe().unwrap())
        .args([NAME, "--exact", "--nocapture"])
        .env(INNER, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let started = BufReader::new(inner.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("started ").map(str::to_owned))
        .unwrap();
    let (pid, folder) = started.split_once(' ').unwrap();
    let (pid, folder) = (pid.parse().unwrap(), PathBuf::from(folder));
    assert!(lives(pid) && folder.exists());
    inner.kill().unwrap();
    inner.wait().unwrap();
    let gone = || !lives(pid) && !folder.exists();
    assert!((0..200).any(|_| {
        thread::sleep(Duration::from_millis(50));
        gone()
    }));
}
