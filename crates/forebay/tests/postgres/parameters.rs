//! Settings that the server reports: defaults that change under running sessions, and those
//! that are ours.

use crate::bench::{Bench, until};
use crate::client::Client;

#[tokio::test]
async fn a_default_that_a_reload_changes_reaches_those_who_have_not_set_it() {
    let cluster = tokio::task::spawn_blocking(|| crate::bench::start(Vec::new())).await.unwrap();
    let bench = Bench::before(cluster.address(), "postgres", 1, |_| {});
    let mut a = bench.client().await;
    let mut b =
        Client::connect(bench.address, "postgres", &[("DateStyle", "SQL, MDY")]).await.unwrap();
    let date = "SELECT '2026-01-02'::date";
    for _ in 0..2 {
        assert_eq!(a.value(date).await, "2026-01-02");
        assert_eq!(b.value(date).await, "01/02/2026");
    }
    for style in ["German, DMY", "Postgres, DMY", "ISO, MDY"] {
        let mut direct = bench.direct().await;
        direct.query(&format!("ALTER SYSTEM SET DateStyle = '{style}'")).await;
        direct.query("SELECT pg_reload_conf()").await;
        until("it is reloaded", async || a.value("SHOW DateStyle").await == style).await;
        // As without us, it is told behind the statement at which the server read it.
        assert_eq!(a.parameters["DateStyle"], style);
        assert_eq!(b.value(date).await, "01/02/2026");
        assert_eq!(b.parameters["DateStyle"], "SQL, MDY");
        assert_eq!(a.value("SHOW DateStyle").await, style);
        a.query("SET DateStyle = 'SQL, DMY'").await;
        assert_eq!(b.value(date).await, "01/02/2026");
        assert_eq!(a.value(date).await, "02/01/2026");
        a.query("RESET DateStyle").await;
        assert_eq!(
            (&*a.value("SHOW DateStyle").await, &*a.parameters["DateStyle"]),
            (style, style)
        );
        // At login, or with its first answer: the server tells it at a moment of its own.
        let mut late = bench.client().await;
        late.query("SELECT 1").await;
        assert_eq!(late.parameters["DateStyle"], style);
    }
    bench.all_home().await;
}

#[tokio::test]
async fn settings_of_ours_can_be_shown() {
    let bench = Bench::start(1).await;
    let mut a = Client::connect(
        bench.address,
        &bench.database,
        &[("options", "-c forebay.feature=nightly")],
    )
    .await
    .unwrap();
    assert_eq!(a.query("SHOW forebay.feature").await, "T D[nightly] C[SHOW] Z[I]");
    a.query("SET forebay.class = 'core'").await;
    a.query("SET forebay.cost = '90s'").await;
    for _ in 0..2 {
        bench.all_home().await;
        assert_eq!(a.query("show FOREBAY.Class;").await, "T D[core] C[SHOW] Z[I]");
        assert_eq!(a.value("SHOW forebay.cost").await, "1m 30s");
        assert_eq!(a.value("SHOW forebay.needs").await, "");
        assert_eq!(bench.leased(), 0);
        // In a transaction the server answers, in its turn.
        a.query("BEGIN").await;
        assert_eq!(a.query("SHOW forebay.class").await, "T D[core] C[SHOW] Z[T]");
        a.query("SELECT 1").await;
        assert_eq!(a.query("SHOW forebay.feature").await, "T D[nightly] C[SHOW] Z[T]");
        a.query("ROLLBACK").await;
    }
    let mut b = bench.client().await;
    assert_eq!(b.value("SHOW forebay.class").await, "");
    assert!(b.query("SHOW forebay.nonsense").await.starts_with("E[42704 "));
}
