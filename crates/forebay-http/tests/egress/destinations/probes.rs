//! Connections that are asked whether they still work.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use http::Request;

use super::service::{Service, Speaks};
use crate::bench::{Forebay, soon};
use crate::origin::reply;

#[tokio::test]
async fn a_connection_that_answers_a_probe_badly_is_closed() {
    for speaks in [Speaks::Http1, Speaks::Http2(10)] {
        let status = Arc::new(AtomicU16::new(204));
        let answer = Arc::clone(&status);
        let service = Service::start(speaks, move |call: Request<_>| {
            let status = match call.uri().path() {
                "/healthz" => answer.load(Ordering::SeqCst),
                _ => 200,
            };
            async move { reply(status, "") }
        });
        let settings = service.settings();
        let forebay = Forebay::start(&format!(
            "[destinations.tool]\nwarm_up = 0\nprobe_interval = \"100ms\"\n\
             connections.probe_path = \"/healthz\"\n{settings}"
        ));
        let got = forebay.agent().await.call(Request::get("/tool/healthz"), "").await;
        assert_eq!(got.status, 204);
        soon("it is probed", || service.calls().len() > 2).await;
        assert_eq!(service.opened(), 1);
        status.store(500, Ordering::SeqCst);
        soon("it is closed", || service.open() == 0).await;
    }
}
