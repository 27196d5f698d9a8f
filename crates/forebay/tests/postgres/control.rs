//! What an operator's commands do to clients and servers, while there is work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use forebay_pool::ClassSettings;
use forebay_postgres::gateway::ControlError;
use forebay_seam::time;

use crate::bench::{Bench, USER, until};
use crate::client::{Client, query, show};

/// Connections of ours that the server has for the bench's database.
async fn open(bench: &Bench) -> String {
    let question = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' \
         AND pid <> pg_backend_pid()",
        bench.database
    );
    bench.truth(&question).await
}

/// Clients that insert one row after the other until they are told to stop.
struct Load {
    done: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    async fn start(bench: &Bench, clients: usize) -> Self {
        bench.direct().await.query("CREATE TABLE done (at timestamptz DEFAULT now())").await;
        let (done, stop) = (Arc::<AtomicU32>::default(), Arc::<AtomicBool>::default());
        let mut tasks = Vec::new();
        for _ in 0..clients {
            let mut client = bench.client().await;
            let (done, stop) = (Arc::clone(&done), Arc::clone(&stop));
            tasks.push(tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let answer = client.query("INSERT INTO done DEFAULT VALUES").await;
                    assert_eq!(answer, "C[INSERT 0 1] Z[I]");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        Self { done, stop, tasks }
    }

    fn done(&self) -> u32 {
        self.done.load(Ordering::Relaxed)
    }

    async fn goes_on(&self) {
        let before = self.done();
        until("work goes on", async || self.done() > before + 20).await;
    }

    /// Everything that was asked was done, once.
    async fn end(self, bench: &Bench) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        let rows = bench.truth("SELECT count(*) FROM done").await;
        assert_eq!(rows, self.done.load(Ordering::Relaxed).to_string());
    }
}

#[tokio::test]
async fn no_query_is_lost_over_pause_and_resume_under_load() {
    let bench = Bench::with(20, |settings| settings.pool_size = Some(4)).await;
    let load = Load::start(&bench, 8).await;
    for database in [None, Some(&*bench.database), None] {
        load.goes_on().await;
        bench.gateway.pause(database).await.unwrap();
        assert_eq!(open(&bench).await, "0", "when it ends, all are closed");
        let before = load.done();
        until("all wait", async || bench.waiting() == 8).await;
        assert_eq!(load.done(), before);
        assert_eq!(open(&bench).await, "0");
        bench.gateway.resume(database).unwrap();
    }
    load.goes_on().await;
    load.end(&bench).await;
}

#[tokio::test]
async fn a_pause_waits_for_transactions_and_lets_them_finish() {
    let bench = Bench::start(10).await;
    let (mut busy, mut idle) = (bench.client().await, bench.client().await);
    busy.query("BEGIN; SELECT 1").await;
    let gateway = bench.gateway.clone();
    let pause = tokio::spawn(async move { gateway.pause(None).await });
    until("it is paused", async || {
        bench.gateway.snapshot().control.flow == forebay_postgres::gateway::Flow::Paused
    })
    .await;
    idle.send(&query("SELECT 2")).await;
    assert!(idle.is_silent().await, "new work waits");
    assert!(!pause.is_finished());
    assert_eq!(busy.query("SELECT 3").await, "T D[3] C[SELECT 1] Z[T]");
    assert_eq!(busy.query("COMMIT").await, "C[COMMIT] Z[I]");
    pause.await.unwrap().unwrap();
    assert_eq!(open(&bench).await, "0");
    bench.gateway.resume(None).unwrap();
    assert_eq!(show(&idle.until_ready(1).await), "T D[2] C[SELECT 1] Z[I]");
}

#[tokio::test]
async fn patience_runs_while_all_is_paused() {
    let bench = Bench::with(10, |settings| {
        let core = ClassSettings {
            kind: forebay_pool::Kind::Core,
            checkout_timeout: Duration::from_millis(150),
            ..ClassSettings::default()
        };
        let classes = &mut settings.servers.get_mut("main").unwrap().classes;
        classes.insert(forebay_pool::ClassName::new("core"), core);
    })
    .await;
    let mut client = bench.client().await;
    bench.gateway.pause(None).await.unwrap();
    let answer = client.query("SELECT 1").await;
    assert!(answer.starts_with("E[53300 waited "), "{answer}");
    bench.gateway.resume(None).unwrap();
    assert_eq!(client.value("SELECT 1").await, "1");
}

#[tokio::test]
async fn who_gives_up_waiting_for_a_pause_takes_nothing_back() {
    let bench = Bench::start(10).await;
    let mut busy = bench.client().await;
    busy.query("BEGIN; SELECT 1").await;
    let patience = Duration::from_millis(50);
    assert!(time::timeout(patience, bench.gateway.pause(None)).await.is_err());
    assert_eq!(bench.gateway.pause(None).await, Err(ControlError::AlreadyPaused));
    busy.query("COMMIT").await;
    busy.send(&query("SELECT 1")).await;
    assert!(busy.is_silent().await, "it is paused all the same");
    bench.gateway.resume(None).unwrap();
    assert_eq!(show(&busy.until_ready(1).await), "T D[1] C[SELECT 1] Z[I]");
}

#[tokio::test]
async fn commands_that_do_not_fit_are_refused_in_pgbouncers_words() {
    let bench = Bench::with(10, |settings| {
        settings.databases.insert("app".into(), Default::default());
    })
    .await;
    let gateway = &bench.gateway;
    let text = |error: Result<(), ControlError>| error.unwrap_err().to_string();
    assert_eq!(text(gateway.resume(None)), "pooler is not paused/suspended");
    assert_eq!(text(gateway.resume(Some("app"))), "database app is not paused");
    for unknown in [
        gateway.pause(Some("no")).await,
        gateway.resume(Some("no")),
        gateway.reconnect(Some("no")),
        gateway.kill(Some("no")),
        gateway.disable("no"),
        gateway.enable("no"),
        gateway.wait_close(Some("no")).await,
    ] {
        assert_eq!(text(unknown), "no such database: no");
    }
    assert_eq!(text(gateway.kill_client(1_000_000)), "client not found");
    gateway.pause(None).await.unwrap();
    assert_eq!(text(gateway.pause(Some("app")).await), "already suspended/paused");
    assert_eq!(text(gateway.kill(None)), "already suspended/paused");
    gateway.resume(None).unwrap();
    gateway.pause(Some("app")).await.unwrap();
    gateway.pause(Some("app")).await.unwrap();
    assert_eq!(text(gateway.resume(None)), "pooler is not paused/suspended");
    assert_eq!(gateway.snapshot().control.paused, [Arc::from("app")]);
    gateway.resume(Some("app")).unwrap();
}

#[tokio::test]
async fn a_pause_that_is_ended_before_it_was_reached_says_so() {
    let bench = Bench::start(10).await;
    let mut busy = bench.client().await;
    busy.query("BEGIN; SELECT 1").await;
    let gateway = bench.gateway.clone();
    let name = bench.database.clone();
    let pause = tokio::spawn(async move { gateway.pause(Some(&name)).await });
    until("it is paused", async || bench.gateway.resume(Some(&bench.database)).is_ok()).await;
    assert_eq!(pause.await.unwrap(), Err(ControlError::Resumed));
}

#[tokio::test]
async fn a_pause_of_one_database_is_none_of_another() {
    let bench = Bench::with(10, |settings| {
        for name in ["one", "two"] {
            let database = Some("postgres".into());
            let table =
                forebay_postgres::settings::DatabaseSettings { database, ..Default::default() };
            settings.databases.insert(name.into(), table);
        }
    })
    .await;
    let mut one = Client::connect(bench.address, "one", &[]).await.unwrap();
    let mut two = Client::connect(bench.address, "two", &[]).await.unwrap();
    bench.gateway.pause(Some("one")).await.unwrap();
    assert_eq!(two.value("SELECT 2").await, "2", "the same database, under another name");
    one.send(&query("SELECT 1")).await;
    assert!(one.is_silent().await);
    bench.gateway.resume(Some("one")).unwrap();
    assert_eq!(show(&one.until_ready(1).await), "T D[1] C[SELECT 1] Z[I]");
}

#[tokio::test]
async fn reconnect_replaces_every_connection_and_loses_no_query() {
    let bench = Bench::start(10).await;
    let load = Load::start(&bench, 4).await;
    load.goes_on().await;
    let mut busy = bench.client().await;
    busy.query("BEGIN; SELECT 1").await;
    let pids = "SELECT coalesce(string_agg(pid::text, ','), '') FROM pg_stat_activity \
                WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let before = bench.truth(pids).await;
    bench.gateway.reconnect(None).unwrap();
    let gateway = bench.gateway.clone();
    let closed = tokio::spawn(async move { gateway.wait_close(None).await });
    load.goes_on().await;
    assert!(!closed.is_finished(), "one is in a transaction");
    busy.query("COMMIT").await;
    closed.await.unwrap().unwrap();
    let still = format!("SELECT count(*) FROM pg_stat_activity WHERE pid IN ({before})");
    assert_eq!(bench.truth(&still).await, "0");
    load.end(&bench).await;
}

#[tokio::test]
async fn killed_clients_hear_why_and_the_database_stays_paused() {
    let bench = Bench::start(10).await;
    let (mut idle, mut busy) = (bench.client().await, bench.client().await);
    busy.send(&query("SELECT pg_sleep(60)")).await;
    until("it runs", async || bench.leased() == 1).await;
    bench.gateway.kill(None).unwrap();
    for client in [&mut idle, &mut busy] {
        let last = show(&client.until_tag(b'E').await);
        assert!(last.ends_with("E[57P01 terminating connection due to administrator command]"));
        assert!(client.is_sent_away().await);
    }
    until("all are closed", async || open(&bench).await == "0").await;
    // Not by a pause of all.
    assert!(bench.gateway.resume(None).is_err());
    let mut late = bench.client().await;
    late.send(&query("SELECT 1")).await;
    assert!(late.is_silent().await);
    bench.gateway.resume(Some(&bench.database)).unwrap();
    assert_eq!(show(&late.until_ready(1).await), "T D[1] C[SELECT 1] Z[I]");
}

/// The numbers of the clients of the bench's database, the oldest first.
async fn numbers(bench: &Bench) -> Vec<u64> {
    let mut console = Client::connect(bench.address, "pgbouncer", &[]).await.unwrap();
    let shown = console.query("SHOW CLIENTS").await;
    let clients = shown.split("D[").skip(1).filter_map(|row| row.split(']').next());
    let ours = clients.filter(|row| row.contains(&bench.database));
    ours.map(|row| row.rsplit('|').next().unwrap().parse().unwrap()).collect()
}

#[tokio::test]
async fn one_client_is_killed_and_no_other() {
    let bench = Bench::with(1, |settings| settings.admin_users = vec![USER.into()]).await;
    let mut one = bench.client().await;
    let mut two = bench.client().await;
    one.query("BEGIN; SELECT 1").await;
    two.send(&query("SELECT 2")).await;
    until("one waits", async || bench.waiting() == 1).await;
    let [first, second] = numbers(&bench).await[..] else { panic!("two clients are there") };
    bench.gateway.kill_client(first).unwrap();
    let told = show(&one.until_tag(b'E').await);
    assert_eq!(told, "E[57P01 terminating connection due to administrator command]");
    assert_eq!(show(&two.until_ready(1).await), "T D[2] C[SELECT 1] Z[I]");
    until("it is gone", async || bench.gateway.kill_client(first).is_err()).await;
    // Who waits in line is told at once.
    let mut holder = bench.client().await;
    holder.query("BEGIN; SELECT 1").await;
    two.send(&query("SELECT 2")).await;
    until("it waits", async || bench.waiting() == 1).await;
    bench.gateway.kill_client(second).unwrap();
    assert!(show(&two.until_tag(b'E').await).starts_with("E[57P01 "));
    until("nobody waits", async || bench.waiting() == 0).await;
}

#[tokio::test]
async fn a_disabled_database_takes_no_new_clients_and_keeps_those_it_has() {
    let bench = Bench::start(10).await;
    let mut client = bench.client().await;
    bench.gateway.disable(&bench.database).unwrap();
    let refused = Client::connect(bench.address, &bench.database, &[]).await.err().unwrap();
    let text = format!("E[55000 database does not allow connections: {}]", bench.database);
    assert_eq!(refused, text);
    assert_eq!(client.value("SELECT 1").await, "1");
    bench.gateway.enable(&bench.database).unwrap();
    assert_eq!(bench.client().await.value("SELECT 2").await, "2");
}

#[tokio::test]
async fn a_suspended_gateway_reads_nothing_and_loses_nothing() {
    let bench = Bench::start(10).await;
    let (mut idle, mut busy) = (bench.client().await, bench.client().await);
    busy.query("BEGIN; SELECT 1").await;
    let patience = Duration::from_secs(10);
    bench.gateway.suspend(patience).await.unwrap();
    assert_eq!(bench.gateway.suspend(patience).await, Err(ControlError::AlreadyPaused));
    for client in [&mut idle, &mut busy] {
        client.send(&query("SELECT 2")).await;
        assert!(client.is_silent().await, "nothing is read");
    }
    let late = {
        let (address, database) = (bench.address, bench.database.clone());
        tokio::spawn(async move { Client::connect(address, &database, &[]).await })
    };
    time::sleep(Duration::from_millis(100)).await;
    assert!(!late.is_finished(), "nobody is accepted");
    bench.gateway.resume(None).unwrap();
    assert_eq!(show(&idle.until_ready(1).await), "T D[2] C[SELECT 1] Z[I]");
    assert_eq!(show(&busy.until_ready(1).await), "T D[2] C[SELECT 1] Z[T]");
    assert_eq!(late.await.unwrap().unwrap().value("SELECT 3").await, "3");
}

#[tokio::test]
async fn who_does_not_read_is_sent_away_by_a_suspend_and_holds_it_up_no_longer() {
    let bench = Bench::start(10).await;
    let (mut slow, mut idle) = (bench.client().await, bench.client().await);
    slow.send(&query("SELECT repeat('x', 1000000) FROM generate_series(1, 200)")).await;
    until("it runs", async || bench.leased() == 1).await;
    time::sleep(Duration::from_millis(200)).await;
    bench.gateway.suspend(Duration::from_millis(300)).await.unwrap();
    bench.gateway.resume(None).unwrap();
    assert_eq!(idle.value("SELECT 1").await, "1");
    bench.all_home().await;
    drop(slow);
}
