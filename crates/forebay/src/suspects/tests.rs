use std::net::{TcpListener, TcpStream};

use forebay_pool::overlap::{HoldKind, IdleTransaction, OutboundCall};
use forebay_pool::{ClassName, Request, TraceId};

use super::*;

fn idles(client: u64, peer: Option<SocketAddr>) -> IdleClient {
    IdleClient {
        client,
        database: "app".into(),
        user: "agent".into(),
        application: "worker".into(),
        statement: Some("SELECT ?".into()),
        server: "main".into(),
        since: time::now(),
        peer,
        process: None,
    }
}

fn call(peer: Option<SocketAddr>) -> OutboundCall {
    OutboundCall { peer, ..OutboundCall::new("llm", "POST /v1/chat") }
}

fn request() -> Request {
    Request::new("default".into(), TraceId::of_request("a request").unwrap())
}

fn transaction(client: u64) -> IdleTransaction {
    IdleTransaction {
        kind: HoldKind::Held,
        class: ClassName::new("core"),
        feature: "answer".into(),
        statement: "SELECT ?".into(),
        database: "app".into(),
        user: "agent".into(),
        application: "worker".into(),
        client,
        since: time::now(),
    }
}

async fn look(suspects: &Suspects, idle: &[IdleClient]) {
    suspects.look(idle, &HoldSettings::default(), &Spawner::current()).await;
}

fn told(events: &mut broadcast::Receiver<Suspicion>) -> Vec<&'static str> {
    let name = |one: Suspicion| match one {
        Suspicion::Begins(_) => "begins",
        Suspicion::Named(_) => "named",
        Suspicion::Ends(_) => "ends",
    };
    std::iter::from_fn(|| events.try_recv().ok()).map(name).collect()
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn a_client_that_idles_is_suspected_once_and_of_the_call_of_its_own_process() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let sockets: Vec<_> =
        (0..2).map(|_| TcpStream::connect(listener.local_addr().unwrap()).unwrap()).collect();
    let own = |n: usize| sockets[n].local_addr().ok();
    let overlaps = Arc::new(Overlaps::default());
    let suspects = Suspects::new(Arc::clone(&overlaps));
    let mut events = suspects.events();
    let idle = [idles(1, own(0))];
    look(&suspects, &idle).await;
    look(&suspects, &idle).await;
    assert_eq!(told(&mut events), ["begins"], "and once only");
    assert_eq!(suspects.now()[0].call, None);
    let strangers = overlaps.call_begins(None, call("192.0.2.1:9".parse().ok()));
    look(&suspects, &idle).await;
    assert_eq!(suspects.now()[0].call, None, "a stranger's call is not named");
    let calling = overlaps.call_begins(None, call(own(1)));
    look(&suspects, &idle).await;
    let named = suspects.now()[0].call.clone().unwrap();
    assert_eq!((&*named.destination, named.basis, named.candidates), ("llm", Basis::Process, 1));
    look(&suspects, &[]).await;
    assert_eq!(told(&mut events), ["named", "ends"]);
    let counts = suspects.counts();
    assert_eq!((&*counts[0].destination, counts[0].count), ("llm", 1));
    assert!(overlaps.counts().is_empty(), "a suspicion is no overlap");
    drop((calling, strangers));
}

#[tokio::test]
async fn what_is_proven_to_overlap_is_not_suspected() {
    let overlaps = Arc::new(Overlaps::default());
    let suspects = Suspects::new(Arc::clone(&overlaps));
    let mut events = suspects.events();
    let idle = [idles(1, None)];
    look(&suspects, &idle).await;
    let idling = overlaps.transaction_idles(&request(), transaction(1));
    look(&suspects, &idle).await;
    assert_eq!(suspects.now().len(), 1, "it idles, and no call of its request is known");
    let calling = overlaps.call_begins(Some(&request()), call(None));
    look(&suspects, &idle).await;
    assert_eq!(suspects.now().len(), 0);
    assert_eq!(told(&mut events), ["begins", "ends"]);
    drop((calling, idling));
}

#[tokio::test]
async fn a_call_that_another_transaction_waits_for_is_not_named() {
    let overlaps = Arc::new(Overlaps::default());
    let idling = overlaps.transaction_idles(&request(), transaction(2));
    let own = overlaps.call_begins(Some(&request()), call(None));
    let other = overlaps.call_begins(None, call(None));
    assert_eq!(unexplained(overlaps.calls(10), &overlaps.holds()).len(), 1);
    drop((own, other, idling));
}

#[tokio::test]
async fn who_is_followed_and_what_is_counted_is_bounded() {
    let suspects = Suspects::new(Arc::new(Overlaps::default()));
    let crowd: Vec<_> = (0..3_000).map(|client| idles(client, None)).collect();
    look(&suspects, &crowd).await;
    assert_eq!(suspects.now().len(), MOST);
    for n in 0..APART + 100 {
        let application = format!("worker {n}").into();
        look(&suspects, &[IdleClient { application, ..idles(10_000, None) }]).await;
        look(&suspects, &[]).await;
    }
    assert_eq!(suspects.counts().len(), APART + 1);
}
