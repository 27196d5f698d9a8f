//! Several hosts for one server: which one connections go to, and a primary that moves.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use forebay::demo::cluster::Cluster;
use forebay_pool::ClassName;
use forebay_postgres::settings::{Otherwise, ReplicaSettings, SessionAttrs};
use forebay_postgres::{HostSnapshot, PostgresSettings};
use forebay_seam::{net, time};

use crate::bench::{Bench, start, until};
use crate::client::{Client, bind, execute, parse, sync};

/// A primary and a replica that follows it.
async fn pair() -> (Cluster, Cluster) {
    let making = tokio::task::spawn_blocking(|| {
        let primary = start(Vec::new());
        let replica = primary.replica().unwrap();
        (primary, replica)
    });
    making.await.unwrap()
}

fn over(hosts: &[SocketAddr], attrs: SessionAttrs, settings: &mut PostgresSettings) {
    let server = settings.servers.get_mut("main").unwrap();
    server.address.clear();
    server.hosts = hosts.iter().map(ToString::to_string).collect();
    server.target_session_attrs = attrs;
    server.watch_interval = Duration::from_millis(500);
}

fn hosts(bench: &Bench) -> BTreeMap<String, HostSnapshot> {
    let servers = bench.gateway.snapshot().hosts;
    let hosts = servers.into_iter().flat_map(|server| server.hosts);
    hosts.map(|host| (host.host.clone(), host)).collect()
}

async fn port_of(bench: &Bench) -> u16 {
    bench.client().await.value("SELECT inet_server_port()").await.parse().unwrap()
}

/// Clients that write one row after the other, each under a number of its own.
struct Writers {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU32>,
    tasks: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Writers {
    fn start(bench: &Bench, count: u32) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let tasks = (0..count).map(|_| {
            let (address, database) = (bench.address, bench.database.clone());
            let (stop, written) = (Arc::clone(&stop), Arc::clone(&written));
            tokio::spawn(async move {
                let mut errors = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let Ok(mut client) = Client::connect(address, &database, &[]).await else {
                        continue;
                    };
                    while !stop.load(Ordering::Relaxed) {
                        let answer = client.query("INSERT INTO written DEFAULT VALUES").await;
                        if answer == "C[INSERT 0 1] Z[I]" {
                            written.fetch_add(1, Ordering::Relaxed);
                        } else {
                            let lost = !answer.ends_with("Z[I]");
                            errors.push(answer);
                            if lost {
                                break;
                            }
                        }
                    }
                }
                errors
            })
        });
        let tasks = tasks.collect();
        Self { stop, written, tasks }
    }

    /// Waits until `more` rows were written from now on.
    async fn go_on(&self, more: u32) {
        let enough = self.written.load(Ordering::Relaxed) + more;
        until("the writers go on", async || self.written.load(Ordering::Relaxed) >= enough).await;
    }

    /// What went wrong.
    async fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut errors = Vec::new();
        for task in self.tasks {
            errors.extend(task.await.unwrap());
        }
        errors
    }
}

async fn rows(server: SocketAddr) -> u32 {
    let mut direct = Client::connect(server, "postgres", &[]).await.unwrap();
    direct.value("SELECT count(*) FROM written").await.parse().unwrap()
}

/// A client whose work is of agents that read.
async fn agent(bench: &Bench) -> Client {
    let options = [("options", "-c forebay.class=ai-read")];
    Client::connect(bench.address, &bench.database, &options).await.unwrap()
}

const PORT: &str = "SELECT inet_server_port()";

/// A gateway that sends reads of agents to the replica.
fn reading_bench(first: SocketAddr, second: SocketAddr, otherwise: Otherwise) -> Bench {
    Bench::before(first, "postgres", 4, |settings| {
        let mut replicas = settings.servers["main"].clone();
        replicas.address = second.to_string();
        replicas.target_session_attrs = SessionAttrs::Standby;
        replicas.watch_interval = Duration::from_millis(500);
        settings.servers.insert("replicas".into(), replicas);
        over(&[first, second], SessionAttrs::ReadWrite, settings);
        settings.servers.get_mut("main").unwrap().replicas = Some(ReplicaSettings {
            server: "replicas".into(),
            classes: vec![ClassName::new("ai-read")],
            otherwise,
        });
    })
}

/// Reads go to the replica, one transaction after the other, and the session is the same.
async fn with_replicas(bench: &Bench, first: SocketAddr, second: SocketAddr) -> Bench {
    let lsn = bench.truth("SELECT pg_current_wal_lsn()").await;
    let caught_up = format!("SELECT pg_last_wal_replay_lsn() >= '{lsn}'");
    let mut standby = Client::connect(second, "postgres", &[]).await.unwrap();
    until("the replica has it", async || standby.value(&caught_up).await == "t").await;

    let bench = reading_bench(first, second, Otherwise::Primary);
    let (here, there) = (first.port().to_string(), second.port().to_string());
    let mut client = bench.client().await;
    assert_eq!(client.value(PORT).await, here);
    assert_eq!(client.parameters["in_hot_standby"], "off");
    client.query("SET TIME ZONE 'Asia/Tokyo'").await;
    let prepare = [parse("port", PORT), sync()];
    assert!(client.ask(&prepare).await.ends_with("Z[I]"));
    let run = [bind("", "port", &[]), execute("", 0), sync()];
    for (class, port, standby) in
        [("ai-read", &there, "on"), ("core", &here, "off"), ("ai-read", &there, "on")]
    {
        client.query(&format!("SET forebay.class = '{class}'")).await;
        assert!(client.ask(&run).await.contains(&format!("D[{port}]")), "{class}");
        assert_eq!(client.value("SHOW TimeZone").await, "Asia/Tokyo", "{class}");
        assert_eq!(client.parameters["in_hot_standby"], standby, "trap 34");
    }
    // A tag of the statement says it as well; what is open stays where it is.
    client.query("SET forebay.class = 'core'").await;
    assert_eq!(client.value(&format!("{PORT} /*forebay_class='ai-read'*/")).await, there);
    client.query("BEGIN").await;
    assert_eq!(client.value(PORT).await, here);
    assert_eq!(client.value(&format!("{PORT} /*forebay_class='ai-read'*/")).await, here);
    client.query("COMMIT").await;
    let mut agent = agent(&bench).await;
    assert_eq!(agent.value(PORT).await, there);
    let refused = agent.query("INSERT INTO written DEFAULT VALUES").await;
    assert!(refused.starts_with("E[25006 "), "{refused}");
    bench.all_home().await;
    let leased = |name: &str| {
        let pools = bench.gateway.snapshot().pools;
        let pool = pools.into_iter().find(|pool| &*pool.destination == name).unwrap();
        pool.classes.iter().map(|class| (class.class.to_string(), class.checkouts > 0)).collect()
    };
    let (main, replicas): (BTreeMap<_, _>, BTreeMap<_, _>) = (leased("main"), leased("replicas"));
    assert_eq!((main["core"], main["ai-read"]), (true, false));
    assert_eq!((replicas["core"], replicas["ai-read"]), (false, true));
    bench
}

/// A client that reads for an agent, again and again.
struct Readers {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Vec<String>>,
}

impl Readers {
    fn start(bench: &Bench) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (address, stopped) = (bench.address, Arc::clone(&stop));
        let task = tokio::spawn(async move {
            let (mut errors, options) = (Vec::new(), [("options", "-c forebay.class=ai-read")]);
            while !stopped.load(Ordering::Relaxed) {
                let client = Client::connect(address, "postgres", &options).await;
                let Ok(mut client) = client else { continue };
                while !stopped.load(Ordering::Relaxed) {
                    let answer = client.query("SELECT 1 FROM written LIMIT 1").await;
                    if !answer.ends_with("Z[I]") || answer.starts_with('E') {
                        errors.push(answer);
                        break;
                    }
                    time::sleep(Duration::from_millis(2)).await;
                }
            }
            errors
        });
        Self { stop, task }
    }

    async fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

#[tokio::test]
async fn reads_without_a_replica_are_the_primarys_or_refused_as_it_is_set() {
    let bench = Bench::start(2).await;
    // Nobody listens there any more.
    let closed = net::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap().local_addr().unwrap();
    for otherwise in [Otherwise::Primary, Otherwise::Refuse] {
        let reading = reading_bench(bench.server, closed, otherwise);
        let mut agent = match otherwise {
            Otherwise::Primary => agent(&reading).await,
            Otherwise::Refuse => {
                // Who is greeted first as somebody else needs no replica for it.
                let mut client = reading.client().await;
                client.query("SET forebay.class = 'ai-read'").await;
                client
            }
        };
        let answer = agent.query("SELECT 7").await;
        match otherwise {
            Otherwise::Primary => assert_eq!(answer, "T D[7] C[SELECT 1] Z[I]"),
            Otherwise::Refuse => {
                let is_told = answer.starts_with("E[57P03 ") || answer.starts_with("E[53300 ");
                assert!(is_told && answer.ends_with("Z[I]"), "{answer}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_moves_under_load_harms_nobody_and_the_old_one_is_fenced() {
    let (mut old, mut new) = pair().await;
    let (first, second) = (old.address(), new.address());
    let bench = Bench::before(first, "postgres", 4, |settings| {
        over(&[second, first], SessionAttrs::ReadWrite, settings);
    });
    bench.direct().await.query("CREATE TABLE written (n serial)").await;
    // What hosts are asked, an ordinary role may ask.
    bench.direct().await.query("CREATE ROLE plain LOGIN").await;
    let mut plain = bench.direct().await;
    plain.query("SET ROLE plain").await;
    let history = "SELECT (SELECT system_identifier > 0 FROM pg_control_system()), \
                   pg_walfile_name(pg_current_wal_lsn()) ~ '^00000001', \
                   (SELECT count(*) >= 0 FROM pg_stat_wal_receiver)";
    assert_eq!(plain.value(history).await, "t|t|t");
    // The replica stands first, and is not what is wanted.
    assert_eq!(port_of(&bench).await, first.port());
    let state = |address: SocketAddr| {
        let host = hosts(&bench)[&address.to_string()].clone();
        (host.role, host.state)
    };
    assert_eq!(state(first), ("primary", "up"));
    assert_eq!(state(second), ("standby", "wrong-role"));
    for (attrs, port) in [
        (SessionAttrs::Any, second.port()),
        (SessionAttrs::ReadOnly, second.port()),
        (SessionAttrs::Primary, first.port()),
        (SessionAttrs::Standby, second.port()),
        (SessionAttrs::PreferStandby, second.port()),
    ] {
        let bench = Bench::before(first, "postgres", 1, |settings| {
            over(&[first, second], attrs, settings);
            if attrs == SessionAttrs::Any {
                settings.servers.get_mut("main").unwrap().hosts.reverse();
            }
        });
        assert_eq!(port_of(&bench).await, port, "{attrs:?}");
    }

    let reading = with_replicas(&bench, first, second).await;
    let reads = Readers::start(&reading);

    // Promoted while the old primary lives: it would take writes that are lost.
    let writers = Writers::start(&bench, 6);
    let mut idler = bench.client().await;
    writers.go_on(20).await;
    assert!(idler.query("BEGIN").await.ends_with("Z[T]"));
    assert!(idler.query("INSERT INTO written DEFAULT VALUES").await.ends_with("Z[T]"));
    new = tokio::task::spawn_blocking(|| new.promote().map(|()| new)).await.unwrap().unwrap();
    until("the old primary is fenced", async || state(first).1 == "fenced").await;
    let lost = rows(first).await;
    writers.go_on(20).await;
    // What was begun on the old one does not end there.
    let told = idler.query("COMMIT").await;
    assert!(told.starts_with("E[08006 "), "{told}");
    assert_eq!(rows(first).await, lost, "nothing was written to the fenced one");
    assert_eq!(state(second), ("primary", "up"));
    assert_eq!(writers.end().await, Vec::<String>::new());

    // The new primary restarts, and the old one is down: who has nothing on its way waits.
    let mut idle = bench.client().await;
    assert_eq!(idle.value("SELECT 1").await, "1");
    let writers = Writers::start(&bench, 6);
    writers.go_on(10).await;
    let restarted = tokio::task::spawn_blocking(move || {
        old.stop().unwrap();
        new.restart().unwrap();
        (old, new)
    });
    (old, new) = restarted.await.unwrap();
    writers.go_on(20).await;
    assert_eq!(idle.value("SELECT inet_server_port()").await, second.port().to_string());
    // Back as a primary, it is one of the past.
    old = tokio::task::spawn_blocking(move || old.restart().map(|()| old)).await.unwrap().unwrap();
    until("it is seen", async || state(first).1 == "fenced").await;
    writers.go_on(20).await;
    assert_eq!(rows(first).await, lost);
    for error in writers.end().await {
        assert!(error.contains("E[57P01 ") || error.contains("E[08006 "), "{error}");
    }
    // Reads of agents went on all the time, except those that ran when their server stopped.
    for error in reads.end().await {
        assert!(error.contains("E[57P01 ") || error.contains("E[08006 "), "{error}");
    }
    let servers = bench.gateway.snapshot().hosts;
    assert_eq!(servers[0].failovers, 1);
    // Twice, where it was seen to be away in between.
    assert!((1..=2).contains(&servers[0].fenced), "{}", servers[0].fenced);
    drop((old, new));
}

#[tokio::test]
async fn a_standby_that_stands_still_is_not_used_while_it_is_behind() {
    let (primary, replica) = pair().await;
    let (first, second) = (primary.address(), replica.address());
    let bench = Bench::before(first, "postgres", 2, |settings| {
        over(&[second, first], SessionAttrs::PreferStandby, settings);
        let server = settings.servers.get_mut("main").unwrap();
        server.max_lag = Some(Duration::from_millis(300));
        server.watch_interval = Duration::from_millis(200);
    });
    let mut writer = Client::connect(first, "postgres", &[]).await.unwrap();
    writer.query("CREATE TABLE written (n serial)").await;
    let leads_to = async |port: u16| port_of(&bench).await == port;
    until("it follows", async || leads_to(second.port()).await).await;
    let mut standby = Client::connect(second, "postgres", &[]).await.unwrap();
    standby.query("SELECT pg_wal_replay_pause()").await;
    writer.query("INSERT INTO written DEFAULT VALUES").await;
    until("it is behind", async || hosts(&bench)[&second.to_string()].state == "behind").await;
    until("the primary reads", async || leads_to(first.port()).await).await;
    let lag = hosts(&bench)[&second.to_string()].lag_seconds;
    assert!(lag.is_some_and(|lag| lag >= 0.3), "{lag:?}");
    standby.query("SELECT pg_wal_replay_resume()").await;
    until("it has caught up", async || hosts(&bench)[&second.to_string()].state == "up").await;
    until("it reads again", async || leads_to(second.port()).await).await;
}
