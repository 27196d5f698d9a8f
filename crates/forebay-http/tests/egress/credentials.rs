//! Credentials: who gets which, and who never does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use forebay_seam::sync::Mutex;
use forebay_seam::time;
use http::Request;
use http_body_util::BodyExt;

use crate::bench::{Forebay, settings, soon};
use crate::origin::{Origin, reply};

/// An issuer of tokens `token-1`, `token-2`, …, good for `life` seconds.
struct Issuer {
    origin: Origin,
    asked: Arc<AtomicUsize>,
    forms: Arc<Mutex<Vec<String>>>,
}

impl Issuer {
    fn start(life: u64) -> Self {
        let asked = Arc::new(AtomicUsize::new(0));
        let forms = Arc::new(Mutex::new(Vec::new()));
        let (count, kept) = (Arc::clone(&asked), Arc::clone(&forms));
        let origin = Origin::start(move |call| {
            let (count, kept) = (Arc::clone(&count), Arc::clone(&kept));
            async move {
                let form = call.into_body().collect().await.unwrap().to_bytes();
                kept.lock().push(String::from_utf8(form.to_vec()).unwrap());
                time::sleep(Duration::from_millis(50)).await;
                let n = count.fetch_add(1, Ordering::SeqCst) + 1;
                let body = serde_json::json!({
                    "access_token": format!("token-{n}"),
                    "token_type": "Bearer",
                    "expires_in": life,
                });
                reply(200, body.to_string())
            }
        });
        Self { origin, asked, forms }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn auth(&self) -> String {
        auth(&self.origin)
    }
}

fn auth(issuer: &Origin) -> String {
    format!(
        "auth = {{ type = \"oauth2-client-credentials\", \
         token_url = \"https://{}/oauth/token\", client_id = \"us er\", \
         client_secret = \"s3cret:/+\", scopes = [\"read\", \"write\"], \
         audience = \"https://api.test\", ca_file = \"{}\" }}\n",
        issuer.address,
        issuer.ca().display()
    )
}

fn tool(origin: &Origin, extra: &str) -> String {
    format!("[destinations.tool]\nwarm_up = 0\n{}{extra}", origin.settings())
}

#[tokio::test]
async fn fifty_callers_cost_one_token_exchange() {
    let (origin, issuer) = (Origin::echo(), Issuer::start(3600));
    let forebay = Arc::new(Forebay::start(&tool(&origin, &issuer.auth())));
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let forebay = Arc::clone(&forebay);
            tokio::spawn(async move { forebay.get("/tool/").await.status.as_u16() })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), 200);
    }
    assert_eq!(issuer.asked(), 1);
    assert!(origin.seen().iter().all(|call| call.headers["authorization"] == "Bearer token-1"));
    let form = issuer.forms.lock()[0].clone();
    assert!(form.contains("grant_type=client_credentials") && form.contains("scope=read+write"));
    assert!(form.contains("audience=https%3A%2F%2Fapi.test") && !form.contains("s3cret"));
    // RFC 6749, 2.3.1: both parts are form-encoded, then sent as Basic.
    let seen = &issuer.origin.seen()[0];
    assert_eq!(seen.headers["authorization"], "Basic dXMrZXI6czNjcmV0JTNBJTJGJTJC");
    let snapshot = forebay.snapshot();
    assert_eq!((snapshot.cached_tokens, snapshot.destinations[0].token_exchanges), (1, 1));
}

#[tokio::test]
async fn nobody_holds_a_connection_while_a_token_is_fetched() {
    let origin = Origin::echo();
    let issuer = Origin::start(|_| std::future::pending());
    let forebay = Forebay::start(&tool(&origin, &auth(&issuer)));
    let mut agent = forebay.agent().await;
    let waiting = tokio::spawn(async move { agent.send(Request::get("/tool/"), "").await });
    soon("the issuer is asked", || issuer.seen().len() == 1).await;
    assert_eq!((forebay.snapshot().pools[0].leased, origin.opened()), (0, 0));
    waiting.abort();
}

#[tokio::test]
async fn a_caller_that_leaves_does_not_cancel_the_exchange_for_the_others() {
    let (origin, issuer) = (Origin::echo(), Issuer::start(3600));
    let forebay = Forebay::start(&tool(&origin, &issuer.auth()));
    let mut first = forebay.agent().await;
    let leaves = tokio::spawn(async move { first.send(Request::get("/tool/"), "").await });
    soon("the issuer is asked", || issuer.origin.seen().len() == 1).await;
    leaves.abort();
    assert_eq!(forebay.get("/tool/").await.status, 200);
    assert_eq!(issuer.asked(), 1);
}

#[tokio::test]
async fn a_failed_exchange_is_told_to_all_and_not_repeated_at_once() {
    let origin = Origin::echo();
    let issuer = Origin::start(|_| async {
        time::sleep(Duration::from_millis(50)).await;
        reply(503, "down for the secret-of-the-issuer day")
    });
    let forebay = Arc::new(Forebay::start(&tool(&origin, &auth(&issuer))));
    let callers: Vec<_> = (0..20)
        .map(|_| {
            let forebay = Arc::clone(&forebay);
            tokio::spawn(async move { forebay.get("/tool/").await })
        })
        .collect();
    for caller in callers {
        let got = caller.await.unwrap();
        assert_eq!((got.status.as_u16(), got.problem().as_str()), (502, "credential-unavailable"));
        assert_eq!((got.header("x-should-retry"), got.header("retry-after")), ("true", "1"));
        assert!(!got.body.contains("secret"), "{}", got.body);
    }
    assert_eq!(issuer.seen().len(), 1);
    assert_eq!(forebay.get("/tool/").await.status, 502);
    assert_eq!((issuer.seen().len(), origin.opened()), (1, 0));
    assert_eq!(forebay.snapshot().destinations[0].token_failures, 1);
}

#[tokio::test]
async fn a_refused_client_is_told_so_and_not_to_try_again() {
    let origin = Origin::echo();
    let issuer = Origin::start(|_| async {
        reply(401, r#"{"error":"invalid_client","error_description":"s3cret:/+ is wrong"}"#)
    });
    let forebay = Forebay::start(&tool(&origin, &auth(&issuer)));
    let got = forebay.get("/tool/").await;
    assert_eq!((got.status.as_u16(), got.header("x-should-retry")), (502, "false"));
    assert!(got.body.contains("invalid_client") && !got.body.contains("s3cret"), "{}", got.body);
}

#[tokio::test]
async fn an_issuer_that_redirects_gets_no_second_chance() {
    let (origin, elsewhere) = (Origin::echo(), Issuer::start(3600));
    let to = format!("https://{}/", elsewhere.origin.address);
    let issuer = Origin::start(move |_| {
        let mut redirect = reply(307, "");
        redirect.headers_mut().insert("location", to.parse().unwrap());
        async move { redirect }
    });
    let forebay = Forebay::start(&tool(&origin, &auth(&issuer)));
    assert_eq!(forebay.get("/tool/").await.problem(), "credential-unavailable");
    assert_eq!(elsewhere.origin.opened(), 0);
}

/// A service that takes only the newest token.
fn guarded(good: &Arc<Mutex<&'static str>>) -> Origin {
    let good = Arc::clone(good);
    Origin::start(move |call| {
        let good = *good.lock();
        async move {
            let is_good = call.headers()["authorization"] == good;
            let body = call.into_body().collect().await.unwrap().to_bytes();
            if is_good { reply(200, body) } else { reply(401, "token unknown") }
        }
    })
}

#[tokio::test]
async fn a_token_that_was_withdrawn_is_replaced_and_the_call_without_a_body_sent_again() {
    let issuer = Issuer::start(3600);
    let good = Arc::new(Mutex::new("Bearer token-1"));
    let origin = guarded(&good);
    let forebay = Forebay::start(&tool(&origin, &issuer.auth()));
    assert_eq!(forebay.get("/tool/").await.status, 200);
    *good.lock() = "Bearer token-2";
    assert_eq!(forebay.get("/tool/").await.status, 200);
    assert_eq!((issuer.asked(), origin.seen().len(), origin.opened()), (2, 3, 1));
}

#[tokio::test]
async fn a_call_with_a_body_is_not_sent_again_but_the_agent_is_told_that_it_may() {
    let issuer = Issuer::start(3600);
    let good = Arc::new(Mutex::new("Bearer token-2"));
    let origin = guarded(&good);
    let forebay = Forebay::start(&tool(&origin, &issuer.auth()));
    let mut agent = forebay.agent().await;
    let got = agent.call(Request::post("/tool/"), "pay").await;
    assert_eq!((got.status.as_u16(), got.header("x-should-retry")), (401, "true"));
    let got = agent.call(Request::post("/tool/"), "pay").await;
    assert_eq!((got.status.as_u16(), got.body.as_str()), (200, "pay"));
    assert_eq!((issuer.asked(), origin.seen().len()), (2, 2));
}

#[tokio::test]
async fn a_service_that_refuses_every_token_does_not_hammer_the_issuer() {
    let issuer = Issuer::start(3600);
    let origin = guarded(&Arc::new(Mutex::new("Bearer never")));
    let forebay = Forebay::start(&tool(&origin, &issuer.auth()));
    for _ in 0..10 {
        assert_eq!(forebay.get("/tool/").await.status, 401);
    }
    assert_eq!(issuer.asked(), 2);
}

#[tokio::test]
async fn a_token_in_use_is_renewed_before_it_ends() {
    let (origin, issuer) = (Origin::echo(), Issuer::start(1));
    let forebay = Forebay::start(&tool(&origin, &issuer.auth()));
    assert_eq!(forebay.get("/tool/").await.status, 200);
    // It was used once more, so it is worth renewing.
    assert_eq!(forebay.get("/tool/").await.status, 200);
    soon("it is renewed", || issuer.asked() == 2).await;
}

#[tokio::test]
async fn each_tenant_has_its_own_token() {
    let (origin, issuer) = (Origin::echo(), Issuer::start(3600));
    let own = |tenant: &str| {
        issuer.auth().replacen("auth", &format!("tenants.{tenant}"), 1).replace("us er", tenant)
    };
    let text = format!(
        "[tenants.acme]\nkey = \"key-a\"\n[tenants.zeta]\nkey = \"key-z\"\n{}",
        tool(&origin, &(own("acme") + &own("zeta")))
    );
    let forebay = Forebay::start(&text);
    for key in ["key-a", "key-z", "key-a", "key-z"] {
        let call = Request::get("/tool/").header("x-forebay-key", key);
        assert_eq!(forebay.call(call).await.status, 200);
    }
    let seen = origin.seen();
    assert_eq!((issuer.asked(), seen.len()), (2, 4));
    assert_eq!(seen[0].headers["authorization"], seen[2].headers["authorization"]);
    assert_ne!(seen[0].headers["authorization"], seen[1].headers["authorization"]);
}

#[tokio::test]
async fn the_agents_own_credential_passes_only_where_forebay_holds_none() {
    let origin = Origin::echo();
    let held =
        tool(&origin, "auth = { type = \"header\", name = \"x-api-key\", secret = \"held\" }");
    let none = tool(&origin, "").replace("tool", "open");
    let forebay = Forebay::start(&(held + "\n" + &none));
    let with = |path: &str| {
        Request::get(path.to_owned())
            .header("authorization", "Bearer mine")
            .header("x-api-key", "x")
    };
    assert_eq!(forebay.call(with("/tool/")).await.status, 200);
    assert_eq!(forebay.call(with("/open/")).await.status, 200);
    let seen = origin.seen();
    assert_eq!(seen[0].headers["x-api-key"], "held");
    assert!(!seen[0].headers.contains_key("authorization"));
    assert_eq!(seen[1].headers["x-api-key"], "x");
    assert_eq!(seen[1].headers["authorization"], "Bearer mine");
}

#[tokio::test]
async fn a_key_for_forebay_is_never_forwarded() {
    let origin = Origin::echo();
    let text = format!(
        "[tenants.acme]\nkey = \"key-a\"\n[tenants.zeta]\nkey = \"key-z\"\n{}",
        tool(&origin, "")
    );
    let forebay = Forebay::start(&text);
    let calls = [
        Request::get("/tool/").header("authorization", "Bearer key-a"),
        Request::get("/tool/").header("x-forebay-key", "key-a"),
        Request::get("/tool/")
            .header("x-forebay-key", "key-a")
            .header("authorization", "bearer key-z"),
    ];
    for call in calls {
        assert_eq!(forebay.call(call).await.status, 200);
    }
    let own = Request::get("/tool/").header("x-forebay-key", "key-a");
    assert_eq!(forebay.call(own.header("authorization", "Bearer mine")).await.status, 200);
    for seen in &origin.seen()[..3] {
        assert!(!format!("{:?}", seen.headers).contains("key-"), "{seen:?}");
    }
    assert_eq!(origin.seen()[3].headers["authorization"], "Bearer mine");
}

#[tokio::test]
async fn a_redirect_goes_to_the_agent_and_no_credential_goes_elsewhere() {
    let elsewhere = Origin::echo();
    let to = format!("https://{}/steal", elsewhere.address);
    for status in [301, 302, 303, 307, 308] {
        let to = to.clone();
        let origin = Origin::start(move |_| {
            let mut redirect = reply(status, "");
            redirect.headers_mut().insert("location", to.parse().unwrap());
            async move { redirect }
        });
        let auth = "auth = { type = \"bearer\", secret = \"planted\" }";
        let forebay = Forebay::start(&tool(&origin, auth));
        let got = forebay.get("/tool/").await;
        assert_eq!(got.status.as_u16(), status);
        assert!(!format!("{got:?}").contains("planted"));
    }
    assert_eq!(elsewhere.opened(), 0);
}

#[tokio::test]
async fn a_key_in_the_query_does_not_come_back_in_a_redirect() {
    let origin = Origin::start(|call| {
        let query = call.uri().query().unwrap().to_owned();
        let mut redirect = reply(301, "");
        for (name, value) in [
            ("location", format!("/tool/x/?{query}")),
            ("content-location", format!("https://a.test/x?{query}#part")),
            ("link", "</first>; rel=prev".to_owned()),
            ("link", format!("</x?{query}&page=2>; rel=next")),
            ("refresh", format!("0; url=/x?{}", query.replace("%20", "+"))),
        ] {
            redirect.headers_mut().append(name, value.parse().unwrap());
        }
        async move { redirect }
    });
    let auth = "auth = { type = \"query\", name = \"key\", secret = \"plan ted\" }";
    let forebay = Forebay::start(&tool(&origin, auth));
    let got = forebay.get("/tool/x?q=1").await;
    assert!(origin.seen()[0].target.ends_with("?q=1&key=plan%20ted"));
    assert_eq!(got.header("location"), "/tool/x/?q=1");
    assert_eq!(got.header("content-location"), "https://a.test/x?q=1#part");
    assert!(format!("{got:?}").contains("</x?q=1&page=2>; rel=next"), "{got:?}");
    assert_eq!(got.header("refresh"), "0; url=/x?q=1");
    assert!(!format!("{got:?}").contains("ted"), "{got:?}");
}

#[tokio::test]
async fn nothing_in_a_call_chooses_where_a_credential_goes() {
    let (origin, elsewhere) = (Origin::echo(), Origin::echo());
    let auth = "auth = { type = \"bearer\", secret = \"planted\" }";
    let forebay = Forebay::start(&tool(&origin, auth));
    let evil = elsewhere.address.to_string();
    for call in [
        Request::get("/tool/").header("x-forwarded-host", &evil),
        Request::get("/tool/").header("forwarded", format!("host={evil}")),
        Request::get(format!("/tool/?api_base=https://{evil}")),
        Request::get(format!("/tool//{evil}/")),
        Request::get(format!("/tool/https://{evil}/")),
        Request::get("/tool/").header("x-forebay-destination", &evil),
    ] {
        assert_eq!(forebay.call(call).await.status, 200);
    }
    let host = Request::get("/tool/").header("host", &evil);
    assert_eq!(forebay.call(host).await.status, 200, "it is a loopback address");
    let absolute = || Request::get(format!("http://{evil}/tool/"));
    assert_eq!(forebay.call(absolute()).await.problem(), "malformed-request");
    let absolute = absolute().header("host", &evil);
    assert_eq!(forebay.call(absolute).await.problem(), "not-supported");
    assert_eq!(elsewhere.opened(), 0);
    let ours = origin.address.to_string();
    assert!(origin.seen().iter().all(|call| call.headers["host"] == ours));
}

#[test]
fn secrets_show_in_no_debug_output() {
    let origin_free = "[tenants.acme]\nkey = \"planted-1\"\n[destinations.a]\n\
         url = \"https://a.test\"\nauth = { type = \"bearer\", secret = \"planted-2\" }\n\
         [destinations.b]\nurl = \"https://b.test\"\nauth = { \
         type = \"oauth2-client-credentials\", token_url = \"https://c.test\", \
         client_id = \"c\", client_secret = \"planted-3\" }\n";
    let shown = format!("{:?}", settings(origin_free));
    assert!(!shown.contains("planted"), "{shown}");
}

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn secrets_show_in_no_log_answer_or_snapshot() {
    let log = Log::default();
    let (writer, level) = (log.clone(), tracing::Level::TRACE);
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let origin = Origin::start(|_| async { reply(401, "") });
    let issuer = Origin::start(|call| async move {
        if call.uri().path() == "/bad" {
            return reply(400, r#"{"error":"planted-code\u001b","error_description":"planted"}"#);
        }
        reply(200, r#"{"access_token":"planted-token","token_type":"Bearer"}"#)
    });
    let good = auth(&issuer).replace("s3cret", "planted-secret");
    let text = format!(
        "[tenants.acme]\nkey = \"planted-key\"\n{}\n{}\n{}",
        tool(&origin, &good),
        tool(&origin, &good.replace("/oauth/token", "/bad")).replace("tool", "bad"),
        tool(&origin, "auth = { type = \"bearer\", secret = \"planted-bearer\" }")
            .replace("tool", "plain"),
    );
    let forebay = Forebay::start(&text);
    let mut shown = String::new();
    for (path, key) in [
        ("/tool/", "planted-key"),
        ("/bad/", "planted-key"),
        ("/plain/", "planted-key"),
        ("/tool/", "planted-wrong"),
        ("/tool/..", "planted-key"),
    ] {
        let call = Request::get(path).header("x-forebay-key", key);
        let got = forebay.call(call.header("cookie", "planted-cookie")).await;
        shown += &format!("{got:?}");
    }
    shown += &serde_json::to_string(&forebay.snapshot()).unwrap();
    shown += &String::from_utf8(log.0.lock().clone()).unwrap();
    let logged = shown.matches("refused").count();
    assert!(logged >= 3, "{shown}");
    // The issuer's error code is shown, since it says what to do; it is not ours.
    assert!(!shown.replace("planted-code", "").contains("planted"), "{shown}");
    assert!(!shown.contains('\u{1b}'), "{shown}");
}
