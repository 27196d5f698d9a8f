//! Handshakes that resume, and those that must not.

use super::service::{Service, Speaks};
use crate::bench::Forebay;
use crate::origin::reply;

#[tokio::test]
async fn handshakes_after_the_first_resume_its_session() {
    for speaks in [Speaks::Http1, Speaks::Http2(10)] {
        let service = Service::start(speaks, |_| async { reply(200, "") });
        let settings = service.settings();
        let forebay = Forebay::start(&format!(
            "[destinations.tool]\nwarm_up = 0\nconnections.max_calls = 1\n{settings}"
        ));
        for _ in 0..5 {
            assert_eq!(forebay.get("/tool/").await.status, 200);
        }
        let connections = forebay.snapshot().connections.remove(0);
        assert_eq!((connections.tls_full, connections.tls_resumed), (1, 4), "{speaks:?}");
    }
}
