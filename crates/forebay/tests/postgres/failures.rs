//! Servers that fail, queues that are full, and clients that speak nonsense: each is told
//! once, with the right code.

use forebay_pool::ClassName;
use forebay_pool::stats::Health;
use forebay_seam::net;
use std::net::SocketAddr;
use tokio::io::AsyncWriteExt as _;

use crate::bench::{Bench, connect, start, until};
use crate::client::{Client, packet, parse, query, show, startup, sync};

/// How many connections the gateway has.
pub(crate) const OURS: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'forebay'";
/// Ends all that the gateway has.
pub(crate) const KILL_OURS: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'forebay'";
const KILL: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'";

#[tokio::test]
async fn trap_39_a_server_that_is_killed_costs_one_error_or_none() {
    let bench = Bench::start(1).await;
    // At rest: nobody notices.
    let mut client = bench.client().await;
    client.query("SELECT 1").await;
    let mut direct = bench.direct().await;
    direct.query(KILL).await;
    let left = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()";
    until("it is dead", async || direct.value(left).await == "1").await;
    assert_eq!(client.query("SELECT 2").await, "T D[2] C[SELECT 1] Z[I]");
    // In a transaction, and while it runs: the server's own words, once.
    let killed = "E[57P01 terminating connection due to administrator command]";
    client.query("BEGIN").await;
    client.query("SELECT 1").await;
    bench.direct().await.query(KILL).await;
    assert_eq!(show(&client.until_ready(9).await), killed);
    let mut client = bench.client().await;
    client.send(&query("SELECT pg_sleep(30)")).await;
    let running = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND query LIKE 'SELECT pg_sleep%'";
    let mut direct = bench.direct().await;
    until("it runs", async || direct.value(running).await == "1").await;
    direct.query(KILL).await;
    let answer = show(&client.until_ready(9).await);
    assert!(answer.ends_with(killed) && answer.matches("E[").count() == 1, "{answer}");
    bench.all_home().await;
    assert_eq!(bench.client().await.query("SELECT 1").await, "T D[1] C[SELECT 1] Z[I]");
}

#[tokio::test]
async fn clients_survive_a_restart_and_are_told_while_it_lasts() {
    let mut cluster = tokio::task::spawn_blocking(|| start(Vec::new())).await.unwrap();
    let bench = Bench::before(cluster.address(), "postgres", 2, |_| {});
    let (mut a, mut b) = (bench.client().await, bench.client().await);
    a.query("SET work_mem = '9MB'").await;
    b.query("SELECT 1").await;
    let mut cluster = tokio::task::spawn_blocking(move || {
        cluster.stop().unwrap();
        cluster
    })
    .await
    .unwrap();
    let told = a.query("SELECT 1").await;
    assert!(told.starts_with("E[57P03 ") && told.ends_with(" Z[I]"), "{told}");
    let refused = Client::connect(bench.address, "other", &[]).await.err().unwrap();
    assert!(refused.starts_with("E[08001 "), "{refused}");
    let cluster = tokio::task::spawn_blocking(move || {
        cluster.restart().unwrap();
        cluster
    })
    .await
    .unwrap();
    until("it serves again", async || a.query("SELECT 1").await == "T D[1] C[SELECT 1] Z[I]").await;
    assert_eq!(a.value("SHOW work_mem").await, "9MB");
    assert_eq!(b.value("SHOW work_mem").await, "4MB");
    drop(cluster);
}

#[tokio::test]
async fn a_full_queue_and_a_long_wait_say_when_to_come_again() {
    let bench = Bench::with(1, |settings| {
        let main = settings.servers.get_mut("main").unwrap();
        main.queue_factor = 1;
        for (name, class) in [
            ("core", "{\"kind\": \"core\", \"checkout_timeout\": \"200ms\"}"),
            ("agents", "{\"checkout_timeout\": \"5s\", \"ceiling\": 1}"),
        ] {
            main.classes.insert(ClassName::new(name), serde_json::from_str(class).unwrap());
        }
    })
    .await;
    let mut holder = bench.client().await;
    holder.query("BEGIN").await;
    holder.query("SELECT 1").await;
    let mut client = bench.client().await;
    client.send(&query("SELECT 1")).await;
    let told = client.until_ready(1).await;
    assert!(show(&told).starts_with("E[53300 "), "{}", show(&told));
    let hint = crate::client::field(&told[0], b'H');
    assert!(hint.starts_with("retry-after-ms="), "{hint}");
    // The same connection goes on.
    holder.query("COMMIT").await;
    assert_eq!(client.query("SELECT 1").await, "T D[1] C[SELECT 1] Z[I]");
}

#[tokio::test]
async fn a_server_that_is_full_is_busy_and_not_down() {
    let bench = Bench::start(2).await;
    let mut admin = bench.direct().await;
    admin.query("DROP ROLE IF EXISTS narrow").await;
    admin.query("CREATE ROLE narrow LOGIN CONNECTION LIMIT 1").await;
    let narrow = [("user", "narrow"), ("database", &*bench.database)];
    let other = Client::start(bench.server, &startup(&narrow)).await.unwrap();
    let login = startup(&narrow);
    let waits = Client::start(bench.address, &login);
    let leaves = async {
        until("its login waits", async || bench.waiting() == 1).await;
        let health = async || bench.gateway.snapshot().pools[0].health;
        until("the server is busy", async || health().await == Health::Busy).await;
        drop(other);
    };
    let (waited, ()) = tokio::join!(waits, leaves);
    assert_eq!(waited.unwrap().query("SELECT 2").await, "T D[2] C[SELECT 1] Z[I]");
    until("it is up", async || bench.gateway.snapshot().pools[0].health == Health::Up).await;
}

#[tokio::test]
async fn shares_follow_what_the_server_leaves_to_ordinary_users() {
    let reserved = vec![("superuser_reserved_connections".into(), "200".into())];
    let cluster = tokio::task::spawn_blocking(|| start(reserved)).await.unwrap();
    let bench = Bench::before(cluster.address(), "postgres", 2, |settings| {
        let main = settings.servers.get_mut("main").unwrap();
        (main.budget, main.ai_share) = (None, 35);
    });
    assert_eq!(bench.gateway.snapshot().pools[0].budget, 10);
    bench.client().await.query("SELECT 1").await;
    let seen = async || bench.gateway.snapshot().pools[0].capacity;
    until("it is read", async || seen().await == Some(100)).await;
    let pool = &bench.gateway.snapshot().pools[0];
    assert_eq!((pool.budget, pool.ai_ceiling), (70, 35));
}

#[tokio::test]
async fn whoever_cannot_be_let_in_is_told_why() {
    let bench = Bench::with(2, |settings| settings.max_clients = 2).await;
    let unknown = Client::connect(bench.address, "nowhere", &[]).await.err().unwrap();
    assert_eq!(unknown, "E[3D000 database \"nowhere\" does not exist]");
    let _a = bench.client().await;
    until("one is in", async || bench.gateway.snapshot().clients == 1).await;
    let _b = bench.client().await;
    let refused = Client::connect(bench.address, &bench.database, &[]).await.err().unwrap();
    assert_eq!(refused, "E[53300 sorry, too many clients already]");
}

#[tokio::test]
async fn trap_44_nonsense_is_refused_and_harms_nobody() {
    let bench = Bench::start(1).await;
    let mut good = bench.client().await;
    let no_user = packet(&[&196_608_u32.to_be_bytes()[..], b"database\0x\0\0"].concat());
    let newer = packet(&[&262_144_u32.to_be_bytes()[..], b"user\0x\0\0"].concat());
    for (first, code) in [
        (no_user, "28000"),
        (newer, "0A000"),
        (b"\x7f\xff\xff\xff....".to_vec(), "08P01"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "08P01"),
        (
            startup(&[("user", "forebay"), ("database", &bench.database), ("options", "nonsense")]),
            "22023",
        ),
    ] {
        let refused = Client::start(bench.address, &first).await.err().unwrap();
        assert!(refused.starts_with(&format!("E[{code} ")), "{refused}");
    }
    for garbage in
        [&b"Q\0\0\0\0"[..], b"Z\0\0\0\x04", b"P\0\0\0\x05x", b"B\0\0\0\x08xxxx", b"\0\0\0\0\x04"]
    {
        let mut client = bench.client().await;
        client.send(&[garbage, &sync()].concat()).await;
        let told = show(&client.until_ready(9).await);
        assert!(told.starts_with("E[08P01 ") || told.is_empty(), "{told}");
    }
    assert_eq!(good.query("SELECT 1").await, "T D[1] C[SELECT 1] Z[I]");
    bench.all_home().await;
}

fn ssl_request() -> Vec<u8> {
    packet(&80_877_103_u32.to_be_bytes())
}

#[tokio::test]
async fn trap_46_plaintext_behind_a_request_for_tls_is_refused() {
    let bench = Bench::start(1).await;
    let smuggled = [ssl_request(), startup(&[("user", "forebay")])].concat();
    let refused = Client::start(bench.address, &smuggled).await.err().unwrap();
    assert!(refused.starts_with("E[08P01 "), "{refused}");
}

#[tokio::test]
async fn nobody_there_is_another_error_than_no_place() {
    let nobody = net::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap().local_addr().unwrap();
    let bench = Bench::before(nobody, "postgres", 1, |_| {});
    let refused = Client::connect(bench.address, "postgres", &[]).await.err().unwrap();
    assert!(refused.starts_with("E[08001 "), "{refused}");
}

#[tokio::test]
async fn drivers_live_through_it_all() {
    let bench = Bench::start(2).await;
    let driver = connect(bench.address, &bench.database).await;
    let row = driver.query_one("SELECT $1::text || 'b'", &[&"a"]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "ab");
}

/// Each is allowed by itself; together they would hold more than there is for all.
#[tokio::test]
async fn messages_that_are_not_whole_share_a_bounded_memory() {
    let bench = Bench::with(1, |settings| {
        (settings.max_message, settings.max_message_memory) = (900_000, 1_000_000);
    })
    .await;
    let long = [parse("", &format!("SELECT '{}'", "x".repeat(600_000))), sync()].concat();
    let (mut first, mut second) = (bench.client().await, bench.client().await);
    first.send(&long[..590_000]).await;
    assert!(first.is_silent().await);
    // It may be sent away before it has sent everything.
    drop(second.stream.write_all(&long[..590_000]).await);
    let said = show(&second.until_ready(1).await);
    assert!(said.starts_with("E[53200 "), "{said}");
    first.send(&long[590_000..]).await;
    assert_eq!(show(&first.until_ready(1).await), "1 Z[I]");
    assert_eq!(bench.client().await.query("SELECT 1").await, "T D[1] C[SELECT 1] Z[I]");
}
