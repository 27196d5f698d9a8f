//! What each pair of a database and a user may have, counted by the server itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use forebay_postgres::PostgresSettings;
use forebay_postgres::settings::{DatabaseSettings, UserSettings};
use forebay_seam::time;

use crate::bench::{Bench, until};
use crate::client::{Client, startup};

/// Two users of the bench's own; roles belong to the whole cluster.
async fn users(bench: &Bench) -> (String, String) {
    let (ann, bob) = (format!("{}_ann", bench.database), format!("{}_bob", bench.database));
    let sql = format!("CREATE ROLE {ann} LOGIN; CREATE ROLE {bob} LOGIN");
    assert_eq!(bench.direct().await.query(&sql).await, "C[CREATE ROLE] C[CREATE ROLE] Z[I]");
    (ann, bob)
}

async fn login(bench: &Bench, user: &str, database: &str) -> Result<Client, String> {
    Client::start(bench.address, &startup(&[("user", user), ("database", database)])).await
}

async fn client(bench: &Bench, user: &str) -> Client {
    login(bench, user, &bench.database).await.unwrap()
}

/// Connections of ours that the server has, where `which` holds.
fn ours(which: &str) -> String {
    format!(
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' \
         AND {which}"
    )
}

/// Looks at the server until dropped, as often as it answers, and keeps the most it saw.
struct Watch {
    most: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<u32>,
}

impl Watch {
    async fn start(bench: &Bench, which: &str) -> Self {
        let (most, stop) = (Arc::<AtomicU32>::default(), Arc::<AtomicBool>::default());
        let (mut client, question) = (bench.direct().await, ours(which));
        let (seen, stopped) = (Arc::clone(&most), Arc::clone(&stop));
        let task = tokio::spawn(async move {
            let mut looks = 0;
            while !stopped.load(Ordering::Relaxed) {
                seen.fetch_max(client.value(&question).await.parse().unwrap(), Ordering::Relaxed);
                looks += 1;
            }
            looks
        });
        Self { most, stop, task }
    }

    async fn most(self) -> u32 {
        self.stop.store(true, Ordering::Relaxed);
        assert!(self.task.await.unwrap() > 10, "it looked often enough");
        self.most.load(Ordering::Relaxed)
    }
}

/// `count` clients of `user` that each run `times` short transactions.
async fn load(bench: &Bench, user: &str, count: usize, times: usize) {
    let mut tasks = Vec::new();
    for _ in 0..count {
        let mut client = client(bench, user).await;
        tasks.push(tokio::spawn(async move {
            for _ in 0..times {
                assert_eq!(client.value("SELECT 1 FROM pg_sleep(0.004)").await, "1");
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn a_pair_never_has_more_connections_than_its_size_and_others_do_not_wait_for_it() {
    let bench = Bench::with(50, |settings| settings.pool_size = Some(2)).await;
    let (ann, bob) = users(&bench).await;
    let watch = Watch::start(&bench, &format!("usename = '{ann}'")).await;
    let mut held = [client(&bench, &ann).await, client(&bench, &ann).await];
    for client in &mut held {
        assert_eq!(client.query("BEGIN; SELECT 1").await, "C[BEGIN] T D[1] C[SELECT 1] Z[T]");
    }
    let mut waiting = client(&bench, &ann).await;
    waiting.send(&crate::client::query("SELECT 2")).await;
    until("one waits", async || bench.waiting() == 1).await;
    assert_eq!(client(&bench, &bob).await.value("SELECT 3").await, "3");
    for client in &mut held {
        assert_eq!(client.query("COMMIT").await, "C[COMMIT] Z[I]");
    }
    assert_eq!(crate::client::show(&waiting.until_ready(1).await), "T D[2] C[SELECT 1] Z[I]");
    load(&bench, &ann, 8, 20).await;
    assert_eq!(watch.most().await, 2);
}

#[tokio::test]
async fn the_reserve_opens_when_somebody_has_waited_and_not_before() {
    let bench = Bench::with(50, |settings| {
        settings.pool_size = Some(1);
        settings.reserve_pool_size = 1;
        settings.reserve_pool_timeout = Duration::from_millis(100);
    })
    .await;
    let (ann, _) = users(&bench).await;
    let of_ann = format!("usename = '{ann}'");
    // One after the other: nobody waits long.
    load(&bench, &ann, 2, 5).await;
    assert_eq!(bench.truth(&ours(&of_ann)).await, "1");
    let mut one = client(&bench, &ann).await;
    let mut two = client(&bench, &ann).await;
    one.query("BEGIN; SELECT 1").await;
    assert_eq!(two.query("BEGIN; SELECT 2").await, "C[BEGIN] T D[2] C[SELECT 1] Z[T]");
    assert_eq!(bench.truth(&ours(&of_ann)).await, "2");
    let mut three = client(&bench, &ann).await;
    three.send(&crate::client::query("SELECT 3")).await;
    time::sleep(Duration::from_millis(150)).await;
    assert!(three.is_silent().await, "the reserve is not without end");
    one.query("COMMIT").await;
    assert_eq!(crate::client::show(&three.until_ready(1).await), "T D[3] C[SELECT 1] Z[I]");
}

#[tokio::test]
async fn pairs_of_one_database_share_its_limit_and_none_starves() {
    let bench = Bench::with(50, |settings| {
        settings.pool_size = Some(4);
        settings.max_database_connections = 3;
    })
    .await;
    let (ann, bob) = users(&bench).await;
    let of_both = format!("usename IN ('{ann}', '{bob}')");
    let watch = Watch::start(&bench, &of_both).await;
    // Ann's clients want all there is, and give none back to rest.
    let busy = load(&bench, &ann, 8, 60);
    let sibling = async {
        until("ann has all of them", async || bench.waiting() > 0).await;
        load(&bench, &bob, 2, 10).await;
    };
    tokio::join!(busy, sibling);
    assert_eq!(watch.most().await, 3);
    assert_eq!(bench.gateway.snapshot().pools[0].classes[0].timed_out, 0);
}

#[tokio::test]
async fn one_that_may_not_open_more_takes_an_idle_one_of_a_sibling() {
    let bench = Bench::with(50, |settings| settings.max_database_connections = 1).await;
    let (ann, bob) = users(&bench).await;
    let watch = Watch::start(&bench, &format!("usename IN ('{ann}', '{bob}')")).await;
    for user in [&ann, &bob].into_iter().cycle().take(10) {
        assert_eq!(client(&bench, user).await.value("SELECT 1").await, "1");
    }
    assert_eq!(watch.most().await, 1);
}

#[tokio::test]
async fn the_limit_of_a_user_holds_over_several_servers() {
    let bench = Bench::with(50, |settings| {
        let other = settings.servers["main"].clone();
        settings.servers.insert("other".into(), other);
        settings.max_user_connections = 2;
        settings.databases = ["one", "two"]
            .into_iter()
            .zip(["main", "other"])
            .map(|(name, server)| {
                let database = Some("postgres".into());
                let server = Some(server.into());
                let table = DatabaseSettings { server, database, ..DatabaseSettings::default() };
                (name.to_owned(), table)
            })
            .collect();
    })
    .await;
    let (ann, _) = users(&bench).await;
    let watch = Watch::start(&bench, &format!("usename = '{ann}'")).await;
    let mut tasks = Vec::new();
    for database in ["one", "two", "one", "two", "one", "two"] {
        let mut client = login(&bench, &ann, database).await.unwrap();
        tasks.push(tokio::spawn(async move {
            for _ in 0..15 {
                assert_eq!(client.value("SELECT 1 FROM pg_sleep(0.002)").await, "1");
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(watch.most().await, 2);
}

#[tokio::test]
async fn clients_above_a_limit_are_refused_at_their_login() {
    let bench = Bench::with(10, |settings| {
        settings.max_database_client_connections = 2;
        settings.max_user_client_connections = 1;
    })
    .await;
    let (ann, bob) = users(&bench).await;
    let one = client(&bench, &ann).await;
    let refused = async |user: &str| login(&bench, user, &bench.database).await.err().unwrap();
    assert_eq!(
        refused(&ann).await,
        "E[53300 no more connections allowed (max_user_client_connections)]"
    );
    let two = client(&bench, &bob).await;
    assert_eq!(
        refused("forebay").await,
        "E[53300 no more connections allowed (max_db_client_connections)]"
    );
    drop((one, two));
    until("a place is free", async || login(&bench, "forebay", &bench.database).await.is_ok())
        .await;
}

#[tokio::test]
async fn what_is_kept_of_a_pair_is_open_while_it_has_clients() {
    let bench = Bench::with(50, |settings| {
        settings.pool_size = Some(5);
        settings.min_pool_size = 3;
        if let Some(server) = settings.servers.get_mut("main") {
            server.idle_ttl = Duration::from_millis(200);
        }
    })
    .await;
    let (ann, _) = users(&bench).await;
    let of_ann = ours(&format!("usename = '{ann}'"));
    let client = client(&bench, &ann).await;
    until("three are open", async || bench.truth(&of_ann).await == "3").await;
    time::sleep(Duration::from_millis(1_300)).await;
    assert_eq!(bench.truth(&of_ann).await, "3", "they are kept beyond what idle ones live");
    drop(client);
    until("none is kept for nobody", async || bench.truth(&of_ann).await == "0").await;
}

/// A bench with a table for each of these databases, all of which are the bench's own.
async fn tables(
    tables: Vec<(&str, DatabaseSettings)>,
    change: impl FnOnce(&mut PostgresSettings),
) -> Bench {
    let databases: BTreeMap<_, _> = tables
        .into_iter()
        .map(|(name, table)| {
            let database = Some("postgres".to_owned());
            (name.to_owned(), DatabaseSettings { database, ..table })
        })
        .collect();
    Bench::with(20, |settings| {
        settings.databases = databases;
        change(settings);
    })
    .await
}

#[tokio::test]
async fn a_star_stands_for_every_database_that_has_no_table() {
    let limited = DatabaseSettings { max_client_connections: Some(1), ..Default::default() };
    let bench = tables(vec![("app", DatabaseSettings::default()), ("*", limited)], |_| {}).await;
    let mut known = login(&bench, "forebay", "app").await.unwrap();
    let mut other = login(&bench, "forebay", "whatever").await.unwrap();
    let question = "SELECT current_database()";
    assert_eq!(
        (known.value(question).await, other.value(question).await),
        ("postgres".into(), "postgres".into())
    );
    assert!(login(&bench, "forebay", "app").await.is_ok());
    assert!(login(&bench, "forebay", "whatever").await.is_err(), "the limit of its table counts");
    assert!(login(&bench, "forebay", "another").await.is_ok(), "for each name by itself");
}

#[tokio::test]
async fn a_forced_user_is_that_of_all_clients_and_has_what_was_set_for_it() {
    let forced = DatabaseSettings {
        force_user: Some("forebay".into()),
        pool_size: Some(1),
        connect_query: Some("SET statement_timeout = '77s'; SET timezone = 'Asia/Tokyo'".into()),
        ..DatabaseSettings::default()
    };
    let bench = tables(vec![("app", forced)], |_| {}).await;
    let (ann, bob) = users(&bench).await;
    let question = "SELECT current_user || ' ' || current_setting('statement_timeout') || ' ' \
                    || current_setting('timezone') || ' ' || pg_backend_pid()";
    let one = login(&bench, &ann, "app").await.unwrap().value(question).await;
    let two = login(&bench, &bob, "app").await.unwrap().value(question).await;
    assert!(one.starts_with("forebay 77s Asia/Tokyo "), "{one}");
    assert_eq!(one, two, "they share the connection");
}

#[tokio::test]
async fn a_users_pool_mode_goes_before_its_databases() {
    let session = forebay_postgres::settings::PoolMode::Session;
    let bench = tables(vec![("app", DatabaseSettings::default())], |settings| {
        let user = UserSettings { pool_mode: Some(session), ..UserSettings::default() };
        settings.users = BTreeMap::from([
            ("forebay".to_owned(), user),
            ("postgres".to_owned(), UserSettings::default()),
        ]);
    })
    .await;
    let mut client = login(&bench, "forebay", "app").await.unwrap();
    assert_eq!(client.value("SELECT 1").await, "1");
    assert_eq!(bench.leased(), 1, "it keeps its connection");
}
