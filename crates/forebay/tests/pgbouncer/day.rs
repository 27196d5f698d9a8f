//! An operator's day, under load: what PgBouncer would have kept is not lost here.
//!
//! The server is replaced by another one at another port, as in a planned failover: pause,
//! change the file, reload, resume. Then pool sizes change, and at the end nobody new is let in
//! and the program ends when the last client has left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use forebay::demo::cluster::{Cluster, ClusterSettings};
use forebay::demo::postgres_binaries;
use nix::sys::signal::Signal;
use tokio_postgres::NoTls;

use crate::bench::{Folder, cluster, psql, until};

/// Clients that work all day.
const WORKERS: usize = 8;

/// What clients of the day have done.
#[derive(Default)]
struct Tally {
    done: AtomicU32,
    failed: AtomicU32,
    over: AtomicBool,
}

/// Inserts rows, one after the other, until the day is over.
async fn work(to: String, tally: Arc<Tally>) {
    let (client, connection) = tokio_postgres::connect(&to, NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    while !tally.over.load(Ordering::Relaxed) {
        let counter = match client.batch_execute("INSERT INTO day VALUES (1)").await {
            Ok(()) => &tally.done,
            Err(error) => {
                eprintln!("{error:?}");
                &tally.failed
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
    drop(client);
    connection.await.unwrap().unwrap();
}

/// A client that works no more.
async fn idle(to: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(to, NoTls).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    client.simple_query("SELECT 1").await.unwrap();
    client
}

fn ini(folder: &Folder, server: u16, pool_size: u32) -> String {
    let head = format!(
        "[databases]\nday = host=127.0.0.1 port={server} dbname=postgres\n\
                        other = host=127.0.0.1 port={server} dbname=template1\n"
    );
    let users = "auth_type = trust\nauth_file = @DIR@/userlist.txt\nadmin_users = forebay\n";
    format!(
        "{head}[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\nunix_socket_dir =\n{users}\
         pool_mode = transaction\ndefault_pool_size = {pool_size}\n",
        folder.port
    )
}

fn rows(server: u16) -> u32 {
    let direct = format!("host=127.0.0.1 port={server} user=forebay dbname=postgres");
    let counted = psql(&direct, "SELECT count(*) FROM day");
    String::from_utf8_lossy(&counted.stdout).trim().parse().unwrap()
}

fn with_table(server: u16) {
    let direct = format!("host=127.0.0.1 port={server} user=forebay dbname=postgres");
    let made = psql(&direct, "CREATE TABLE day (n int)");
    assert!(made.status.success(), "{made:?}");
}

#[test]
fn a_day_of_an_operator_loses_no_query_that_pgbouncer_would_have_kept() {
    let (before, after) = (cluster().port(), second());
    with_table(before);
    with_table(after.port());
    let folder = Folder::new();
    folder.write("day.ini", &ini(&folder, before, 3));
    let mut running = folder.run(&["pgbouncer", "day.ini"]);
    running.logged("Forebay listens");

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let tally = Arc::<Tally>::default();
    let to = folder.to("day", "forebay");
    let workers: Vec<_> =
        (0..WORKERS).map(|_| runtime.spawn(work(to.clone(), Arc::clone(&tally)))).collect();
    let more = || {
        let now = tally.done.load(Ordering::Relaxed);
        until(|| tally.done.load(Ordering::Relaxed) > now + 50);
    };
    more();

    // RECONNECT: all connections are replaced, and nobody notices.
    let admin = folder.to("pgbouncer", "forebay");
    let tell = |commands: &str| {
        let told = psql(&admin, commands);
        assert!(told.status.success(), "{commands}: {told:?}");
    };
    tell("RECONNECT; WAIT_CLOSE");
    more();

    // PAUSE, the failover, RELOAD, RESUME.
    tell("PAUSE");
    assert_eq!(connections(before), 0, "PAUSE ends when all connections are closed");
    let kept = rows(before);
    folder.write("day.ini", &ini(&folder, after.port(), 3));
    tell("RELOAD; RESUME");
    more();
    assert_eq!(rows(before), kept, "nobody works on the old server any more");

    // The same by signals, where they mean something.
    running.signal(Signal::SIGUSR1);
    until(|| connections(after.port()) == 0);
    running.signal(Signal::SIGUSR2);
    more();

    // RELOAD with changed pool sizes, by the console and by a signal.
    folder.write("day.ini", &ini(&folder, after.port(), 5));
    tell("RELOAD");
    more();
    folder.write("day.ini", &ini(&folder, after.port(), 1));
    running.signal(Signal::SIGHUP);
    more();

    // KILL ends clients of the database, and it stays paused.
    let idle = runtime.block_on(idle(&folder.to("other", "forebay")));
    tell("KILL other; RESUME other");
    until(|| runtime.block_on(idle.simple_query("SELECT 1")).is_err());

    // SHUTDOWN WAIT_FOR_CLIENTS: who is there goes on, nobody else comes in.
    tell("SHUTDOWN WAIT_FOR_CLIENTS");
    running.logged("waiting for all clients to leave");
    until(|| !psql(&to, "SELECT 1").status.success());
    more();
    tally.over.store(true, Ordering::Relaxed);
    runtime.block_on(async {
        for worker in workers {
            worker.await.unwrap();
        }
    });
    assert_eq!(running.wait(), Some(0));
    assert_eq!(tally.failed.load(Ordering::Relaxed), 0);
    assert_eq!(rows(before) + rows(after.port()), tally.done.load(Ordering::Relaxed));
}

/// Connections of ours to the server.
fn connections(server: u16) -> u32 {
    let direct = format!("host=127.0.0.1 port={server} user=forebay dbname=postgres");
    let question = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'INSERT INTO day%'";
    String::from_utf8_lossy(&psql(&direct, question).stdout).trim().parse().unwrap()
}

/// The server that takes over.
fn second() -> Cluster {
    let settings = ClusterSettings {
        hba: vec!["host all all 127.0.0.1/32 trust".to_owned()],
        ..ClusterSettings::default()
    };
    Cluster::start(&postgres_binaries::find().unwrap(), settings).unwrap()
}
