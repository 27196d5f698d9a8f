//! What went wrong with COPY, cancel requests and the wire in other poolers (the traps of
//! docs/traps.md).

use std::time::Duration;

use forebay_seam::time;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bench::{Bench, USER, until};
use crate::cancelling::{CANCELLED, cancel};
use crate::client::{
    Client, Message, copy_data, copy_done, copy_fail, flush, packet, query, run, show, startup,
    sync,
};

#[tokio::test]
async fn trap_22_a_sync_during_a_copy_owes_nothing() {
    let bench = Bench::start(1).await;
    bench.direct().await.query("CREATE TABLE t (n int)").await;
    for ends in [
        vec![copy_data("1\n"), sync(), flush(), copy_data("2\n"), sync(), copy_done()],
        vec![sync(), sync(), copy_data("1\n"), copy_done()],
        vec![sync(), flush(), sync(), copy_data("x\n"), copy_done()],
        vec![sync(), copy_data("1\n"), sync(), copy_fail("no")],
    ] {
        // All of it in one write, and with the data behind the server's word.
        for waits in [false, true] {
            let mut answers = Vec::new();
            for mut client in [bench.client().await, bench.direct().await] {
                let (mut shown, copy) = (String::new(), query("COPY t FROM STDIN"));
                if waits {
                    client.send(&copy).await;
                    shown = show(&client.until_tag(b'G').await);
                    client.send(&ends.concat()).await;
                } else {
                    client.send(&[copy, ends.concat()].concat()).await;
                }
                shown.push_str(&show(&client.until_ready(1).await));
                shown.push_str(&client.query("SELECT 'on'").await);
                answers.push(shown);
                // While its client is still there.
                bench.all_home().await;
            }
            assert_eq!(answers[0], answers[1]);
        }
    }
}

#[tokio::test]
async fn trap_23_a_row_may_be_cut_anywhere() {
    let bench = Bench::start(1).await;
    let mut client = bench.client().await;
    client.query("CREATE TABLE t (n int, t text)").await;
    let rows = "1,\"a, \"\"quoted\"\"\nname\"\n2,ünï\n3,\\.\n";
    client.send(&query("COPY t FROM STDIN (FORMAT csv)")).await;
    client.until_tag(b'G').await;
    for byte in rows.as_bytes() {
        client.send(&[b'd', 0, 0, 0, 5, *byte]).await;
    }
    client.send(&copy_done()).await;
    assert_eq!(show(&client.until_ready(1).await), "C[COPY 3] Z[I]");
    assert_eq!(client.value("SELECT t FROM t WHERE n = 1").await, "a, \"quoted\"\nname");
    // And one row of many pieces that are long themselves.
    client.send(&query("COPY t FROM STDIN")).await;
    client.until_tag(b'G').await;
    client.send(&copy_data("4\t")).await;
    for _ in 0..20 {
        client.send(&copy_data(&"x".repeat(100_000))).await;
    }
    client.send(&[copy_data("\n"), copy_done()].concat()).await;
    assert_eq!(show(&client.until_ready(1).await), "C[COPY 1] Z[I]");
    assert_eq!(client.value("SELECT length(t) FROM t WHERE n = 4").await, "2000000");
    bench.all_home().await;
}

/// Something of `bench`'s waits for a lock.
async fn waits_for_a_lock(bench: &Bench) {
    let question = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let mut direct = bench.direct().await;
    until("it waits for a lock", async || direct.value(question).await == "1").await;
}

#[tokio::test]
async fn trap_25_a_cancel_is_for_the_statement_and_not_for_what_we_send_ahead_of_it() {
    let bench = Bench::start(1).await;
    let (mut a, mut locker) = (bench.client().await, bench.direct().await);
    a.query("SET default_text_search_config = 'simple'").await;
    // A new connection, which has to look the name up.
    bench.direct().await.query(crate::failures::KILL_OURS).await;
    until("it is dead", async || bench.truth(crate::failures::OURS).await == "0").await;
    locker.query("BEGIN; LOCK TABLE pg_catalog.pg_ts_config IN ACCESS EXCLUSIVE MODE").await;
    a.send(&query("SELECT pg_sleep(30)")).await;
    waits_for_a_lock(&bench).await;
    let key = a.key.clone();
    let unlock = async {
        // The request is dealt with while the setting still waits, or not: nothing may differ.
        time::sleep(Duration::from_millis(100)).await;
        locker.query("COMMIT").await;
    };
    tokio::join!(cancel(&bench, &key), unlock);
    let mut answer = Vec::new();
    while answer.last().is_none_or(|message: &Message| message.tag != b'Z') {
        match time::timeout(Duration::from_secs(2), a.receive()).await {
            Ok(message) => answer.push(message.unwrap()),
            // It reached the server before the statement did, where it is lost.
            Err(_) => cancel(&bench, &key).await,
        }
    }
    let answer = show(&answer);
    assert!(answer.ends_with(CANCELLED), "{answer}");
    assert_eq!(a.value("SHOW default_text_search_config").await, "pg_catalog.simple");
    bench.all_home().await;
}

#[tokio::test]
async fn trap_26_a_cancel_puts_nothing_on_its_clients_connection() {
    let bench = Bench::start(1).await;
    let mut a = bench.client().await;
    let key = a.key.clone();
    for begin in ["SELECT 0", "BEGIN", "SELECT 1"] {
        a.query(begin).await;
        for _ in 0..5 {
            cancel(&bench, &key).await;
        }
        assert!(a.is_silent().await);
    }
    // In a transaction the last one may come late and hit the next statement, as without us.
    let answer = a.query("SELECT 2").await;
    let cancelled = CANCELLED.replace("Z[I]", "Z[E]");
    assert!(answer == "T D[2] C[SELECT 1] Z[T]" || answer.ends_with(&cancelled), "{answer}");
    assert!(a.query("ROLLBACK").await.ends_with("C[ROLLBACK] Z[I]"));
    assert_eq!(a.query("SELECT 3").await, "T D[3] C[SELECT 1] Z[I]");
    bench.all_home().await;
}

#[tokio::test]
async fn trap_45_a_startup_packet_may_be_as_long_as_postgres_allows() {
    let bench = Bench::start(1).await;
    let long = format!("-c app.long={}", "x".repeat(9_700));
    let length = "SELECT length(current_setting('app.long'))";
    for address in [bench.address, bench.server] {
        let options = [("options", &*long)];
        let mut client = Client::connect(address, &bench.database, &options).await.unwrap();
        assert_eq!(client.value(length).await, "9700");
    }
    let too_long = startup(&[("user", USER), ("options", &"x".repeat(10_000))]);
    let refused = Client::start(bench.address, &too_long).await.err().unwrap();
    assert!(refused.starts_with("E[08P01 "), "{refused}");
}

#[tokio::test]
async fn trap_46_plaintext_behind_a_request_for_gss_is_refused() {
    let bench = Bench::start(1).await;
    let request = packet(&80_877_104_u32.to_be_bytes());
    let smuggled = [request, startup(&[("user", USER), ("database", &bench.database)])].concat();
    let refused = Client::start(bench.address, &smuggled).await.err().unwrap();
    assert!(refused.starts_with("E[08P01 "), "{refused}");
}

#[tokio::test]
async fn trap_47_options_of_the_protocol_are_negotiated_once() {
    let bench = Bench::start(1).await;
    for (version, options) in [(0x0003_0000_u32, "_pq_.unheard_of\0on\0"), (0x0003_0000, "")] {
        let named = format!("user\0{USER}\0database\0{}\0{options}\0", bench.database);
        let first = packet(&[&version.to_be_bytes()[..], named.as_bytes()].concat());
        let mut answers = Vec::new();
        for address in [bench.address, bench.server] {
            let mut client = Client::bare(address).await;
            client.send(&first).await;
            let messages = client.until_ready(1).await;
            let negotiated = messages.iter().find(|m| m.tag == b'v').map(|m| m.body.clone());
            answers.push((show(&messages), negotiated));
            assert_eq!(client.query("SELECT 1").await, "T D[1] C[SELECT 1] Z[I]");
        }
        assert_eq!(answers[0].0.matches('v').count(), usize::from(!options.is_empty()));
        assert_eq!(answers[0], answers[1]);
    }
}

#[tokio::test]
async fn trap_50_both_sides_may_write_at_once() {
    const TIMES: usize = 60;
    let bench = Bench::start(1).await;
    let client = bench.client().await;
    let (mut reader, mut writer) = tokio::io::split(client.stream);
    let ballast = "y".repeat(300_000);
    let statement = format!("SELECT repeat('x', 300000), length('{ballast}')");
    let writes = async {
        for n in 0..TIMES {
            let batch =
                if n % 2 == 0 { query(&statement) } else { [run(&statement), sync()].concat() };
            writer.write_all(&batch).await.unwrap();
        }
    };
    let reads = async {
        let (mut seen, mut tail) = (0, Vec::new());
        while seen < TIMES {
            assert_ne!(reader.read_buf(&mut tail).await.unwrap(), 0);
            seen += tail.windows(6).filter(|w| w == b"Z\0\0\0\x05I").count();
            let kept = tail.len().saturating_sub(5);
            tail.drain(..kept);
        }
    };
    time::timeout(Duration::from_secs(60), async { tokio::join!(writes, reads) }).await.unwrap();
}
