//! Every kind of credential, from the settings to the wire; whose it is; how it is replaced.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use forebay_http::Gateway;
use forebay_seam::sync::Mutex;
use forebay_seam::time;
use http::Request;
use http_body_util::BodyExt;

use crate::bench::{Forebay, settings, soon};
use crate::origin::{Origin, reply};

/// A destination `tool` at `origin`, with `extra` settings.
pub(crate) fn tool(origin: &Origin, extra: &str) -> String {
    format!("[destinations.tool]\nwarm_up = 0\n{}{extra}\n", origin.settings())
}

/// An issuer that counts: token `t1`, `t2`, …, with refresh token `r1`, `r2`, …; keeps forms.
pub(crate) struct Issuer {
    pub(crate) origin: Origin,
    forms: Arc<Mutex<Vec<String>>>,
}

impl Issuer {
    pub(crate) fn start(life: u64) -> Self {
        let (forms, asked) = (Arc::<Mutex<Vec<String>>>::default(), AtomicUsize::new(0));
        let (kept, asked) = (Arc::clone(&forms), Arc::new(asked));
        let origin = Origin::start(move |call| {
            let (kept, asked) = (Arc::clone(&kept), Arc::clone(&asked));
            async move {
                let form = call.into_body().collect().await.unwrap().to_bytes();
                kept.lock().push(String::from_utf8(form.to_vec()).unwrap());
                let n = asked.fetch_add(1, Ordering::SeqCst) + 1;
                let body = serde_json::json!({
                    "access_token": format!("t{n}"), "token_type": "Bearer", "expires_in": life,
                    "refresh_token": format!("r{n}"),
                    "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
                });
                reply(200, body.to_string())
            }
        });
        Self { origin, forms }
    }

    /// `token_url`, `client_id` and `ca_file`.
    pub(crate) fn at(&self) -> String {
        let (address, ca) = (self.origin.address, self.origin.ca());
        let ca = ca.display();
        format!("token_url = \"https://{address}/t\", client_id = \"us\", ca_file = \"{ca}\"")
    }

    pub(crate) fn forms(&self) -> Vec<String> {
        self.forms.lock().clone()
    }
}

#[tokio::test]
async fn each_kind_of_secret_stands_where_the_service_looks_for_it() {
    let origin = Origin::echo();
    let text = [
        ("a", "type = \"header\", name = \"X-Auth\", prefix = \"Token \", secret = \"s1\""),
        ("b", "type = \"query\", name = \"key\", secret = \"s 2\""),
        ("c", "type = \"basic\", user = \"Aladdin\", password = \"open sesame\""),
    ]
    .map(|(name, auth)| tool(&origin, &format!("auth = {{ {auth} }}")).replace("tool", name));
    let forebay = Forebay::start(&text.join("\n"));
    for name in ["a", "b", "c"] {
        let call = Request::get(format!("/{name}/x?q=1&key=mine"));
        let call = call.header("authorization", "Bearer mine").header("x-api-key", "mine");
        assert_eq!(forebay.call(call).await.status, 200);
    }
    let seen = origin.seen();
    assert_eq!(seen[0].headers["x-auth"], "Token s1");
    assert_eq!((&*seen[0].target, &*seen[1].target), ("/x?q=1&key=mine", "/x?q=1&key=s%202"));
    assert_eq!(seen[2].headers["authorization"], "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    // What the agent sent does not go along with what is ours.
    assert!(seen.iter().all(|call| !call.headers.contains_key("x-api-key")));
    assert!(!seen[0].headers.contains_key("authorization"));
}

#[tokio::test]
async fn the_credential_of_an_agent_comes_before_its_tenants_and_that_before_everybodys() {
    let origin = Origin::echo();
    let bearer = |secret: &str| format!("{{ type = \"bearer\", secret = \"{secret}\" }}");
    let text = format!(
        "[tenants.acme]\nkey = \"ka\"\nagents.one.key = \"k1\"\nagents.two.key = \"k2\"\n\
         [tenants.zeta]\nkey = \"kz\"\n{}auth = {}\ntenants.acme = {}\nagents.acme.one = {}\n",
        tool(&origin, ""),
        bearer("common"),
        bearer("acme"),
        bearer("one")
    );
    let forebay = Forebay::start(&text);
    for key in ["kz", "ka", "k2", "k1", "ka"] {
        let call = Request::get("/tool/").header("x-api-key", key);
        assert_eq!(forebay.call(call).await.status, 200);
    }
    let seen = origin.seen();
    let sent: Vec<_> = seen.iter().map(|call| call.headers["authorization"].clone()).collect();
    assert_eq!(sent, ["Bearer common", "Bearer acme", "Bearer acme", "Bearer one", "Bearer acme"]);
    let on: Vec<_> = seen.iter().map(|call| call.connection).collect();
    assert_eq!((on[1], on[1]), (on[2], on[4]));
    assert!(on[0] != on[1] && on[3] != on[1] && on[3] != on[0], "{on:?}");
}

#[tokio::test]
async fn agents_with_credentials_of_their_own_do_not_share_connections() {
    let origin = Origin::echo();
    let forebay = Forebay::start(&tool(&origin, ""));
    for own in ["Bearer one", "Bearer two", "Bearer one"] {
        let call = Request::get("/tool/").header("authorization", own);
        assert_eq!(forebay.call(call).await.status, 200);
    }
    let seen = origin.seen();
    assert_eq!(seen[0].connection, seen[2].connection);
    assert_ne!(seen[0].connection, seen[1].connection);
    let shared = Forebay::start(&tool(&origin, "share_connections = true"));
    for own in ["Bearer one", "Bearer two"] {
        let call = Request::get("/tool/").header("authorization", own);
        assert_eq!(shared.call(call).await.status, 200);
    }
    let seen = origin.seen();
    assert_eq!(seen[3].connection, seen[4].connection);
}

#[tokio::test]
async fn a_login_of_a_connection_is_not_forwarded() {
    let origin = Origin::echo();
    for extra in ["", "share_connections = true"] {
        let forebay = Forebay::start(&tool(&origin, extra));
        for scheme in ["Negotiate abc", "NTLM abc", "ntlm"] {
            let call = Request::get("/tool/").header("authorization", scheme);
            assert_eq!(forebay.call(call).await.problem(), "not-supported");
        }
    }
    assert!(origin.seen().is_empty());
}

#[tokio::test]
async fn a_refresh_token_that_is_replaced_is_used_from_then_on_and_after_a_restart() {
    let (origin, issuer) = (Origin::echo(), Issuer::start(1));
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept");
    let auth = format!(
        "auth = {{ type = \"oauth2-refresh-token\", {}, refresh_token = \"r0\", keep_in = \"{}\" }}",
        issuer.at(),
        kept.display()
    );
    let forebay = Forebay::start(&tool(&origin, &auth));
    assert_eq!(forebay.get("/tool/").await.status, 200);
    assert_eq!(forebay.get("/tool/").await.status, 200);
    soon("it is renewed", || issuer.forms().len() == 2).await;
    soon("the newest is kept", || {
        std::fs::read_to_string(&kept).is_ok_and(|text| text.contains("\"r2\""))
    })
    .await;
    drop(forebay);
    let forms = issuer.forms();
    assert!(forms[0].contains("grant_type=refresh_token&refresh_token=r0"), "{forms:?}");
    assert!(forms[1].contains("refresh_token=r1") && forms[1].contains("client_id=us"));
    let again = Forebay::start(&tool(&origin, &auth));
    assert_eq!(again.get("/tool/").await.status, 200);
    assert!(issuer.forms()[2].contains("refresh_token=r2"), "{:?}", issuer.forms());
}

#[tokio::test]
async fn a_refresh_token_is_never_used_twice_at_once_however_slow_its_issuer_is() {
    let newest = Arc::new(AtomicUsize::new(0));
    let (known, reused) = (Arc::clone(&newest), Arc::new(AtomicUsize::new(0)));
    let wrong = Arc::clone(&reused);
    let issuer = Origin::start(move |call| {
        let (known, wrong) = (Arc::clone(&known), Arc::clone(&wrong));
        async move {
            let form = call.into_body().collect().await.unwrap().to_bytes();
            let form = String::from_utf8(form.to_vec()).unwrap();
            let n = known.load(Ordering::SeqCst);
            if !form.contains(&format!("refresh_token=r{n}&")) {
                wrong.fetch_add(1, Ordering::SeqCst);
            }
            // Longer than what is left of the token when it is renewed.
            time::sleep(Duration::from_millis(400)).await;
            let n = known.fetch_add(1, Ordering::SeqCst) + 1;
            let body = serde_json::json!({
                "access_token": "t", "token_type": "Bearer", "expires_in": 1,
                "refresh_token": format!("r{n}"),
            });
            reply(200, body.to_string())
        }
    });
    let origin = Origin::echo();
    let auth = format!(
        "auth = {{ type = \"oauth2-refresh-token\", token_url = \"https://{}/\", \
         client_id = \"us\", refresh_token = \"r0\", ca_file = \"{}\" }}",
        issuer.address,
        issuer.ca().display()
    );
    let forebay = Forebay::start(&tool(&origin, &auth));
    while newest.load(Ordering::SeqCst) < 3 {
        let (one, two) = tokio::join!(forebay.get("/tool/"), forebay.get("/tool/"));
        assert_eq!((one.status.as_u16(), two.status.as_u16()), (200, 200));
        time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!((reused.load(Ordering::SeqCst), issuer.seen().len() <= 4), (0, true));
}

#[tokio::test]
async fn a_token_says_on_whose_behalf_and_what_for() {
    let (origin, issuer) = (Origin::echo(), Issuer::start(3600));
    let auth = format!(
        "auth = {{ type = \"oauth2-token-exchange\", {}, client_secret = \"s\", \
         client_auth = \"form\", subject_token = \"sub ject\", actor_token = \"actor\", \
         resource = \"https://api.test/\", scopes = [\"a\", \"b\"] }}",
        issuer.at()
    );
    let forebay = Forebay::start(&tool(&origin, &auth));
    assert_eq!(forebay.get("/tool/").await.status, 200);
    assert_eq!(origin.seen()[0].headers["authorization"], "Bearer t1");
    let access = "urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token";
    assert_eq!(
        issuer.forms(),
        [format!(
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange\
             &subject_token=sub+ject&subject_token_type={access}\
             &actor_token=actor&actor_token_type={access}&scope=a+b\
             &resource=https%3A%2F%2Fapi.test%2F&client_id=us&client_secret=s"
        )]
    );
}

#[tokio::test]
async fn what_agents_show_is_exchanged_for_each_and_never_forwarded() {
    let (origin, issuer) = (Origin::echo(), Issuer::start(3600));
    let auth = format!("auth = {{ type = \"oauth2-token-exchange\", {} }}", issuer.at());
    let text = format!("[tenants.acme]\nkey = \"ka\"\n{}", tool(&origin, &auth));
    let forebay = Forebay::start(&text);
    let call = |user: &str| {
        Request::get("/tool/")
            .header("x-forebay-key", "ka")
            .header("authorization", format!("Bearer {user}"))
    };
    for user in ["ann", "bob", "ann", "bob"] {
        assert_eq!(forebay.call(call(user)).await.status, 200);
    }
    let (seen, forms) = (origin.seen(), issuer.forms());
    assert!(forms.len() == 2 && forms[0].contains("subject_token=ann&"), "{forms:?}");
    for (index, token) in ["Bearer t1", "Bearer t2", "Bearer t1", "Bearer t2"].iter().enumerate() {
        assert_eq!(seen[index].headers["authorization"], *token);
        assert_eq!(seen[index].connection, seen[index % 2].connection);
    }
    assert_ne!(seen[0].connection, seen[1].connection);
    assert_eq!(forebay.snapshot().cached_tokens, 2);
    let nobody = forebay.call(Request::get("/tool/").header("x-forebay-key", "ka")).await;
    assert_eq!((nobody.status.as_u16(), nobody.header("x-should-retry")), (401, "false"));
}

#[tokio::test]
async fn an_issuer_that_wants_time_is_given_it() {
    let origin = Origin::echo();
    let issuer = Origin::start(|_| async {
        let mut busy = reply(429, "");
        busy.headers_mut().insert("retry-after", "7".parse().unwrap());
        busy
    });
    let auth = format!(
        "auth = {{ type = \"oauth2-client-credentials\", token_url = \"https://{}/\", \
         client_id = \"us\", client_secret = \"s\", ca_file = \"{}\" }}",
        issuer.address,
        issuer.ca().display()
    );
    let forebay = Forebay::start(&tool(&origin, &auth));
    let got = forebay.get("/tool/").await;
    assert_eq!(
        (got.problem().as_str(), got.header("retry-after")),
        ("credential-unavailable", "7")
    );
    assert_eq!(got.header("x-should-retry"), "true");
    assert_eq!((forebay.get("/tool/").await.status.as_u16(), issuer.seen().len()), (502, 1));
}

#[tokio::test]
async fn a_secret_whose_file_is_replaced_is_sent_and_one_that_cannot_be_is_not() {
    let origin = Origin::echo();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "first\n").unwrap();
    let auth =
        format!("auth = {{ type = \"bearer\", secret = \"file:{}\" }}", file.path().display());
    let forebay = Forebay::start(&tool(&origin, &auth));
    let sent = async || {
        assert_eq!(forebay.get("/tool/").await.status, 200);
        origin.seen().pop().unwrap().headers["authorization"].to_str().unwrap().to_owned()
    };
    assert_eq!(sent().await, "Bearer first");
    std::fs::write(file.path(), "second\r\nx-evil: 1\n").unwrap();
    time::sleep(Duration::from_millis(1_200)).await;
    assert_eq!(sent().await, "Bearer first");
    std::fs::write(file.path(), "third\n").unwrap();
    let begun = time::now();
    while sent().await != "Bearer third" {
        assert!(time::now() < begun + Duration::from_secs(20));
        time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_command_runs_again_when_the_service_refuses_what_it_printed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("printed");
    std::fs::write(&file, "old\n").unwrap();
    let origin = Origin::start(|call| async move {
        let is_good = call.headers()["authorization"] == "Bearer new";
        reply(if is_good { 200 } else { 401 }, "")
    });
    let auth = format!("auth = {{ type = \"bearer\", secret = \"cmd:cat {}\" }}", file.display());
    let forebay = Forebay::start(&tool(&origin, &auth));
    std::fs::write(&file, "new\n").unwrap();
    let got = forebay.get("/tool/").await;
    assert_eq!((got.status.as_u16(), got.header("x-should-retry")), (401, "true"));
    let begun = time::now();
    while forebay.get("/tool/").await.status != 200 {
        assert!(time::now() < begun + Duration::from_secs(20));
        time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn what_cannot_be_a_credential_is_told_with_its_place_and_without_the_secret() {
    let found = |auth: &str| {
        let text = format!("[destinations.d]\nurl = \"https://d.test\"\n{auth}");
        let problems = Gateway::check_secrets(&settings(&text));
        let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert!(!format!("{told:?}").contains("planted"), "{told:?}");
        told.join("; ")
    };
    for (auth, expected) in [
        ("auth = { type = \"bearer\", secret = \"\" }", "d.auth.secret: the secret from"),
        (
            "auth = { type = \"bearer\", secret = \"planted\\r\\nx: y\" }",
            "d.auth.secret: the secret has line ends",
        ),
        (
            "auth = { type = \"header\", name = \"Host\", secret = \"planted\" }",
            "d.auth.name: `Host` cannot carry",
        ),
        (
            "auth = { type = \"header\", name = \"te\", secret = \"planted\" }",
            "d.auth.name: `te` cannot carry",
        ),
        (
            "auth = { type = \"header\", name = \"a b\", secret = \"planted\" }",
            "d.auth.name: `a b` is no header name",
        ),
        (
            "auth = { type = \"query\", name = \"\", secret = \"planted\" }",
            "d.auth.name: a parameter",
        ),
        (
            "auth = { type = \"basic\", user = \"a:b\", password = \"planted\" }",
            "d.auth.user: a user has no `:`",
        ),
        (
            "auth = { type = \"basic\", user = \"a\", password = \"planted\\u0000\" }",
            "d.auth.password: a password has no",
        ),
        (
            "auth = { type = \"client-certificate\", certificate = \"planted\", key = \"planted\" }",
            "d.auth.certificate: there is no certificate",
        ),
        (
            "auth = { type = \"client-certificate\", certificate = \"planted\", key = \"file:/no/such\" }",
            "d.auth.key: cannot read the secret's file `/no/such`: No such file",
        ),
        (
            "auth = { type = \"oauth2-refresh-token\", token_url = \"http://i.test\", client_id = \"c\", refresh_token = \"planted\" }",
            "d.auth.token_url: the client's secret would travel in the clear",
        ),
        (
            "auth = { type = \"oauth2-token-exchange\", token_url = \"https://i.test\", client_id = \"\", subject_token = \"planted\" }",
            "d.auth.client_id: the issuer knows",
        ),
        (
            "share_connections = true\nauth = { type = \"basic\", user = \"a\", password = \"planted\" }",
            "d.share_connections: `auth` does not allow it",
        ),
        (
            "tenants.x = { type = \"bearer\", secret = \"planted\" }",
            "d.tenants.x: there is no tenant `x`",
        ),
        (
            "agents.x.y = { type = \"bearer\", secret = \"planted\" }",
            "d.agents.x.y: there is no tenant `x`",
        ),
    ] {
        let said = found(auth);
        assert!(said.contains(&format!("http.destinations.{expected}")), "{expected}\n{said}");
    }
    assert_eq!(found("auth = { type = \"bearer\", secret = \"good\" }"), "");
}
