//! A name that leads to several addresses, or to others than before: what it leads to is told
//! by hand, the services are real sockets.

use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;

use forebay_pool::{Ask, Lease, Pool};
use forebay_seam::net::{self, TcpListener};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use super::*;
use crate::credential::Registry;
use crate::destination::Prepared;
use crate::settings::DestinationSettings;
use crate::tls::Trust;

const PATIENCE: Duration = Duration::from_secs(20);

/// A service at 127.0.0.`last`, which answers as told.
struct Service {
    address: SocketAddr,
    /// What it answers; nothing yet, where that is empty.
    says: watch::Sender<&'static str>,
    opened: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const BUSY: &str = "HTTP/1.1 503 Busy\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n";
const BROKEN: &str = "HTTP/1.1 500 Broken\r\ncontent-length: 0\r\n\r\n";

impl Service {
    fn start(last: u8, port: u16) -> Self {
        let listener = net::bind(SocketAddr::from(([127, 0, 0, last], port))).unwrap();
        let address = listener.local_addr().unwrap();
        let (says, heard) = watch::channel(OK);
        let (opened, open) = Default::default();
        tokio::spawn(serve(listener, heard, Arc::clone(&opened), Arc::clone(&open)));
        Self { address, says, opened, open }
    }

    fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }

    fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

async fn serve(
    listener: TcpListener,
    says: watch::Receiver<&'static str>,
    opened: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
) {
    while let Ok((mut stream, _)) = listener.accept().await {
        opened.fetch_add(1, Ordering::SeqCst);
        open.fetch_add(1, Ordering::SeqCst);
        let (mut says, open) = (says.clone(), Arc::clone(&open));
        tokio::spawn(async move {
            let mut space = [0; 4096];
            while let Ok(1..) = stream.read(&mut space).await {
                let answer = *says.wait_for(|says| !says.is_empty()).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

/// A destination whose name leads to `services`.
fn leading_to(services: &[&Service], more: &str) -> Pool<Opener> {
    let port = services[0].address.port();
    let settings: DestinationSettings = toml::from_str(&format!(
        "url = \"http://several.test:{port}\"\nwarm_up = 0\nbudget = 4\n\
         connections.allow_private = true\n{more}"
    ))
    .unwrap();
    let (registry, mut trust) = (Registry::new(), Trust::default());
    let prepared = Prepared::new("tool", &settings, None, None, &registry, &mut trust).unwrap();
    let pool = prepared.stand(&Arc::default()).pool;
    leads_to(&pool, services);
    pool
}

/// An answer of the name's server.
fn leads_to(pool: &Pool<Opener>, services: &[&Service]) {
    let found = services.iter().map(|service| service.address).collect();
    pool.connector().desk.site.addresses.learn(found).unwrap();
}

async fn seat(pool: &Pool<Opener>) -> Lease<Opener> {
    let class = pool.class("core").unwrap();
    pool.checkout(Ask::new(Identity::Common, class)).await.unwrap()
}

/// Calls on `lease`, and gives it back; says which status came.
async fn call(mut lease: Lease<Opener>) -> u16 {
    let sending = lease.connection().send(Request::new(Upload::empty()));
    let Ok(answer) = time::timeout(PATIENCE, sending).await.unwrap() else { panic!("no answer") };
    let status = answer.status().as_u16();
    answer.into_body().collect().await.unwrap();
    lease.connection().ready().await.unwrap();
    lease.give_back(forebay_pool::Condition::Clean);
    status
}

async fn soon(what: &str, mut happened: impl FnMut() -> bool) {
    let begun = time::now();
    while !happened() {
        assert!(time::now() < begun + PATIENCE, "did not happen: {what}");
        time::sleep(Duration::from_millis(5)).await;
    }
}

fn closed(pool: &Pool<Opener>, why: &str) -> u64 {
    let snapshot = pool.connector().snapshot("tool".into());
    snapshot.closed.iter().filter(|(code, _)| *code == why).map(|(_, count)| count).sum()
}

#[tokio::test]
async fn connections_to_an_address_that_vanished_end_with_their_calls() {
    let old = Service::start(1, 0);
    let new = Service::start(2, old.address.port());
    let pool = leading_to(&[&old], "");
    let (busy, resting) = (seat(&pool).await, seat(&pool).await);
    assert_eq!(call(resting).await, 200);
    assert_eq!((old.opened(), old.open()), (2, 2));
    old.says.send("").unwrap();
    let under_way = tokio::spawn(call(busy));
    // One answer without it says little: where there are many, single answers leave some out.
    leads_to(&pool, &[&new]);
    leads_to(&pool, &[&new]);
    soon("what rests there is closed", || old.open() == 1).await;
    assert_eq!(call(seat(&pool).await).await, 200);
    assert_eq!((old.opened(), new.opened()), (2, 1));
    old.says.send(OK).unwrap();
    assert_eq!(under_way.await.unwrap(), 200);
    soon("the last one is closed", || old.open() == 0).await;
    assert_eq!(closed(&pool, "address_gone"), 2);
}

#[tokio::test]
async fn an_address_that_asks_to_be_left_alone_is_and_comes_back() {
    let well = Service::start(1, 0);
    let busy = Service::start(2, well.address.port());
    let pool = leading_to(&[&well, &busy], "");
    let both = [seat(&pool).await, seat(&pool).await];
    assert_eq!((well.opened(), busy.opened()), (1, 1), "they take turns");
    busy.says.send(BUSY).unwrap();
    let mut answers = Vec::new();
    for lease in both {
        answers.push(call(lease).await);
    }
    answers.sort_unstable();
    assert_eq!(answers, [200, 503]);
    assert_eq!(pool.connector().snapshot("tool".into()).ejected, 1);
    busy.says.send(OK).unwrap();
    soon("its connection is closed", || busy.open() == 0).await;
    // Its second is over.
    soon("it is back", || pool.connector().snapshot("tool".into()).ejected == 0).await;
    let all = [seat(&pool).await, seat(&pool).await, seat(&pool).await];
    assert_eq!((well.opened() + busy.opened(), busy.opened() > 1), (4, true));
    for lease in all {
        assert_eq!(call(lease).await, 200);
    }
}

#[tokio::test]
async fn an_address_that_keeps_failing_is_left_out() {
    let well = Service::start(1, 0);
    let broken = Service::start(2, well.address.port());
    broken.says.send(BROKEN).unwrap();
    let pool = leading_to(&[&well, &broken], "connections.eject_after = 3\n");
    let both = [seat(&pool).await, seat(&pool).await];
    for lease in both {
        call(lease).await;
    }
    for _ in 0..20 {
        let both = [seat(&pool).await, seat(&pool).await];
        for lease in both {
            call(lease).await;
        }
        if pool.connector().snapshot("tool".into()).ejected == 1 {
            break;
        }
    }
    soon("what rests there is closed", || broken.open() == 0).await;
    let opened = broken.opened();
    for _ in 0..4 {
        let both = [seat(&pool).await, seat(&pool).await];
        for lease in both {
            assert_eq!(call(lease).await, 200);
        }
    }
    assert_eq!(broken.opened(), opened);
    assert_eq!(closed(&pool, "address_ejected"), 1);
}

#[tokio::test]
async fn handshakes_under_way_are_bounded() {
    // It takes connections and says nothing: TLS waits for it.
    let listener = net::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (most, now) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (seen, under_way) = (Arc::clone(&most), Arc::clone(&now));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let count = under_way.fetch_add(1, Ordering::SeqCst) + 1;
            seen.fetch_max(count, Ordering::SeqCst);
            let under_way = Arc::clone(&under_way);
            tokio::spawn(async move {
                let mut space = [0; 4096];
                drop(stream.read(&mut space).await);
                time::sleep(Duration::from_millis(20)).await;
                under_way.fetch_sub(1, Ordering::SeqCst);
                drop(stream);
            });
        }
    });
    let settings: DestinationSettings = toml::from_str(&format!(
        "url = \"https://127.0.0.1:{port}\"\nwarm_up = 0\nbudget = 20\n\
         checkout_timeout = \"500ms\"\nconnections.concurrent_connects = 3\n"
    ))
    .unwrap();
    let (registry, mut trust) = (Registry::new(), Trust::default());
    let prepared = Prepared::new("tool", &settings, None, None, &registry, &mut trust).unwrap();
    let pool = prepared.stand(&Arc::default()).pool;
    let asks = (0..20).map(|_| {
        let pool = pool.clone();
        tokio::spawn(async move {
            let class = pool.class("core").unwrap();
            pool.checkout(Ask::new(Identity::Common, class)).await.is_ok()
        })
    });
    let asks: Vec<_> = asks.collect();
    for ask in asks {
        assert!(!ask.await.unwrap());
    }
    assert!((1..=3).contains(&most.load(Ordering::SeqCst)), "{most:?}");
}
