//! Other settings while agents are there.

use std::sync::Arc;

use bytes::Bytes;
use forebay_http::Changes;
use forebay_seam::sync::Mutex;
use http::{Request, Response};
use tokio::sync::{Semaphore, mpsc};

use crate::bench::{Forebay, frame, settings, soon};
use crate::destinations::service::{Service, Speaks};
use crate::origin::{Origin, frames, reply};

/// Carries the settings in `text` out; says why not.
pub(crate) async fn reload(forebay: &Forebay, text: &str) -> Result<Changes, String> {
    let (gateway, settings) = (forebay.gateway.clone(), settings(text));
    let carried_out = tokio::task::spawn_blocking(move || gateway.revise(settings)?.carry_out());
    carried_out.await.unwrap().map_err(|error| error.to_string())
}

fn tool(origin: &Origin, extra: &str) -> String {
    format!("[destinations.tool]\nwarm_up = 0\n{}{extra}", origin.settings())
}

#[tokio::test]
async fn a_destination_that_keeps_its_name_keeps_its_pool_and_its_counts() {
    let (origin, other) = (Origin::echo(), Origin::echo());
    let forebay = Forebay::start(&tool(&origin, "budget = 2\n"));
    let mut agent = forebay.agent().await;
    assert_eq!(agent.call(Request::get("/tool/"), "").await.status, 200);
    let more = format!(
        "{}[destinations.other]\nwarm_up = 0\nhosts = [\"other.test\"]\n{}",
        tool(&origin, "budget = 7\nfirst_byte_timeout = \"9s\"\nlimits.requests = 5\n"),
        other.settings()
    );
    let changes = reload(&forebay, &more).await.unwrap();
    assert_eq!(changes, Changes { opened: vec!["other".to_owned()], ..Changes::default() });
    // The same agent, on the same connection, to the same connection.
    assert_eq!(agent.call(Request::get("/tool/"), "").await.status, 200);
    assert_eq!(agent.call(Request::get("/other/"), "").await.status, 200);
    let by_host = Request::get("/x").header("host", "other.test");
    assert_eq!(agent.call(by_host, "").await.status, 200);
    assert_eq!((origin.opened(), other.opened()), (1, 1));
    let snapshot = forebay.snapshot();
    let tool = snapshot.destinations.iter().find(|d| &*d.destination == "tool").unwrap();
    assert_eq!(tool.answers.success, 2);
    let pool = snapshot.pools.iter().find(|pool| &*pool.destination == "tool").unwrap();
    assert_eq!(pool.budget, 7);
    let changes = reload(&forebay, &more).await.unwrap();
    assert_eq!(changes, Changes::default());
}

#[tokio::test]
async fn a_destination_that_is_gone_or_elsewhere_lets_its_calls_finish() {
    let (tell, told) = mpsc::channel::<Bytes>(1);
    let told = Arc::new(Mutex::new(Some(told)));
    let origin = Origin::start(move |_| {
        let told = told.lock().take();
        async move { told.map_or_else(|| reply(200, "old"), |told| Response::new(frames(told))) }
    });
    let elsewhere = Origin::start(|_| async { reply(200, "new") });
    let before =
        format!("{}[destinations.gone]\nwarm_up = 0\n{}", tool(&origin, ""), elsewhere.settings());
    let forebay = Forebay::start(&before);
    assert_eq!(forebay.get("/gone/").await.status, 200);
    let mut agent = forebay.agent().await;
    let mut events = agent.send(Request::get("/tool/"), "").await.into_body();
    tell.send(Bytes::from_static(b"one")).await.unwrap();
    assert_eq!(frame(&mut events).await.as_deref(), Some("one"));
    let changes = reload(&forebay, &tool(&elsewhere, "")).await.unwrap();
    let names = |name: &str| vec![name.to_owned()];
    assert_eq!((changes.reconnected, changes.closed), (names("tool"), names("gone")));
    assert_eq!(forebay.get("/tool/").await.body, "new");
    assert_eq!(forebay.get("/gone/").await.problem(), "unknown-destination");
    tell.send(Bytes::from_static(b"two")).await.unwrap();
    assert_eq!(frame(&mut events).await.as_deref(), Some("two"));
    drop(tell);
    assert_eq!(frame(&mut events).await, None);
    soon("the old connections are closed", || origin.open() == 0).await;
    soon("those of the one that is gone, too", || elsewhere.open() <= 1).await;
}

#[tokio::test]
async fn keys_and_credentials_are_the_new_ones_for_the_next_call() {
    let origin = Origin::echo();
    let with = |key: &str, secret: &str| {
        let auth = format!("auth = {{ type = \"bearer\", secret = \"{secret}\" }}");
        format!("[tenants.acme]\nkey = \"{key}\"\n{}", tool(&origin, &auth))
    };
    let forebay = Forebay::start(&with("key-1", "secret-1"));
    let call = |key: &str| Request::get("/tool/").header("x-forebay-key", key);
    assert_eq!(forebay.call(call("key-1")).await.status, 200);
    reload(&forebay, &with("key-2", "secret-2")).await.unwrap();
    assert_eq!(forebay.call(call("key-1")).await.status, 401);
    assert_eq!(forebay.call(call("key-2")).await.status, 200);
    let seen = origin.seen();
    let sent: Vec<_> = seen.iter().map(|call| &call.headers["authorization"]).collect();
    assert_eq!(sent, ["Bearer secret-1", "Bearer secret-2"]);
    assert_ne!(seen[0].connection, seen[1].connection, "it was opened for another credential");
}

#[tokio::test]
async fn a_connection_of_http_2_gets_no_new_stream_once_it_is_replaced() {
    for is_by_hand in [true, false] {
        let gate = Arc::new(Semaphore::new(0));
        let opened = Arc::clone(&gate);
        let service = Service::start(Speaks::Http2(100), move |call: Request<_>| {
            let gate = Arc::clone(&opened);
            async move {
                if call.uri().path() == "/stays" {
                    gate.acquire().await.unwrap().forget();
                }
                reply(200, "done")
            }
        });
        let with = |secret: &str| {
            let (settings, auth) = (service.settings(), "type = \"bearer\", secret = ");
            format!("[destinations.tool]\nwarm_up = 0\n{settings}auth = {{ {auth}\"{secret}\" }}")
        };
        let forebay = Arc::new(Forebay::start(&with("secret-1")));
        let stays = tokio::spawn({
            let forebay = Arc::clone(&forebay);
            async move { forebay.get("/tool/stays").await }
        });
        soon("it is there", || service.calls().len() == 1).await;
        assert_eq!(forebay.get("/tool/").await.status, 200);
        assert_eq!(service.calls(), [0, 0]);
        match is_by_hand {
            true => assert!(forebay.gateway.renew("tool")),
            false => drop(reload(&forebay, &with("secret-2")).await.unwrap()),
        }
        for _ in 0..3 {
            assert_eq!(forebay.get("/tool/").await.status, 200);
        }
        assert_eq!(service.calls()[2..], [1, 1, 1]);
        gate.add_permits(1);
        assert_eq!(stays.await.unwrap().body, "done");
        soon("the first connection is closed", || service.open() == 1).await;
    }
}

#[tokio::test]
async fn settings_that_cannot_be_carried_out_change_nothing() {
    let origin = Origin::echo();
    let forebay = Forebay::start(&tool(&origin, ""));
    for (wrong, at) in [
        ("budget = 0\n", "http.destinations.tool.budget"),
        ("hosts = [\"localhost\"]\n", "http.destinations.tool.hosts[0]"),
        (
            "auth = { type = \"bearer\", secret = \"file:/no/such\" }\n",
            "http.destinations.tool.auth",
        ),
    ] {
        let error = reload(&forebay, &tool(&origin, wrong)).await.unwrap_err();
        assert!(error.starts_with(at), "{error}");
        assert_eq!(forebay.get("/tool/").await.status, 200);
    }
    assert_eq!(origin.opened(), 1);
}
