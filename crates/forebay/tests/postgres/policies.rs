//! What the engine decides, as clients of PostgreSQL see it: circles of requests are broken,
//! policies that are enforced refuse with the reason and when to come again, policies that
//! observe refuse nobody and count.

use std::time::Duration;

use forebay_pool::policy::Policy;
use forebay_pool::stats::{ClassSnapshot, PolicySnapshot};
use forebay_pool::{ClassName, ClassSettings};
use forebay_postgres::settings::{DatabaseSettings, Rule};

use crate::bench::{Bench, until};
use crate::client::{Client, field, query, run, show, sync};

/// A statement as an instrumented driver sends it: request `trace`, and more tags.
fn tagged(sql: &str, trace: u32, tags: &str) -> String {
    let comma = if tags.is_empty() { "" } else { "," };
    format!("{sql} /*{tags}{comma}traceparent='00-{trace:032x}-00f067aa0ba902b7-01'*/")
}

/// A gateway whose clients all belong to the class `agents`, which is as `settings` say.
async fn with_agents(budget: u32, settings: &str) -> Bench {
    let agents = serde_json::from_str(settings).unwrap();
    Bench::with(budget, |all| {
        let core = ClassSettings::whole_budget(Duration::from_secs(5));
        let (agents, core) = ((ClassName::new("agents"), agents), (ClassName::new("core"), core));
        all.servers.get_mut("main").unwrap().classes = [agents, core].into();
        let class = ClassName::new("agents");
        all.rules.push(Rule { user: None, database: None, application_name: None, class });
    })
    .await
}

fn class(bench: &Bench, name: &str) -> ClassSnapshot {
    let classes = bench.gateway.snapshot().pools.into_iter().flat_map(|pool| pool.classes);
    classes.into_iter().find(|class| class.class.as_str() == name).unwrap()
}

fn agents(bench: &Bench) -> ClassSnapshot {
    class(bench, "agents")
}

fn deadlocks(bench: &Bench) -> u64 {
    class(bench, "core").deadlocks
}

fn decided(bench: &Bench, policy: Policy) -> PolicySnapshot {
    agents(bench).policies.into_iter().find(|seen| seen.policy == policy).unwrap()
}

/// Asks, and gives the error: code, message, detail, hint. The first is empty without one.
async fn refused(client: &mut Client, sql: &str) -> [String; 4] {
    client.send(&query(sql)).await;
    let messages = client.until_ready(1).await;
    let error = messages.iter().find(|message| message.tag == b'E');
    error.map_or_else(Default::default, |e| [b'C', b'M', b'D', b'H'].map(|kind| field(e, kind)))
}

/// A client that has begun a transaction of `trace` and holds a connection.
async fn holder(bench: &Bench, trace: u32, tags: &str) -> Client {
    let mut client = bench.client().await;
    client.query("BEGIN").await;
    let answer = client.query(&tagged("SELECT 1", trace, tags)).await;
    assert_eq!(answer, "T D[1] C[SELECT 1] Z[T]");
    client
}

const SERVED: &str = "T D[2] C[SELECT 1] Z[I]";

#[tokio::test]
async fn of_two_requests_in_a_circle_the_younger_fails_and_the_other_goes_on() {
    let bench = Bench::start(2).await;
    let mut a = holder(&bench, 1, "route='/ask'").await;
    let mut b = holder(&bench, 2, "route='/tell'").await;
    let (mut more_of_a, mut more_of_b) = (bench.client().await, bench.client().await);
    more_of_a.send(&query(&tagged("SELECT 2", 1, "route='/ask'"))).await;
    until("it waits", async || bench.waiting() == 1).await;
    let [code, message, _, hint] =
        refused(&mut more_of_b, &tagged("SELECT 2", 2, "route='/tell'")).await;
    assert_eq!(code, "53300");
    assert!(message.starts_with("deadlock: ") && message.contains("`/tell`"), "{message}");
    assert!(hint.contains("SET forebay.needs = 2"), "{hint}");
    assert_eq!(deadlocks(&bench), 1);
    // The younger gives up what it holds, the older gets it, and nobody is left behind.
    assert_eq!(b.query("ROLLBACK").await, "C[ROLLBACK] Z[I]");
    assert_eq!(show(&more_of_a.until_ready(1).await), SERVED);
    assert_eq!(a.query("COMMIT").await, "C[COMMIT] Z[I]");
    assert_eq!(more_of_b.query(&tagged("SELECT 2", 2, "")).await, SERVED);
    bench.all_home().await;
}

#[tokio::test]
async fn a_transaction_that_works_is_no_part_of_a_circle() {
    let bench = Bench::start(2).await;
    let mut a = holder(&bench, 1, "").await;
    let mut b = holder(&bench, 2, "").await;
    b.send(&query("SELECT pg_sleep(0.3)")).await;
    let (mut more_of_a, mut more_of_b) = (bench.client().await, bench.client().await);
    more_of_a.send(&query(&tagged("SELECT 2", 1, ""))).await;
    more_of_b.send(&query(&tagged("SELECT 2", 2, ""))).await;
    until("both wait", async || bench.waiting() == 2).await;
    assert_eq!(deadlocks(&bench), 0);
    // It ends, and then they do wait for each other.
    b.until_ready(1).await;
    until("the circle is seen", async || deadlocks(&bench) == 1).await;
    a.query("COMMIT").await;
    b.query("COMMIT").await;
    let answers = [more_of_a.until_ready(1).await, more_of_b.until_ready(1).await];
    let mut answers = answers.map(|answer| show(&answer));
    answers.sort();
    assert!(answers[0].starts_with("E[53300 deadlock") && answers[1] == SERVED, "{answers:?}");
}

#[tokio::test]
async fn a_circle_through_two_servers_is_found() {
    // Nobody gives up before the circle is found, however slow the machine is.
    let patient = ClassSettings::whole_budget(Duration::from_secs(600));
    let bench = Bench::with(1, |settings| {
        settings.servers.get_mut("main").unwrap().classes =
            [(ClassName::new("core"), patient)].into();
        let other = settings.servers["main"].clone();
        settings.servers.insert("other".into(), other);
        for (name, server) in [("here", "main"), ("there", "other")] {
            let database = Some("postgres".into());
            let route = DatabaseSettings {
                server: Some(server.into()),
                database,
                ..DatabaseSettings::default()
            };
            settings.databases.insert(name.into(), route);
        }
    })
    .await;
    let mut clients = Vec::new();
    for (trace, database) in [(1, "here"), (2, "there")] {
        let mut client = Client::connect(bench.address, database, &[]).await.unwrap();
        client.query("BEGIN").await;
        let answer = client.query(&tagged("SELECT 1", trace, "")).await;
        assert_eq!(answer, "T D[1] C[SELECT 1] Z[T]", "or nobody would have to wait");
        clients.push(client);
    }
    let mut waits = Vec::new();
    for (trace, database) in [(1, "there"), (2, "here")] {
        let mut client = Client::connect(bench.address, database, &[]).await.unwrap();
        client.send(&query(&tagged("SELECT 2", trace, "forebay_feature='deep'"))).await;
        if trace == 1 {
            // The other one's wait is to be the younger.
            until("it waits", async || bench.waiting() == 1).await;
        }
        waits.push(client);
    }
    let told = show(&waits[1].until_ready(1).await);
    assert!(told.starts_with("E[53300 deadlock") && told.contains("`deep`"), "{told}");
    clients[1].query("ROLLBACK").await;
    assert_eq!(show(&waits[0].until_ready(1).await), SERVED);
}

#[tokio::test]
async fn declared_needs_keep_a_circle_from_closing() {
    let bench = Bench::start(2).await;
    let mut a = holder(&bench, 1, "forebay_needs='2'").await;
    // It could not get its second one while this one held its first: so it waits for both.
    let mut b = bench.client().await;
    b.query("SET forebay.needs = 2").await;
    b.query("BEGIN").await;
    b.send(&query(&tagged("SELECT 2", 2, ""))).await;
    until("it waits", async || bench.waiting() == 1).await;
    let mut more_of_a = bench.client().await;
    assert_eq!(more_of_a.query(&tagged("SELECT 2", 1, "forebay_needs='2'")).await, SERVED);
    a.query("COMMIT").await;
    assert!(show(&b.until_ready(1).await).ends_with("C[SELECT 1] Z[T]"));
    assert_eq!(deadlocks(&bench), 0);
}

#[tokio::test]
async fn a_third_request_waits_until_one_of_two_is_over() {
    let bench =
        with_agents(4, r#"{"max_requests": 2, "policies": {"admission": "enforce"}}"#).await;
    let mut a = holder(&bench, 1, "").await;
    let _b = holder(&bench, 2, "").await;
    // One of theirs may have a second connection.
    let mut more = bench.client().await;
    assert_eq!(more.query(&tagged("SELECT 2", 1, "")).await, SERVED);
    let mut third = bench.client().await;
    third.send(&query(&tagged("SELECT 2", 3, ""))).await;
    until("it waits", async || bench.waiting() == 1).await;
    assert!(third.is_silent().await);
    a.query("COMMIT").await;
    assert_eq!(show(&third.until_ready(1).await), SERVED);
    assert_eq!(decided(&bench, Policy::Admission).acted, 1);
}

#[tokio::test]
async fn expensive_work_is_shed_at_full_load_and_cheap_work_is_not() {
    let bench =
        with_agents(2, r#"{"checkout_timeout": "20s", "policies": {"shedding": "enforce"}}"#).await;
    let (cheap, expensive) = ("SELECT 2 FROM pg_sleep(0.01)", "SELECT pg_sleep(0.3)");
    let mut client = bench.client().await;
    for _ in 0..100 {
        client.query(cheap).await;
    }
    for _ in 0..5 {
        client.query(expensive).await;
    }
    let (mut a, mut b) = (bench.client().await, bench.client().await);
    for client in [&mut a, &mut b] {
        client.query("BEGIN").await;
        client.query("SELECT 1").await;
    }
    until("it is busy", async || agents(&bench).utilisation > 0.98).await;
    // One of each kind passes now and then; here it waits in line.
    let mut passes = bench.client().await;
    passes.send(&query(expensive)).await;
    until("it waits", async || bench.waiting() == 1).await;
    let [code, _, detail, hint] = refused(&mut client, expensive).await;
    assert_eq!(code, "53300");
    assert!(detail.starts_with("shedding: it is "), "{detail}");
    assert!(hint.starts_with("retry-after-ms="), "{hint}");
    client.send(&query(cheap)).await;
    until("the cheap one waits", async || bench.waiting() == 2).await;
    a.query("COMMIT").await;
    b.query("COMMIT").await;
    assert_eq!(show(&client.until_ready(1).await), SERVED);
    assert!(show(&passes.until_ready(1).await).ends_with("C[SELECT 1] Z[I]"));
}

#[tokio::test]
async fn a_declared_cost_counts_whatever_was_learnt() {
    let bench =
        with_agents(2, r#"{"checkout_timeout": "20s", "policies": {"shedding": "enforce"}}"#).await;
    let mut client = bench.client().await;
    // The same statement: what is declared for it decides.
    for _ in 0..50 {
        client.query("SELECT 2 /*forebay_cost='100ms'*/").await;
    }
    let (mut a, mut b) = (bench.client().await, bench.client().await);
    for client in [&mut a, &mut b] {
        client.query("BEGIN").await;
        client.query("SELECT 1 /*forebay_cost='100ms'*/").await;
    }
    until("it is busy", async || agents(&bench).utilisation > 0.98).await;
    let mut passes = bench.client().await;
    passes.send(&query("SELECT 2 /*forebay_cost='5s'*/")).await;
    until("it waits", async || bench.waiting() == 1).await;
    client.query("SET forebay.cost = '5s'").await;
    assert_eq!(refused(&mut client, "SELECT 2").await[0], "53300");
    client.query("SET forebay.cost = '50ms'").await;
    client.send(&query("SELECT 2")).await;
    until("it waits, too", async || bench.waiting() == 2).await;
    a.query("COMMIT").await;
    b.query("COMMIT").await;
    assert_eq!(show(&client.until_ready(1).await), SERVED);
}

#[tokio::test]
async fn a_storm_of_retries_is_refused_while_first_tries_pass() {
    let bench = with_agents(2, r#"{"policies": {"retries": "enforce"}}"#).await;
    let mut client = bench.client().await;
    let mut refusals = Vec::new();
    for trace in 1..=60 {
        let first = client.query(&tagged("SELECT 2", trace, "forebay_attempt='1'")).await;
        assert_eq!(first, SERVED);
        let retry = tagged("SELECT 2", 1_000 + trace, "forebay_attempt='2'");
        let told = refused(&mut client, &retry).await;
        if !told[0].is_empty() {
            refusals.push(told);
        }
    }
    assert!(refusals.len() > 20, "{}", refusals.len());
    for [code, _, detail, hint] in &refusals {
        assert_eq!(code, "53300");
        assert!(detail.starts_with("retries: "), "{detail}");
        assert!(hint.starts_with("retry-after-ms="), "{hint}");
    }
    let tries = agents(&bench).tries;
    // The login asked, too.
    assert_eq!(tries.first, 61);
    assert_eq!(tries.retries + tries.over_budget, 60);
}

#[tokio::test]
async fn what_is_tried_again_after_a_time_limit_is_known_for_a_retry() {
    let bench = with_agents(2, r#"{"policies": {"retries": "enforce"}}"#).await;
    let mut client = bench.client().await;
    client.query("SET statement_timeout = 10").await;
    let slow = tagged("SELECT pg_sleep(10)", 1, "");
    for _ in 0..3 {
        let told = client.query(&slow).await;
        assert!(told.contains("E[57014 canceling statement due to statement timeout]"), "{told}");
    }
    let [code, _, detail, hint] = refused(&mut client, &slow).await;
    assert_eq!((&*code, &*hint), ("53300", "retry=no"), "{detail}");
    // Another request may try it.
    let told = client.query(&tagged("SELECT pg_sleep(10)", 2, "")).await;
    assert!(told.contains("E[57014 "), "{told}");
}

#[tokio::test]
async fn work_that_keeps_running_out_of_time_is_refused_for_a_while() {
    let bench = with_agents(2, r#"{"policies": {"breaker": "enforce"}}"#).await;
    let mut client = bench.client().await;
    // Errors of the statements themselves are no failure of the class.
    for _ in 0..20 {
        client.query("SELECT 1/0").await;
    }
    assert_eq!(agents(&bench).breaker.openings, 0);
    client.query("SET statement_timeout = 10").await;
    for _ in 0..3 {
        // What may leave something behind ends well, too.
        for _ in 0..5 {
            client.query("DO 'BEGIN PERFORM 1; END'").await;
            // What comes before its connection is home shares its lease.
            bench.all_home().await;
        }
        for _ in 0..4 {
            client.query("SELECT pg_sleep(10)").await;
        }
    }
    assert_eq!(agents(&bench).breaker.openings, 0);
    for _ in 0..5 {
        client.query("SELECT pg_sleep(10)").await;
    }
    let [code, _, detail, hint] = refused(&mut client, "SELECT 2").await;
    assert_eq!(code, "53300");
    assert!(detail.starts_with("breaker: ") && hint.starts_with("retry-after-ms="), "{hint}");
    until("a trial shows that it works", async || client.query("SELECT 2").await == SERVED).await;
}

#[tokio::test]
async fn what_a_client_cancels_is_no_failure() {
    let bench = with_agents(2, r#"{"policies": {"breaker": "enforce"}}"#).await;
    let mut client = bench.client().await;
    let running = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND \
                   state = 'active' AND query LIKE 'SELECT pg_sleep%'";
    for _ in 0..6 {
        client.send(&query("SELECT pg_sleep(30)")).await;
        let mut direct = bench.direct().await;
        until("it runs", async || direct.value(running).await == "1").await;
        let mut request = Client::bare(bench.address).await;
        request.send(&crate::client::cancel_request(&client.key)).await;
        assert!(show(&client.until_ready(1).await).contains("E[57014 "));
    }
    assert_eq!(agents(&bench).breaker.openings, 0);
    assert_eq!(client.query("SELECT 2").await, SERVED);
}

#[tokio::test]
async fn policies_that_observe_refuse_nobody_and_count() {
    let bench = with_agents(4, r#"{"max_requests": 1}"#).await;
    let mut clients = Vec::new();
    for trace in 1..=3 {
        clients.push(holder(&bench, trace, "").await);
    }
    let seen = decided(&bench, Policy::Admission);
    assert_eq!((seen.acted, seen.observed), (0, 2));
    let mut client = bench.client().await;
    for trace in 10..50 {
        let retry = tagged("SELECT 2", trace, "forebay_attempt='3'");
        assert_eq!(client.query(&retry).await, SERVED);
    }
    let seen = decided(&bench, Policy::Retries);
    assert!(seen.acted == 0 && seen.observed > 20, "{seen:?}");
    assert_eq!(agents(&bench).tries.over_budget, seen.observed);
}

#[tokio::test]
async fn a_tag_that_cannot_be_read_is_counted_once_and_fails_nothing() {
    let bench = Bench::start(1).await;
    let mut client = bench.client().await;
    assert_eq!(client.query("SELECT 2 /*forebay_cost='cheap'*/").await, SERVED);
    assert_eq!(bench.gateway.snapshot().hints_ignored, 1);
    assert_eq!(client.query("SELECT 2 /*forebay_needs='0',forebay_attempt='x'*/").await, SERVED);
    assert_eq!(bench.gateway.snapshot().hints_ignored, 3);
}

#[tokio::test]
async fn a_full_line_is_told_at_once_and_when_to_come_again() {
    let settings = r#"{"kind": "ai", "ceiling": 1, "checkout_timeout": "60s"}"#;
    let bench = with_agents(2, settings).await;
    let mut holds = holder(&bench, 1, "").await;
    // Twice as many as the class can get may wait (`queue_factor`).
    let mut waiting = Vec::new();
    for n in 1..=2 {
        let mut client = bench.client().await;
        client.send(&query("SELECT 2")).await;
        until("it waits", async || bench.waiting() == n).await;
        waiting.push(client);
    }
    let mut late = bench.client().await;
    let [code, message, _, hint] = refused(&mut late, "SELECT 2").await;
    assert_eq!(code, "53300");
    assert_eq!(message, "the queue of class `agents` for `main` is full: 2 requests wait");
    let after = hint.strip_prefix("retry-after-ms=").unwrap_or_else(|| panic!("{hint}"));
    assert!(after.parse::<u32>().unwrap() > 0);
    // Prepared, it is the same: one error, and one end of the batch.
    let refused = late.ask(&[run("SELECT 2"), sync()]).await;
    assert!(refused.starts_with("E[53300 the queue of class `agents`"), "{refused}");
    assert!(refused.ends_with("] Z[I]") && agents(&bench).queue_full == 2, "{refused}");
    holds.query("COMMIT").await;
    for client in &mut waiting {
        assert_eq!(show(&client.until_ready(1).await), SERVED);
    }
    assert_eq!(late.query("SELECT 2").await, SERVED);
}
