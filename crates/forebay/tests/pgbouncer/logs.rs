//! What stands in the log, for the tools that read PgBouncer's.

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
        " WARNING C-0x0: (nodb)/(nouser)@127.0.0.1:",
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
