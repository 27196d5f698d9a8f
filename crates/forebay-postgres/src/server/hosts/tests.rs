use super::super::names::Lookup;
use super::super::place::Place;
use super::*;

const FAR: [&str; 2] = ["192.0.2.1:5432", "192.0.2.2:5432"];

fn addresses(of: &[&str]) -> Vec<Address> {
    of.iter().map(|address| Address::Tcp(address.parse().unwrap())).collect()
}

fn several() -> Lookup {
    |_| Box::pin(async { Ok(addresses(&FAR)) })
}

fn of_each_family() -> Lookup {
    |_| Box::pin(async { Ok(addresses(&["[2001:db8::1]:5432", FAR[0]])) })
}

async fn name(host: &str, lookup: Lookup) -> Arc<Name> {
    let place = Place::Host { host: host.into(), port: 5432 };
    let name = Name::new(place, Duration::from_secs(15), lookup, Arc::default());
    name.addresses().await.unwrap();
    name
}

async fn hosts(host: &str, lookup: Lookup, spread: LoadBalance) -> Hosts {
    let choice = Choice {
        attrs: SessionAttrs::Any,
        spread,
        max_lag: None,
        rhythm: Duration::from_secs(1),
        watched: Watched::IfChoosy,
    };
    Hosts::new(vec![(host.into(), name(host, lookup).await)], choice, Arc::default())
}

#[tokio::test]
async fn one_name_with_several_addresses_is_spread_over_them() {
    for (host, spread, is_spread) in [
        ("db", LoadBalance::Random, true),
        ("db", LoadBalance::RoundRobin, true),
        ("db", LoadBalance::Disable, false),
        ("192.0.2.1", LoadBalance::Random, false),
    ] {
        let hosts = hosts(host, several(), spread).await;
        assert_eq!(hosts.are_spread_over(), is_spread, "{host} {spread:?}");
    }
}

#[tokio::test]
async fn a_connection_to_one_of_several_addresses_knows_that_the_next_may_lead_elsewhere() {
    let [one, other] = FAR.map(|address| Address::Tcp(address.parse().unwrap()));
    let db = name("db", several()).await;
    assert!(db.may_turn_from(&one) && db.may_turn_from(&other));
    assert!(!name("192.0.2.1", several()).await.may_turn_from(&one));
    let both = name("db", of_each_family()).await;
    assert!(!both.may_turn_from(&one), "the system prefers one family, always");
    assert!(both.may_turn_from(&other), "the name has left it");
}
