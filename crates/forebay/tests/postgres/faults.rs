//! Servers that restart, stand still or are cut off: idle clients are kept, who waits is
//! served as soon as the server is back, and at most what was in flight fails, once.
//!
//! `FOREBAY_TEST_FIGURES=1` prints how long it took.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use forebay::demo::cluster::Cluster;
use forebay_seam::{net, time};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bench::{Bench, start, until};
use crate::client::{Client, field, query, show, startup};

const ROW: &str = "T D[1] C[SELECT 1] Z[I]";
const WORKERS: usize = 10;

/// What clients that ask without a pause were told, other than what they asked for.
struct Work {
    over: Arc<AtomicBool>,
    served: Arc<AtomicU32>,
    workers: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Work {
    fn begin(address: SocketAddr) -> Self {
        let (over, served) = (Arc::<AtomicBool>::default(), Arc::<AtomicU32>::default());
        let work = || works(address, Arc::clone(&over), Arc::clone(&served));
        let workers = (0..WORKERS).map(|_| tokio::spawn(work())).collect();
        Self { over, served, workers }
    }

    /// A few statements of each were answered from now on.
    async fn goes_on(&self) {
        let before = self.served.load(Ordering::Relaxed);
        let more = async || self.served.load(Ordering::Relaxed) > before + 50;
        until("everybody is served", more).await;
    }

    async fn end(self) -> Vec<String> {
        self.over.store(true, Ordering::Relaxed);
        let mut told = Vec::new();
        for worker in self.workers {
            told.extend(worker.await.unwrap());
        }
        told
    }
}

async fn works(address: SocketAddr, over: Arc<AtomicBool>, served: Arc<AtomicU32>) -> Vec<String> {
    let (mut told, mut client) = (Vec::new(), None);
    while !over.load(Ordering::Relaxed) {
        let connection = match &mut client {
            Some(connection) => connection,
            None => match Client::connect(address, "postgres", &[]).await {
                Ok(connection) => client.insert(connection),
                Err(refused) => {
                    told.push(format!("at login: {refused}"));
                    continue;
                }
            },
        };
        let said = connection.query("SELECT 1").await;
        if said == ROW {
            served.fetch_add(1, Ordering::Relaxed);
        } else {
            if !said.ends_with("Z[I]") {
                client = None;
            }
            told.push(said);
        }
        time::sleep(Duration::from_millis(2)).await;
    }
    told
}

/// How the server is made to start anew.
#[derive(Debug, Clone, Copy)]
enum Restart {
    /// Clients are told, and it comes down in order.
    Fast,
    /// It drops everything, and recovers when it comes back.
    Immediate,
    /// One of its processes is killed: it ends all others, and recovers by itself.
    KillOne,
    /// The process that starts all others is killed, and they end one by one, unasked.
    KillFirst,
}

async fn restart(mut cluster: Cluster, how: Restart) -> Cluster {
    if let Restart::KillOne = how {
        let mut admin = Client::connect(cluster.address(), "postgres", &[]).await.unwrap();
        let victim = admin.value("SELECT pg_backend_pid()").await.parse().unwrap();
        kill(Pid::from_raw(victim), Signal::SIGKILL).unwrap();
        admin.until_ready(1).await;
        let is_back = async || Client::connect(cluster.address(), "postgres", &[]).await.is_ok();
        until("it has recovered", is_back).await;
        return cluster;
    }
    let restarted = tokio::task::spawn_blocking(move || {
        let signal = match how {
            Restart::Fast | Restart::KillOne => None,
            Restart::Immediate => Some(Signal::SIGQUIT),
            Restart::KillFirst => Some(Signal::SIGKILL),
        };
        if let (Some(signal), Some(pid)) = (signal, cluster.pid()) {
            kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
        }
        // None starts while processes of the one before it have its memory.
        while let Err(error) = cluster.restart() {
            let is_in_use = error.to_string().contains("still in use");
            assert!(is_in_use, "{error}");
        }
        cluster
    });
    restarted.await.unwrap()
}

#[tokio::test]
async fn a_restart_costs_what_was_in_flight_and_idle_clients_do_not_notice() {
    let mut cluster = tokio::task::spawn_blocking(|| start(Vec::new())).await.unwrap();
    let bench = Bench::before(cluster.address(), "postgres", 4, |_| {});
    let mut idle = Vec::new();
    for _ in 0..20 {
        let mut client = bench.client().await;
        assert_eq!(client.query("SELECT 1").await, ROW);
        idle.push(client);
    }
    for how in [Restart::Fast, Restart::Immediate, Restart::KillOne, Restart::KillFirst] {
        let work = Work::begin(bench.address);
        work.goes_on().await;
        let down = time::now();
        cluster = restart(cluster, how).await;
        let back = time::now();
        // Who asks while a server is away for longer than it may be is told so at once.
        let is_told = back - down > Duration::from_secs(4);
        if is_told {
            let mut first = bench.client().await;
            until("it serves again", async || first.query("SELECT 1").await == ROW).await;
        }
        for client in &mut idle {
            assert_eq!(client.query("SELECT 1").await, ROW, "{how:?}");
        }
        figure(how, "all idle clients were served", back.elapsed());
        work.goes_on().await;
        figure(how, "all work went on", back.elapsed());
        let told = work.end().await;
        assert!(is_told || told.len() <= WORKERS, "{how:?}: {told:#?}");
        for said in &told {
            let is_exact = said.contains("E[57P0") || said.contains("E[08006 ");
            assert!(is_exact && said.matches("E[").count() == 1, "{how:?}: {said}");
        }
        bench.all_home().await;
    }
}

fn figure(of: impl std::fmt::Debug, what: &str, took: Duration) {
    if std::env::var_os("FOREBAY_TEST_FIGURES").is_some() {
        println!("{of:?}: {what} {} ms after its return", took.as_millis());
    }
}

/// All processes of a server stand still, or go on.
fn signal_all(cluster: &Cluster, backends: &[String], signal: Signal) {
    let postmaster = cluster.pid().unwrap().cast_signed();
    for pid in backends.iter().map(|pid| pid.parse().unwrap()).chain([postmaster]) {
        kill(Pid::from_raw(pid), signal).unwrap();
    }
}

#[tokio::test]
async fn others_than_those_whom_a_frozen_server_serves_are_told_by_their_deadline() {
    let cluster = tokio::task::spawn_blocking(|| start(Vec::new())).await.unwrap();
    let bench = Bench::before(cluster.address(), "postgres", 2, |settings| {
        settings.query_wait_timeout = Duration::from_millis(400);
        settings.login_timeout = Duration::from_millis(800);
    });
    let (mut one, mut other) = (bench.client().await, bench.client().await);
    one.query("BEGIN").await;
    other.query("BEGIN").await;
    let asked = "SELECT pg_backend_pid()";
    let backends = [one.value(asked).await, other.value(asked).await];
    signal_all(&cluster, &backends, Signal::SIGSTOP);
    one.send(&query("SELECT 1")).await;
    other.send(&query("SELECT 1")).await;
    for _ in 0..3 {
        let told = bench.client().await.query("SELECT 1").await;
        assert!(told.starts_with("E[53300 ") && told.ends_with("Z[I]"), "{told}");
    }
    // A login that needs the server.
    let stranger = [("work_mem", "5MB")];
    let told = Client::connect(bench.address, "postgres", &stranger).await.err().unwrap();
    assert!(told.starts_with("E[53300 "), "{told}");
    assert_eq!(bench.leased(), 2, "what is seen from outside is seen at once");
    assert!(one.is_silent().await, "what runs is not broken off");
    signal_all(&cluster, &backends, Signal::SIGCONT);
    for client in [&mut one, &mut other] {
        assert_eq!(show(&client.until_ready(1).await), "T D[1] C[SELECT 1] Z[T]");
        client.query("COMMIT").await;
    }
    assert_eq!(bench.client().await.query("SELECT 1").await, ROW);
}

#[tokio::test]
async fn five_hundred_half_open_logins_are_cut_off_and_harm_nobody() {
    let bench = Bench::with(2, |settings| {
        settings.login_timeout = Duration::from_millis(1_500);
    })
    .await;
    let mut good = bench.client().await;
    let hello = startup(&[("user", "forebay"), ("database", &bench.database)]);
    let mut halves = Vec::new();
    for n in 0..500 {
        let mut half = Client::bare(bench.address).await;
        half.send(&hello[..n % hello.len()]).await;
        halves.push(half);
    }
    assert_eq!(good.query("SELECT 1").await, ROW);
    assert_eq!(bench.client().await.query("SELECT 1").await, ROW);
    for half in &mut halves {
        let told = half.receive().await.unwrap();
        let of = |kind| field(&told, kind);
        assert_eq!((of(b'S'), of(b'C')), ("FATAL".into(), "57014".into()));
        assert_eq!(of(b'M'), "canceling authentication due to timeout");
        assert!(half.is_sent_away().await);
    }
    assert_eq!(bench.gateway.snapshot().timeouts.login, 500);
    assert_eq!(good.query("SELECT 1").await, ROW);
}

/// Ends a connection behind what it answers with `farewell`, as a server does that stops.
async fn ends_behind_an_answer(server: SocketAddr) -> SocketAddr {
    let error = |tag: u8, severity: &str| {
        let body = format!("S{severity}\0VFATAL\0C57P01\0Mit ends\0\0");
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[tag][..], &length.to_be_bytes(), body.as_bytes()].concat()
    };
    let last = [error(b'N', "WARNING"), error(b'E', "FATAL")].concat();
    let listener = net::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = listener.local_addr().unwrap();
    drop(tokio::spawn(async move {
        while let Ok((gateway, _)) = listener.accept().await {
            let server = net::connect(&[server]).await.unwrap();
            let (mut from_gateway, mut to_gateway) = gateway.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            let last = last.clone();
            drop(tokio::spawn(
                async move { tokio::io::copy(&mut from_gateway, &mut to_server).await },
            ));
            drop(tokio::spawn(async move {
                let mut bytes = vec![0; 8_192];
                while let Ok(n @ 1..) = from_server.read(&mut bytes).await {
                    let answer = &bytes[..n];
                    let is_last = answer.windows(8).any(|part| part == b"farewell");
                    let told = [answer, if is_last { &last } else { &[] }].concat();
                    if to_gateway.write_all(&told).await.is_err() || is_last {
                        return;
                    }
                }
            }));
        }
    }));
    address
}

#[tokio::test]
async fn what_a_server_says_of_its_end_behind_the_last_answer_is_not_for_the_client() {
    let bench = Bench::start(1).await;
    let (address, database) = (ends_behind_an_answer(bench.server).await, bench.database.clone());
    let behind = Bench::before(address, &database, 1, |_| {});
    let mut client = behind.client().await;
    for _ in 0..3 {
        let told = client.query("SELECT 'farewell'").await;
        assert_eq!(told, "T D[farewell] C[SELECT 1] Z[I]");
        assert_eq!(client.query("SELECT 1").await, ROW);
    }
    // Who is in a transaction is told.
    client.query("BEGIN").await;
    client.query("SELECT 'farewell'").await;
    let told = client.query("SELECT 1").await;
    assert!(told.contains("E[57P01 "), "{told}");
}

/// Linux takes a window that stays closed for an acknowledgement that does not come: with its
/// limit alone, this client would be cut off.
#[tokio::test]
async fn who_reads_nothing_for_longer_than_the_limit_of_the_line_is_not_cut_off() {
    let bench = Bench::with(1, |settings| {
        settings.tcp_user_timeout = Duration::from_secs(1);
    })
    .await;
    let mut client = bench.client().await;
    assert_eq!(client.query("SELECT 1").await, ROW);
    for _ in 0..2 {
        client.send(&query("SELECT repeat('x', 1000000) FROM generate_series(1, 20)")).await;
        time::sleep(Duration::from_millis(2_500)).await;
        let told = client.until_ready(1).await;
        assert_eq!(told.iter().filter(|message| message.tag == b'D').count(), 20);
    }
}

/// Between the gateway and its server; what goes through it may vanish.
struct Relay {
    address: SocketAddr,
    /// Connections of now lose everything from now on; later ones do not.
    age: Arc<AtomicU32>,
}

impl Relay {
    fn before(server: SocketAddr) -> Self {
        let listener = net::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let (address, age) = (listener.local_addr().unwrap(), Arc::<AtomicU32>::default());
        let ages = Arc::clone(&age);
        drop(tokio::spawn(async move {
            while let Ok((gateway, _)) = listener.accept().await {
                let server = net::connect(&[server]).await.unwrap();
                let (from_gateway, to_gateway) = gateway.into_split();
                let (from_server, to_server) = server.into_split();
                drop(tokio::spawn(pass(from_gateway, to_server, Arc::clone(&ages))));
                drop(tokio::spawn(pass(from_server, to_gateway, Arc::clone(&ages))));
            }
        }));
        Self { address, age }
    }

    fn swallows(&self) {
        self.age.fetch_add(1, Ordering::Relaxed);
    }
}

async fn pass(
    mut from: impl tokio::io::AsyncRead + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin,
    ages: Arc<AtomicU32>,
) {
    let (mut bytes, age) = (vec![0; 8_192], ages.load(Ordering::Relaxed));
    while let Ok(n @ 1..) = from.read(&mut bytes).await {
        if ages.load(Ordering::Relaxed) == age && to.write_all(&bytes[..n]).await.is_err() {
            return;
        }
    }
    if ages.load(Ordering::Relaxed) != age {
        // Nobody hears of its end either.
        std::future::pending::<()>().await;
    }
}

#[tokio::test]
async fn a_line_that_swallows_everything_is_noticed_at_rest_and_at_work() {
    let bench = Bench::start(3).await;
    let relay = Relay::before(bench.server);
    let (database, second) = (bench.database.clone(), Duration::from_secs(1));
    let behind = Bench::before(relay.address, &database, 3, |settings| {
        (settings.query_timeout, settings.cancel_wait_timeout) = (second, second / 2);
        let main = settings.servers.get_mut("main").unwrap();
        (main.probe_interval, main.connect_timeout) = (second, second / 2);
    });
    let (mut at_work, mut idle) = (behind.client().await, behind.client().await);
    at_work.query("BEGIN").await;
    at_work.query("SELECT 1").await;
    assert_eq!(idle.query("SELECT 1").await, ROW);
    relay.swallows();
    at_work.send(&query("SELECT 1")).await;
    let told = at_work.until_ready(1).await;
    assert_eq!((field(&told[0], b'S'), field(&told[0], b'C')), ("FATAL".into(), "57014".into()));
    // The one at rest is found by asking it, and replaced.
    let is_served = async || idle.query("SELECT 1").await == ROW;
    until("another connection serves", is_served).await;
    let is_home = async || behind.leased() == 0;
    until("nothing is lost", is_home).await;
}
