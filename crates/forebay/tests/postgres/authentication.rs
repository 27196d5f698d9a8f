//! Who gets in: each method, with and without TLS on either side, from each kind of look-up,
//! with the right password, a wrong one, an expired one, and that of nobody.

use forebay_postgres::PostgresSettings;
use forebay_postgres::settings::{AuthQuerySettings, ClientAuth, SslMode};
use tokio_postgres::config::ChannelBinding as Wanted;

use crate::bench::Bench;
use crate::guarded::{
    ANN, ASKER, ASLEEP, BOB, EXPIRED, Guarded, RIGHT, Way, guarded, listed, log_in, log_in_bound,
};

/// From where a user's secret is known, and what that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Listed(Kind),
    InFile(Kind),
    ByQuery(Kind),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Password,
    Md5,
    Scram,
}

impl Known {
    const ALL: [Self; 8] = [
        Self::Listed(Kind::Password),
        Self::Listed(Kind::Md5),
        Self::Listed(Kind::Scram),
        Self::InFile(Kind::Password),
        Self::InFile(Kind::Md5),
        Self::InFile(Kind::Scram),
        Self::ByQuery(Kind::Md5),
        Self::ByQuery(Kind::Scram),
    ];

    fn kind(self) -> Kind {
        match self {
            Self::Listed(kind) | Self::InFile(kind) | Self::ByQuery(kind) => kind,
        }
    }

    /// Whose secret is of this kind.
    fn user(self) -> &'static str {
        if self.kind() == Kind::Md5 { BOB } else { ANN }
    }

    fn set(self, server: &Guarded, settings: &mut PostgresSettings) {
        let user = self.user();
        let secret = match self.kind() {
            Kind::Password => RIGHT,
            Kind::Md5 | Kind::Scram => &server.stored[user],
        };
        match self {
            Self::Listed(_) => listed(settings, user, secret),
            Self::InFile(kind) => {
                let list = format!("; users\n\"{user}\" \"{secret}\"\n");
                let file = server.file(&format!("users-{kind:?}.txt"), &list);
                settings.users_file = Some(file);
            }
            Self::ByQuery(_) => settings.auth_query = Some(auth_query()),
        }
    }
}

pub(crate) fn auth_query() -> AuthQuerySettings {
    let settings = serde_json::json!({ "user": ASKER, "password": RIGHT });
    serde_json::from_value(settings).unwrap()
}

fn server_tls(settings: &mut PostgresSettings, mode: SslMode) {
    for server in settings.servers.values_mut() {
        server.sslmode = mode;
    }
}

/// What a login with the right password comes to.
fn verdict(method: ClientAuth, kind: Kind, way: &Way) -> Option<&'static str> {
    match (method, kind, way) {
        (ClientAuth::Password, _, Way::Plain) => Some("28000"),
        // Of an MD5 hash nobody can make a verifier.
        (ClientAuth::ScramSha256, Kind::Md5, _) => Some("28P01"),
        _ => None,
    }
}

/// Who cannot get in is told the same, after the same work, whoever it says it is.
async fn is_told_the_same(bench: &Bench, way: &Way, known: Known, because: &str) {
    let others: &[(&str, &str)] = match known {
        Known::ByQuery(_) => &[("nobody", RIGHT), (EXPIRED, RIGHT), (ASLEEP, RIGHT)],
        Known::Listed(_) | Known::InFile(_) => &[("nobody", RIGHT)],
    };
    let wrong = [(known.user(), "wrong")];
    let mut work = Vec::new();
    for (user, password) in wrong.iter().chain(others) {
        let before = bench.gateway.snapshot().hash_iterations;
        let (code, said) = log_in(bench, way, user, password).await.err().unwrap();
        let expected = format!("password authentication failed for user \"{user}\"");
        assert_eq!((&*code, &*said), ("28P01", &*expected), "{because}");
        work.push(bench.gateway.snapshot().hash_iterations - before);
    }
    assert!(work.iter().all(|n| *n == work[0]), "{because}: {work:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_right_password_gets_in_and_every_other_is_told_the_same() {
    let server = guarded().await;
    let methods = [ClientAuth::Password, ClientAuth::Md5, ClientAuth::ScramSha256];
    for method in methods {
        for known in Known::ALL {
            for mode in [SslMode::Disable, SslMode::Require] {
                let bench = server.gateway(method, |settings| {
                    known.set(server, settings);
                    server_tls(settings, mode);
                });
                for way in [Way::Plain, server.tls()] {
                    let because = format!("{method:?}, {known:?}, {mode:?}, {way:?}");
                    meet(&bench, method, known, &way, &because).await;
                }
            }
        }
    }
}

/// The right password, a second time, and then everything else.
async fn meet(bench: &Bench, method: ClientAuth, known: Known, way: &Way, because: &str) {
    let verdict = verdict(method, known.kind(), way);
    for _ in 0..2 {
        let result = log_in(bench, way, known.user(), RIGHT).await;
        match (verdict, result) {
            (None, Ok(client)) => {
                let row = client.query_one("SELECT current_user::text", &[]).await.unwrap();
                assert_eq!(row.get::<_, String>(0), known.user(), "{because}");
            }
            (Some(code), Err((told, _))) => assert_eq!(told, code, "{because}"),
            (_, result) => panic!("{because}: {:?}", result.err()),
        }
    }
    if verdict != Some("28000") {
        is_told_the_same(bench, way, known, because).await;
    }
}

#[tokio::test]
async fn a_login_is_bound_to_its_tls_session_and_nobody_can_stand_between() {
    let server = guarded().await;
    let bench = server.gateway(ClientAuth::ScramSha256, |s| listed(s, ANN, &server.stored[ANN]));
    let log_in = async |way: &Way, wanted| log_in_bound(&bench, way, ANN, RIGHT, wanted).await;
    let binding = server.tls();
    drop(log_in(&binding, Wanted::Require).await.unwrap());
    drop(log_in(&binding, Wanted::Disable).await.unwrap());
    // Without TLS there is nothing to bind to, and nothing else is claimed.
    let unbound = log_in(&Way::Plain, Wanted::Require).await.err().unwrap();
    assert_eq!(unbound.0, "driver");
    drop(log_in(&Way::Plain, Wanted::Prefer).await.unwrap());
    // Who stands between has another certificate.
    let (code, said) = log_in(&Way::Tls(vec![7; 32]), Wanted::Require).await.err().unwrap();
    assert_eq!((&*code, &*said), ("28000", "SCRAM channel binding check failed"));
}

#[tokio::test]
async fn a_stored_verifier_is_enough_to_log_in_to_the_server() {
    let server = guarded().await;
    let bench = server.gateway(ClientAuth::ScramSha256, |s| listed(s, ANN, &server.stored[ANN]));
    let first = log_in(&bench, &Way::Plain, ANN, RIGHT).await.unwrap();
    let second = log_in(&bench, &Way::Plain, ANN, RIGHT).await.unwrap();
    // Two at once are two server connections: the keys serve again.
    let sleep = "SELECT pg_sleep(0.2)";
    let (one, two) = tokio::join!(first.batch_execute(sleep), second.batch_execute(sleep));
    assert!(one.is_ok() && two.is_ok());
}

#[tokio::test]
async fn a_changed_password_counts_at_once_and_the_old_one_no_more() {
    let server = guarded().await;
    let admin = server.admin().await;
    admin.batch_execute("CREATE ROLE carol LOGIN PASSWORD 'one'").await.unwrap();
    let bench = server.gateway(ClientAuth::ScramSha256, |s| s.auth_query = Some(auth_query()));
    let log_in = async |password: &str| log_in(&bench, &Way::Plain, "carol", password).await;
    drop(log_in("one").await.unwrap());
    admin.batch_execute("ALTER ROLE carol PASSWORD 'two'").await.unwrap();
    let client = log_in("two").await.unwrap();
    client.batch_execute("SELECT 1").await.unwrap();
    assert_eq!(log_in("one").await.err().unwrap().0, "28P01");
    admin.batch_execute("ALTER ROLE carol VALID UNTIL '2001-01-01'").await.unwrap();
    assert_eq!(log_in("two").await.err().unwrap().0, "28P01");
    admin.batch_execute("ALTER ROLE carol VALID UNTIL 'infinity'").await.unwrap();
    drop(log_in("two").await.unwrap());
}

#[tokio::test]
async fn trap_48_a_look_up_knows_nothing_of_what_its_client_says() {
    let server = guarded().await;
    let admin = server.admin().await;
    // An operator that shows who called it, and a table that pretends to be the catalogue.
    admin
        .batch_execute(
            "CREATE SCHEMA hostile; GRANT USAGE ON SCHEMA hostile TO PUBLIC; \
             CREATE TABLE hostile.called (by text); GRANT ALL ON hostile.called TO PUBLIC; \
             CREATE FUNCTION hostile.same(name, text) RETURNS bool LANGUAGE plpgsql AS \
             'BEGIN INSERT INTO hostile.called VALUES (current_user); RETURN true; END'; \
             CREATE OPERATOR hostile.= \
             (LEFTARG = name, RIGHTARG = text, PROCEDURE = hostile.same); \
             CREATE VIEW hostile.pg_authid AS SELECT 'nobody'::name AS rolname, \
             null::timestamptz AS rolvaliduntil, 'guess'::text AS rolpassword, \
             true AS rolcanlogin; GRANT ALL ON hostile.pg_authid TO PUBLIC",
        )
        .await
        .unwrap();
    let mut query = auth_query();
    query.query = "SELECT rolname, rolpassword FROM pg_authid WHERE rolname = $1".into();
    for query in [auth_query(), query] {
        let bench = server.gateway(ClientAuth::ScramSha256, |s| s.auth_query = Some(query));
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(bench.address.port()).dbname("postgres");
        config.options("-c search_path=hostile,pg_catalog -c role=asker");
        for (user, password) in [("nobody", "guess"), (ANN, "guess")] {
            let refused = config.user(user).password(password).connect(tokio_postgres::NoTls);
            let refused = refused.await.err().unwrap();
            assert_eq!(refused.code().unwrap().code(), "28P01");
        }
    }
    let called = admin.query_one("SELECT count(*) FROM hostile.called", &[]).await.unwrap();
    assert_eq!(called.get::<_, i64>(0), 0);
}

#[tokio::test]
async fn an_unknown_user_is_nobody_and_not_who_looks_users_up() {
    let server = guarded().await;
    let bench = server.gateway(ClientAuth::Trust, |s| s.auth_query = Some(auth_query()));
    let refused = log_in(&bench, &Way::Plain, "nobody", "").await.err().unwrap();
    assert_eq!(refused.0, "28P01");
    // Who is trusted still has nothing that the server would believe.
    let known = log_in(&bench, &Way::Plain, ANN, "").await.err().unwrap();
    assert_ne!(known.0, "28P01");
}

#[tokio::test]
async fn trap_45_a_password_may_have_64_kib() {
    let server = guarded().await;
    let long = "x".repeat(65_000);
    let bench = server.gateway(ClientAuth::Password, |settings| {
        settings.cleartext_without_tls = true;
        listed(settings, ANN, RIGHT);
    });
    let refused = log_in(&bench, &Way::Plain, ANN, &long).await.err().unwrap();
    assert_eq!(refused.0, "28P01");
    let refused = log_in(&bench, &Way::Plain, ANN, &"x".repeat(70_000)).await.err().unwrap();
    assert_eq!(refused.0, "54000");
}
