//! Secrets stay where they are: planted in the configuration, in files and in the environment,
//! they appear in no log line, page, metric or error, at the most talkative level.

use std::net::SocketAddr;
use std::process::Stdio;

use forebay_seam::secret::SecretString;
use tokio_postgres::NoTls;

use crate::running::{Running, ask, file, forebay, slow_service};

/// Each is planted in another place.
const INLINE: &str = "planted-inline-7f3a";
const IN_ENVIRONMENT: &str = "planted-environment-91bc";
const IN_FILE: &str = "planted-file-c2d4";
const IN_LIST: &str = "planted-list-5e88";
const OF_LOOKUP: &str = "planted-lookup-0a6e";
const OF_SERVICE: &str = "planted-service-44f1";
const MD5: &str = "md50123456789abcdeffedcba9876543210";
const STORED_KEY: &str = "cGxhbnRlZCBzdG9yZWQga2V5IG9mIDMyIGJ5dGVzISE=";
const SERVER_KEY: &str = "cGxhbnRlZCBzZXJ2ZXIga2V5IG9mIDMyIGJ5dGVzISE=";

fn planted() -> [&'static str; 10] {
    let hash = MD5.trim_start_matches("md5");
    let guess = "planted-guess-6b6b";
    [
        INLINE,
        IN_ENVIRONMENT,
        IN_FILE,
        IN_LIST,
        OF_LOOKUP,
        OF_SERVICE,
        hash,
        STORED_KEY,
        SERVER_KEY,
        guess,
    ]
}

fn finds_nothing_planted(place: &str, text: &str) {
    for secret in planted() {
        assert!(!text.contains(secret), "{secret} is in {place}:\n{text}");
    }
}

/// A login with a real driver; what came of it.
async fn log_in(server: SocketAddr, user: &str, password: &str) -> String {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(server.port()).user(user).password(password).dbname("d");
    match config.connect(NoTls).await {
        Ok(_) => "in".to_owned(),
        Err(error) => format!("{error} {error:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_secrets_appear_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name).display().to_string()
    };
    let verifier = format!("SCRAM-SHA-256$4096:c2FsdHNhbHQ=${STORED_KEY}:{SERVER_KEY}");
    let list = put("users.txt", &format!("\"listed\" \"{IN_LIST}\"\n\"old\" \"{MD5}\"\n"));
    let secret = put("secret", IN_FILE);
    let first = format!(
        "[postgres]\nlisten = \"127.0.0.1:0\"\nauth = \"password\"\n\
         cleartext_without_tls = true\nusers_file = \"{list}\"\n\
         [postgres.servers.main]\naddress = \"127.0.0.1:9\"\n\
         [postgres.users.inline]\npassword = \"{INLINE}\"\n\
         [postgres.users.environment]\npassword = \"env:FOREBAY_PLANTED\"\n\
         [postgres.users.file]\npassword = \"file:{secret}\"\n\
         [postgres.users.verifier]\npassword = \"{verifier}\"\n\
         [postgres.auth_query]\nuser = \"asker\"\npassword = \"{OF_LOOKUP}\"\n"
    );
    let service = slow_service();
    let more = format!("auth = {{ type = \"bearer\", secret = \"{OF_SERVICE}\" }}");
    let talkative = [("FOREBAY_LOG", "trace"), ("FOREBAY_PLANTED", IN_ENVIRONMENT)];
    let running = Running::talkative(&talkative, &first, service.address, &more);
    let mut told = String::new();
    for (user, password) in [
        ("inline", INLINE),
        ("environment", IN_ENVIRONMENT),
        ("file", IN_FILE),
        ("listed", IN_LIST),
        ("old", "planted-guess-6b6b"),
        ("verifier", "planted-guess-6b6b"),
        ("nobody", "planted-guess-6b6b"),
    ] {
        told += &log_in(running.postgres(), user, password).await;
    }
    finds_nothing_planted("what clients are told", &told);
    for page in ["/", "/metrics", "/healthz", "/readyz", "/api/v1/snapshot", "/api/v1/pressure"] {
        finds_nothing_planted(page, &ask(running.admin, page, "").body);
    }
    finds_nothing_planted("the log", &running.everything_logged());
}

#[test]
fn planted_secrets_appear_in_no_complaint_about_a_configuration() {
    for wrong in [
        format!("[postgres.users.app]\npassword = [\"{INLINE}\"]\n"),
        format!("[postgres.users.app]\npasword = \"x\"\npassword = \"{INLINE}\"\n"),
        format!("[postgres.users.app]\npassword = \"SCRAM-SHA-256${INLINE}\"\n"),
        format!("[postgres.auth_query]\npassword = \"{OF_LOOKUP}\"\n"),
        format!("[postgres.auth_query]\nuser = 1\npassword = \"{OF_LOOKUP}\n"),
    ] {
        let file = file(&wrong);
        for command in ["check", "run"] {
            let output = forebay().arg(command).arg(&file.path).stdin(Stdio::null()).output();
            let output = output.unwrap();
            assert!(!output.status.success(), "{wrong}");
            let said = [output.stdout, output.stderr].concat();
            finds_nothing_planted(command, &String::from_utf8_lossy(&said));
        }
    }
    // The type itself says nothing.
    let secret = SecretString::from(INLINE.to_owned());
    finds_nothing_planted("Debug", &format!("{secret:?}"));
}
