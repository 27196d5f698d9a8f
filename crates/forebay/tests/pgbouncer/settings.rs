//! `SET key = value` and `SHOW CONFIG` at the console, for PgBouncer's own settings.

use std::process::Output;

use crate::bench::{Folder, psql};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
        + String::from_utf8_lossy(&output.stderr).trim()
}

#[test]
fn a_setting_that_was_set_at_the_console_counts_until_a_reload() {
    let folder = Folder::new();
    let ini = std::fs::read_to_string(folder.path("minimal.ini")).unwrap();
    folder.write("s.ini", &format!("{ini}admin_users = forebay\nstats_users = someuser\n"));
    let _running = folder.run(&["pgbouncer", "s.ini"]);
    let admin = folder.to("pgbouncer", "forebay");
    let shown = |key: &str| {
        let all = said(&psql(&admin, "SHOW CONFIG"));
        let line = all.lines().find(|line| line.starts_with(&format!("{key}|")));
        line.map(str::to_owned).unwrap_or(all)
    };
    let sleeps = || psql(&folder.to("postgres", "forebay"), "SELECT pg_sleep(0.4)");
    assert!(sleeps().status.success());

    assert!(psql(&admin, "SET query_timeout = '0.1'").status.success());
    assert_eq!(shown("query_timeout"), "query_timeout|0.1|0|yes");
    assert!(said(&sleeps()).contains("canceling"), "{:?}", sleeps());
    assert!(psql(&admin, "SET log_stats = 0; SET pool_mode TO Transaction").status.success());
    assert_eq!(shown("pool_mode"), "pool_mode|transaction|session|yes");
    assert_eq!(shown("query_timeout"), "query_timeout|0.1|0|yes", "one does not undo another");

    for (refused, why) in [
        ("SET listen_port = 1", "SET failed: `listen_port` counts at a start only"),
        ("SET foo = 1", "SET failed: PgBouncer has no setting `foo`"),
        ("SET max_client_conn = abc", "SET failed: max_client_conn: expected a whole number"),
        ("SET auth_type = pam", "SET failed: SET: auth_type: there is no `pam` here"),
    ] {
        let output = psql(&admin, refused);
        assert!(said(&output).contains(why), "{output:?}");
    }
    let looker = psql(&folder.to("pgbouncer", "someuser"), "SET query_timeout = 0");
    assert!(said(&looker).contains("admin access needed"), "{looker:?}");
    assert_eq!(shown("auth_type"), "auth_type|trust|md5|yes");
    assert_eq!(shown("unix_socket_mode"), "unix_socket_mode|511|0777|no");

    assert!(psql(&admin, "RELOAD").status.success());
    assert_eq!(shown("query_timeout"), "query_timeout|0|0|yes");
    assert!(sleeps().status.success());
}
