//! Clients that vanish, at every bad moment: the server connection comes back, nothing that
//! was queued or half sent runs, and nothing is left behind.

use std::time::Duration;

use forebay_postgres::PostgresSettings;
use forebay_seam::time;
use tokio::io::AsyncWriteExt;

use crate::bench::{Bench, USER, until};
use crate::client::{
    Client, bind, copy_data, execute, flush, parse, query, run, startup, sync, terminate, vanish,
};

const BUSY: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                    AND pid <> pg_backend_pid() AND state <> 'idle'";

/// Everything is home, nothing runs, and the next client is served.
async fn recovers(bench: &Bench) {
    bench.all_home().await;
    let mut direct = bench.direct().await;
    until("nothing runs", async || direct.value(BUSY).await == "0").await;
    assert_eq!(bench.waiting(), 0);
    assert_eq!(bench.client().await.query("SELECT 1").await, "T D[1] C[SELECT 1] Z[I]");
}

#[tokio::test]
async fn trap_36_a_client_may_vanish_at_any_moment() {
    let bench = Bench::start(1).await;
    bench.direct().await.query("CREATE TABLE t (n int)").await;
    let many = "SELECT g, repeat('x', 1000) FROM generate_series(1, 100000) g";
    let moments: &[(&str, Vec<u8>)] = &[
        ("while its query runs", query("SELECT pg_sleep(60)")),
        ("while its batch runs", [run("SELECT pg_sleep(60)"), sync()].concat()),
        ("with answers unread", query(many)),
        ("with answers unread of several batches", [run(many), sync(), run(many), sync()].concat()),
        ("with a goodbye behind its query", [query("SELECT pg_sleep(60)"), terminate()].concat()),
        ("in the middle of a message", query("INSERT INTO t VALUES (1)")[..12].to_vec()),
        ("in the middle of a batch", [run("INSERT INTO t VALUES (1)")].concat()),
        (
            "in the middle of a long query",
            query(&format!("INSERT INTO t SELECT 1; SELECT '{}'", "x".repeat(300_000)))[..200_000]
                .to_vec(),
        ),
        ("behind a flush", [run("INSERT INTO t VALUES (1)"), flush()].concat()),
        ("behind a flush in a long query", [run("SELECT pg_sleep(60)"), flush()].concat()),
        ("in a transaction", [query("BEGIN"), query("INSERT INTO t VALUES (1)")].concat()),
        ("in a transaction that failed", [query("BEGIN"), query("SELECT 1/0")].concat()),
        ("in a transaction that was not begun", query("BEGIN")),
        ("while it copies in", [query("COPY t FROM STDIN"), copy_data("1\n")].concat()),
        (
            "while it copies half a message in",
            [&query("COPY t FROM STDIN")[..], &copy_data("1\n2\n3\n")[..7]].concat(),
        ),
        (
            "while it copies in by a batch",
            [run("COPY t FROM STDIN"), flush(), copy_data("1\n")].concat(),
        ),
        ("while it copies out", query(&format!("COPY ({many}) TO STDOUT"))),
        (
            "with a portal open",
            [query("BEGIN"), parse("", many), bind("p", "", &[]), execute("p", 5), flush()]
                .concat(),
        ),
        ("with a temporary table", query("CREATE TEMP TABLE mine (n int)")),
    ];
    for (when, bytes) in moments {
        for pause in [0, 30] {
            let mut client = bench.client().await;
            client.send(bytes).await;
            time::sleep(Duration::from_millis(pause)).await;
            vanish(client);
            recovers(&bench).await;
            assert_eq!(bench.truth("SELECT count(*) FROM t").await, "0", "{when}");
        }
    }
}

#[tokio::test]
async fn what_a_vanished_client_had_queued_does_not_run() {
    let bench = Bench::start(1).await;
    bench.direct().await.query("CREATE TABLE t (n int)").await;
    let mut holder = bench.client().await;
    holder.query("BEGIN").await;
    holder.query("SELECT 1").await;
    let mut queued = Vec::new();
    for n in 0..20 {
        let mut client = bench.client().await;
        let insert = format!("INSERT INTO t VALUES ({n})");
        client
            .send(&if n % 2 == 0 { query(&insert) } else { [run(&insert), sync()].concat() })
            .await;
        queued.push(client);
    }
    until("all wait", async || bench.waiting() == 20).await;
    queued.into_iter().for_each(vanish);
    until("nobody waits", async || bench.waiting() == 0).await;
    holder.query("COMMIT").await;
    recovers(&bench).await;
    assert_eq!(bench.truth("SELECT count(*) FROM t").await, "0");
}

#[tokio::test]
async fn a_client_that_leaves_while_its_login_waits_in_line_gives_up_its_place() {
    let bench = Bench::start(1).await;
    let mut holder = bench.client().await;
    holder.query("BEGIN").await;
    holder.query("SELECT 1").await;
    for goodbye in [false, true] {
        let mut client = Client::bare(bench.address).await;
        // Settings that nobody had before have to be tried on a server.
        let parameters = [
            ("user", USER),
            ("database", &*bench.database),
            ("work_mem", if goodbye { "5MB" } else { "6MB" }),
        ];
        client.send(&startup(&parameters)).await;
        until("its login waits", async || bench.waiting() == 1).await;
        if goodbye {
            drop(client);
        } else {
            vanish(client);
        }
        until("nobody waits", async || bench.waiting() == 0).await;
    }
    until("they have left", async || bench.gateway.snapshot().clients == 1).await;
    holder.query("COMMIT").await;
    recovers(&bench).await;
}

#[tokio::test]
async fn five_hundred_departures_by_chance_leave_nothing() {
    let bench = Bench::start(3).await;
    let mut direct = bench.direct().await;
    direct.query("CREATE TABLE t (n int)").await;
    let mut leaving = Vec::new();
    for n in 0..500_u64 {
        let mut client = bench.client().await;
        let chance = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let whole = match n % 6 {
            0 => query("BEGIN; INSERT INTO t VALUES (1); SELECT pg_sleep(0.01)"),
            1 => [query("BEGIN"), run("INSERT INTO t VALUES (1)"), sync()].concat(),
            2 => [run("SELECT pg_sleep(0.02)"), run("SELECT 1/0"), sync(), run("SELECT 1"), sync()]
                .concat(),
            3 => [query("COPY t FROM STDIN"), copy_data("1\n"), copy_data("2\n")].concat(),
            4 => {
                [query("SET work_mem = '9MB'"), query("SELECT generate_series(1, 20000)")].concat()
            }
            _ => [parse("s", "SELECT pg_sleep(0.01)"), bind("", "s", &[]), execute("", 0), flush()]
                .concat(),
        };
        let cut = usize::try_from(chance).unwrap() % (whole.len() + whole.len() / 2);
        client.send(&whole[..cut.min(whole.len())]).await;
        leaving.push(tokio::spawn(async move {
            time::sleep(Duration::from_millis(chance % 25)).await;
            vanish(client);
        }));
    }
    for leaves in leaving {
        leaves.await.unwrap();
    }
    recovers(&bench).await;
    assert_eq!(direct.value("SELECT count(*) FROM t").await, "0");
    until("all have left", async || bench.gateway.snapshot().clients == 0).await;
    for _ in 0..6 {
        let mut client = bench.client().await;
        assert_eq!(client.value("SHOW work_mem").await, "4MB");
        assert_eq!(client.value("SELECT count(*) FROM pg_prepared_statements WHERE name NOT LIKE '\\_\\_forebay%'").await, "0");
    }
}

/// How a client goes away.
#[derive(Debug, Clone, Copy)]
enum Way {
    Closes,
    Resets,
    /// It says that nothing more will come, reads no more, and stays.
    HalfCloses,
}

const WAYS: [Way; 3] = [Way::Closes, Way::Resets, Way::HalfCloses];

impl Way {
    /// What is left of the client.
    async fn leaves(self, mut client: Client) -> Option<Client> {
        match self {
            Self::Closes => drop(client),
            Self::Resets => vanish(client),
            Self::HalfCloses => {
                client.stream.shutdown().await.unwrap();
                return Some(client);
            }
        }
        None
    }
}

#[tokio::test]
async fn a_client_that_goes_away_in_the_middle_of_an_endless_result_is_noticed_at_once() {
    let bench = Bench::start(1).await;
    let endless = "SELECT generate_series(1, 100000000), repeat('x', 100)";
    let batches = [
        query(endless),
        query(&format!("COPY ({endless}) TO STDOUT")),
        [run(endless), sync()].concat(),
    ];
    for (way, batch) in WAYS.iter().zip(&batches).chain(WAYS.iter().rev().zip(&batches)) {
        for rows in [1, 5_000] {
            let mut client = bench.client().await;
            client.send(batch).await;
            for _ in 0..rows {
                client.receive().await.unwrap();
            }
            if rows == 1 {
                // The socket fills, and Forebay waits to write.
                time::sleep(Duration::from_millis(50)).await;
            }
            let left = way.leaves(client).await;
            recovers(&bench).await;
            drop(left);
        }
    }
}

#[tokio::test]
async fn a_client_that_goes_away_behind_more_than_is_held_for_it_is_noticed() {
    let bench = Bench::start(1).await;
    let more = query("SELECT 1").repeat(1_000_000);
    for way in WAYS {
        let mut client = bench.client().await;
        client.send(&query("SELECT pg_sleep(600)")).await;
        let sending = time::timeout(Duration::from_millis(300), client.send(&more));
        assert!(sending.await.is_err(), "all of it was taken");
        let left = way.leaves(client).await;
        recovers(&bench).await;
        drop(left);
    }
}

#[tokio::test]
async fn a_long_statement_of_a_client_that_went_away_in_line_does_not_run() {
    let patient = |settings: &mut PostgresSettings| {
        settings.query_wait_timeout = Duration::from_secs(600);
    };
    let bench = Bench::with(1, patient).await;
    bench.direct().await.query("CREATE TABLE t (n int)").await;
    let long = query(&format!("INSERT INTO t SELECT length('{}')", "x".repeat(60_000)));
    for way in WAYS {
        let mut holder = bench.client().await;
        holder.query("BEGIN").await;
        holder.query("SELECT 1").await;
        let mut client = bench.client().await;
        client.send(&long).await;
        until("it waits", async || bench.waiting() == 1).await;
        let left = way.leaves(client).await;
        until("nobody waits", async || bench.waiting() == 0).await;
        holder.query("COMMIT").await;
        recovers(&bench).await;
        drop(left);
        assert_eq!(bench.truth("SELECT count(*) FROM t").await, "0", "{way:?}");
    }
}
