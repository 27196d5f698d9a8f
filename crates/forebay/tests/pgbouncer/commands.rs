//! The command around the file: background, pidfile, signals, log.

use std::fs;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::bench::{Folder, cluster, psql, until};

#[test]
fn in_the_background_it_has_a_pidfile_and_a_log_and_ends_when_its_clients_have_left() {
    let folder = Folder::new();
    let started = folder.forebay(&["pgbouncer", "-d", "chart.ini"]);
    assert!(started.status.success(), "{started:?}");
    let pid = fs::read_to_string(folder.path("pgbouncer.pid")).unwrap();
    let pid = Pid::from_raw(pid.trim().parse().unwrap());
    assert!(psql(&folder.to("postgres", "forebay"), "SELECT 1").status.success());
    let second = folder.forebay(&["pgbouncer", "-d", "chart.ini"]);
    assert_eq!(second.status.code(), Some(1), "{second:?}");
    kill(pid, Signal::SIGTERM).unwrap();
    until(|| kill(pid, None) == Err(Errno::ESRCH));
    assert!(!folder.path("pgbouncer.pid").exists());
    let log = fs::read_to_string(folder.path("pgbouncer.log")).unwrap();
    assert!(log.contains(&format!(" [{pid}] LOG Forebay listens")), "{log}");
}

#[test]
fn without_a_pidfile_it_does_not_go_into_the_background() {
    let folder = Folder::new();
    let refused = folder.forebay(&["pgbouncer", "-d", "minimal.ini"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("needs a `pidfile`"));
}

#[test]
fn sigterm_waits_for_clients_sigquit_for_nobody() {
    let folder = Folder::new();
    let mut running = folder.run(&["pgbouncer", "minimal.ini"]);
    let to = folder.to("postgres", "forebay");
    let client = std::thread::spawn(move || psql(&to, "SELECT 1; SELECT pg_sleep(1); SELECT 2"));
    running.logged("Forebay listens");
    let server = format!("host=127.0.0.1 port={} user=forebay dbname=postgres", cluster().port());
    let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(1)' \
                  AND state = 'active'";
    until(|| String::from_utf8_lossy(&psql(&server, sleeps).stdout).trim() == "1");
    running.signal(Signal::SIGTERM);
    running.logged("waiting for all clients to leave");
    let answered = client.join().unwrap();
    assert_eq!(String::from_utf8_lossy(&answered.stdout).trim(), "1\n\n2", "{answered:?}");
    assert_eq!(running.wait(), Some(0));
    let mut running = folder.run(&["pgbouncer", "minimal.ini"]);
    running.signal(Signal::SIGQUIT);
    assert_eq!(running.wait(), Some(0));
}

#[test]
fn an_overlay_brings_what_pgbouncer_has_no_words_for() {
    let folder = Folder::new();
    folder.write(
        "more.toml",
        "[postgres.servers.\"127.0.0.1-@SERVER@\".classes.batch]\nceiling = 2\n",
    );
    let ini = fs::read_to_string(folder.path("minimal.ini")).unwrap();
    folder.write("more.ini", &format!("{ini}\n[forebay]\noverlay = more.toml\n"));
    drop(folder.run(&["pgbouncer", "more.ini"]));
    drop(folder.run(&["pgbouncer", "--forebay", "more.toml", "minimal.ini"]));
    folder.write("more.toml", "[postgres]\nno_such_key = 1\n");
    let refused = folder.forebay(&["pgbouncer", "more.ini"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no_such_key"), "{refused:?}");
}
