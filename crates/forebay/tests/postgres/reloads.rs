//! Another configuration while clients are there.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use forebay_pool::{ClassName, ClassSettings, Kind, Share};
use forebay_postgres::settings::{ClientAuth, DatabaseSettings, PostgresSettings, UserSettings};
use forebay_seam::net;
use forebay_seam::secret::SecretRef;
use forebay_seam::time;

use crate::bench::{Bench, USER, connect, until};
use crate::client::{Client, query, show};

fn server(settings: &mut PostgresSettings) -> &mut forebay_postgres::settings::ServerSettings {
    settings.servers.get_mut("main").unwrap()
}

fn classes(names: &[&str]) -> BTreeMap<ClassName, ClassSettings> {
    let core = ClassSettings {
        kind: Kind::Core,
        checkout_timeout: Duration::from_secs(20),
        ..ClassSettings::default()
    };
    let ai = ClassSettings { guarantee: Share::Seats(1), ..ClassSettings::default() };
    let others = names.iter().map(|name| (ClassName::new(name), ai.clone()));
    [(ClassName::new("core"), core)].into_iter().chain(others).collect()
}

/// Somewhere else that leads to `server`, and how many connections it led there.
async fn detour(server: SocketAddr) -> (SocketAddr, Arc<AtomicU32>) {
    let listener = net::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = listener.local_addr().unwrap();
    let led = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&led);
    drop(tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            drop(tokio::spawn(async move {
                let mut there = net::connect(&[server]).await.unwrap();
                drop(tokio::io::copy_bidirectional(&mut client, &mut there).await);
            }));
        }
    }));
    (address, led)
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_reloads_under_load_are_noticed_by_nobody() {
    let mut bench = Bench::with(6, |settings| server(settings).classes = classes(&[])).await;
    let (elsewhere, _) = detour(bench.server).await;
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut load = Vec::new();
    for n in 0..12_i32 {
        let mut client = connect(bench.address, &bench.database).await;
        let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
        load.push(tokio::spawn(async move {
            client.batch_execute(&format!("SET statement_timeout = '{}s'", 100 + n)).await.unwrap();
            let prepared = client.prepare("SELECT $1::int4 + 1").await.unwrap();
            while !stop.load(Ordering::Relaxed) {
                let row = client.query_one(&prepared, &[&n]).await.unwrap();
                assert_eq!(row.get::<_, i32>(0), n + 1);
                let transaction = client.transaction().await.unwrap();
                let row = transaction.query_one("SHOW statement_timeout", &[]).await.unwrap();
                assert_eq!(row.get::<_, String>(0), shown(100 + n));
                transaction.query_one(&prepared, &[&n]).await.unwrap();
                transaction.commit().await.unwrap();
                done.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    let (here, mut least) = (bench.server, u64::MAX);
    for round in 0..20_u32 {
        let before = done.load(Ordering::Relaxed);
        bench
            .apply(|settings| {
                let server = server(settings);
                server.budget = Some(5 + round % 5);
                server.idle_ttl = Duration::from_secs(u64::from(20 + round));
                server.classes = classes(&["a", "b", "c"][..(round % 4) as usize]);
                // Every fifth replaces all connections.
                if round % 5 == 0 {
                    let to = if round % 2 == 0 { elsewhere } else { here };
                    server.address = to.to_string();
                }
            })
            .await;
        until("work goes on", async || done.load(Ordering::Relaxed) >= before + 24).await;
        least = least.min(done.load(Ordering::Relaxed) - before);
    }
    stop.store(true, Ordering::Relaxed);
    for client in load {
        client.await.unwrap();
    }
    assert!(least >= 24, "all clients went on after each reload");
    bench.all_home().await;
}

fn shown(seconds: i32) -> String {
    if seconds % 60 == 0 { format!("{}min", seconds / 60) } else { format!("{seconds}s") }
}

#[tokio::test]
async fn a_smaller_budget_and_a_larger_one_count_at_once() {
    let mut bench = Bench::with(4, |_| {}).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = bench.client().await;
        client.query("BEGIN; SELECT 1").await;
        clients.push(client);
    }
    bench.apply(|settings| server(settings).budget = Some(2)).await;
    assert_eq!((bench.leased(), bench.gateway.snapshot().pools[0].budget), (4, 2));
    for client in &mut clients {
        assert_eq!(client.query("COMMIT").await, "C[COMMIT] Z[I]", "no lease is broken");
    }
    until("the surplus is closed", async || bench.gateway.snapshot().pools[0].idle <= 2).await;
    bench.apply(|settings| server(settings).budget = Some(4)).await;
    for client in &mut clients {
        assert_eq!(client.query("BEGIN; SELECT 1").await, "C[BEGIN] T D[1] C[SELECT 1] Z[T]");
    }
    assert_eq!(bench.leased(), 4);
}

#[tokio::test]
async fn a_servers_new_address_is_used_by_all_and_breaks_no_transaction() {
    let mut bench = Bench::with(4, |_| {}).await;
    let mut busy = bench.client().await;
    let mut idle = bench.client().await;
    let mut pinned = bench.client().await;
    busy.query("BEGIN; CREATE TEMP TABLE here ON COMMIT DROP AS SELECT 7 AS x").await;
    idle.query("SELECT 1").await;
    pinned.query("CREATE TEMP TABLE stays AS SELECT 8 AS x").await;
    let (elsewhere, led) = detour(bench.server).await;
    let changes = bench.apply(|s| server(s).address = elsewhere.to_string()).await;
    assert_eq!((changes.reconnected, changes.opened), (vec!["main".to_owned()], Vec::new()));
    assert_eq!(busy.value("SELECT x FROM here").await, "7");
    assert_eq!(busy.query("COMMIT").await, "C[COMMIT] Z[I]");
    assert_eq!(pinned.value("SELECT x FROM stays").await, "8", "its connection is its own");
    assert_eq!(led.load(Ordering::Relaxed), 0, "so far nothing was opened there");
    assert_eq!(idle.value("SELECT 1").await, "1");
    assert_eq!(busy.value("SELECT 2").await, "2");
    assert!(led.load(Ordering::Relaxed) > 0);
    let here = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                AND client_port IS NOT NULL AND pid <> pg_backend_pid()";
    drop(pinned);
    until("only the new connections are left", async || {
        bench.truth(here).await == led.load(Ordering::Relaxed).to_string()
    })
    .await;
}

#[tokio::test]
async fn clients_of_a_database_that_is_gone_are_sent_away_after_their_transaction() {
    let mut bench = Bench::with(4, |_| {}).await;
    let own = bench.database.clone();
    let named = |names: &[&str]| {
        let database = DatabaseSettings { database: Some(own.clone()), ..Default::default() };
        names.iter().map(|name| ((*name).to_owned(), database.clone())).collect()
    };
    bench.apply(|s| s.databases = named(&["old", "new"])).await;
    let at = |name: &'static str| Client::connect(bench.address, name, &[]);
    let (mut idle, mut busy) = (at("old").await.unwrap(), at("old").await.unwrap());
    let mut stays = at("new").await.unwrap();
    busy.query("BEGIN; SELECT 1").await;
    let changes = bench.apply(|s| s.databases = named(&["new"])).await;
    assert_eq!(changes.databases_gone, ["old"]);
    let said = show(&idle.until_tag(b'E').await);
    assert!(said.starts_with("E[57P01 ") && said.contains("database"), "{said}");
    assert!(idle.is_sent_away().await);
    assert_eq!(busy.value("SELECT 2").await, "2");
    busy.send(&query("COMMIT")).await;
    let said = show(&busy.until_tag(b'E').await);
    assert!(said.starts_with("C[COMMIT] Z[I] E[57P01 "), "{said}");
    assert_eq!(stays.value("SELECT 3").await, "3");
    let refused = Client::connect(bench.address, "old", &[]).await.err().unwrap();
    assert!(refused.contains("3D000"), "{refused}");
}

#[tokio::test]
async fn a_password_in_a_file_is_rotated_without_a_word_to_those_who_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "one\n").unwrap();
    let secret = SecretRef::new(format!("file:{}", file.display()));
    let mut bench = Bench::with(2, |settings| {
        settings.auth = ClientAuth::ScramSha256;
        let user = UserSettings { password: Some(secret), ..UserSettings::default() };
        settings.users.insert(USER.to_owned(), user);
    })
    .await;
    let (address, database) = (bench.address, bench.database.clone());
    let login = async |password: &str| {
        let dsn = format!("postgres://{USER}:{password}@{address}/{database}");
        let (client, connection) = tokio_postgres::connect(&dsn, tokio_postgres::NoTls).await?;
        drop(tokio::spawn(connection));
        Ok::<_, tokio_postgres::Error>(client)
    };
    let there = login("one").await.unwrap();
    std::fs::write(&file, "two\n").unwrap();
    bench.apply(|_| {}).await;
    there.query_one("SELECT 1", &[]).await.unwrap();
    login("two").await.unwrap().query_one("SELECT 1", &[]).await.unwrap();
    let code = login("one").await.err().and_then(|error| error.code().cloned());
    assert_eq!(code, Some(tokio_postgres::error::SqlState::INVALID_PASSWORD));
}

#[tokio::test]
async fn a_reload_that_fails_changes_nothing() {
    let mut bench = Bench::with(2, |_| {}).await;
    let mut client = bench.client().await;
    let before = bench.gateway.snapshot().pools[0].budget;
    let mut broken = bench.settings.clone();
    server(&mut broken).budget = Some(9);
    let secret = UserSettings {
        password: Some(SecretRef::new("file:/nowhere/at/all")),
        ..UserSettings::default()
    };
    broken.users.insert("nobody".into(), secret);
    let gateway = bench.gateway.clone();
    let applied = tokio::task::spawn_blocking(move || gateway.apply(broken, None)).await.unwrap();
    let error = applied.unwrap_err();
    assert_eq!(error.at, "postgres.users.nobody.password");
    assert_eq!(bench.gateway.snapshot().pools[0].budget, before);
    assert_eq!(client.value("SELECT 1").await, "1");
    bench.apply(|settings| server(settings).budget = Some(9)).await;
    assert_eq!(bench.gateway.snapshot().pools[0].budget, 9);
}

#[tokio::test]
async fn a_database_moves_to_another_server_between_two_statements() {
    let mut bench = Bench::with(2, |_| {}).await;
    let own = bench.database.clone();
    let on = |server: &str| DatabaseSettings {
        server: Some(server.to_owned()),
        database: Some(own.clone()),
        ..Default::default()
    };
    bench.apply(|s| drop(s.databases.insert("app".into(), on("main")))).await;
    let mut client = Client::connect(bench.address, "app", &[]).await.unwrap();
    let mut busy = Client::connect(bench.address, "app", &[]).await.unwrap();
    client.query("SET work_mem = '7MB'").await;
    busy.query("BEGIN; SELECT 1").await;
    let changes = bench
        .apply(|s| {
            let main = s.servers.remove("main").unwrap();
            s.servers.insert("next".into(), main);
            s.databases.insert("app".into(), on("next"));
        })
        .await;
    assert_eq!((changes.opened, changes.closed), (vec!["next".into()], vec!["main".to_owned()]));
    assert_eq!(client.value("SHOW work_mem").await, "7MB");
    assert_eq!(busy.query("COMMIT").await, "C[COMMIT] Z[I]");
    assert_eq!(busy.value("SELECT 5").await, "5");
    time::sleep(Duration::from_millis(1)).await;
    let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                AND client_port IS NOT NULL AND pid <> pg_backend_pid()";
    until("the old pool is gone", async || {
        let pool = &bench.gateway.snapshot().pools[0];
        (pool.idle + pool.leased).to_string() == bench.truth(open).await
    })
    .await;
}
