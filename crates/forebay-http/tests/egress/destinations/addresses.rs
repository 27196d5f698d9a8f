//! Where names lead, and where they may lead.

use super::service::{Service, Speaks};
use crate::bench::Forebay;
use crate::origin::reply;

/// A name as far as URLs go, and this machine as far as resolvers go (`inet_aton`): what a name
/// server could make of any name.
fn disguised(service: &Service) -> String {
    format!("url = \"http://127.0x1:{}\"\n", service.address.port())
}

fn clear() -> Service {
    Service::start(Speaks::Clear(10), |_| async { reply(200, "inside") })
}

const CLEAR: &str = "[destinations.tool]\nwarm_up = 0\nconnections.protocol = \"http2\"\n";

#[tokio::test]
async fn a_name_that_leads_inside_is_refused_at_the_connect() {
    let service = clear();
    let forebay = Forebay::start(&format!("{CLEAR}{}", disguised(&service)));
    let got = forebay.get("/tool/").await;
    assert_eq!((got.status.as_u16(), got.problem().as_str()), (502, "unreachable"));
    assert!(got.body.contains("allow_private"), "{}", got.body);
    assert!(!got.body.contains("127.0.0.1"), "where it leads is not the agent's business");
    assert_eq!(service.opened(), 0);
    assert!(forebay.snapshot().connections[0].forbidden > 0);
}

#[tokio::test]
async fn it_is_reached_where_that_is_allowed() {
    for allowed in
        ["connections.allow_private = true\n", "connections.allow_networks = [\"127.0.0.0/8\"]\n"]
    {
        let service = clear();
        let forebay = Forebay::start(&format!("{CLEAR}{allowed}{}", disguised(&service)));
        assert_eq!(forebay.get("/tool/").await.body, "inside", "{allowed}");
    }
}

#[tokio::test]
async fn localhost_in_the_url_is_the_operators_own_word() {
    let service = clear();
    let url = format!("url = \"http://localhost:{}\"\n", service.address.port());
    let forebay = Forebay::start(&format!("{CLEAR}{url}"));
    assert_eq!(forebay.get("/tool/").await.body, "inside");
}
