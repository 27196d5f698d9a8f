use std::net::SocketAddr;

use forebay_pool::Condition;
use tokio::io::{AsyncReadExt, DuplexStream};

use super::*;
use crate::addresses::{Allowed, Private};
use crate::upload::Upload;

fn site() -> Arc<Site> {
    let allowed = Allowed::of("127.0.0.1", Private::Listed, &[]);
    Arc::new(Site::new(Addresses::new("127.0.0.1", 80, allowed, Duration::MAX, 2), u32::MAX))
}

async fn spoken(stream: DuplexStream) -> Connection<Upload> {
    let target = Target::parse("http://api.test").unwrap();
    let (protocol, stream) = (Protocol::Http1, Box::new(stream));
    let line = Line { stream, socket: None, protocol, address: None };
    let link = Link::new(site(), line.birth());
    let mut connection =
        speak_http1::<Upload>(line, link, None, &target, &Spawner::current()).await.unwrap();
    connection.ready().await.unwrap();
    connection
}

#[tokio::test]
async fn a_call_on_a_connection_that_was_just_closed_comes_back_untouched() {
    let (ours, theirs) = tokio::io::duplex(1024);
    let mut connection = spoken(ours).await;
    drop(theirs);
    let sending = connection.send(http::Request::new(Upload::empty()));
    assert!(sending.await.unwrap_err().take_message().is_some());
}

#[tokio::test]
async fn a_closed_connection_closes_its_socket_and_takes_no_call() {
    let (ours, mut theirs) = tokio::io::duplex(1024);
    let mut connection = spoken(ours).await;
    assert!(connection.is_ready());
    assert_eq!(connection.abandon(), Condition::Broken);
    assert!(!connection.is_ready());
    let mut heard = Vec::new();
    theirs.read_to_end(&mut heard).await.unwrap();
    assert!(heard.is_empty() && connection.is_closed());
}

fn deaf() -> SocketAddr {
    // Nobody listens where somebody has just ceased to.
    net::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn of_several_addresses_the_first_that_answers_is_taken() {
    let listener = net::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let good = listener.local_addr().unwrap();
    let site = site();
    let mut addresses: Vec<_> = (0..20).map(|_| deaf()).collect();
    addresses.push(good);
    let (_, taken) = race(&addresses, &site.addresses).await.unwrap();
    assert_eq!(taken, good);
}

#[tokio::test]
async fn where_no_address_answers_the_last_failure_is_told() {
    let site = site();
    let error = race(&[deaf(), deaf()], &site.addresses).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    let error = race(&[], &site.addresses).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}
