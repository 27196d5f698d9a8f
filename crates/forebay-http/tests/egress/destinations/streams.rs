//! HTTP/2 to services: streams are seats.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use forebay_seam::net;
use forebay_seam::time;
use http::{Request, Response};
use std::time::Duration;
use tokio::sync::{Barrier, Semaphore};

use super::service::{Service, Speaks};
use crate::bench::{Forebay, Got, soon};
use crate::origin::reply;

fn cold(service: &Service, extra: &str) -> Arc<Forebay> {
    let settings = service.settings();
    Arc::new(Forebay::start(&format!("[destinations.tool]\nwarm_up = 0\n{settings}{extra}")))
}

fn calls(forebay: &Arc<Forebay>, count: usize) -> Vec<tokio::task::JoinHandle<Got>> {
    let call = |_| {
        let forebay = Arc::clone(forebay);
        tokio::spawn(async move { forebay.get("/tool/").await })
    };
    (0..count).map(call).collect()
}

#[tokio::test]
async fn calls_are_streams_of_one_connection() {
    let service = Service::start(Speaks::Http2(100), |call: Request<_>| async move {
        let facts = (call.version(), call.headers().contains_key("host"));
        assert_eq!(facts, (http::Version::HTTP_2, false));
        reply(200, call.uri().to_string())
    });
    let forebay = cold(&service, "");
    for _ in 0..10 {
        let got = forebay.get("/tool/a?b=c").await;
        assert_eq!(
            (got.status.as_u16(), got.body),
            (200, format!("https://{}/a?b=c", service.address))
        );
    }
    assert_eq!(service.opened(), 1);
    let connections = forebay.snapshot().connections.remove(0);
    assert_eq!((connections.opened_http2, connections.opened_http1), (1, 0));
    assert_eq!((connections.open, connections.http2), (1, 1));
    assert_eq!(connections.seats_per_connection, 16);
}

#[tokio::test]
async fn more_connections_are_opened_before_streams_queue() {
    let together = Arc::new(Barrier::new(20));
    let service = Service::start(Speaks::Http2(4), move |_| {
        let together = Arc::clone(&together);
        async move {
            together.wait().await;
            reply(200, "all are here")
        }
    });
    // The first call shows what the service speaks.
    let forebay = cold(&service, "budget = 5\n");
    for call in calls(&forebay, 20) {
        assert_eq!(call.await.unwrap().status, 200);
    }
    assert_eq!(service.opened(), 5);
    let mut streams = BTreeMap::new();
    service.calls().into_iter().for_each(|number| *streams.entry(number).or_insert(0) += 1);
    assert!(streams.values().all(|count| *count == 4), "{streams:?}");
}

#[tokio::test]
async fn what_neither_budget_nor_streams_allow_waits() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&most);
    let service = Service::start(Speaks::Http2(100), move |_| {
        let (now, most) = (Arc::clone(&now), Arc::clone(&most));
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            time::sleep(Duration::from_millis(5)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            reply(200, "")
        }
    });
    let forebay = cold(&service, "budget = 2\nconnections.streams = 3\n");
    for call in calls(&forebay, 40) {
        assert_eq!(call.await.unwrap().status, 200);
    }
    assert!(seen.load(Ordering::SeqCst) <= 6, "{seen:?}");
    assert!(service.open() <= 2);
}

#[tokio::test]
async fn without_tls_http2_is_spoken_where_that_is_set() {
    let service = Service::start(Speaks::Clear(10), |call: Request<_>| async move {
        reply(200, format!("{:?}", call.version()))
    });
    let forebay = cold(&service, "connections.protocol = \"http2\"\n");
    assert_eq!(forebay.get("/tool/").await.body, "HTTP/2.0");
}

#[tokio::test]
async fn http1_is_spoken_where_that_is_set_or_all_there_is() {
    for (speaks, extra) in
        [(Speaks::Http2(10), "connections.protocol = \"http1\"\n"), (Speaks::Http1, "")]
    {
        let service = Service::start(speaks, |call: Request<_>| async move {
            reply(200, format!("{:?}", call.version()))
        });
        let forebay = cold(&service, extra);
        assert_eq!(forebay.get("/tool/").await.body, "HTTP/1.1");
        assert_eq!(forebay.snapshot().connections[0].seats_per_connection, 1);
    }
}

#[tokio::test]
async fn a_service_that_goes_away_fails_no_call() {
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let service = Service::start(Speaks::Http2(100), move |call: Request<_>| {
        let gate = Arc::clone(&opened);
        async move {
            if call.uri().path() == "/slow" {
                gate.acquire().await.unwrap().forget();
            }
            reply(200, "done")
        }
    });
    let forebay = cold(&service, "");
    let slow = tokio::spawn({
        let forebay = Arc::clone(&forebay);
        async move { forebay.get("/tool/slow").await }
    });
    soon("the slow call is there", || service.calls().len() == 1).await;
    service.leave();
    soon("the farewell is heard", || {
        let connections = &forebay.snapshot().connections[0];
        connections.streams == 1
    })
    .await;
    for _ in 0..5 {
        assert_eq!(forebay.get("/tool/quick").await.body, "done");
    }
    gate.add_permits(1);
    assert_eq!(slow.await.unwrap().body, "done");
    assert_eq!(service.opened(), 2);
    soon("the first connection is closed", || service.open() == 1).await;
}

#[tokio::test]
async fn a_call_that_is_given_up_leaves_the_others_of_its_connection_alone() {
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let service = Service::start(Speaks::Http2(100), move |call: Request<_>| {
        let gate = Arc::clone(&opened);
        async move {
            if call.uri().path() != "/quick" {
                gate.acquire().await.unwrap().forget();
            }
            reply(200, "done")
        }
    });
    let forebay = cold(&service, "");
    assert_eq!(forebay.get("/tool/quick").await.status, 200);
    let stays = tokio::spawn({
        let forebay = Arc::clone(&forebay);
        async move { forebay.get("/tool/stays").await }
    });
    soon("it is there", || service.calls().len() == 2).await;
    for n in 3..8 {
        let leaves = calls(&forebay, 1).remove(0);
        soon("it is there", || service.calls().len() == n).await;
        leaves.abort();
    }
    soon("those who left have left nothing", || {
        let snapshot = forebay.snapshot();
        snapshot.pools[0].leased == 1 && snapshot.connections[0].in_use == 1
    })
    .await;
    gate.add_permits(10);
    assert_eq!(stays.await.unwrap().body, "done");
    assert_eq!(service.opened(), 1);
}

#[tokio::test]
async fn tenants_have_connections_of_their_own_within_the_budget() {
    let service = Service::start(Speaks::Http2(100), |call: Request<_>| async move {
        reply(200, call.headers()["authorization"].as_bytes().to_vec())
    });
    let (mut keys, mut own) = (String::new(), String::new());
    for n in 0..6 {
        keys += &format!("[tenants.t{n}]\nkey = \"key-{n}\"\n");
        own += &format!("tenants.t{n} = {{ type = \"bearer\", secret = \"secret-{n}\" }}\n");
    }
    let forebay = Forebay::start(&format!(
        "{keys}[destinations.tool]\nwarm_up = 0\nbudget = 2\n{}{own}",
        service.settings()
    ));
    for n in 0..12 {
        let tenant = n % 6;
        let call = Request::get("/tool/").header("x-forebay-key", format!("key-{tenant}"));
        assert_eq!(forebay.call(call).await.body, format!("Bearer secret-{tenant}"));
        assert!(forebay.snapshot().connections[0].open <= 3, "one may still be closing");
    }
    soon("the budget holds", || service.open() <= 2).await;
    let made_room = |closed: &[(&str, u64)]| closed.iter().any(|(why, n)| *why == "room" && *n > 0);
    assert!(made_room(&forebay.snapshot().connections[0].closed));
}

#[tokio::test]
async fn streams_that_the_service_refused_are_sent_again() {
    let listener = net::bind(std::net::SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut refused = false;
        while let Ok((stream, _)) = listener.accept().await {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                if refused {
                    drop(respond.send_response(Response::new(()), true));
                } else {
                    respond.send_reset(h2::Reason::REFUSED_STREAM);
                }
                refused = true;
            }
        }
    });
    let forebay = Forebay::start(&format!(
        "[destinations.tool]\nwarm_up = 0\nurl = \"http://{address}\"\n\
         connections.protocol = \"http2\"\n"
    ));
    assert_eq!(forebay.get("/tool/").await.status, 200);
    assert_eq!(forebay.snapshot().destinations[0].resent, 1);
}

#[tokio::test]
async fn connections_are_warm_before_anybody_calls() {
    let service = Service::start(Speaks::Http2(100), |_| async { reply(200, "") });
    let settings = service.settings();
    let forebay = Forebay::start(&format!("[destinations.tool]\nbudget = 8\n{settings}"));
    soon("the pool is warm", || forebay.gateway.is_ready()).await;
    let before = service.opened();
    assert!((1..=2).contains(&before), "{before}");
    assert_eq!(forebay.get("/tool/").await.status, 200);
    assert_eq!(service.opened(), before);
}
