//! What parking saves, and what it would save, is counted from what is proved; classes below
//! their share are served by what others have borrowed; and a server that is gone loses nothing
//! silently.

use std::time::Duration;

use forebay_pool::overlap::OutboundCall;
use forebay_pool::{Mode, ParkWhen, Request, Share, TraceId};
use forebay_seam::time;

use crate::bench::{Bench, start, until};
use crate::client::Client;
use crate::parking::{counts, forced, is_parked, parks};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Beside a call of 100 ms, a transaction of this statement.
async fn held_beside_a_call(mode: Mode, statement: &str) -> (f64, f64, f64) {
    let bench = Bench::with(2, |settings| parks(settings, |class| class.parking = mode)).await;
    bench.direct().await.query("CREATE TABLE t (n int)").await;
    let mut client = bench.client().await;
    client.query("BEGIN").await;
    let tagged = format!("{statement} /*traceparent='{TRACE}',route='ask'*/");
    assert!(client.query(&tagged).await.ends_with("Z[T]"));
    until("it was looked at", async || {
        let counts = counts(&bench);
        counts.could_park + counts.parks + counts.refusals.values().sum::<u64>() > 0
    })
    .await;
    let request = Request::new("default".into(), TraceId::from_traceparent(TRACE).unwrap());
    let calling =
        bench.overlaps.call_begins(Some(&request), OutboundCall::new("model", "POST /v1"));
    time::sleep(Duration::from_millis(100)).await;
    drop(calling);
    client.query("COMMIT").await;
    let features = bench.overlaps.features();
    let [one] = &features[..] else { panic!("{features:?}") };
    assert_eq!((&*one.feature, one.transactions), ("ask", 1));
    (one.held, one.parkable, one.parked)
}

#[tokio::test]
async fn what_parking_would_save_is_what_was_proved_to_be_parkable() {
    let (held, parkable, parked) = held_beside_a_call(Mode::Observe, "SELECT n FROM t").await;
    assert!(held >= 0.1 && parkable >= 0.1 && parked == 0.0, "{held} {parkable} {parked}");
    assert!(parkable <= held);
    let (held, parkable, parked) =
        held_beside_a_call(Mode::Observe, "INSERT INTO t VALUES (1)").await;
    assert!(held >= 0.1 && parkable == 0.0 && parked == 0.0, "{held} {parkable} {parked}");
    let (held, parkable, parked) = held_beside_a_call(Mode::Enforce, "SELECT n FROM t").await;
    assert!(held == 0.0 && parkable == 0.0 && parked >= 0.1, "{held} {parkable} {parked}");
}

#[tokio::test]
async fn a_class_below_its_share_gets_what_others_have_borrowed_and_can_do_without() {
    let bench = Bench::with(4, |settings| {
        parks(settings, |class| {
            class.park_when = ParkWhen::Contended;
            class.guarantee = Share::Seats(0);
            class.ceiling = None;
        });
    })
    .await;
    let of_class = async |class: &str| {
        let class = format!("-c forebay.class={class}");
        let options = [("options", class.as_str())];
        Client::connect(bench.address, &bench.database, &options).await.unwrap()
    };
    let reader = async |class: &str| {
        let mut client = of_class(class).await;
        client.query("BEGIN").await;
        client.query("SELECT 1").await;
        client
    };
    // All that there is: one of the first class, below its share, and three of the second.
    let _core = reader("core").await;
    let mut agents = Vec::new();
    for _ in 0..3 {
        agents.push(reader("ai-read").await);
    }
    let answer = of_class("ai-write").await.query("SELECT 2").await;
    assert_eq!(answer, "T D[2] C[SELECT 1] Z[I]");
    let snapshot = bench.gateway.snapshot();
    let parks: Vec<_> = snapshot.parking["main"]
        .classes
        .iter()
        .map(|class| (class.class.as_str(), class.parks))
        .collect();
    assert!(parks.contains(&("core", 0)) && parks.contains(&("ai-read", 1)), "{parks:?}");
    for agent in &mut agents {
        assert_eq!(agent.query("COMMIT").await, "C[COMMIT] Z[I]");
    }
}

#[tokio::test]
async fn a_transaction_whose_server_restarted_while_it_was_parked_goes_on() {
    let mut cluster = tokio::task::spawn_blocking(|| start(Vec::new())).await.unwrap();
    let bench = Bench::before(cluster.address(), "postgres", 1, forced);
    let mut client = bench.client().await;
    client.query("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY").await;
    client.query("SELECT 1").await;
    is_parked(&bench).await;
    cluster = tokio::task::spawn_blocking(move || {
        cluster.restart().unwrap();
        cluster
    })
    .await
    .unwrap();
    let told = client.query("SELECT current_setting('transaction_read_only')").await;
    assert_eq!(told, "T D[on] C[SELECT 1] Z[T]");
    assert_eq!(client.query("COMMIT").await, "C[COMMIT] Z[I]");
    assert_eq!((counts(&bench).lost, counts(&bench).resumed), (0, 1));
    drop(cluster);
}

#[tokio::test]
async fn a_transaction_that_would_go_on_at_another_host_than_it_was_parked_at_is_told_to_begin_again()
 {
    let clusters = || [start(Vec::new()), start(Vec::new())];
    let [mut first, second] = tokio::task::spawn_blocking(clusters).await.unwrap();
    let bench = Bench::before(first.address(), "postgres", 1, |settings| {
        forced(settings);
        let server = settings.servers.get_mut("main").unwrap();
        server.hosts = vec![first.address().to_string(), second.address().to_string()];
        server.address = String::new();
    });
    let mut client = bench.client().await;
    client.query("BEGIN").await;
    client.query("SELECT 1").await;
    is_parked(&bench).await;
    let first = tokio::task::spawn_blocking(move || {
        first.stop().unwrap();
        first
    });
    let first = first.await.unwrap();
    let told = client.query("SELECT 1").await;
    assert!(told.starts_with("E[40001 ") && told.ends_with("Z[E]"), "{told}");
    assert_eq!(client.query("ROLLBACK").await, "C[ROLLBACK] Z[I]");
    assert_eq!(client.query("SELECT 2").await, "T D[2] C[SELECT 1] Z[I]");
    assert_eq!((counts(&bench).lost, bench.leased()), (1, 0));
    drop((first, second));
}
