use std::cell::RefCell;

use super::*;

const TTL: Duration = Duration::from_secs(15);

thread_local! {
    /// What the name server says, and how often it was asked.
    static ZONE: RefCell<(Result<Vec<Address>, ()>, u32)> = const { RefCell::new((Err(()), 0)) };
}

fn says(answer: Result<Vec<Address>, ()>) {
    ZONE.with_borrow_mut(|zone| zone.0 = answer);
}

fn asked() -> u32 {
    ZONE.with_borrow(|zone| zone.1)
}

fn zone(_: Place) -> Answer {
    Box::pin(async {
        let answer = ZONE.with_borrow_mut(|zone| {
            zone.1 += 1;
            zone.0.clone()
        });
        answer.map_err(|()| io::Error::other("SERVFAIL"))
    })
}

fn silent(_: Place) -> Answer {
    ZONE.with_borrow_mut(|zone| zone.1 += 1);
    Box::pin(std::future::pending())
}

fn address(n: u8) -> Address {
    Address::Tcp(([192, 0, 2, n], 5432).into())
}

fn name(lookup: Lookup) -> Arc<Name> {
    Name::new(Place::Host { host: "db".into(), port: 5432 }, TTL, lookup, Arc::default())
}

#[tokio::test(start_paused = true)]
async fn a_name_is_asked_for_again_when_its_answer_is_old() {
    let name = name(zone);
    says(Ok(vec![address(1)]));
    for _ in 0..3 {
        assert_eq!(*name.addresses().await.unwrap(), [address(1)]);
    }
    assert_eq!(asked(), 1);
    says(Ok(vec![address(2)]));
    time::sleep(TTL).await;
    assert_eq!(*name.addresses().await.unwrap(), [address(2)]);
    assert_eq!((asked(), name.changes(), name.vanishings()), (2, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn the_last_good_answer_is_kept_whatever_comes_after() {
    let name = name(zone);
    assert!(name.addresses().await.is_err(), "it never had one");
    says(Ok(vec![address(1)]));
    assert_eq!(*name.addresses().await.unwrap(), [address(1)]);
    for nothing in [Err(()), Ok(Vec::new())] {
        says(nothing);
        time::sleep(TTL).await;
        assert_eq!(*name.addresses().await.unwrap(), [address(1)]);
    }
    assert_eq!((name.changes(), name.vanishings()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_hundred_addresses_are_bounded_and_all_kept_ones_have_their_turn() {
    let name = name(zone);
    says(Ok((0..100).map(address).collect()));
    let known = name.addresses().await.unwrap();
    assert_eq!(known.len(), MOST_KEPT);
    let mut tried = Vec::new();
    for _ in 0..known.len() / MOST_TRIED {
        let order = name.order(&known, LoadBalance::Disable);
        assert_eq!(order.len(), MOST_TRIED);
        name.turn.fetch_add(order.len(), Ordering::Relaxed);
        tried.extend(order);
    }
    assert_eq!(tried, *known);
    assert!(name.order(&[], LoadBalance::Random).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_name_server_that_does_not_answer_is_asked_once_and_holds_nobody_up() {
    let name = name(silent);
    name.known.send_replace(Known { addresses: [address(1)].into(), at: None, error: None });
    let started = time::now();
    let (one, other) = tokio::join!(name.addresses(), name.addresses());
    assert_eq!((&*one.unwrap(), &*other.unwrap()), (&[address(1)][..], &[address(1)][..]));
    assert_eq!((asked(), time::now() - started), (1, ANSWER_PATIENCE));
}

#[tokio::test(start_paused = true)]
async fn addresses_take_turns() {
    let name = name(zone);
    let known = [address(1), address(2), address(3)];
    let first = |spread| name.order(&known, spread)[0].clone();
    let turns: Vec<_> = (0..4).map(|_| first(LoadBalance::RoundRobin)).collect();
    assert_eq!(turns, [address(1), address(2), address(3), address(1)]);
    assert_eq!(first(LoadBalance::Disable), address(1));
    let by_chance: Vec<_> = (0..100).map(|_| first(LoadBalance::Random)).collect();
    assert!(known.iter().all(|address| by_chance.contains(address)));
}
