//! The console: databases `pgbouncer` and `forebay`, as psql and PgBouncer's tools see them.

use forebay_postgres::PostgresSettings;

use crate::bench::{Bench, USER, until};
use crate::client::{Client, Message, bind, describe, execute, field, parse, query, show, sync};

/// The user of the bench is an admin; `watcher` may look, `nobody` may not.
fn operators(settings: &mut PostgresSettings) {
    settings.admin_users = vec![USER.into()];
    settings.stats_users = vec!["watcher".into()];
}

async fn bench() -> Bench {
    Bench::with(3, operators).await
}

async fn as_user(bench: &Bench, user: &str) -> Result<Client, String> {
    Client::start(
        bench.address,
        &crate::client::startup(&[("user", user), ("database", "pgbouncer")]),
    )
    .await
}

async fn console(bench: &Bench) -> Client {
    Client::connect(bench.address, "pgbouncer", &[]).await.unwrap()
}

/// Names and types of the columns of a RowDescription.
fn columns(message: &Message) -> Vec<(String, u32)> {
    let mut rest = &message.body[2..];
    let mut columns = Vec::new();
    while let Some(end) = rest.iter().position(|byte| *byte == 0) {
        let name = String::from_utf8_lossy(&rest[..end]).into_owned();
        let oid = u32::from_be_bytes(rest[end + 7..end + 11].try_into().unwrap());
        columns.push((name, oid));
        rest = &rest[end + 19..];
    }
    columns
}

/// The rows of a SHOW, each as its values by the names of the columns.
async fn rows(client: &mut Client, sql: &str) -> Vec<std::collections::HashMap<String, String>> {
    client.send(&query(sql)).await;
    let messages = client.until_ready(1).await;
    let names = columns(
        messages
            .iter()
            .find(|m| m.tag == b'T')
            .unwrap_or_else(|| panic!("{sql}: {}", show(&messages))),
    );
    let rows = messages.iter().filter(|message| message.tag == b'D');
    rows.map(|row| {
        let values = crate::client::columns(&row.body);
        assert_eq!(values.len(), names.len(), "{sql}");
        names.iter().map(|(name, _)| name.clone()).zip(values).collect()
    })
    .collect()
}

#[tokio::test]
async fn a_login_to_the_console_needs_no_server_and_looks_like_pgbouncers() {
    let bench = bench().await;
    let client = console(&bench).await;
    let parameter = |name: &str| client.parameters.get(name).map(String::as_str);
    assert_eq!(parameter("server_version"), Some("1.25.2/bouncer"));
    assert_eq!(parameter("TimeZone"), Some("GMT"));
    assert_eq!(parameter("is_superuser"), Some("on"));
    assert_eq!(bench.gateway.snapshot().pools[0].opened, 0);
}

#[tokio::test]
async fn shows_have_pgbouncers_columns_types_and_tags() {
    let bench = bench().await;
    let mut client = console(&bench).await;
    for (view, types, first) in [
        ("POOLS", "ssiiiiiiiiiiiiiss", "database user cl_active"),
        ("CLIENTS", "ssssssisissiiississii", "type user database replication state"),
        ("SERVERS", "ssssssisissiiississii", "type user database replication state"),
        ("SOCKETS", "ssssssisissiiississiiiiiiiii", "type user database"),
        ("ACTIVE_SOCKETS", "ssssssisissiiississiiiiiiiii", "type user database"),
        ("STATS", "sNNNNNNNNNNNNNNNNNNNNNNNN", "database total_server_assignment_count"),
        ("STATS_TOTALS", "sNNNNNNNNNNNN", "database server_assignment_count xact_count"),
        ("STATS_AVERAGES", "sNNNNNNNNNNNN", "database server_assignment_count"),
        ("TOTALS", "sN", "name value"),
        ("DATABASES", "ssissiiiissiiiiii", "name host port database force_user"),
        ("USERS", "siisiiii", "name pool_size reserve_pool_size pool_mode"),
        ("CONFIG", "ssss", "key value default changeable"),
        ("LISTS", "si", "list items"),
        ("PEERS", "isii", "peer_id host port pool_size"),
        ("PEER_POOLS", "iiiii", "peer_id cl_active_cancel_req"),
        ("MEM", "siiii", "name size used free memtotal"),
        ("STATE", "ss", "key value"),
        ("DNS_HOSTS", "sqs", "hostname ttl addrs"),
        ("DNS_ZONES", "sqi", "zonename serial count"),
        ("VERSION", "s", "version"),
        ("FDS", "issssiqisssssbb", "fd task user database"),
    ] {
        client.send(&query(&format!("show {view};"))).await;
        let messages = client.until_ready(1).await;
        let description = columns(&messages[0]);
        let kinds: String = description
            .iter()
            .map(|(_, oid)| match oid {
                25 => 's',
                23 => 'i',
                20 => 'q',
                1700 => 'N',
                17 => 'b',
                other => panic!("{view} has a column of type {other}"),
            })
            .collect();
        let names: Vec<_> = description.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(kinds.len(), types.len(), "{view}: {names:?}");
        assert_eq!(kinds, types, "{view}: {names:?}");
        assert!(names.join(" ").starts_with(first), "{view}: {names:?}");
        let end = show(&messages[messages.len() - 2..]);
        assert_eq!(end, "C[SHOW] Z[I]", "{view}");
    }
}

#[tokio::test]
async fn drivers_settings_are_pretended_and_several_commands_answered_in_turn() {
    let bench = bench().await;
    let mut client = console(&bench).await;
    assert_eq!(client.query("SHOW timezone").await, "T D[GMT] C[SHOW] Z[I]");
    assert_eq!(client.query("SET datestyle TO 'ISO'").await, "N[SET ignored] C[SET] Z[I]");
    let two = client.query("SHOW version; SELECT client_encoding;").await;
    assert_eq!(two, "T D[PgBouncer 1.25.2] C[SHOW] T D[UTF8] C[SHOW] Z[I]");
    assert_eq!(client.query("SHOW HELP").await, "N[Console usage] C[SHOW] Z[I]");
    assert_eq!(client.query("").await, "I Z[I]");
    let wrong = client.query("SHOW bogus; SHOW version").await;
    assert_eq!(wrong, "E[08P01 invalid command 'SHOW bogus', use SHOW HELP;] Z[I]");
    let wrong = client.query("VACUUM FULL everything").await;
    assert!(wrong.starts_with("E[08P01 invalid command 'VACUUM"), "{wrong}");
}

/// The other names of CVE-2026-6667 and its kind: what a user may not do, no spelling does.
#[tokio::test]
async fn trap_51_who_may_look_may_not_touch_and_others_may_not_come_in() {
    let bench = bench().await;
    let refused = as_user(&bench, "nobody").await.err().unwrap();
    assert_eq!(refused, "E[08P01 not allowed]");
    let mut watcher = as_user(&bench, "watcher").await.unwrap();
    for command in [
        "RELOAD",
        "PAUSE",
        "RESUME",
        "SUSPEND",
        "KILL",
        "KILL_CLIENT 1",
        "DISABLE x",
        "ENABLE x",
        "RECONNECT",
        "WAIT_CLOSE",
        "SHUTDOWN",
        "shutdown wait_for_clients",
        "SET verbose = 1",
        "SET BUDGET main = 1",
        "RENEW main",
        "SHOW FDS",
        "/* */ select fds",
    ] {
        let told = watcher.query(command).await;
        assert_eq!(told, "E[08P01 admin access needed] Z[I]", "{command}");
        let told =
            watcher.ask(&[parse("", command), bind("", "", &[]), execute("", 0), sync()]).await;
        assert!(told.contains("E[08P01 admin access needed]"), "{command}: {told}");
    }
    assert!(watcher.query("SHOW POOLS").await.ends_with("C[SHOW] Z[I]"));
    assert_eq!(bench.gateway.snapshot().pools[0].wanted.by_hand, None);
}

#[tokio::test]
async fn a_driver_that_knows_only_the_extended_protocol_reads_a_view() {
    let bench = bench().await;
    let mut client = console(&bench).await;
    let batch = [parse("s", "SHOW version"), describe(b'S', "s"), sync()];
    assert_eq!(client.ask(&batch).await, "1 t T Z[I]");
    let batch = [bind("", "s", &[]), describe(b'P', ""), execute("", 0), sync()];
    assert_eq!(client.ask(&batch).await, "2 T D[PgBouncer 1.25.2] C[SHOW] Z[I]");
    let batch = [parse("", "SHOW LISTS"), bind("", "", &[]), execute("", 1), sync()];
    assert_eq!(client.ask(&batch).await, "1 2 D[databases|0] s Z[I]");
    let batch = [bind("", "gone", &[]), execute("", 0), sync()];
    assert_eq!(
        client.ask(&batch).await,
        "E[26000 prepared statement \"gone\" does not exist] Z[I]"
    );
    let driver = crate::bench::connect(bench.address, "pgbouncer").await;
    let row = &driver.query("SHOW LISTS", &[]).await.unwrap()[0];
    assert_eq!((row.get::<_, String>(0), row.get::<_, i32>(1)), ("databases".to_owned(), 0));
}

#[tokio::test]
async fn clients_servers_and_pools_show_who_does_what() {
    let bench = bench().await;
    let mut watcher = console(&bench).await;
    let (mut busy, _idle) = (bench.client().await, bench.client().await);
    busy.query("SET application_name = 'worker'; BEGIN; SELECT 1").await;
    let clients = rows(&mut watcher, "SHOW CLIENTS").await;
    let of = |name: &str, state: &str| {
        clients.iter().filter(|c| c["database"] == name && c["state"] == state).count()
    };
    assert_eq!((of(&bench.database, "active"), of(&bench.database, "idle")), (1, 1));
    assert_eq!(of("pgbouncer", "active") + of("pgbouncer", "idle"), 1);
    let active = clients.iter().find(|client| client["state"] == "active").unwrap();
    assert_eq!((&*active["application_name"], &*active["addr"]), ("worker", "127.0.0.1"));
    assert_eq!(active["local_port"], bench.address.port().to_string());
    let servers = rows(&mut watcher, "SHOW SERVERS").await;
    let server = servers.iter().find(|server| server["state"] == "active").unwrap();
    assert_eq!((&server["link"], &server["ptr"]), (&active["ptr"], &active["link"]));
    assert_eq!(server["database"], bench.database);
    assert_eq!(server["remote_pid"], busy.value("SELECT pg_backend_pid()").await);
    let pools = rows(&mut watcher, "SHOW POOLS").await;
    let pool = pools.iter().find(|pool| pool["database"] == bench.database).unwrap();
    let shown = ["cl_active", "cl_waiting", "sv_active", "sv_login"].map(|name| &*pool[name]);
    assert_eq!(shown, ["2", "0", "1", "0"]);
    busy.query("COMMIT").await;
    bench.all_home().await;
    let pools = rows(&mut watcher, "SHOW POOLS").await;
    let pool = pools.iter().find(|pool| pool["database"] == bench.database).unwrap();
    assert_eq!((&*pool["sv_active"], &*pool["sv_idle"]), ("0", "1"));
}

#[tokio::test]
async fn who_waits_is_shown_with_how_long() {
    let bench = Bench::with(1, operators).await;
    let mut watcher = console(&bench).await;
    let (mut holder, mut waiter) = (bench.client().await, bench.client().await);
    holder.query("BEGIN; SELECT 1").await;
    waiter.send(&query("SELECT 2")).await;
    until("one waits", async || bench.waiting() == 1).await;
    until("the wait is seen", async || {
        let pools = rows(&mut watcher, "SHOW POOLS").await;
        let pool = pools.iter().find(|pool| pool["database"] == bench.database).unwrap();
        pool["cl_waiting"] == "1" && pool["maxwait_us"].parse::<u32>().unwrap() > 0
    })
    .await;
    holder.query("COMMIT").await;
    waiter.until_ready(1).await;
    let stats = rows(&mut watcher, "SHOW STATS").await;
    let stats = stats.iter().find(|stats| stats["database"] == bench.database).unwrap();
    assert!(stats["total_wait_time"].parse::<u64>().unwrap() > 0);
}

#[tokio::test]
async fn stats_count_transactions_queries_bytes_and_statements() {
    let bench = bench().await;
    let mut watcher = console(&bench).await;
    let mut client = bench.client().await;
    client.query("SELECT 1").await;
    client.query("BEGIN").await;
    client.query("SELECT repeat('x', 1000)").await;
    client.query("COMMIT").await;
    client.ask(&[parse("s", "SELECT 2"), bind("", "s", &[]), execute("", 0), sync()]).await;
    client.ask(&[bind("", "s", &[]), execute("", 0), sync()]).await;
    bench.all_home().await;
    let totals = rows(&mut watcher, "SHOW STATS_TOTALS").await;
    let totals = totals.iter().find(|totals| totals["database"] == bench.database).unwrap();
    let figure = |name: &str| totals[name].parse::<u64>().unwrap();
    assert_eq!(figure("xact_count"), 4);
    assert_eq!(figure("query_count"), 6);
    assert_eq!(figure("client_parse_count"), 1);
    assert_eq!(figure("server_parse_count"), 1);
    assert_eq!(figure("bind_count"), 2);
    assert_eq!(figure("client_login_count"), 1);
    assert!(figure("server_assignment_count") >= 4);
    assert!((1000..3000).contains(&figure("bytes_sent")), "{}", figure("bytes_sent"));
    assert!((100..1000).contains(&figure("bytes_received")), "{}", figure("bytes_received"));
    assert!(figure("query_time") <= figure("xact_time"));
}

#[tokio::test]
async fn a_budget_is_set_and_connections_are_renewed_by_name() {
    let bench = bench().await;
    let mut client = console(&bench).await;
    assert_eq!(client.query("SET BUDGET main = 2").await, "C[SET BUDGET main=2] Z[I]");
    assert_eq!(bench.gateway.snapshot().pools[0].budget, 2);
    assert_eq!(client.query("SET BUDGET main = DEFAULT").await, "C[SET BUDGET main=default] Z[I]");
    assert_eq!(bench.gateway.snapshot().pools[0].budget, 3);
    assert_eq!(client.query("RENEW main").await, "C[RENEW] Z[I]");
    let wrong = client.query("RENEW other").await;
    assert!(wrong.starts_with("E[08P01 there is no server `other`"), "{wrong}");
}

#[tokio::test]
async fn a_message_that_is_no_command_ends_the_console_and_nothing_else() {
    let bench = bench().await;
    let mut client = console(&bench).await;
    let long = query(&"x".repeat(70_000));
    client.send(&long).await;
    let end = client.until_tag(b'E').await;
    assert_eq!(field(&end[0], b'C'), "54000");
    let mut other = console(&bench).await;
    assert_eq!(other.value("SHOW version").await, "PgBouncer 1.25.2");
}

/// What the gateway does as a whole, as SHOW STATE has it.
async fn state(client: &mut Client) -> String {
    let rows = rows(client, "SHOW STATE").await;
    rows.iter().find(|row| row["value"] == "yes").unwrap()["key"].clone()
}

async fn database(client: &mut Client, name: &str, column: &str) -> String {
    let rows = rows(client, "SHOW DATABASES").await;
    rows.iter().find(|row| row["name"] == name).unwrap()[column].clone()
}

#[tokio::test]
async fn a_pause_holds_the_console_that_asked_until_all_is_quiet_and_no_other() {
    let bench = bench().await;
    let (mut pausing, mut other) = (console(&bench).await, console(&bench).await);
    let (mut busy, mut waiting) = (bench.client().await, bench.client().await);
    busy.query("BEGIN; SELECT 1").await;
    pausing.send(&query("PAUSE")).await;
    until("all is paused", async || state(&mut other).await == "paused").await;
    assert!(pausing.is_silent().await, "a transaction goes on");
    assert_eq!(other.query("PAUSE").await, "E[08P01 already suspended/paused] Z[I]");
    assert_eq!(database(&mut other, &bench.database, "paused").await, "1");
    waiting.send(&query("SELECT 2")).await;
    assert!(waiting.is_silent().await, "new work waits");
    assert_eq!(busy.query("COMMIT").await, "C[COMMIT] Z[I]");
    assert_eq!(show(&pausing.until_ready(1).await), "C[PAUSE] Z[I]");
    assert_eq!(other.query("RESUME").await, "C[RESUME] Z[I]");
    assert_eq!(show(&waiting.until_ready(1).await), "T D[2] C[SELECT 1] Z[I]");
    assert_eq!(state(&mut other).await, "active");
    assert_eq!(other.query("RESUME").await, "E[08P01 pooler is not paused/suspended] Z[I]");
}

#[tokio::test]
async fn who_leaves_while_a_pause_is_awaited_ends_nothing() {
    let bench = bench().await;
    let (mut pausing, mut other) = (console(&bench).await, console(&bench).await);
    let mut busy = bench.client().await;
    busy.query("BEGIN; SELECT 1").await;
    pausing.send(&query(&format!("PAUSE {}", bench.database))).await;
    until("it is paused", async || database(&mut other, &bench.database, "paused").await == "1")
        .await;
    drop(pausing);
    until("it has left", async || rows(&mut other, "SHOW CLIENTS").await.len() == 2).await;
    assert_eq!(database(&mut other, &bench.database, "paused").await, "1");
    assert_eq!(busy.query("COMMIT").await, "C[COMMIT] Z[I]");
    let resume = format!("RESUME {}", bench.database);
    assert_eq!(other.query(&resume).await, "C[RESUME] Z[I]");
    let again = format!("E[08P01 database {} is not paused] Z[I]", bench.database);
    assert_eq!(other.query(&resume).await, again);
}

#[tokio::test]
async fn kill_client_ends_the_one_that_show_clients_names() {
    let bench = bench().await;
    let mut admin = console(&bench).await;
    let (mut stays, mut goes) = (bench.client().await, bench.client().await);
    goes.query("SET application_name = 'goes'; BEGIN; SELECT 1").await;
    let clients = rows(&mut admin, "SHOW CLIENTS").await;
    let id = &clients.iter().find(|client| client["application_name"] == "goes").unwrap()["id"];
    assert_eq!(admin.query(&format!("KILL_CLIENT {id}")).await, "C[KILL_CLIENT] Z[I]");
    assert_eq!(field(&goes.until_tag(b'E').await[0], b'C'), "57P01");
    assert_eq!(stays.query("SELECT 1").await, "T D[1] C[SELECT 1] Z[I]");
    until("it is gone", async || {
        let clients = rows(&mut admin, "SHOW CLIENTS").await;
        clients.iter().all(|client| client["id"] != *id)
    })
    .await;
    for wrong in [format!("KILL_CLIENT {id}"), "KILL_CLIENT 0x7f".into()] {
        assert_eq!(admin.query(&wrong).await, "E[08P01 client not found] Z[I]", "{wrong}");
    }
}

#[tokio::test]
async fn a_database_is_disabled_killed_and_reconnected_by_name() {
    let bench = bench().await;
    let mut admin = console(&bench).await;
    let name = bench.database.clone();
    let mut client = bench.client().await;
    let before = client.value("SELECT pg_backend_pid()").await;
    for command in [format!("RECONNECT {name}"), "RECONNECT".into()] {
        let tag = admin.query(&command).await;
        assert_eq!(tag, "C[RECONNECT] Z[I]");
    }
    assert_eq!(admin.query(&format!("WAIT_CLOSE {name}")).await, "C[WAIT_CLOSE] Z[I]");
    assert_ne!(client.value("SELECT pg_backend_pid()").await, before);

    assert_eq!(admin.query(&format!("DISABLE {name}")).await, "C[DISABLE] Z[I]");
    assert_eq!(database(&mut admin, &name, "disabled").await, "1");
    assert!(Client::connect(bench.address, &name, &[]).await.is_err());
    assert_eq!(client.value("SELECT 1").await, "1", "who is there stays");
    assert_eq!(admin.query(&format!("ENABLE {name}")).await, "C[ENABLE] Z[I]");
    assert_eq!(database(&mut admin, &name, "disabled").await, "0");

    assert_eq!(admin.query(&format!("KILL {name}")).await, "C[KILL] Z[I]");
    assert_eq!(field(&client.until_tag(b'E').await[0], b'C'), "57P01");
    assert_eq!(database(&mut admin, &name, "paused").await, "1");
    assert_eq!(admin.query(&format!("RESUME {name}")).await, "C[RESUME] Z[I]");
}

#[tokio::test]
async fn commands_are_refused_in_pgbouncers_words() {
    let bench = bench().await;
    let mut admin = console(&bench).await;
    for (command, told) in [
        ("PAUSE pgbouncer", "cannot pause admin db: pgbouncer"),
        ("KILL forebay", "cannot kill admin db: forebay"),
        ("DISABLE", "a database is required"),
        ("ENABLE", "a database is required"),
        ("KILL_CLIENT 999999", "client not found"),
    ] {
        assert_eq!(admin.query(command).await, format!("E[08P01 {told}] Z[I]"), "{command}");
    }
    assert_eq!(state(&mut admin).await, "active");
}

/// Nobody can come in to end it.
#[tokio::test]
async fn a_suspension_ends_with_the_console_that_asked_for_it() {
    let bench = bench().await;
    let (mut suspending, mut other) = (console(&bench).await, console(&bench).await);
    let mut client = bench.client().await;
    assert_eq!(suspending.query("SUSPEND").await, "C[SUSPEND] Z[I]");
    assert_eq!(state(&mut other).await, "suspended");
    client.send(&query("SELECT 1")).await;
    assert!(client.is_silent().await, "nothing is read");
    assert_eq!(other.query("SUSPEND").await, "E[08P01 already suspended/paused] Z[I]");
    drop(suspending);
    assert_eq!(show(&client.until_ready(1).await), "T D[1] C[SELECT 1] Z[I]");
    assert_eq!(state(&mut other).await, "active");
}

#[tokio::test]
async fn databases_and_users_show_the_sizes_that_are_in_force() {
    let bench = Bench::with(9, |settings| {
        operators(settings);
        settings.pool_size = Some(4);
        settings.reserve_pool_size = 2;
        settings.max_database_connections = 7;
        settings.max_user_client_connections = 50;
    })
    .await;
    let mut admin = console(&bench).await;
    let mut client = bench.client().await;
    client.query("SELECT 1").await;
    let databases = rows(&mut admin, "SHOW DATABASES").await;
    let own = databases.iter().find(|row| row["name"] == bench.database).unwrap();
    let shown = [
        "pool_size",
        "min_pool_size",
        "reserve_pool_size",
        "max_connections",
        "current_connections",
        "max_client_connections",
        "current_client_connections",
        "paused",
        "disabled",
    ]
    .map(|name| &*own[name]);
    assert_eq!(shown, ["4", "0", "2", "7", "1", "0", "1", "0", "0"]);
    let users = rows(&mut admin, "SHOW USERS").await;
    let own = users.iter().find(|row| row["name"] == USER).unwrap();
    let shown = ["current_connections", "max_user_client_connections"].map(|name| &*own[name]);
    assert_eq!(shown, ["1", "50"]);
}
