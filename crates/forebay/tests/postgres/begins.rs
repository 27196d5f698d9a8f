//! Transactions that are empty, and statements that are known: no server is touched.

use crate::bench::Bench;
use crate::client::{Client, bind, close, describe, execute, field, parse, query, run, show, sync};
use crate::statuses::{answers, exactly};

/// Every mode of a transaction, and some in several spellings.
const BEGINS: &[&str] = &[
    "BEGIN",
    "BEGIN WORK;",
    "begin transaction",
    "START TRANSACTION",
    "BEGIN ISOLATION LEVEL SERIALIZABLE",
    "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE",
    "START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ WRITE, NOT DEFERRABLE",
    "BEGIN TRANSACTION ISOLATION LEVEL READ COMMITTED READ ONLY",
    "BEGIN ISOLATION LEVEL READ UNCOMMITTED; ",
    "/* why */ BEGIN READ ONLY",
];
const ENDS: &[&str] =
    &["COMMIT", "ROLLBACK", "END;", "ABORT", "COMMIT WORK", "ROLLBACK TRANSACTION AND NO CHAIN"];

/// A budget of one connection, and who has it.
async fn taken() -> (Bench, Client) {
    let bench = Bench::start(1).await;
    let mut holder = bench.client().await;
    holder.query("BEGIN").await;
    holder.query("SELECT 1").await;
    (bench, holder)
}

async fn alike(client: &mut Client, direct: &mut Client, batch: &[Vec<u8>]) {
    let (ours, real) = (answers(client, batch).await, answers(direct, batch).await);
    assert!(exactly(&ours) == exactly(&real), "{}\nshould be\n{}", show(&ours), show(&real));
}

#[tokio::test]
async fn trap_42_an_empty_transaction_with_any_modes_touches_no_server() {
    let (bench, _holder) = taken().await;
    let (mut client, mut direct) = (bench.client().await, bench.direct().await);
    let prepare = [
        parse("begin", BEGINS[0]),
        describe(b'S', "begin"),
        parse("end", ENDS[0]),
        describe(b'S', "end"),
        sync(),
    ];
    alike(&mut client, &mut direct, &prepare).await;
    let again = |name: &str| [bind("", name, &[]), describe(b'P', ""), execute("", 0)].concat();
    for (n, begin) in BEGINS.iter().enumerate() {
        let end = ENDS[n % ENDS.len()];
        for batch in [
            vec![query(begin)],
            vec![query(end)],
            vec![run(begin), sync()],
            vec![run(end), sync()],
            vec![parse("", begin), describe(b'S', ""), sync()],
            vec![again(""), sync()],
            vec![again("end"), sync()],
            vec![again("begin"), again("end"), sync(), again("begin"), sync()],
            vec![query(end), run(begin), sync()],
            vec![query(end)],
        ] {
            alike(&mut client, &mut direct, &batch).await;
        }
    }
    assert_eq!((bench.leased(), bench.waiting()), (1, 0));
}

#[tokio::test]
async fn trap_42_a_begin_of_the_extended_protocol_has_its_modes() {
    let bench = Bench::start(2).await;
    bench.direct().await.query("CREATE TABLE t (n int)").await;
    let (mut client, mut direct) = (bench.client().await, bench.direct().await);
    let modes = "SELECT current_setting('transaction_isolation'), \
                 current_setting('transaction_read_only'), current_setting('transaction_deferrable')";
    for begin in BEGINS {
        for batch in [
            vec![run(begin), sync()],
            vec![query(modes)],
            vec![run("INSERT INTO t VALUES (1)"), sync()],
            vec![run("ROLLBACK"), sync()],
            vec![run(begin), run(modes), sync(), run("COMMIT"), sync()],
        ] {
            alike(&mut client, &mut direct, &batch).await;
        }
    }
    bench.all_home().await;
}

#[tokio::test]
async fn trap_42_what_is_no_plain_begin_or_end_is_answered_by_the_server() {
    let bench = Bench::start(2).await;
    let (mut client, mut direct) = (bench.client().await, bench.direct().await);
    let scripts = [
        "BEGIN NONSENSE",
        "BEGIN ISOLATION LEVEL SNAPSHOT",
        "BEGIN READ ONLY,",
        "BEGIN; READ ONLY",
        "COMMIT",
        "ROLLBACK",
        "BEGIN",
        "BEGIN READ ONLY",
        "COMMIT AND CHAIN",
        "ROLLBACK",
    ];
    for sql in scripts {
        alike(&mut client, &mut direct, &[query(sql)]).await;
        alike(&mut client, &mut direct, &[query("ROLLBACK")]).await;
    }
    for sql in scripts {
        alike(&mut client, &mut direct, &[run(sql), sync()]).await;
    }
    for batch in [
        vec![query("BEGIN"), run("BEGIN"), sync(), run("COMMIT"), sync()],
        vec![run("COMMIT"), sync()],
        vec![parse("", "BEGIN"), bind("", "", &["1"]), execute("", 0), sync()],
        vec![parse("", "BEGIN"), bind("p", "", &[]), execute("p", 0), execute("p", 0), sync()],
        vec![query("ROLLBACK")],
        vec![parse("b", "BEGIN"), parse("b", "BEGIN"), sync(), bind("", "b", &[]), sync()],
        vec![
            close(b'S', "b"),
            parse("b", "COMMIT"),
            describe(b'S', "b"),
            describe(b'P', ""),
            sync(),
        ],
        vec![run("BEGIN"), query("COMMIT")],
    ] {
        alike(&mut client, &mut direct, &batch).await;
    }
    bench.all_home().await;
}

#[tokio::test]
async fn a_transaction_that_got_no_server_has_failed_in_the_servers_words() {
    let bench = Bench::with(1, |settings| {
        let core = "{\"kind\": \"core\", \"checkout_timeout\": \"500ms\"}";
        let core = serde_json::from_str(core).unwrap();
        let name = forebay_pool::ClassName::new("core");
        settings.servers.get_mut("main").unwrap().classes.insert(name, core);
    })
    .await;
    let (mut holder, mut client) = (bench.client().await, bench.client().await);
    let mut direct = bench.direct().await;
    holder.query("BEGIN").await;
    holder.query("SELECT 1").await;
    let prepare = [parse("b", "BEGIN"), parse("e", "ROLLBACK"), sync()];
    alike(&mut client, &mut direct, &prepare).await;
    let begin = [bind("", "b", &[]), execute("", 0), sync()];
    alike(&mut client, &mut direct, &begin).await;
    client.send(&query("SELECT 1/0")).await;
    let told = client.until_ready(1).await;
    assert_eq!((field(&told[0], b'C').as_str(), &told[1].body[..]), ("53300", &b"E"[..]));
    direct.query("SELECT 1/0").await;
    for probe in [
        bind("", "b", &[]),
        bind("", "nobody", &[]),
        bind("", "", &[]),
        describe(b'S', "nobody"),
        describe(b'S', ""),
        describe(b'P', "nobody"),
        execute("nobody", 0),
        close(b'S', "nobody"),
        parse("fresh", "SELECT 1"),
        query("SELECT 1"),
    ] {
        let batch = if probe[0] == b'Q' { vec![probe] } else { vec![probe, sync()] };
        alike(&mut client, &mut direct, &batch).await;
    }
    let end = [bind("", "e", &[]), describe(b'P', ""), execute("", 0), sync()];
    alike(&mut client, &mut direct, &end).await;
    assert_eq!(holder.query("COMMIT").await, "C[COMMIT] Z[I]");
    alike(&mut client, &mut direct, &[query("SELECT 2")]).await;
}

#[tokio::test]
async fn what_a_server_has_prepared_before_is_prepared_without_one() {
    let (bench, mut holder) = taken().await;
    let text = "SELECT 'known', current_database()";
    holder.ask(&[parse("mine", text), sync()]).await;
    let mut client = bench.client().await;
    let prepare = [parse("a", text), parse("b", text), sync()];
    assert_eq!(client.ask(&prepare).await, "1 1 Z[I]");
    assert_eq!(client.ask(&[run("BEGIN"), sync()]).await, "1 2 C[BEGIN] Z[T]");
    assert_eq!(client.ask(&[parse("c", text), sync()]).await, "1 Z[T]");
    assert_eq!((bench.leased(), bench.waiting()), (1, 0));
    holder.query("COMMIT").await;
    let row = format!("2 D[known|{}] C[SELECT 1] Z[T]", bench.database);
    for name in ["a", "b", "c"] {
        assert_eq!(client.ask(&[bind("", name, &[]), execute("", 0), sync()]).await, row);
    }
    let taken = "E[42P05 prepared statement \"a\" already exists] Z[E]";
    assert_eq!(client.ask(&[parse("a", text), sync()]).await, taken);
    client.query("ROLLBACK").await;
    // What it means may have changed, and another database is another matter.
    let on_table = parse("t", "SELECT * FROM t");
    client.query("CREATE TABLE t (n int)").await;
    assert_eq!(client.ask(&[on_table.clone(), sync()]).await, "1 Z[I]");
    let mut other = Client::connect(bench.address, "postgres", &[]).await.unwrap();
    let missing = "E[42P01 relation \"t\" does not exist] Z[I]";
    assert_eq!(other.ask(&[on_table.clone(), sync()]).await, missing);
    client.query("DROP TABLE t").await;
    assert_eq!(holder.ask(&[on_table, sync()]).await, missing);
    bench.all_home().await;
}
