//! Who gets in by rules, names and files: HBA lines, client certificates, processes of this
//! machine; and that nothing secret is shown on the way.

use std::fmt::Write as _;

use forebay_postgres::settings::{ClientAuth, UserSettings};
use forebay_seam::net::{Permissions, UnixListener};
use forebay_seam::task::Stopper;
use nix::unistd::{User, geteuid};

use crate::authentication::auth_query;
use crate::guarded::{ANN, BOB, RIGHT, Way, guarded, listed, log_in};

#[tokio::test]
async fn the_first_line_of_the_rules_that_fits_says_how() {
    let server = guarded().await;
    let rules = "# rules\n\
                 host all ann 127.0.0.1/32 scram-sha-256\n\
                 hostssl all bob samehost md5\n\
                 host all carol all ldap ldapserver=x\n\
                 host \"postgres\" dora all reject\n\
                 host all eve 10.0.0.0/8 trust\n";
    let bench = server.gateway(ClientAuth::Hba, |settings| {
        settings.hba_file = Some(server.file("rules.conf", rules));
        settings.auth_query = Some(auth_query());
    });
    let tls = server.tls();
    drop(log_in(&bench, &Way::Plain, ANN, RIGHT).await.unwrap());
    drop(log_in(&bench, &tls, BOB, RIGHT).await.unwrap());
    let refused =
        async |way: &Way, user: &str| log_in(&bench, way, user, RIGHT).await.err().unwrap();
    let (code, said) = refused(&Way::Plain, BOB).await;
    let expected = "no pg_hba.conf entry for host \"127.0.0.1\", user \"bob\", \
                    database \"postgres\", no encryption";
    assert_eq!((&*code, &*said), ("28000", expected));
    let (code, said) = refused(&tls, "dora").await;
    assert_eq!(code, "28000");
    assert!(said.starts_with("pg_hba.conf rejects") && said.ends_with("SSL encryption"), "{said}");
    assert_eq!(refused(&tls, "carol").await.0, "28000");
    assert_eq!(refused(&tls, "eve").await.0, "28000");
}

#[tokio::test]
async fn rules_that_are_wrong_are_told_with_file_and_line() {
    let server = guarded().await;
    let rules = server.file("wrong.conf", "host all all all md5\nhost all all all magic\n");
    let mut settings = forebay_postgres::PostgresSettings::default();
    settings.servers = crate::bench::settings(server.address(), 1).servers;
    settings.auth = ClientAuth::Hba;
    let found = |settings: &forebay_postgres::PostgresSettings| {
        forebay_postgres::Gateway::check(settings).swap_remove(0)
    };
    let missing = found(&settings);
    assert_eq!(missing.at, "postgres.hba_file");
    settings.hba_file = Some(rules.clone());
    let wrong = found(&settings).to_string();
    assert!(wrong.contains(&format!("{}, line 2: `magic`", rules.display())), "{wrong}");
    settings.auth = ClientAuth::ScramSha256;
    settings.users_file = Some(server.file("wrong.txt", "\"ann\" \"hunter2\"\n\"bob\" hunter3\n"));
    let wrong = found(&settings).to_string();
    assert!(wrong.contains("line 2") && !wrong.contains("hunter"), "{wrong}");
}

#[tokio::test]
async fn rules_and_lists_are_read_again_at_a_reload() {
    let server = guarded().await;
    let list = |secret: &str| server.file("reloaded.txt", &format!("\"ann\" \"{secret}\"\n"));
    let rules =
        |method: &str| server.file("reloaded.conf", &format!("host all all all {method}\n"));
    let mut kept = None;
    let bench = server.gateway(ClientAuth::Hba, |settings| {
        settings.users_file = Some(list("one"));
        settings.hba_file = Some(rules("scram-sha-256"));
        kept = Some(settings.clone());
    });
    let kept = kept.unwrap();
    let log_in = async |password: &str| {
        let told = log_in(&bench, &Way::Plain, ANN, password).await;
        told.err().map(|(code, _)| code)
    };
    assert_eq!(log_in("two").await.as_deref(), Some("28P01"));
    list("two");
    bench.gateway.apply(kept.clone(), None).unwrap();
    // Right for us; the server has another one.
    assert_ne!(log_in("two").await.as_deref(), Some("28000"));
    assert_eq!(log_in("one").await.as_deref(), Some("28P01"));
    rules("reject");
    bench.gateway.apply(kept.clone(), None).unwrap();
    assert_eq!(log_in("two").await.as_deref(), Some("28000"));
    // A file that is wrong changes nothing.
    rules("magic");
    assert!(bench.gateway.apply(kept, None).is_err());
    assert_eq!(log_in("two").await.as_deref(), Some("28000"));
}

#[tokio::test]
async fn a_certificate_is_who_it_names_or_who_the_map_says() {
    let server = guarded().await;
    let maps = "mail /^(.*)@example\\.com$ \\1\n";
    let rules = "hostssl all ann all cert\n\
                 hostssl all bob all cert map=mail\n\
                 hostssl all all all scram-sha-256 clientcert=verify-full\n";
    let bench = server.gateway(ClientAuth::Hba, |settings| {
        settings.hba_file = Some(server.file("certificates.conf", rules));
        settings.ident_file = Some(server.file("maps.conf", maps));
        settings.tls.as_mut().unwrap().ca_file = Some(server.authority());
        listed(settings, ANN, RIGHT);
        listed(settings, BOB, RIGHT);
        listed(settings, "expired", RIGHT);
    });
    let come = async |named: Option<&str>, user: &str, password: &str| {
        let way = server.with_certificate(named);
        log_in(&bench, &way, user, password).await.map_err(|(code, _)| code)
    };
    let ann = come(Some(ANN), ANN, "").await.unwrap();
    ann.batch_execute("SELECT 1").await.unwrap();
    drop(come(Some("bob@example.com"), BOB, "").await.unwrap());
    for (named, user) in [("ann@example.com", ANN), (BOB, BOB), ("ann@example.com", BOB)] {
        assert_eq!(come(Some(named), user, RIGHT).await.err().unwrap(), "28000", "{named}");
    }
    assert_eq!(come(None, ANN, RIGHT).await.err().unwrap(), "28000");
    // Two proofs: the certificate, and the password.
    assert_eq!(come(Some("expired"), "expired", "wrong").await.err().unwrap(), "28P01");
    assert_eq!(come(Some(ANN), "expired", RIGHT).await.err().unwrap(), "28000");
}

#[tokio::test]
async fn a_process_of_this_machine_is_who_runs_it() {
    let server = guarded().await;
    let me = User::from_uid(geteuid()).unwrap().unwrap().name;
    let maps = format!("peer {me} {ANN}\n");
    let bench = server.gateway(ClientAuth::Peer, |settings| {
        settings.ident_file = Some(server.file("peers.conf", &maps));
        listed(settings, ANN, RIGHT);
        listed(settings, BOB, RIGHT);
    });
    let folder = tempfile::tempdir().unwrap();
    let permissions = Permissions { mode: 0o700, group: None };
    let socket = folder.path().join(".s.PGSQL.6432");
    let listener = UnixListener::bind(&socket, &permissions).unwrap();
    let (_stopper, stop) = Stopper::new();
    let serving = bench.gateway.clone();
    drop(tokio::spawn(async move { serving.serve(listener, stop).await }));
    let mut config = tokio_postgres::Config::new();
    config.host_path(folder.path()).port(6432).dbname("postgres");
    let (ann, connection) = config.user(ANN).connect(tokio_postgres::NoTls).await.unwrap();
    drop(tokio::spawn(connection));
    ann.batch_execute("SELECT 1").await.unwrap();
    let refused = config.user(BOB).connect(tokio_postgres::NoTls).await.err().unwrap();
    assert_eq!(refused.code().unwrap().code(), "28000");
    // Over the network there is no such process.
    assert_eq!(log_in(&bench, &Way::Plain, ANN, "").await.err().unwrap().0, "28000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psql_logs_in_by_every_method() {
    let server = guarded().await;
    let Ok(psql) = which_psql() else { return };
    for (auth, way) in [
        (ClientAuth::ScramSha256, "require"),
        (ClientAuth::ScramSha256, "disable"),
        (ClientAuth::Md5, "disable"),
        (ClientAuth::Password, "require"),
    ] {
        let bench = server.gateway(auth, |settings| listed(settings, ANN, RIGHT));
        let mut dsn = String::new();
        let port = bench.address.port();
        write!(dsn, "host=127.0.0.1 port={port} user={ANN} dbname=postgres sslmode={way}").unwrap();
        let mut command = tokio::process::Command::new(&psql);
        command.args(["-X", "-A", "-t", "-c", "SELECT current_user", &dsn]);
        command.env("PGPASSWORD", RIGHT);
        let output = command.output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(said, ANN, "{auth:?}, {way}: {errors}");
    }
}

fn which_psql() -> Result<std::path::PathBuf, std::env::VarError> {
    let path = std::env::var("PATH")?;
    let found = std::env::split_paths(&path).map(|folder| folder.join("psql")).find(|p| p.exists());
    found.ok_or(std::env::VarError::NotPresent)
}

/// As people do it: on the server first, then in the configuration.
#[tokio::test]
async fn a_password_that_is_changed_on_the_server_and_then_here_costs_nobody_anything() {
    let server = guarded().await;
    let admin = server.admin().await;
    admin.batch_execute("CREATE ROLE rotated LOGIN PASSWORD 'old one'").await.unwrap();
    let mut bench = server.gateway(ClientAuth::Trust, |settings| {
        let proves = |password| Some(forebay_seam::secret::SecretRef::new(password));
        let user = UserSettings { server_password: proves("old one"), ..UserSettings::default() };
        settings.users.insert("rotated".into(), user);
    });
    let client = log_in(&bench, &Way::Plain, "rotated", "").await.unwrap();
    let pid = async || client.query_one("SELECT pg_backend_pid()", &[]).await;
    let before: i32 = pid().await.unwrap().get(0);
    admin.batch_execute("ALTER ROLE rotated PASSWORD 'new one'").await.unwrap();
    assert_eq!(pid().await.unwrap().get::<_, i32>(0), before, "what is open stays open");
    bench
        .apply(|settings| {
            let user = settings.users.get_mut("rotated").unwrap();
            user.server_password = Some(forebay_seam::secret::SecretRef::new("new one"));
        })
        .await;
    bench.gateway.renew("main");
    crate::bench::until("it has another connection", async || {
        pid().await.unwrap().get::<_, i32>(0) != before
    })
    .await;
}
