//! Clients that vanish at each step of the protocol, two hundred times each: the pool keeps
//! its size, the server runs nothing and holds no transaction open, and there are never more
//! backends than the pool may have.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forebay_seam::time;
use tokio::task::JoinSet;

use crate::bench::{Bench, USER, connect, until};
use crate::client::{
    Client, bind, close, copy_data, copy_done, describe, execute, flush, function_call, parse,
    query, run, startup, sync, terminate, vanish,
};

const TIMES: usize = 200;
/// Clients that vanish together.
const TOGETHER: usize = 20;
const BUDGET: u32 = 4;

/// Where in the protocol the client is when it vanishes.
enum Step {
    /// It has sent this, and no more, since it connected.
    Login(Vec<u8>),
    /// It has logged in, and sent this.
    Session(Vec<u8>),
    /// It has read the answer to the first, and sent the second.
    Answered(Vec<u8>, Vec<u8>),
}

/// What a client of PostgreSQL itself sees of the gateway's backends.
async fn backends(admin: &tokio_postgres::Client, database: &str, which: &str) -> i64 {
    let count = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND \
         backend_type = 'client backend' AND {which}"
    );
    admin.query_one(&count, &[]).await.unwrap().get(0)
}

/// Counts backends until it is told to stop, and returns the most that there were at once.
async fn most_backends(server: SocketAddr, database: String, over: Arc<AtomicBool>) -> i64 {
    let admin = connect(server, "postgres").await;
    let mut most = 0;
    while !over.load(Ordering::Acquire) {
        most = most.max(backends(&admin, &database, "true").await);
        time::sleep(Duration::from_millis(2)).await;
    }
    most
}

async fn vanishes_at(address: SocketAddr, database: &str, step: &Step, pause: Duration) {
    let client = match step {
        Step::Login(bytes) => {
            let mut client = Client::bare(address).await;
            client.send(bytes).await;
            client
        }
        Step::Session(bytes) => {
            let mut client = Client::connect(address, database, &[]).await.unwrap();
            client.send(bytes).await;
            client
        }
        Step::Answered(first, second) => {
            let mut client = Client::connect(address, database, &[]).await.unwrap();
            client.send(first).await;
            client.until_ready(1).await;
            client.send(second).await;
            client
        }
    };
    time::sleep(pause).await;
    vanish(client);
}

fn steps(database: &str) -> Vec<(&'static str, Step)> {
    let hello = startup(&[("user", USER), ("database", database), ("work_mem", "7MB")]);
    let rows = "SELECT g, repeat('x', 1000) FROM generate_series(1, 20000) g";
    let portal = [parse("", rows), bind("p", "", &[]), execute("p", 5), flush()].concat();
    let session = |bytes: Vec<u8>| Step::Session(bytes);
    let in_transaction = |bytes: Vec<u8>| Step::Answered(query("BEGIN; SELECT 1"), bytes);
    vec![
        ("before its first byte", Step::Login(Vec::new())),
        ("half way in its startup packet", Step::Login(hello[..9].to_vec())),
        ("behind its startup packet", Step::Login(hello)),
        ("logged in", session(Vec::new())),
        ("half way in a query", session(query("INSERT INTO t VALUES (1)")[..14].to_vec())),
        ("while its query runs", session(query("SELECT pg_sleep(60)"))),
        ("with rows unread", session(query(rows))),
        ("with a goodbye sent behind a query", session([query(rows), terminate()].concat())),
        ("behind Parse", session(parse("s", "INSERT INTO t VALUES (1)"))),
        ("behind Describe", session([parse("s", rows), describe(b'S', "s")].concat())),
        ("behind Execute", session(run("INSERT INTO t VALUES (1)"))),
        ("behind Flush", session([run("INSERT INTO t VALUES (1)"), flush()].concat())),
        ("behind Sync", session([run("SELECT pg_sleep(60)"), sync()].concat())),
        (
            "behind Close",
            session([parse("s", rows), close(b'S', "s"), run("SELECT 1"), flush()].concat()),
        ),
        (
            "behind an error in a batch",
            session([run("SELECT 1/0"), run("INSERT INTO t VALUES (1)")].concat()),
        ),
        (
            "with a pipeline of batches",
            session([run("SELECT pg_sleep(60)"), sync()].concat().repeat(5)),
        ),
        ("behind a function call", session(function_call(2626, &["60"]))),
        ("with a portal open", in_transaction(portal)),
        ("in a transaction", in_transaction(query("INSERT INTO t VALUES (1)"))),
        ("in a failed transaction", in_transaction(query("SELECT 1/0"))),
        ("in a deferred transaction", Step::Answered(query("BEGIN"), Vec::new())),
        ("while it copies in", session([query("COPY t FROM STDIN"), copy_data("1\n")].concat())),
        (
            "half way in COPY data",
            session([&query("COPY t FROM STDIN")[..], &copy_data("1\n2\n3\n")[..9]].concat()),
        ),
        (
            "behind the end of COPY data, in a transaction",
            in_transaction([query("COPY t FROM STDIN"), copy_data("1\n"), copy_done()].concat()),
        ),
        ("while it copies out", session(query(&format!("COPY ({rows}) TO STDOUT")))),
    ]
}

#[tokio::test]
async fn two_hundred_clients_vanish_at_each_step_and_the_pool_is_whole() {
    let bench = Bench::start(BUDGET).await;
    let database = bench.database.clone();
    bench.direct().await.query("CREATE TABLE t (n int)").await;
    let admin = connect(bench.server, "postgres").await;
    until("nobody is there", async || backends(&admin, &database, "true").await == 0).await;
    let over = Arc::new(AtomicBool::new(false));
    let most = tokio::spawn(most_backends(bench.server, database.clone(), Arc::clone(&over)));
    for (when, step) in steps(&database) {
        let step = Arc::new(step);
        for round in 0..TIMES / TOGETHER {
            let mut leaving = JoinSet::new();
            for n in 0..TOGETHER {
                let (step, database) = (Arc::clone(&step), database.clone());
                let (address, n) = (bench.address, u64::try_from(n).unwrap());
                let pause = Duration::from_millis(if round % 2 == 0 { n } else { 0 });
                leaving.spawn(async move { vanishes_at(address, &database, &step, pause).await });
            }
            while let Some(left) = leaving.join_next().await {
                left.unwrap();
            }
        }
        bench.all_home().await;
        until(when, async || backends(&admin, &database, "state <> 'idle'").await == 0).await;
        let mut whole = Vec::new();
        for _ in 0..BUDGET {
            let mut client = bench.client().await;
            assert_eq!(client.query("BEGIN; SELECT 1").await, "C[BEGIN] T D[1] C[SELECT 1] Z[T]");
            whole.push(client);
        }
        for mut client in whole {
            assert_eq!(
                client.query("SELECT count(*) FROM t").await,
                "T D[0] C[SELECT 1] Z[T]",
                "{when}"
            );
            client.query("COMMIT").await;
        }
        bench.all_home().await;
        let clients = async || bench.gateway.snapshot().clients == 0;
        until("all have left", clients).await;
    }
    over.store(true, Ordering::Release);
    let most = most.await.unwrap();
    assert!((1..=i64::from(BUDGET)).contains(&most), "{most} backends at once");
}
