//! LISTEN in transaction pooling, where one connection for each database listens for all, and
//! in session pooling: clients hear what PostgreSQL would tell them, when it would.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use forebay_postgres::NotificationCounts;
use forebay_postgres::settings::PoolMode;
use forebay_seam::time;

use crate::bench::{Bench, until};
use crate::client::{Client, Message, bind, execute, parse, query, run, show, startup, sync};

/// Channel and payload.
fn note(message: &Message) -> String {
    assert_eq!(message.tag, b'A', "{message:?}");
    String::from_utf8_lossy(&message.body[4..]).trim_end_matches('\0').replace('\0', " ")
}

async fn hear(client: &mut Client) -> String {
    note(&client.receive().await.unwrap())
}

fn counts(bench: &Bench) -> NotificationCounts {
    bench.gateway.snapshot().notifications.remove(0)
}

/// Connections of the listener, as the server counts them.
const LISTENERS: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = \
     current_database() AND application_name = 'forebay listener'";

#[tokio::test]
async fn trap_41_many_clients_listen_over_one_connection_and_hold_none() {
    let bench = Bench::start(1).await;
    let mut listeners = Vec::new();
    for n in 0..20 {
        let mut client = bench.client().await;
        assert_eq!(client.query("LISTEN news").await, "C[LISTEN] Z[I]");
        assert_eq!(client.query(&format!("LISTEN own_{n}")).await, "C[LISTEN] Z[I]");
        listeners.push(client);
    }
    bench.all_home().await;
    assert_eq!(bench.truth(LISTENERS).await, "1");
    let found = counts(&bench);
    assert_eq!((found.connections, found.channels, found.clients), (1, 21, 20));
    let mut other = bench.client().await;
    other.query("NOTIFY news, 'all'").await;
    other.query("NOTIFY own_7, 'one'").await;
    other.query("NOTIFY nobody").await;
    for client in &mut listeners {
        assert_eq!(hear(client).await, "news all");
    }
    assert_eq!(hear(&mut listeners[7]).await, "own_7 one");
    assert!(listeners[6].is_silent().await);
    assert_eq!(counts(&bench).delivered, 21);
    drop(listeners);
    until("all channels are given up", async || counts(&bench).channels == 0).await;
    assert_eq!(counts(&bench).clients, 0);
    assert!(bench.gateway.snapshot().pins.is_empty());
}

#[tokio::test]
async fn what_is_notified_after_a_listen_is_answered_is_heard() {
    let bench = Bench::start(2).await;
    let mut sender = bench.direct().await;
    for n in 0..40 {
        // Each channel is new to the connection that listens.
        let (mut client, channel) = (bench.client().await, format!("c{n}"));
        let listen = format!("LISTEN {channel}");
        match n % 4 {
            0 => drop(client.query(&listen).await),
            1 => drop(client.ask(&[run(&listen), sync()]).await),
            2 => drop(client.ask(&[query("BEGIN"), query(&listen), query("COMMIT")]).await),
            _ => drop(
                client
                    .ask(&[parse("l", &listen), sync(), bind("", "l", &[]), execute("", 0), sync()])
                    .await,
            ),
        }
        sender.query(&format!("NOTIFY {channel}, '{n}'")).await;
        assert_eq!(hear(&mut client).await, format!("{channel} {n}"));
    }
}

#[tokio::test]
async fn names_are_folded_quoted_and_cut_as_the_server_does_it() {
    let bench = Bench::start(1).await;
    let (mut client, mut sender) = (bench.client().await, bench.direct().await);
    let long = "x".repeat(70);
    for (listen, notify) in [
        ("LISTEN News".to_owned(), "news".to_owned()),
        ("LISTEN \"News\"".to_owned(), "News".to_owned()),
        ("LISTEN \"a \"\"b\"\";\"".to_owned(), "a \"b\";".to_owned()),
        ("LISTEN Ärger".to_owned(), "Ärger".to_owned()),
        (format!("LISTEN {long}"), long[..63].to_owned()),
        (format!("LISTEN \"{}é\"", &long[..62]), long[..62].to_owned()),
    ] {
        assert!(client.query(&listen).await.ends_with("C[LISTEN] Z[I]"), "{listen}");
        sender.query(&format!("SELECT pg_notify('{notify}', '')")).await;
        assert_eq!(hear(&mut client).await, notify);
    }
    // An escaped name is left to the server, on a connection of the client's own.
    client.query("LISTEN U&\"\\0062\"").await;
    assert_eq!(bench.leased(), 1);
    sender.query("NOTIFY b").await;
    assert_eq!(hear(&mut client).await, "b");
    sender.query("NOTIFY news").await;
    assert_eq!(hear(&mut client).await, "news");
    assert!(client.is_silent().await);
}

#[tokio::test]
async fn a_listen_counts_when_its_transaction_commits() {
    let bench = Bench::start(1).await;
    let (mut client, mut sender) = (bench.client().await, bench.direct().await);
    // What was done, and whether the client listens after it.
    for (statements, listens) in [
        (vec!["BEGIN; LISTEN c; ROLLBACK"], false),
        (vec!["LISTEN c; SELECT 1/0"], false),
        (vec!["BEGIN", "LISTEN c", "SELECT 1/0", "COMMIT"], false),
        (vec!["BEGIN", "SAVEPOINT s", "LISTEN c", "ROLLBACK TO s", "COMMIT"], false),
        (vec!["BEGIN", "LISTEN c", "SAVEPOINT s", "UNLISTEN c", "ROLLBACK TO s", "COMMIT"], true),
        (vec!["BEGIN", "UNLISTEN *", "ROLLBACK"], true),
        (vec!["BEGIN; UNLISTEN C; COMMIT"], false),
        (vec!["BEGIN", "SELECT 1", "LISTEN c", "RELEASE s", "ROLLBACK", "LISTEN \"c\""], true),
        (vec!["DISCARD ALL"], false),
        (vec!["LISTEN c; LISTEN d"], true),
        (vec!["UNLISTEN *"], false),
        (vec!["LISTEN c; COMMIT; SELECT 1/0"], true),
        (vec!["UNLISTEN c; LISTEN c; UNLISTEN c"], false),
    ] {
        for statement in &statements {
            client.query(statement).await;
        }
        bench.all_home().await;
        sender.query("NOTIFY c, 'x'").await;
        if listens {
            assert_eq!(hear(&mut client).await, "c x", "{statements:?}");
        }
        assert!(client.is_silent().await, "{statements:?}");
    }
    until("all is given up", async || counts(&bench).channels == 0).await;
}

#[tokio::test]
async fn notifications_wait_for_the_end_of_a_transaction_and_come_before_its_ready() {
    let bench = Bench::start(2).await;
    let (mut client, mut sender) = (bench.client().await, bench.direct().await);
    client.query("LISTEN c").await;
    client.query("BEGIN").await;
    sender.query("NOTIFY c, '1'").await;
    assert!(client.is_silent().await, "a transaction is open, though no server knows of it");
    client.query("SELECT 1").await;
    sender.query("NOTIFY c, '2'").await;
    assert!(client.is_silent().await);
    assert_eq!(client.query("SELECT 2").await, "T D[2] C[SELECT 1] Z[T]");
    assert_eq!(client.query("COMMIT").await, "C[COMMIT] A A Z[I]");
    // What it notifies itself it hears itself, once, folded with its like.
    client.send(&query("BEGIN; NOTIFY c, 'own'; NOTIFY c, 'own'; COMMIT")).await;
    let heard = client.until_tag(b'A').await;
    assert_eq!(note(heard.last().unwrap()), "c own");
    if show(&heard).contains('Z') {
        assert!(client.is_silent().await);
    } else {
        assert_eq!(show(&client.until_ready(1).await), "Z[I]");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_sent_away_and_the_others_hear_all() {
    let bench = Bench::with(2, |settings| settings.notifications.queue = 64 * 1024).await;
    let (mut slow, mut quick) = (bench.client().await, bench.client().await);
    let mut sender = bench.direct().await;
    slow.query("LISTEN c").await;
    quick.query("LISTEN c").await;
    slow.query("BEGIN; SELECT 1").await;
    let payload = "x".repeat(7_000);
    for n in 0..12 {
        sender.query(&format!("NOTIFY c, '{n} {payload}'")).await;
        assert!(hear(&mut quick).await.starts_with(&format!("c {n} ")));
    }
    assert_eq!(slow.query("SELECT 2").await, "T D[2] C[SELECT 1] Z[T]");
    slow.send(&query("COMMIT")).await;
    let end = show(&slow.until_ready(2).await);
    assert!(end.starts_with("C[COMMIT] Z[I] E[53400 more than 65536 bytes"), "{end}");
    assert_eq!(counts(&bench).overflowed, 1);
    until("it is gone", async || counts(&bench).clients == 1).await;
}

#[tokio::test]
async fn a_lost_connection_that_listens_ends_the_sessions_that_rely_on_it() {
    let bench = Bench::start(2).await;
    let (mut idle, mut busy, mut bystander) =
        (bench.client().await, bench.client().await, bench.client().await);
    idle.query("LISTEN a").await;
    busy.query("LISTEN b").await;
    busy.query("BEGIN; SELECT 1").await;
    let kill = LISTENERS.replace("count(*)", "pg_terminate_backend(pid)");
    assert_eq!(bench.truth(&kill).await, "t");
    let end = show(&idle.until_ready(1).await);
    assert!(
        end.starts_with("E[08006 the connection that listens for this client was lost"),
        "{end}"
    );
    // A transaction comes to its end first.
    assert_eq!(busy.query("SELECT 2").await, "T D[2] C[SELECT 1] Z[T]");
    busy.send(&query("COMMIT")).await;
    let end = show(&busy.until_ready(2).await);
    assert!(end.starts_with("C[COMMIT] Z[I] E[08006 "), "{end}");
    assert_eq!(bystander.query("LISTEN a").await, "C[LISTEN] Z[I]");
    bench.direct().await.query("NOTIFY a, 'again'").await;
    assert_eq!(hear(&mut bystander).await, "a again");
    assert_eq!(counts(&bench).lost, 2);
}

#[tokio::test]
async fn who_listens_to_too_much_is_told_and_goes_on() {
    let bench = Bench::with(1, |settings| {
        settings.notifications.channels_per_client = 2;
        settings.notifications.channels_per_database = 3;
        settings.notifications.connections = 1;
    })
    .await;
    let (mut a, mut b) = (bench.client().await, bench.client().await);
    a.query("LISTEN a1; LISTEN a2").await;
    let full = a.query("LISTEN a3").await;
    assert_eq!(full, "E[54000 a client may listen to 2 channels] Z[I]");
    assert_eq!(a.query("LISTEN a1").await, "C[LISTEN] Z[I]");
    let full = a.ask(&[run("LISTEN a3"), sync()]).await;
    assert!(full.starts_with("E[54000 ") && full.ends_with("] Z[I]"), "{full}");
    a.query("BEGIN").await;
    assert!(a.query("LISTEN a3").await.ends_with("] Z[E]"));
    assert_eq!(a.query("COMMIT").await, "C[ROLLBACK] Z[I]");
    assert_eq!(b.query("LISTEN b1").await, "C[LISTEN] Z[I]");
    let full = b.query("LISTEN b2").await;
    assert_eq!(full, "E[54000 3 channels of this database are listened to already] Z[I]");
    let mut elsewhere = Client::connect(bench.address, "postgres", &[]).await.unwrap();
    let full = elsewhere.query("LISTEN c").await;
    assert_eq!(full, "E[53300 1 connections listen on this server already] Z[I]");
    bench.direct().await.query("NOTIFY a2, 'still'").await;
    assert_eq!(hear(&mut a).await, "a2 still");
    a.query("UNLISTEN a1").await;
    until("it is given up", async || counts(&bench).channels == 2).await;
    assert_eq!(b.query("LISTEN b2").await, "C[LISTEN] Z[I]");
}

#[tokio::test]
async fn a_connection_that_cannot_be_opened_to_listen_is_an_error_in_the_servers_words() {
    let bench = Bench::start(1).await;
    bench.direct().await.query("CREATE ROLE one_only LOGIN CONNECTION LIMIT 1").await;
    let first = startup(&[("user", "one_only"), ("database", &bench.database)]);
    let mut client = Client::start(bench.address, &first).await.unwrap();
    let refused = client.query("LISTEN c").await;
    assert_eq!(refused, "E[53300 too many connections for role \"one_only\"] Z[I]");
    // The session goes on, and somebody else's connection serves it.
    assert_eq!(client.query("SELECT 1").await, "T D[1] C[SELECT 1] Z[I]");
    bench.client().await.query("LISTEN other").await;
    assert_eq!(client.query("LISTEN c").await, "C[LISTEN] Z[I]");
    bench.direct().await.query("NOTIFY c, 'x'; DROP ROLE one_only").await;
    assert_eq!(hear(&mut client).await, "c x");
}

/// Notifications of one channel, numbered from 1: how many were begun, and have committed.
#[derive(Default)]
struct Numbers {
    begun: AtomicU32,
    committed: AtomicU32,
}

#[tokio::test]
async fn who_listens_hears_each_notification_once_and_in_order_however_many_come_and_go() {
    let bench = Arc::new(Bench::start(3).await);
    let channels: Arc<[Numbers; 3]> = Arc::default();
    let speaking = tokio::spawn({
        let (mut sender, channels) = (bench.direct().await, Arc::clone(&channels));
        async move {
            loop {
                for (name, channel) in channels.iter().enumerate() {
                    let n = channel.begun.fetch_add(1, Ordering::SeqCst) + 1;
                    sender.query(&format!("NOTIFY c{name}, '{n}'")).await;
                    channel.committed.store(n, Ordering::SeqCst);
                }
            }
        }
    });
    let listening = (0..12_usize).map(|who| {
        let (bench, channels) = (Arc::clone(&bench), Arc::clone(&channels));
        tokio::spawn(async move {
            let mut client = bench.client().await;
            for round in 0..8 {
                let name = (who + round * (1 + who % 2)) % 3;
                if (who + round) % 5 == 4 {
                    client = bench.client().await;
                }
                let answer = client.query(&format!("LISTEN c{name}")).await;
                assert!(answer.contains("C[LISTEN]"), "{answer} answers something else");
                // What begins from now on is notified after the LISTEN was answered.
                let from = channels[name].begun.load(Ordering::SeqCst);
                let committed = || channels[name].committed.load(Ordering::SeqCst);
                while committed() < from + 4 {
                    time::sleep(Duration::from_millis(2)).await;
                }
                // A pinned client, and one that works meanwhile, hear no more and no less.
                let mut is_answered = round % 4 != 3;
                if !is_answered {
                    client.send(&query("CREATE TEMP TABLE IF NOT EXISTS t (n int)")).await;
                }
                let (mut last, to) = (None, committed());
                while !is_answered || last.is_none_or(|last| last < to) {
                    let message = client.receive().await.unwrap();
                    if message.tag != b'A' {
                        is_answered |= message.tag == b'Z';
                        continue;
                    }
                    let heard = note(&message);
                    let (channel, n) = heard.split_once(' ').unwrap();
                    let n: u32 = n.parse().unwrap();
                    assert_eq!(channel, format!("c{name}"));
                    match last {
                        Some(last) => assert_eq!(n, last + 1),
                        None => assert!(n <= from + 1, "{n} is the first after {from}"),
                    }
                    last = Some(n);
                }
                client.query("UNLISTEN *").await;
            }
        })
    });
    for listening in listening.collect::<Vec<_>>() {
        listening.await.unwrap();
    }
    speaking.abort();
    bench.all_home().await;
    until("all is given up", async || counts(&bench).channels == 0).await;
    assert_eq!((counts(&bench).overflowed, counts(&bench).lost), (0, 0));
}

#[tokio::test]
async fn the_connection_that_listens_closes_when_it_is_not_needed() {
    let bench = Bench::with(1, |settings| {
        let server = settings.servers.get_mut("main").unwrap();
        server.idle_ttl = Duration::from_millis(50);
    })
    .await;
    for round in 0..3 {
        let (mut client, mut sender) = (bench.client().await, bench.direct().await);
        client.query("LISTEN c").await;
        sender.query(&format!("NOTIFY c, '{round}'")).await;
        assert_eq!(hear(&mut client).await, format!("c {round}"));
        drop(client);
        until("it is closed", async || bench.truth(LISTENERS).await == "0").await;
        assert_eq!(counts(&bench).connections, 0);
    }
}

#[tokio::test]
async fn other_encodings_have_a_connection_of_their_own() {
    let bench = Bench::start(2).await;
    let latin = [("client_encoding", "LATIN1")];
    let mut a = Client::connect(bench.address, &bench.database, &latin).await.unwrap();
    let mut b = bench.client().await;
    a.query("LISTEN c").await;
    b.query("LISTEN c").await;
    assert_eq!(bench.truth(LISTENERS).await, "2");
    bench.direct().await.query("NOTIFY c, 'ä'").await;
    assert_eq!(a.receive().await.unwrap().body[4..], *b"c\0\xe4\0");
    assert_eq!(hear(&mut b).await, "c ä");
    // What came in the encoding of before would read as something else.
    b.query("SET client_encoding = 'LATIN1'").await;
    bench.direct().await.query("NOTIFY c, 'plain'").await;
    assert_eq!(hear(&mut b).await, "c plain");
    bench.direct().await.query("NOTIFY c, 'ä'").await;
    let end = show(&b.until_ready(1).await);
    assert!(end.starts_with("E[0A000 "), "{end}");
}

#[tokio::test]
async fn in_session_pooling_the_server_itself_notifies_idle_clients() {
    let bench = Bench::with(2, |settings| settings.pool_mode = PoolMode::Session).await;
    let (mut client, mut sender) = (bench.client().await, bench.direct().await);
    client.query("LISTEN c").await;
    sender.query("NOTIFY c, '1'").await;
    assert_eq!(hear(&mut client).await, "c 1");
    assert_eq!(client.value("SELECT pg_listening_channels()").await, "c");
    assert_eq!(client.query("NOTIFY c, '2'").await, "C[NOTIFY] A Z[I]");
    assert_eq!(counts(&bench).connections, 0);
}
