//! One test for each file: it runs, psql is served, and so it is with what `forebay migrate`
//! made of it.

use std::process::Output;

use crate::bench::{Folder, cluster, psql};

const WHO: &str = "SELECT current_user || '@' || current_database()";

/// Runs `file` as PgBouncer's, then what it was migrated to, and looks at both with `look`.
pub(crate) fn both(folder: &Folder, file: &str, look: impl Fn()) {
    let running = folder.run(&["pgbouncer", file]);
    look();
    drop(running);
    let migrated = folder.forebay(&["migrate", file, "-o", "out.toml"]);
    assert!(migrated.status.success(), "{migrated:?}");
    let checked = folder.forebay(&["check", "out.toml"]);
    assert!(checked.status.success(), "{checked:?}");
    let running = folder.run(&["run", "out.toml"]);
    look();
    drop(running);
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
        + String::from_utf8_lossy(&output.stderr).trim()
}

/// psql's answer to [`WHO`].
pub(crate) fn who(to: &str) -> String {
    text(&psql(to, WHO))
}

#[test]
fn the_smallest_file_runs() {
    let folder = Folder::new();
    both(&folder, "minimal.ini", || {
        assert_eq!(who(&folder.to("postgres", "forebay")), "forebay@postgres");
        let socket = folder.path("");
        let socket =
            format!("host={} port={} user=forebay dbname=postgres", socket.display(), folder.port);
        assert_eq!(who(&socket), "forebay@postgres");
        assert!(who(&folder.to("other", "forebay")).contains("database \"other\" does not exist"));
    });
}

#[test]
fn a_star_stands_for_every_database() {
    let folder = Folder::new();
    both(&folder, "star.ini", || {
        assert_eq!(who(&folder.to("postgres", "whoever")), "forebay@postgres");
        assert_eq!(who(&folder.to("template1", "else")), "forebay@template1");
    });
}

#[test]
fn files_that_include_others_run() {
    let folder = Folder::new();
    both(&folder, "include.ini", || {
        assert_eq!(who(&folder.to("postgres", "forebay")), "forebay@postgres");
    });
}

#[test]
fn tls_towards_clients_is_asked_for_where_the_file_does() {
    let folder = Folder::new();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    folder.write("server.crt", &made.cert.pem());
    folder.write("server.key", &made.signing_key.serialize_pem());
    both(&folder, "tls.ini", || {
        let to = folder.to("postgres", "forebay");
        assert_eq!(who(&format!("{to} sslmode=require")), "forebay@postgres");
        assert!(who(&format!("{to} sslmode=disable")).contains("encrypted connections only"));
    });
}

#[test]
fn odd_quoting_reads_as_pgbouncer_reads_it() {
    let direct = format!("host=127.0.0.1 port={} user=forebay dbname=postgres", cluster().port());
    let made = psql(&direct, "CREATE DATABASE \"post'gres\"");
    assert!(made.status.success(), "{made:?}");
    let folder = Folder::new();
    both(&folder, "quoting.ini", || {
        assert_eq!(who(&folder.to("it.is-fine", "someuser")), "forebay@post'gres");
    });
}

#[test]
fn users_may_have_settings_of_their_own() {
    let folder = Folder::new();
    both(&folder, "users.ini", || {
        assert_eq!(who(&folder.to("postgres", "forebay")), "forebay@postgres");
        assert_eq!(who(&folder.to("postgres", "someuser")), "someuser@postgres");
    });
}

#[test]
fn lines_of_databases_may_say_what_sessions_begin_with() {
    let folder = Folder::new();
    let shown = "SELECT concat_ws('|', current_setting('timezone'), current_setting('datestyle'), \
                 current_setting('client_encoding'))";
    both(&folder, "include.ini", || {
        let to = folder.to("postgres", "forebay");
        let begun = psql(&to, shown);
        assert_eq!(text(&begun), "Asia/Tokyo|SQL, DMY|LATIN1");
        // Whoever asks for something else has that.
        let asked = psql(&format!("{to} options='-c timezone=Europe/Rome'"), shown);
        assert_eq!(text(&asked), "Europe/Rome|SQL, DMY|LATIN1");
    });
}

#[test]
fn an_application_is_called_with_its_address_where_the_file_says_so() {
    let folder = Folder::new();
    both(&folder, "chart.ini", || {
        let to = folder.to("postgres", "forebay");
        let called = psql(&to, "SHOW application_name");
        assert!(text(&called).starts_with("psql - 127.0.0.1:"), "{called:?}");
    });
}

#[test]
fn a_file_with_peers_runs() {
    let folder = Folder::new();
    both(&folder, "peers.ini", || {
        assert_eq!(who(&folder.to("postgres", "forebay")), "forebay@postgres");
    });
}

#[test]
fn a_file_for_pgbouncer_1_8_runs() {
    let folder = Folder::new();
    both(&folder, "old.ini", || {
        assert_eq!(who(&folder.to("postgres", "forebay")), "forebay@postgres");
    });
}

#[test]
fn a_file_of_a_chart_runs() {
    let folder = Folder::new();
    both(&folder, "chart.ini", || {
        assert_eq!(who(&folder.to("postgres", "someuser")), "forebay@postgres");
        assert_eq!(who(&folder.to("template1", "forebay")), "forebay@template1");
    });
}

#[test]
fn all_mistakes_of_a_file_are_told_and_no_password() {
    let folder = Folder::new();
    let refused = folder.forebay(&["pgbouncer", "errors.ini"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = text(&refused);
    for place in [2, 3, 7, 8, 9, 10] {
        assert!(said.contains(&format!("errors.ini:{place}: ")), "{said}");
    }
    assert!(!said.contains("hunter2"), "{said}");
    assert_eq!(text(&folder.forebay(&["migrate", "errors.ini"])), said);
}
