//! What went wrong under load and with dying servers in other poolers (the traps of
//! docs/traps.md): nobody gets another's rows, and who can be served is.

use forebay_pool::ClassName;
use forebay_pool::stats::Health;

use crate::bench::{Bench, until};
use crate::cancelling::cancel;
use crate::client::{Client, Message, query, run, show, sync};
use crate::failures::{KILL_OURS, OURS};

/// What one of many clients does in one round, and what it may see of it.
async fn one_round(bench: &Bench, client: &mut Option<Client>, n: u64) {
    let own = format!("SELECT {n}");
    let slow = "SELECT pg_sleep(0.03)";
    let start = [("statement_timeout", "15")];
    let connection = match client {
        Some(connection) => connection,
        None => {
            client.insert(Client::connect(bench.address, &bench.database, &start).await.unwrap())
        }
    };
    let (sent, times) = match n % 5 {
        0 => (query(&own), 1),
        1 => ([run(&own), run(slow), sync(), run(&own), sync()].concat(), 2),
        2 => (query(&format!("{own}; {slow}")), 1),
        3 => ([run(&own), sync(), query(slow), query(&own)].concat(), 3),
        _ => ([run("SELECT generate_series(1, 20000)"), sync(), query(slow)].concat(), 0),
    };
    connection.send(&sent).await;
    if times == 0 {
        // It leaves with everything unread.
        *client = None;
        return;
    }
    if n.is_multiple_of(3) {
        cancel(bench, &connection.key.clone()).await;
    }
    let answers = connection.until_ready(times).await;
    assert_eq!(answers.iter().filter(|m| m.tag == b'Z').count(), times, "{}", show(&answers));
    let is_own = |m: &&Message| m.tag == b'D';
    for row in answers.iter().filter(is_own) {
        let shown = show(std::slice::from_ref(row));
        assert!(shown == format!("D[{n}]") || shown == "D[]", "{n}: {}", show(&answers));
    }
}

#[tokio::test]
async fn trap_37_under_overload_and_timeouts_everybody_gets_the_own_rows() {
    let bench = Bench::with(2, |settings| {
        let core =
            serde_json::from_str("{\"kind\": \"core\", \"checkout_timeout\": \"40ms\"}").unwrap();
        settings.servers.get_mut("main").unwrap().classes.insert(ClassName::new("core"), core);
    })
    .await;
    // Its settings are known from now on, so that later logins need no server. The first one
    // may have to wait longer than it may.
    let known = [("statement_timeout", "15")];
    let logs_in = async || Client::connect(bench.address, &bench.database, &known).await.is_ok();
    until("somebody has logged in", logs_in).await;
    let bench = std::sync::Arc::new(bench);
    let mut working = Vec::new();
    for who in 0..20_u64 {
        let bench = std::sync::Arc::clone(&bench);
        working.push(tokio::spawn(async move {
            let mut client = None;
            for round in 0..15 {
                one_round(&bench, &mut client, 1 + who * 100 + round * 7).await;
            }
        }));
    }
    for work in working {
        work.await.unwrap();
    }
    bench.all_home().await;
    assert_eq!(bench.client().await.query("SELECT 1").await, "T D[1] C[SELECT 1] Z[I]");
}

#[tokio::test]
async fn trap_38_connections_that_died_at_rest_cost_nobody_anything() {
    let bench = Bench::start(3).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = bench.client().await;
        client.query("BEGIN").await;
        client.query("SELECT 1").await;
        clients.push(client);
    }
    for client in &mut clients {
        client.query("COMMIT").await;
    }
    bench.all_home().await;
    bench.direct().await.query(KILL_OURS).await;
    until("all are dead", async || bench.truth(OURS).await == "0").await;
    for client in &mut clients {
        client.query("BEGIN").await;
        assert_eq!(client.query("SELECT 2").await, "T D[2] C[SELECT 1] Z[T]");
    }
    assert_eq!(bench.gateway.snapshot().pools[0].health, Health::Up);
}
