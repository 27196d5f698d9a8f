//! A transaction that idles while its request waits for a call is found, once, and no value
//! of its statement shows.

use std::sync::Arc;
use std::time::Duration;

use forebay_pool::overlap::{HoldKind, OutboundCall, Phase};
use forebay_pool::{Request, TraceId};
use forebay_postgres::settings::PoolMode;

use crate::bench::{Bench, until};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

async fn found(statements: &[&str]) -> Vec<(HoldKind, String)> {
    found_in(PoolMode::Transaction, statements).await
}

async fn found_in(mode: PoolMode, statements: &[&str]) -> Vec<(HoldKind, String)> {
    let bench = Bench::with(1, |settings| settings.pool_mode = mode).await;
    let mut client = bench.client().await;
    let mut events = bench.overlaps.events();
    for statement in statements {
        client.query(&format!("{statement} /*traceparent='{TRACE}',route='%2Fask'*/")).await;
    }
    let request = Request::new(Arc::from("default"), TraceId::from_traceparent(TRACE).unwrap());
    let call = OutboundCall::new("model", "POST /v1");
    let calling = bench.overlaps.call_begins(Some(&request), call);
    drop(calling);
    client.query("COMMIT").await;
    let mut found = Vec::new();
    while let Ok(overlap) = events.try_recv() {
        assert_eq!((&*overlap.feature, &*overlap.destination), ("/ask", "model"));
        if overlap.phase != Phase::Ends {
            continue;
        }
        found.push((overlap.kind, overlap.statement.to_string()));
    }
    found
}

#[tokio::test]
async fn a_held_transaction_beside_a_call_is_found_once() {
    let found = found(&["BEGIN", "SELECT 'secret', 42"]).await;
    assert_eq!(found, [(HoldKind::Held, "SELECT ?, ?".to_owned())]);
}

#[tokio::test]
async fn a_begin_that_waits_for_its_first_statement_beside_a_call_is_found_as_deferred() {
    let found = found(&["BEGIN"]).await;
    assert_eq!(found, [(HoldKind::Deferred, "BEGIN".to_owned())]);
}

#[tokio::test]
async fn in_session_pooling_only_transactions_that_idle_are_found() {
    let held = found_in(PoolMode::Session, &["BEGIN", "SELECT 'secret'"]).await;
    assert_eq!(held, [(HoldKind::Held, "SELECT ?".to_owned())]);
    // The connection is held, and nobody is kept from anything by an open transaction.
    assert_eq!(found_in(PoolMode::Session, &["SELECT 1"]).await, []);
}

#[tokio::test]
async fn a_transaction_that_is_over_is_none() {
    assert_eq!(found(&["BEGIN", "SELECT 1", "COMMIT"]).await, []);
    assert_eq!(found(&["SELECT 1"]).await, []);
}

#[tokio::test]
async fn who_idles_in_a_transaction_without_a_trace_is_seen_and_who_works_is_not() {
    let bench = Bench::start(2).await;
    let (mut idle, mut works) = (bench.client().await, bench.client().await);
    idle.query("SET application_name = 'worker'").await;
    idle.query("BEGIN").await;
    let seen = || bench.gateway.idle_clients(Duration::ZERO);
    assert!(seen().is_empty(), "a BEGIN that waits has no connection");
    idle.query("SELECT 1").await;
    works.query("BEGIN").await;
    works.send(&crate::client::query("SELECT pg_sleep(60)")).await;
    until("the other one works", async || bench.leased() == 2 && seen().len() == 1).await;
    let [one] = &seen()[..] else { panic!("one idles") };
    assert_eq!((&*one.application, &*one.server), ("worker", "main"));
    assert_eq!(one.statement.as_deref(), Some("SELECT ?"));
    assert!(one.peer.is_some_and(|peer| peer.ip().is_loopback()));
    assert!(bench.gateway.idle_clients(Duration::from_secs(3_600)).is_empty());
    idle.query("COMMIT").await;
    assert!(seen().is_empty());
}
