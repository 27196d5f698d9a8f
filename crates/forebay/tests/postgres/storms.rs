//! What comes in great number, and what is away for long: wrong logins, a server that refuses,
//! users who cannot be looked up, servers that reloads bring and take.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use forebay_postgres::settings::{ClientAuth, DatabaseSettings};
use forebay_seam::{net, time};
use tokio::sync::watch;

use crate::authentication::auth_query;
use crate::bench::{Bench, until};
use crate::client::{Client, field, startup};
use crate::guarded::{ANN, BOB, RIGHT, Way, guarded, listed, log_in};

const ROW: &str = "T D[1] C[SELECT 1] Z[I]";

/// A way to a server that can be shut; it counts who comes.
struct Passage {
    address: SocketAddr,
    came: Arc<AtomicU32>,
    open: watch::Sender<bool>,
}

impl Passage {
    fn to(server: SocketAddr) -> Self {
        let listener = net::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let came = Arc::<AtomicU32>::default();
        let (open, is_open) = watch::channel(true);
        let counted = Arc::clone(&came);
        drop(tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let mut is_open = is_open.clone();
                drop(tokio::spawn(async move {
                    let passes = async {
                        let mut far = net::connect(&[server]).await?;
                        tokio::io::copy_bidirectional(&mut near, &mut far).await
                    };
                    tokio::select! {
                        _ = passes => {}
                        _ = is_open.wait_for(|open| !open) => {}
                    }
                }));
            }
        }));
        Self { address, came, open }
    }
}

/// What a login with a wrong proof is told.
async fn wrong_login(address: SocketAddr) -> (String, String) {
    let mut client = Client::bare(address).await;
    client.send(&startup(&[("user", BOB), ("database", "postgres")])).await;
    let asked = client.receive().await.unwrap();
    assert_eq!(asked.tag, b'R');
    let answer = format!("p\0\0\0\x28md5{}\0", "0".repeat(32));
    client.send(answer.as_bytes()).await;
    let told = client.receive().await.unwrap();
    assert!(client.is_sent_away().await);
    (field(&told, b'C'), field(&told, b'M'))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_wrong_logins_in_a_second_do_not_keep_out_who_is_right() {
    let server = guarded().await;
    let bench = server.gateway(ClientAuth::Md5, |settings| {
        listed(settings, ANN, RIGHT);
        listed(settings, BOB, &server.stored[BOB]);
        settings.login_timeout = Duration::from_secs(60);
    });
    let before = log_in(&bench, &Way::Plain, ANN, RIGHT).await.unwrap();
    let mut wrong = Vec::new();
    for _ in 0..50 {
        wrong.extend((0..20).map(|_| tokio::spawn(wrong_login(bench.address))));
        let row = before.query_one("SELECT 1", &[]).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), 1);
        time::sleep(Duration::from_millis(15)).await;
    }
    let meanwhile = log_in(&bench, &Way::Plain, ANN, RIGHT).await.unwrap();
    meanwhile.query_one("SELECT 1", &[]).await.unwrap();
    let expected =
        ("28P01".to_owned(), format!("password authentication failed for user \"{BOB}\""));
    for told in wrong {
        assert_eq!(told.await.unwrap(), expected);
    }
    assert!(bench.gateway.snapshot().throttled > 0);
    log_in(&bench, &Way::Plain, ANN, RIGHT).await.unwrap();
}

#[tokio::test]
async fn while_users_cannot_be_looked_up_the_known_get_in_and_the_unknown_are_told() {
    let server = guarded().await;
    let way = Passage::to(server.address());
    let bench = server.gateway(ClientAuth::ScramSha256, |settings| {
        settings.auth_query = Some(auth_query());
        let main = settings.servers.get_mut("main").unwrap();
        main.address = way.address.to_string();
        main.connect_timeout = Duration::from_secs(1);
    });
    let known = log_in(&bench, &Way::Plain, ANN, RIGHT).await.unwrap();
    known.query_one("SELECT 1", &[]).await.unwrap();
    way.open.send(false).unwrap();
    log_in(&bench, &Way::Plain, ANN, RIGHT).await.expect("it was looked up before");
    let wrong = log_in(&bench, &Way::Plain, ANN, "a guess").await.err().unwrap();
    let unknown = log_in(&bench, &Way::Plain, "nobody", RIGHT).await.err().unwrap();
    assert_eq!((wrong.0.as_str(), unknown.0.as_str()), ("28P01", "28P01"));
    way.open.send(true).unwrap();
    let is_back = async || known.query_one("SELECT 1", &[]).await.is_ok();
    until("the server is back", is_back).await;
}

#[tokio::test]
async fn a_server_that_says_it_is_full_is_asked_seldom_and_serves_at_once_when_it_is_not() {
    let bench = Bench::start(2).await;
    let mut admin = bench.direct().await;
    let role = format!("of_{}", bench.database);
    admin.query(&format!("CREATE ROLE {role} LOGIN CONNECTION LIMIT 0")).await;
    let way = Passage::to(bench.server);
    let full = Bench::before(way.address, &bench.database, 4, |settings| {
        settings.query_wait_timeout = Duration::from_millis(300);
    });
    let (over, begun) = (Arc::<AtomicBool>::default(), time::now());
    let asking: Vec<_> = (0..20)
        .map(|_| {
            let (over, address) = (Arc::clone(&over), full.address);
            let hello = startup(&[("user", &role), ("database", &bench.database)]);
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    match Client::start(address, &hello).await {
                        Ok(mut client) => return client.query("SELECT 1").await,
                        Err(told) => assert!(told.starts_with("E[53300 "), "{told}"),
                    }
                    time::sleep(Duration::from_millis(10)).await;
                }
                String::new()
            })
        })
        .collect();
    time::sleep(Duration::from_millis(2_500)).await;
    let (came, seconds) = (way.came.load(Ordering::Relaxed), begun.elapsed().as_secs() + 1);
    // One a second, and those that had begun together at first.
    assert!(u64::from(came) <= 4 + seconds, "asked {came} times in {seconds} s");
    admin.query(&format!("ALTER ROLE {role} CONNECTION LIMIT 20")).await;
    for asks in asking {
        assert_eq!(asks.await.unwrap(), ROW);
    }
}

#[tokio::test]
async fn servers_that_reloads_bring_and_take_leave_nothing_behind() {
    let mut bench = Bench::start(2).await;
    bench
        .apply(|settings| {
            let named =
                DatabaseSettings { server: Some("main".into()), ..DatabaseSettings::default() };
            settings.databases.insert("*".into(), named);
        })
        .await;
    bench.client().await.query("SELECT 1").await;
    bench.all_home().await;
    let name = format!("extra_of_{}", bench.database);
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let (mut after_first, there) = (None, bench.database.clone());
    for _ in 0..4 {
        let changes = bench
            .apply(|settings| {
                let extra = settings.servers["main"].clone();
                settings.servers.insert("extra".into(), extra);
                let database = DatabaseSettings {
                    server: Some("extra".into()),
                    database: Some(there.clone()),
                    ..DatabaseSettings::default()
                };
                settings.databases.insert(name.clone(), database);
            })
            .await;
        assert_eq!(changes.opened, ["extra"]);
        for _ in 0..3 {
            let mut client = Client::connect(bench.address, &name, &[]).await.unwrap();
            assert_eq!(client.query("SELECT 1").await, ROW);
        }
        let changes = bench
            .apply(|settings| {
                settings.servers.remove("extra");
                settings.databases.remove(&name);
            })
            .await;
        assert_eq!(changes.closed, ["extra"]);
        assert_eq!(bench.gateway.snapshot().pools.len(), 1);
        let most = *after_first.get_or_insert_with(tasks);
        until("its tasks have ended", async || tasks() <= most).await;
    }
    let open = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'forebay' AND \
                datname = current_database()";
    until("its connections have ended", async || {
        bench.truth(open).await.parse::<u32>().is_ok_and(|open| open <= 2)
    })
    .await;
}
