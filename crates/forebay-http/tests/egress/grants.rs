//! What an issuer gave outlives a reload, and is had once by all who may have it.

use std::sync::Arc;

use http::Request;

use crate::bench::Forebay;
use crate::kinds::{Issuer, tool};
use crate::origin::Origin;
use crate::reload::reload;

/// A credential of `kind` with `rest`, by `issuer`.
fn auth(issuer: &Issuer, kind: &str, rest: &str) -> String {
    format!("auth = {{ type = \"oauth2-{kind}\", {}{rest} }}\n", issuer.at())
}

#[tokio::test]
async fn a_token_and_the_newest_refresh_token_outlive_a_reload() {
    let (origin, issuer) = (Origin::echo(), Issuer::start(3600));
    let with = |secret: &str, more: &str| {
        let rest = format!(", refresh_token = \"r0\", client_secret = \"{secret}\"");
        tool(&origin, &(auth(&issuer, "refresh-token", &rest) + more))
    };
    let forebay = Forebay::start(&with("s1", ""));
    assert_eq!(forebay.get("/tool/").await.status, 200);
    for budget in ["budget = 3", "budget = 4"] {
        reload(&forebay, &with("s1", budget)).await.unwrap();
    }
    assert_eq!(forebay.get("/tool/").await.status, 200);
    assert_eq!(issuer.forms().len(), 1, "{:?}", issuer.forms());
    // Another secret of the client: another token, by the same grant.
    reload(&forebay, &with("s2", "")).await.unwrap();
    assert_eq!(forebay.get("/tool/").await.status, 200);
    let forms = issuer.forms();
    assert!(forms.len() == 2 && forms[1].contains("refresh_token=r1"), "{forms:?}");
}

#[tokio::test]
async fn a_file_that_is_named_at_a_reload_keeps_the_newest_refresh_token() {
    let (origin, issuer) = (Origin::echo(), Issuer::start(3600));
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept");
    let with = |more: &str| {
        let rest = format!(", refresh_token = \"r0\"{more}");
        tool(&origin, &auth(&issuer, "refresh-token", &rest))
    };
    let forebay = Forebay::start(&with(""));
    assert_eq!(forebay.get("/tool/").await.status, 200);
    let keeping = with(&format!(", keep_in = \"{}\"", kept.display()));
    reload(&forebay, &keeping).await.unwrap();
    drop(forebay);
    let again = Forebay::start(&keeping);
    assert_eq!(again.get("/tool/").await.status, 200);
    let forms = issuer.forms();
    assert!(forms.len() == 2 && forms[1].contains("refresh_token=r1"), "{forms:?}");
}

#[tokio::test]
async fn two_credentials_with_one_refresh_token_take_turns_with_the_newest() {
    let (origin, issuer) = (Origin::echo(), Issuer::start(3600));
    let with = |scope: &str| {
        let rest = format!(", refresh_token = \"r0\", scopes = [\"{scope}\"]");
        auth(&issuer, "refresh-token", &rest)
    };
    let other = tool(&origin, &with("b")).replace("destinations.tool", "destinations.other");
    let forebay = Arc::new(Forebay::start(&(tool(&origin, &with("a")) + &other)));
    let (one, two) = tokio::join!(forebay.get("/tool/"), forebay.get("/other/"));
    assert_eq!((one.status.as_u16(), two.status.as_u16()), (200, 200));
    let forms = issuer.forms();
    assert!(forms[0].contains("refresh_token=r0&"), "{forms:?}");
    assert!(forms.len() == 2 && forms[1].contains("refresh_token=r1&"), "{forms:?}");
}

#[tokio::test]
async fn no_reload_sets_off_exchanges_for_clients_or_for_what_agents_showed() {
    let (origin, issuer) = (Origin::echo(), Issuer::start(3600));
    let with = |more: &str| {
        let agents = tool(&origin, &(auth(&issuer, "token-exchange", "") + more));
        let client = auth(&issuer, "client-credentials", ", client_secret = \"s\"");
        let client = tool(&origin, &(client + more));
        let client = client.replace("destinations.tool", "destinations.client");
        format!("[tenants.acme]\nkey = \"ka\"\n{agents}{client}")
    };
    let forebay = Forebay::start(&with(""));
    for more in ["", "budget = 3\n", "budget = 4\n"] {
        reload(&forebay, &with(more)).await.unwrap();
        for (path, user) in [("/tool/", "ann"), ("/tool/", "bob"), ("/client/", "eve")] {
            let call = Request::get(path).header("x-forebay-key", "ka");
            let call = call.header("authorization", format!("Bearer {user}"));
            assert_eq!(forebay.call(call).await.status, 200);
        }
    }
    let last = &origin.seen()[6..];
    let sent: Vec<_> = last.iter().map(|call| call.headers["authorization"].clone()).collect();
    assert_eq!(sent, ["Bearer t1", "Bearer t2", "Bearer t3"]);
    assert_eq!(issuer.forms().len(), 3, "{:?}", issuer.forms());
}

#[tokio::test]
async fn an_issuer_whose_signers_file_was_corrected_is_believed_after_a_reload() {
    let (origin, issuer) = (Origin::echo(), Issuer::start(3600));
    let signers = tempfile::NamedTempFile::new().unwrap();
    std::fs::copy(origin.ca(), signers.path()).unwrap();
    let auth = auth(&issuer, "refresh-token", ", refresh_token = \"r0\"");
    let issuers = issuer.origin.ca().display().to_string();
    let auth = auth.replace(&issuers, &signers.path().display().to_string());
    let settings = tool(&origin, &auth);
    let forebay = Forebay::start(&settings);
    assert_eq!(forebay.get("/tool/").await.problem(), "credential-unavailable");
    std::fs::copy(issuer.origin.ca(), signers.path()).unwrap();
    reload(&forebay, &settings).await.unwrap();
    assert_eq!(forebay.get("/tool/").await.status, 200);
}
