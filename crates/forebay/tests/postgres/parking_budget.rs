//! The connections that transactions are looked at from are part of the budget: a server never
//! has more of ours than it was said.

use std::time::Duration;

use forebay_pool::Mode;
use forebay_seam::time;

use crate::bench::{Bench, until};
use crate::client::Client;
use crate::parking::{counts, forced};

/// Backends in the bench's database, but for who asks.
const OURS: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                    AND backend_type = 'client backend' AND pid <> pg_backend_pid()";

/// As `user`, in a transaction that has read.
async fn reader(bench: &Bench, user: &str) -> Client {
    let first = crate::client::startup(&[("user", user), ("database", &bench.database)]);
    let mut client = Client::start(bench.address, &first).await.unwrap();
    client.query("BEGIN").await;
    client.query("SELECT 1").await;
    client
}

/// Roles of the bench's own.
async fn roles(bench: &Bench, count: usize) -> Vec<String> {
    let mut admin = bench.direct().await;
    let mut roles = Vec::new();
    for n in 0..count {
        let role = format!("{}_{n}", bench.database);
        admin.query(&format!("CREATE ROLE {role} LOGIN")).await;
        roles.push(role);
    }
    roles
}

#[tokio::test]
async fn a_server_never_has_more_backends_of_ours_than_the_budget_while_users_of_all_kinds_park() {
    let bench = Bench::with(3, forced).await;
    let roles = roles(&bench, 2).await;
    let mut look = bench.direct().await;
    let mut agents = Vec::new();
    for n in 0..12 {
        let role = roles[n % 2].clone();
        let first = crate::client::startup(&[("user", &role), ("database", &bench.database)]);
        let mut client = Client::start(bench.address, &first).await.unwrap();
        agents.push(tokio::spawn(async move {
            for _ in 0..4 {
                client.query("BEGIN").await;
                assert_eq!(client.query("SELECT 1").await, "T D[1] C[SELECT 1] Z[T]");
                time::sleep(Duration::from_millis(20)).await;
                assert_eq!(client.query("SELECT 2").await, "T D[2] C[SELECT 1] Z[T]");
                client.query("COMMIT").await;
            }
        }));
    }
    let mut most = 0;
    while agents.iter().any(|agent| !agent.is_finished()) {
        most = most.max(look.value(OURS).await.parse().unwrap());
        time::sleep(Duration::from_millis(2)).await;
    }
    for agent in agents {
        agent.await.unwrap();
    }
    assert!((2..=4).contains(&most), "{most} backends, 4 are allowed");
    assert!(counts(&bench).parks > 0, "{:?}", counts(&bench));
}

#[tokio::test]
async fn a_witness_that_another_user_needs_gives_way() {
    let bench = Bench::with(2, forced).await;
    let roles = roles(&bench, 2).await;
    for (n, role) in roles.iter().enumerate() {
        let mut client = reader(&bench, role).await;
        until("it is parked", async || counts(&bench).parked == 1).await;
        assert_eq!(client.query("COMMIT").await, "C[COMMIT] Z[I]");
        assert_eq!(counts(&bench).parks, u64::try_from(n).unwrap() + 1);
    }
}

#[tokio::test]
async fn a_small_budget_parks_nothing_and_works() {
    let bench = Bench::with(1, |settings| {
        forced(settings);
        settings.servers.get_mut("main").unwrap().budget = Some(2);
    })
    .await;
    let mut client = reader(&bench, crate::bench::USER).await;
    until("it stays", async || counts(&bench).refusals.contains_key("no_witness")).await;
    assert_eq!(client.query("COMMIT").await, "C[COMMIT] Z[I]");
    assert_eq!(counts(&bench).parks, 0);
}

#[tokio::test]
async fn a_reload_keeps_the_witness_and_one_that_turns_parking_off_ends_it() {
    let mut bench = Bench::with(3, forced).await;
    let mut client = reader(&bench, crate::bench::USER).await;
    until("it is parked", async || counts(&bench).parked == 1).await;
    client.query("COMMIT").await;
    let witnesses = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                     AND application_name = 'forebay parking'";
    assert_eq!(bench.truth(witnesses).await, "1");
    bench.apply(|settings| settings.max_clients += 1).await;
    let mut client = reader(&bench, crate::bench::USER).await;
    until("it is parked", async || counts(&bench).parked == 1).await;
    client.query("COMMIT").await;
    assert_eq!(bench.truth(witnesses).await, "1");
    bench
        .apply(|settings| {
            let server = settings.servers.get_mut("main").unwrap();
            server.classes.values_mut().for_each(|class| class.parking = Mode::Off);
        })
        .await;
    until("it is gone", async || bench.truth(witnesses).await == "0").await;
}
