//! A cancel request hits what its client runs or waits for, or nothing.

use std::future::poll_fn;

use super::*;

async fn wait_is_over(client: &Cancelable) -> bool {
    poll_fn(|cx| Poll::Ready(client.poll_wait(cx).is_ready())).await
}

fn right(one: &Registration) -> Request {
    let (pid, secret) = one.key(&Fleet::default());
    Request::new(pid, &secret)
}

#[tokio::test]
async fn a_key_dies_with_its_client() {
    let registry = Arc::new(Registry::default());
    let registration = registry.register(Form::Short, &Fleet::default());
    assert_eq!(registry.clients.lock().len(), 1);
    drop(registration);
    assert!(registry.clients.lock().is_empty());
}

#[tokio::test]
async fn a_wrong_secret_cancels_nothing() {
    let registry = Arc::new(Registry::default());
    let none = Fleet::default();
    let one = registry.register(Form::Short, &none);
    assert!(!wait_is_over(&one.client).await);
    let (pid, mut wrong) = one.key(&none);
    wrong[3] ^= 1;
    registry.cancel(&Request::new(pid, &wrong), &none).await;
    assert!(!wait_is_over(&one.client).await);
    let client = Arc::clone(&one.client);
    let wait = tokio::spawn(async move { poll_fn(|cx| client.poll_wait(cx)).await });
    tokio::task::yield_now().await;
    registry.cancel(&right(&one), &none).await;
    wait.await.unwrap();
}

#[tokio::test]
async fn a_cancel_that_came_late_does_not_end_the_next_wait() {
    let registry = Arc::new(Registry::default());
    let none = Fleet::default();
    let one = registry.register(Form::Short, &none);
    assert!(!wait_is_over(&one.client).await);
    registry.cancel(&right(&one), &none).await;
    assert!(wait_is_over(&one.client).await);
    one.client.rests();
    assert!(!wait_is_over(&one.client).await);
}

fn link(client: &Cancelable, in_flight: &Arc<InFlight>) -> Linked {
    let nowhere = Address::Unix(std::path::Path::new("/nowhere").into());
    client.links(&ServerKey::none(Door { address: nowhere, encrypted: None }), in_flight)
}

fn linked() -> (Cancelable, Arc<InFlight>) {
    let (client, in_flight) = (Cancelable::default(), Arc::<InFlight>::default());
    assert_eq!(link(&client, &in_flight), Linked::Yes);
    (client, in_flight)
}

#[tokio::test]
async fn a_cancel_waits_for_what_is_sent_ahead() {
    let (client, _) = linked();
    let (aimed, ()) = tokio::join!(client.aim_at_statement(), async {
        tokio::task::yield_now().await;
        client.begins(time::now());
    });
    assert!(aimed.is_some());
}

#[tokio::test]
async fn a_request_is_counted_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server");
    let server = net::UnixListener::bind(&path, &net::Permissions::default()).unwrap();
    let registry = Arc::new(Registry::default());
    let one = registry.register(Form::Short, &Fleet::default());
    let address = Address::Unix(path.as_path().into());
    let door = Door { address, encrypted: None };
    assert_eq!(one.client.links(&ServerKey::none(door), &Arc::default()), Linked::Yes);
    let (asked, striking) = (right(&one), Arc::clone(&registry));
    let strike = tokio::spawn(async move {
        striking.cancel(&asked, &Fleet::default()).await;
    });
    tokio::task::yield_now().await;
    assert_eq!(one.client.requests(), (1, 0), "what is ours comes first");
    one.client.begins(time::now());
    let (arrived, _) = server.accept().await.unwrap();
    assert_eq!(one.client.requests(), (0, 1), "the server has not answered");
    drop(arrived);
    strike.await.unwrap();
    assert_eq!(one.client.requests(), (0, 0));
}

#[tokio::test]
async fn a_cancel_of_what_is_ours_alone_is_for_nothing() {
    for end in [Cancelable::pauses, Cancelable::rests] {
        let (client, _) = linked();
        let (aimed, ()) = tokio::join!(client.aim_at_statement(), async {
            tokio::task::yield_now().await;
            end(&client);
        });
        assert!(aimed.is_none());
    }
}

#[tokio::test]
async fn a_connection_is_settled_only_when_its_requests_are() {
    let (client, in_flight) = linked();
    client.begins(time::now());
    let (ticket, _) = client.aim_at_statement().await.unwrap();
    let (_, underway) = client.shoot(ticket).unwrap();
    assert!(client.shoot(ticket).is_none(), "one is enough");
    client.pauses();
    assert!(client.shoot(ticket).is_none(), "what has ended cannot be cancelled");
    assert_eq!(client.begins(time::now()), Begun::Held);
    drop(underway);
    in_flight.settled().await;
    assert_eq!(client.begins(time::now()), Begun::Yes);
    assert!(client.shoot(ticket).is_none(), "it was for another statement");
    assert!(in_flight.is_over());
}

#[test]
fn a_request_whose_fate_is_unknown_is_never_over() {
    let in_flight = Arc::<InFlight>::default();
    let mut underway = in_flight.begin();
    underway.arrival = Arrival::Unknown;
    drop(underway);
    assert!(in_flight.is_settled() && !in_flight.is_over());
}

#[tokio::test]
async fn a_connection_that_comes_after_the_cancel_of_the_wait_is_not_the_clients() {
    let (registry, none) = (Arc::new(Registry::default()), Fleet::default());
    let one = registry.register(Form::Short, &none);
    assert!(!wait_is_over(&one.client).await);
    registry.cancel(&right(&one), &none).await;
    assert_eq!(link(&one.client, &Arc::default()), Linked::Cancelled);
    assert_eq!(link(&one.client, &Arc::default()), Linked::Yes);
}
