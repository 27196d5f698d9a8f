//! What stands in the log, for the tools that read PgBouncer's.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::bench::{Folder, Running, psql};

fn with(folder: &Folder, more: &str) -> Running {
    let ini = std::fs::read_to_string(folder.path("minimal.ini")).unwrap();
    folder.write("l.ini", &format!("{ini}admin_users = forebay\nstats_period = 1\n{more}"));
    let running = folder.run(&["pgbouncer", "l.ini"]);
    running.logged("Forebay listens");
    running
}

fn work(folder: &Folder) {
    assert!(psql(&folder.to("postgres", "forebay"), "SELECT 1").status.success());
    assert!(!psql(&folder.to("nowhere", "forebay"), "SELECT 1").status.success());
    assert!(psql(&folder.to("pgbouncer", "forebay"), "RECONNECT; WAIT_CLOSE").status.success());
}

#[test]
fn who_comes_and_goes_and_what_was_done_is_logged_as_pgbouncer_does() {
    let folder = Folder::new();
    let running = with(&folder, "");
    work(&folder);
    for line in [
        "login attempt: db=postgres user=forebay tls=no replication=no",
        ": postgres/forebay@127.0.0.1:",
        " new connection to server (from 127.0.0.1:",
        " closing because: client close request (age=0s)",
        " WARNING C-0x0: nowhere/forebay@127.0.0.1:",
        " closing because: database \"nowhere\" does not exist (age=0s)",
        " pooler error: database \"nowhere\" does not exist",
        " LOG stats: ",
        " us, wait ",
        " login attempt: db=pgbouncer user=forebay tls=no replication=no",
    ] {
        running.logged(line);
    }
    let said = folder.said();
    let server = said.lines().find(|line| line.contains(" LOG S-0x")).unwrap();
    let ended = "closing because: not needed (age=0s)";
    assert!(said.lines().any(|line| line.contains("S-0x") && line.contains(ended)), "{server}");
}

#[test]
fn what_is_not_wanted_in_the_log_is_not_there() {
    let folder = Folder::new();
    let quiet =
        "log_connections = 0\nlog_disconnections = 0\nlog_pooler_errors = 0\nlog_stats = 0\n";
    let running = with(&folder, quiet);
    work(&folder);
    let admin = folder.to("pgbouncer", "forebay");
    assert!(psql(&admin, "SET log_stats = 1").status.success());
    running.logged(" LOG stats: ");
    for line in ["login attempt", "new connection", "closing because", "pooler error"] {
        assert!(!folder.said().contains(line), "{line}: {}", folder.said());
    }
}

#[test]
fn connections_end_for_the_reasons_that_pgbouncer_gives() {
    let folder = Folder::new();
    let limits = "server_idle_timeout = 1\nquery_wait_timeout = 1\nclient_login_timeout = 1\n\
                  idle_transaction_timeout = 1\nmax_client_conn = 3\n";
    let running = with(&folder, limits);
    let address = (std::net::Ipv4Addr::LOCALHOST, folder.port);
    let silent = TcpStream::connect(address).unwrap();
    let log_in = || {
        let mut client = TcpStream::connect(address).unwrap();
        let hello = b"\0\x03\0\0user\0forebay\0database\0postgres\0\0";
        let length = u32::try_from(hello.len() + 4).unwrap().to_be_bytes();
        client.write_all(&[&length[..], hello].concat()).unwrap();
        let mut said = Vec::new();
        while !said.ends_with(b"Z\0\0\0\x05I") {
            let mut some = [0; 4096];
            let n = client.read(&mut some).unwrap();
            assert!(n > 0, "sent away");
            said.extend_from_slice(&some[..n]);
        }
        client
    };
    let mut idler = log_in();
    idler.write_all(b"Q\0\0\0\x13BEGIN;SELECT 1\0").unwrap();
    let mut lost = log_in();
    lost.write_all(b"Q\0\0\0\x0dSELECT 1\0").unwrap();
    let beyond = psql(&folder.to("postgres", "forebay"), "SELECT 1");
    assert!(!beyond.status.success());
    // Its answer is unread, so the kernel resets the connection.
    assert_eq!(lost.peek(&mut [0]).unwrap(), 1);
    drop(lost);
    for reason in [
        "client unexpected eof",
        "client_login_timeout",
        "idle transaction timeout",
        "no more connections allowed (max_client_conn)",
        "server idle timeout",
    ] {
        running.logged(&format!(" closing because: {reason} (age="));
    }
    running.logged(" pooler error: idle transaction timeout\n");
    drop((silent, idler));
}
