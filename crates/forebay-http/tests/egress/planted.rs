//! Secrets planted in every kind of credential, and what is shown of them: nothing.

use std::fmt::Write as _;
use std::sync::Arc;

use forebay_http::Gateway;
use forebay_seam::sync::Mutex;
use http::Request;

use crate::bench::{Forebay, settings, soon};
use crate::origin::{Origin, reply};

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock()).into_owned()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// One destination for each kind, at the same service and the same issuers.
fn all_kinds(origin: &Origin, issuer: &Origin, folder: &std::path::Path) -> Vec<String> {
    let at = |path: &str| {
        let (address, ca) = (issuer.address, issuer.ca());
        let ca = ca.display();
        format!("token_url = \"https://{address}/{path}\", client_id = \"us\", ca_file = \"{ca}\"")
    };
    let folder = folder.display();
    let credentials = [
        "type = \"bearer\", secret = \"planted-bearer\"".to_owned(),
        "type = \"header\", name = \"x-auth\", secret = \"planted-header\"".to_owned(),
        "type = \"query\", name = \"key\", secret = \"planted-query\"".to_owned(),
        "type = \"basic\", user = \"u\", password = \"planted-basic\"".to_owned(),
        format!("type = \"bearer\", secret = \"file:{folder}/file\""),
        "type = \"bearer\", secret = \"cmd:echo planted-command\"".to_owned(),
        format!(
            "type = \"oauth2-client-credentials\", {}, client_secret = \"planted-c\"",
            at("ok")
        ),
        format!(
            "type = \"oauth2-client-credentials\", {}, client_secret = \"planted-d\"",
            at("no")
        ),
        format!(
            "type = \"oauth2-client-credentials\", {}, client_secret = \"planted-e\"",
            at("odd")
        ),
        format!(
            "type = \"oauth2-refresh-token\", {}, refresh_token = \"planted-r\", \
             keep_in = \"{folder}/no/such/folder\"",
            at("ok")
        ),
        format!(
            "type = \"oauth2-token-exchange\", {}, subject_token = \"planted-s\", \
             actor_token = \"planted-a\"",
            at("no")
        ),
        format!("type = \"oauth2-token-exchange\", {}", at("ok")),
        format!(
            "type = \"client-certificate\", certificate = \"file:{folder}/cert\", \
             key = \"file:{folder}/key\", with = {{ type = \"query\", name = \"k\", \
             secret = \"planted-with\" }}"
        ),
    ];
    let destination = |(index, auth): (usize, &String)| {
        // Some of them nobody answers.
        let url = match index % 4 {
            2 => "url = \"https://127.0.0.1:1\"\n".to_owned(),
            _ => origin.settings(),
        };
        format!("[destinations.d{index}]\nwarm_up = 1\n{url}auth = {{ {auth} }}\n")
    };
    credentials.iter().enumerate().map(destination).collect()
}

#[tokio::test]
async fn planted_secrets_of_every_kind_are_shown_nowhere() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let origin = Origin::start(|_| async { reply(401, "") });
    let issuer = Origin::start(|call| async move {
        match call.uri().path() {
            "/no" => reply(400, r#"{"error":"invalid_grant","error_description":"planted-x"}"#),
            "/odd" => reply(200, r#"{"access_token":["planted-y"],"token_type":"planted-z"}"#),
            _ => reply(
                200,
                r#"{"access_token":"planted-token","token_type":"Bearer",
                    "refresh_token":"planted-next"}"#,
            ),
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let issued = rcgen::generate_simple_self_signed(vec!["us".to_owned()]).unwrap();
    let put = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let key = issued.signing_key.serialize_pem();
    put("file", "planted-file");
    put("cert", &issued.cert.pem());
    put("key", &key);
    let destinations = all_kinds(&origin, &issuer, folder.path());
    let tenants = "[tenants.acme]\nkey = \"planted-key\"\nkeys = [\"planted-keys\"]\n\
                   agents.one.key = \"planted-agent\"\n";
    let text = format!("{tenants}{}", destinations.join("\n"));
    let forebay = Forebay::start(&text);
    let mut shown = format!("{:?}", settings(&text));
    for problem in Gateway::check_secrets(&settings(&text)) {
        write!(shown, "{problem} {problem:?}").unwrap();
    }
    for index in 0..destinations.len() {
        for key in ["planted-agent", "planted-wrong"] {
            let path = format!("/d{index}/?q=planted-q");
            let call = Request::get(&path).header("x-forebay-key", key);
            let call = call.header("authorization", "Bearer planted-own");
            write!(shown, "{:?}", forebay.call(call).await).unwrap();
        }
    }
    // What takes the place of good secrets and is of no use.
    put("file", "planted-file\r\nx-planted: 1");
    put("key", "planted-key");
    put("cert", "planted-cert");
    soon("it was noticed", || log.text().matches("of no use").count() >= 2).await;
    shown += &serde_json::to_string(&forebay.snapshot()).unwrap();
    let logged = log.text();
    assert!(logged.matches("refused").count() > 15, "{logged}");
    shown += &logged;
    for secret in ["planted", key.lines().nth(1).unwrap()] {
        if let Some(at) = shown.find(secret) {
            panic!("…{}…", &shown[at.saturating_sub(300)..(at + 200).min(shown.len())]);
        }
    }
}

#[tokio::test]
async fn an_issuer_that_answers_without_end_is_not_listened_to_for_long() {
    let origin = Origin::echo();
    let issuer = Origin::start(|_| async {
        let huge = format!("{{\"access_token\":\"{}\"", "t".repeat(100_000));
        reply(200, huge)
    });
    let auth = format!(
        "auth = {{ type = \"oauth2-client-credentials\", token_url = \"https://{}/\", \
         client_id = \"us\", client_secret = \"s\", ca_file = \"{}\" }}",
        issuer.address,
        issuer.ca().display()
    );
    let text = format!("[destinations.d]\nwarm_up = 0\n{}{auth}\n", origin.settings());
    let got = Forebay::start(&text).get("/d/").await;
    assert_eq!(got.problem(), "credential-unavailable");
    assert!(got.body.contains("length limit"), "{}", got.body);
    assert_eq!(origin.opened(), 0);
}
