use std::sync::Arc;

use forebay_seam::random;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use proptest::prelude::*;

use super::server::{Challenge, Chosen};
use super::*;
use crate::server::proof::ScramKeys;

const HASH: &[u8] = b"hash of a certificate";

/// Logs in with libpq's counterpart in Rust against `verifier`.
fn log_in(verifier: Verifier, password: &str) -> Result<ScramKeys, ScramError> {
    let unbound = ChannelBinding::unsupported();
    log_in_bound(verifier, password, unbound, Chosen::Only)
}

fn log_in_bound(
    verifier: Verifier,
    password: &str,
    binding: ChannelBinding,
    chosen: Chosen<'_>,
) -> Result<ScramKeys, ScramError> {
    let mut client = ScramSha256::new(password.as_bytes(), binding);
    let (challenge, first) = Challenge::new(Arc::new(verifier), chosen, client.message())?;
    client.update(first.as_bytes()).unwrap();
    let (last, keys) = challenge.finish(client.message())?;
    client.finish(last.as_bytes()).unwrap();
    Ok(keys)
}

fn stored(password: &str) -> Verifier {
    let text = postgres_protocol::password::scram_sha_256(password.as_bytes());
    Verifier::parse(&text).unwrap()
}

fn salted(password: &str, salting: &Salting) -> Salted {
    Salted::new(&SecretString::from(password.to_owned()), salting)
}

#[test]
fn the_right_password_gets_in_and_no_other() {
    let verifier = stored("pässword");
    assert!(log_in(verifier.clone(), "pässword").is_ok());
    assert_eq!(log_in(verifier, "password").err(), Some(ScramError::WrongPassword));
}

#[test]
fn a_verifier_of_ours_is_postgres_own() {
    let theirs = stored("pass\u{a0}word");
    let ours = salted("pass word", &theirs.salting);
    assert!(theirs.fits(&ours) && ours.verifier(theirs.salting.clone()) == theirs);
    assert!(!theirs.fits(&salted("password", &theirs.salting)));
}

#[test]
fn what_is_no_verifier_is_not_taken_for_one() {
    let many = "SCRAM-SHA-256$4294967295:AAAA$";
    for bad in ["", "md5abc", "SCRAM-SHA-256$0:AA==$AA==:AA==", "SCRAM-SHA-256$4096:$x:y", many] {
        assert!(Verifier::parse(bad).is_none(), "{bad}");
    }
}

#[test]
fn nobody_logs_in_as_nobody_and_the_salt_is_steady() {
    let secret = random::bytes();
    let salt = |user| Verifier::of_nobody(&secret, user).salting.salt;
    assert_eq!(salt("a"), salt("a"));
    assert_ne!(salt("a"), salt("b"));
    let nobody = Verifier::of_nobody(&secret, "a");
    assert_eq!(log_in(nobody, "").err(), Some(ScramError::WrongPassword));
}

#[test]
fn a_right_proof_brings_the_clients_key() {
    let verifier = stored("hunter2");
    let keys = log_in(verifier.clone(), "hunter2").unwrap();
    let salted = salted("hunter2", &verifier.salting);
    assert!(keys.client_key == salted.client_key().0);
    assert!(keys.server_key == salted.server_key().0);
    assert!(keys.salt == verifier.salting.salt && keys.iterations == 4096);
}

#[test]
fn trap_49_a_binding_is_checked_and_its_removal_is_noticed() {
    let bound = |hash: &[u8]| ChannelBinding::tls_server_end_point(hash.to_vec());
    let log_in = |binding, chosen| log_in_bound(stored("x"), "x", binding, chosen).err();
    assert_eq!(log_in(bound(HASH), Chosen::Plus(HASH)), None);
    // Who stands between has another certificate.
    assert_eq!(log_in(bound(b"another"), Chosen::Plus(HASH)), Some(ScramError::Binding));
    let unrequested = || ChannelBinding::unrequested();
    assert_eq!(log_in(unrequested(), Chosen::Only), None);
    assert_eq!(log_in(unrequested(), Chosen::WithoutBinding), Some(ScramError::Downgrade));
    assert_eq!(log_in(ChannelBinding::unsupported(), Chosen::WithoutBinding), None);
    let unbound = log_in(ChannelBinding::unsupported(), Chosen::Plus(HASH));
    assert!(matches!(unbound, Some(ScramError::Malformed(_))));
    let without = log_in(bound(HASH), Chosen::Only);
    assert!(matches!(without, Some(ScramError::Malformed(_))));
}

proptest! {
    #[test]
    fn no_message_breaks_the_exchange(first: Vec<u8>, last: Vec<u8>, nonce in "[ -~]{0,40}") {
        let nobody = || Arc::new(Verifier::of_nobody(&[7; 32], "x"));
        prop_assert!(Challenge::new(nobody(), Chosen::Only, &first).is_err());
        let good = format!("n,,n=,r=x{}", nonce.replace(',', ""));
        let (challenge, _) = Challenge::new(nobody(), Chosen::Only, good.as_bytes()).unwrap();
        prop_assert!(challenge.finish(&last).is_err());
    }
}
