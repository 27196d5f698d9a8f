//! What clients say of their work, by tags and by SET, and what is told of it.

use std::time::Duration;

use forebay_pool::event::{Event, Told};
use forebay_seam::time;
use tokio::sync::broadcast::Receiver;

use crate::bench::{Bench, until};
use crate::client::{Client, bind, close, execute, field, parse, query, run, show, sync};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

async fn with_hold_limit() -> (Bench, Receiver<Told>) {
    let bench = Bench::with(2, |settings| {
        let main = settings.servers.get_mut("main").unwrap();
        main.hold_limit = Duration::from_millis(200);
    })
    .await;
    let events = bench.gateway.events().remove(0);
    (bench, events)
}

/// Feature, operation and request of the next hold that lasts too long.
async fn long_hold(events: &mut Receiver<Told>) -> [String; 3] {
    let hold = async {
        loop {
            if let Event::LongHold { feature, operation, request, .. } =
                events.recv().await.unwrap().event
            {
                let text = |text: Option<std::sync::Arc<str>>| text.as_deref().unwrap_or("").into();
                return [text(feature), text(operation), request.unwrap_or_default()];
            }
        }
    };
    time::timeout(Duration::from_secs(10), hold).await.unwrap()
}

#[tokio::test]
async fn a_hold_that_lasts_too_long_is_told_with_its_last_statement() {
    let (bench, mut events) = with_hold_limit().await;
    let mut client = bench.client().await;
    client.query("BEGIN").await;
    client.query(&format!("SELECT 1 /*route='%2Fask',traceparent='{TRACE}'*/")).await;
    client.query("SELECT 'secret', 42").await;
    let request = "default/4bf92f3577b34da6a3ce929d0e0e4736";
    assert_eq!(long_hold(&mut events).await, ["/ask", "SELECT ?, ?", request]);
    client.query("COMMIT").await;

    // As drivers do it: prepared once, run later.
    client.ask(&[parse("s", "SELECT 'secret', $1::text"), sync()]).await;
    client.query(&format!("SET forebay.traceparent = '{TRACE}'")).await;
    client.query("SET forebay.feature = 'report'").await;
    client.query("BEGIN").await;
    client.ask(&[run("SELECT 1"), sync()]).await;
    client.ask(&[bind("", "s", &["x"]), execute("", 0), sync()]).await;
    let shape = "SELECT ?, $1 :: text";
    assert_eq!(long_hold(&mut events).await, ["report", shape, request]);
}

#[tokio::test]
async fn tags_of_a_prepared_statement_hold_for_each_of_its_runs() {
    let (bench, mut events) = with_hold_limit().await;
    let mut client = bench.client().await;
    let text = format!("SELECT 5 /*route='%2Fask',traceparent='{TRACE}'*/");
    client.ask(&[parse("begin", "BEGIN /*route='%2Fask'*/"), sync()]).await;
    for name in ["", "s"] {
        client.ask(&[parse(name, &text), sync()]).await;
        client.ask(&[bind("", "begin", &[]), execute("", 0), sync()]).await;
        client.ask(&[bind("", name, &[]), execute("", 0), sync()]).await;
        let request = "default/4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(long_hold(&mut events).await, ["/ask", "SELECT ?", request]);
        client.query("COMMIT").await;
    }
    // A name that is given anew means what it says then.
    client.ask(&[close(b'S', "s"), parse("s", "SELECT 6"), sync()]).await;
    client.query("BEGIN").await;
    client.ask(&[bind("", "s", &[]), execute("", 0), sync()]).await;
    assert_eq!(long_hold(&mut events).await, ["", "SELECT ?", ""]);
}

#[tokio::test]
async fn a_hold_of_no_request_is_told_with_what_it_was_taken_for() {
    let (bench, mut events) = with_hold_limit().await;
    let parameters = [("application_name", "nightly")];
    let mut client = Client::connect(bench.address, &bench.database, &parameters).await.unwrap();
    client.query("BEGIN").await;
    client.query("SELECT 7").await;
    assert_eq!(long_hold(&mut events).await, ["nightly", "SELECT ?", ""]);
}

#[tokio::test]
async fn settings_of_ours_need_no_server() {
    let bench = Bench::start(1).await;
    let mut holder = bench.client().await;
    let mut client = bench.client().await;
    holder.query("BEGIN").await;
    holder.query("SELECT 1").await;
    for (name, value) in [("class", "ai-read"), ("cost", "150ms"), ("needs", "2"), ("feature", "f")]
    {
        let set = format!("SET forebay.{name} = '{value}'");
        assert_eq!(client.query(&set).await, "C[SET] Z[I]");
        assert_eq!(client.query(&format!("RESET forebay.{name}")).await, "C[RESET] Z[I]");
    }
    assert_eq!(client.query("BEGIN").await, "C[BEGIN] Z[T]");
    assert_eq!(client.query("SET forebay.cost = 2").await, "C[SET] Z[T]");
    assert_eq!(client.query("COMMIT").await, "C[COMMIT] Z[I]");
    assert_eq!(bench.waiting(), 0);
}

const WRONG: &str = "E[22023 invalid value for parameter \"forebay.cost\": \"cheap\"]";

#[tokio::test]
async fn a_setting_of_ours_that_means_nothing_is_refused_wherever_it_stands() {
    let bench = Bench::start(1).await;
    let mut client = bench.client().await;
    let set = "SET forebay.cost = 'cheap'";
    client.send(&query(set)).await;
    let messages = client.until_ready(1).await;
    assert_eq!(show(&messages), format!("{WRONG} Z[I]"));
    assert!(field(&messages[0], b'H').contains("150ms"));
    // Before a transaction has its server, and once it has one.
    client.query("BEGIN").await;
    assert_eq!(client.query(set).await, format!("{WRONG} Z[E]"));
    assert_eq!(client.query("ROLLBACK").await, "C[ROLLBACK] Z[I]");
    client.query("BEGIN").await;
    client.query("SELECT 1").await;
    assert_eq!(client.query(set).await, format!("{WRONG} Z[E]"));
    assert_eq!(client.query("ROLLBACK").await, "C[ROLLBACK] Z[I]");
    // By the extended protocol, under a name and under none.
    assert_eq!(client.ask(&[run(set), sync()]).await, format!("1 2 {WRONG} Z[I]"));
    let batch = [parse("s", set), bind("", "s", &[]), execute("", 0), sync()];
    assert_eq!(client.ask(&batch).await, format!("1 2 {WRONG} Z[I]"));
    assert_eq!(client.ask(&[close(b'S', "s"), sync()]).await, "3 Z[I]");
    assert_eq!(client.query("SELECT 2").await, "T D[2] C[SELECT 1] Z[I]");
    // At the start.
    let options = [("options", "-c forebay.cost=cheap")];
    let refused = Client::connect(bench.address, &bench.database, &options).await.err();
    assert_eq!(refused.as_deref(), Some(WRONG));
}

#[tokio::test]
async fn what_a_session_said_of_its_work_ends_with_discard_all() {
    let (bench, mut events) = with_hold_limit().await;
    let parameters = [("options", "-c forebay.feature=start")];
    let mut client = Client::connect(bench.address, &bench.database, &parameters).await.unwrap();
    for forget in ["DISCARD ALL", "RESET ALL"] {
        client.query("SET forebay.feature = 'other'").await;
        client.query(forget).await;
        client.query("BEGIN").await;
        client.query("SELECT 1").await;
        assert_eq!(long_hold(&mut events).await[0], "start");
        client.query("COMMIT").await;
    }
}

#[tokio::test]
async fn preparing_is_told_apart_from_running() {
    let bench = Bench::start(1).await;
    let mut client = bench.client().await;
    client.query("SET forebay.feature = 'reports'").await;
    client.ask(&[parse("s", "SELECT pg_sleep(0.2)"), sync()]).await;
    for _ in 0..3 {
        client.ask(&[bind("", "s", &[]), execute("", 0), sync()]).await;
    }
    bench.all_home().await;
    let pools = bench.gateway.snapshot().pools;
    let feature = pools[0].features.iter().find(|f| &*f.feature == "reports").unwrap();
    assert_eq!(feature.checkouts, 4);
    until("idle", async || bench.leased() == 0).await;
}
