//! Whose connection serves whose call.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use http::{HeaderValue, Request};

use crate::bench::{Forebay, soon};
use crate::origin::{Origin, reply};

const COLD: &str = "warm_up = 0\n";

#[tokio::test]
async fn calls_of_one_tenant_share_a_connection() {
    let origin = Origin::echo();
    let forebay = Forebay::start(&format!("[destinations.tool]\n{COLD}{}", origin.settings()));
    for n in 0..20 {
        let mut agent = forebay.agent().await;
        let got = agent.call(Request::post("/tool/work"), &format!("call {n}")).await;
        assert_eq!((got.status.as_u16(), got.body), (200, format!("call {n}")));
    }
    assert_eq!(origin.opened(), 1);
    let seen = origin.seen();
    assert_eq!(seen.len(), 20);
    assert!(seen.iter().all(|call| call.method == "POST" && call.target == "/work"));
    soon("all are counted", || {
        let snapshot = forebay.snapshot();
        let calls = &snapshot.destinations[0];
        calls.answers.success == 20 && calls.in_flight == 0 && calls.first_byte.count == 20
    })
    .await;
}

fn tenants(origin: &Origin, extra: &str) -> String {
    format!(
        "[tenants.acme]\nkey = \"key-a\"\n[tenants.zeta]\nkey = \"key-z\"\n\
         [destinations.tool]\n{COLD}{}{extra}",
        origin.settings()
    )
}

async fn call_as_both(forebay: &Forebay) {
    for _ in 0..5 {
        for key in ["key-a", "key-z"] {
            let call = Request::get("/tool/").header("x-forebay-key", key);
            assert_eq!(forebay.call(call).await.status, 200);
        }
    }
}

#[tokio::test]
async fn tenants_with_credentials_of_their_own_never_share_a_connection() {
    let origin = Origin::echo();
    let forebay = Forebay::start(&tenants(&origin, ""));
    call_as_both(&forebay).await;
    assert_eq!(origin.opened(), 2);
    let identities: Vec<_> =
        forebay.snapshot().pools[0].identities.iter().map(|i| i.identity.clone()).collect();
    assert_eq!(identities, ["tenant acme", "tenant zeta"]);
}

#[tokio::test]
async fn tenants_share_connections_where_that_is_allowed() {
    let origin = Origin::echo();
    let forebay = Forebay::start(&tenants(&origin, "share_connections = true"));
    call_as_both(&forebay).await;
    assert_eq!(origin.opened(), 1);
}

#[tokio::test]
async fn tenants_share_connections_where_the_credential_is_the_same() {
    let origin = Origin::echo();
    let auth = "auth = { type = \"bearer\", secret = \"the-key\" }";
    let forebay = Forebay::start(&tenants(&origin, auth));
    call_as_both(&forebay).await;
    assert_eq!(origin.opened(), 1);
    assert!(origin.seen().iter().all(|call| call.headers["authorization"] == "Bearer the-key"));
}

#[tokio::test]
async fn connections_are_opened_before_anybody_calls() {
    let origin = Origin::echo();
    let forebay = Forebay::start(&format!(
        "[destinations.tool]\nbudget = 8\nwarm_up = 50\n{}",
        origin.settings()
    ));
    soon("the pool is warm", || forebay.gateway.is_ready()).await;
    assert_eq!(origin.opened(), 4);
    assert_eq!(forebay.get("/tool/").await.status, 200);
    assert_eq!(origin.opened(), 4);
}

#[tokio::test]
async fn connections_that_the_service_closed_meanwhile_harm_no_call() {
    let origin = Origin::start(|call| async move {
        drop(call);
        let mut reply = reply(200, "bye");
        reply.headers_mut().insert("connection", "close".parse().unwrap());
        reply
    });
    let forebay = Forebay::start(&format!("[destinations.tool]\n{COLD}{}", origin.settings()));
    for _ in 0..10 {
        let mut agent = forebay.agent().await;
        let got = agent.call(Request::post("/tool/"), "body").await;
        assert_eq!((got.status.as_u16(), got.body.as_str()), (200, "bye"));
        assert!(!got.headers.contains_key("connection"));
    }
    assert_eq!(origin.opened(), 10);
}

#[tokio::test]
async fn an_agent_may_lower_its_rank_and_never_raise_it() {
    let origin = Origin::echo();
    let classes = "classes.core = { kind = \"core\" }\nclasses.ai-read = {}\n";
    let ranked = format!("[destinations.tool]\n{COLD}{classes}{}", origin.settings());
    let plain = "classes.ai-read = {}\nclasses.vip = { kind = \"core\" }\n";
    let plain = format!("[destinations.other]\n{COLD}{plain}{}", origin.settings());
    let forebay = Forebay::start(&format!("{ranked}\n{plain}"));
    for (path, class) in [
        ("/tool/", ""),
        ("/tool/", "ai-read"),
        ("/tool/", "ai-read"),
        ("/tool/", "no-such-class"),
        ("/other/", "vip"),
        ("/other/", "ai-read"),
    ] {
        let call = Request::get(path).header("x-forebay-class", class);
        assert_eq!(forebay.call(call).await.status, 200);
    }
    let snapshot = forebay.snapshot();
    let checkouts = |destination: &str, class: &str| {
        let mut pools = snapshot.pools.iter();
        let pool = pools.find(|pool| &*pool.destination == destination).unwrap();
        pool.classes.iter().find(|c| c.class.as_str() == class).unwrap().checkouts
    };
    assert_eq!((checkouts("tool", "core"), checkouts("tool", "ai-read")), (2, 2));
    assert_eq!((checkouts("other", "ai-read"), checkouts("other", "vip")), (2, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_tenants_loses_no_call_and_mixes_no_credentials() {
    let origin = Origin::start(|call| async move {
        reply(200, call.headers()["authorization"].as_bytes().to_vec())
    });
    let (mut keys, mut own) = (String::new(), String::new());
    for n in 0..5 {
        keys += &format!("[tenants.t{n}]\nkey = \"key-{n}\"\n");
        own += &format!("tenants.t{n} = {{ type = \"bearer\", secret = \"secret-{n}\" }}\n");
    }
    let text = format!(
        "{keys}[destinations.tool]\nbudget = 10\ncheckout_timeout = \"30s\"\n{}{own}",
        origin.settings()
    );
    let forebay = Arc::new(Forebay::start(&text));
    let agents: Vec<_> = (0..50)
        .map(|agent| {
            let (forebay, tenant) = (Arc::clone(&forebay), agent % 5);
            tokio::spawn(async move {
                let mut agent = forebay.agent().await;
                for _ in 0..20 {
                    let key = format!("key-{tenant}");
                    let call = Request::get("/tool/").header("x-forebay-key", key);
                    let got = agent.call(call, "").await;
                    assert_eq!(got.body, format!("Bearer secret-{tenant}"));
                }
            })
        })
        .collect();
    for agent in agents {
        agent.await.unwrap();
    }
    let mut owners: BTreeMap<usize, BTreeSet<HeaderValue>> = BTreeMap::new();
    for seen in origin.seen() {
        let secret = seen.headers["authorization"].clone();
        owners.entry(seen.connection).or_default().insert(secret);
    }
    assert!(owners.values().all(|secrets| secrets.len() == 1), "{owners:?}");
    assert!(origin.open() <= 10);
    soon("all are counted", || forebay.snapshot().destinations[0].answers.success == 1_000).await;
}
