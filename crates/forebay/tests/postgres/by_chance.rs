//! What scripts by chance (`differential`) have found, each by itself.

use crate::bench::Bench;
use crate::client::{Client, bind, close, copy_done, copy_fail, execute, parse, query, show, sync};

#[tokio::test]
async fn clients_with_settings_of_their_own_do_not_keep_each_other_from_work() {
    let bench = Bench::start(1).await;
    let (mut one, mut other) = (bench.client().await, bench.client().await);
    one.query("SET TimeZone = 'Asia/Tokyo'").await;
    other.query("SET TimeZone = 'Europe/Paris'").await;
    let ask = async |client: &mut Client| {
        for _ in 0..20 {
            assert_eq!(client.query("SELECT 1").await, "T D[1] C[SELECT 1] Z[I]");
        }
    };
    tokio::join!(ask(&mut one), ask(&mut other));
    let pools = bench.gateway.snapshot().pools;
    let checkouts: u64 =
        pools.iter().flat_map(|pool| &pool.classes).map(|class| class.checkouts).sum();
    assert!(checkouts <= 44, "{checkouts} checkouts for 42 statements and two logins");
}

#[tokio::test]
async fn what_is_skipped_takes_no_unnamed_statement_away() {
    let bench = Bench::start(1).await;
    let fails = bind("", "", &["0"]);
    let batch = [parse("", "SELECT 1 / $1::int"), fails.clone(), execute("", 0)];
    for skipped in [query("SELECT 2"), close(b'S', "")] {
        let failing = [&batch[..], &[skipped, sync()]].concat();
        let after = vec![bind("", "", &["1"]), execute("", 0), sync()];
        // The first query is skipped, and brings no ReadyForQuery.
        let (mut client, mut direct) = (bench.client().await, bench.direct().await);
        for client in [&mut client, &mut direct] {
            client.send(&failing.concat()).await;
            assert_eq!(show(&client.until_ready(1).await), "1 E[22012 division by zero] Z[I]");
            assert_eq!(client.ask(&after).await, "2 D[1] C[SELECT 1] Z[I]");
        }
    }
}

#[tokio::test]
async fn copy_messages_without_a_copy_hold_up_no_batch() {
    let bench = Bench::start(1).await;
    for stray in [copy_done(), copy_fail("no")] {
        let batch = vec![parse("", "SELECT 1"), stray, sync()];
        bench.answers_like_postgres(&[batch, vec![query("SELECT 2")]]).await;
    }
}

#[tokio::test]
async fn a_client_that_resets_all_is_told_its_own_start_values() {
    let bench = Bench::start(1).await;
    let start = [("application_name", "mine"), ("TimeZone", "Asia/Tokyo")];
    let mut client = Client::connect(bench.address, &bench.database, &start).await.unwrap();
    client.query("SET TimeZone = 'UTC'; SET application_name = 'other'").await;
    for reset in ["RESET ALL", "DISCARD ALL", "RESET TimeZone"] {
        client.send(&query(reset)).await;
        show(&client.until_ready(1).await);
        let told = |name: &str| client.parameters[name].clone();
        assert_eq!(
            (told("application_name"), told("TimeZone")),
            ("mine".into(), "Asia/Tokyo".into())
        );
    }
    assert_eq!(client.value("SHOW TimeZone").await, "Asia/Tokyo");
}
