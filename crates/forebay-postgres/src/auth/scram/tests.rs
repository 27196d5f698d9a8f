use std::sync::Arc;

use forebay_seam::random;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use proptest::prelude::*;

use super::client::{Binding, Opening};
use super::server::{Challenge, Chosen};
use super::*;

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

/// A whole login of ours to a server that has `verifier`.
fn pass_on(keys: &ScramKeys, verifier: Verifier) -> Result<(), ScramError> {
    let opening = Opening::new(Binding::Unsupported);
    let first = opening.message();
    let (challenge, answer) = Challenge::new(Arc::new(verifier), Chosen::Only, first.as_bytes())?;
    let (last, awaited) = opening.challenged(answer.as_bytes()).unwrap().prove(keys);
    let (said, _) = challenge.finish(last.as_bytes())?;
    awaited.check(said.as_bytes()).unwrap();
    assert!(awaited.check(b"v=AAAA").is_err());
    Ok(())
}

#[test]
fn the_keys_of_a_clients_proof_log_in_where_the_same_verifier_is() {
    let verifier = stored("hunter2");
    let keys = log_in(verifier.clone(), "hunter2").unwrap();
    assert_eq!(pass_on(&keys, verifier.clone()), Ok(()));
    // The same password with another salt is another verifier.
    assert_eq!(pass_on(&keys, stored("hunter2")), Err(ScramError::WrongPassword));
    let salted = salted("hunter2", &verifier.salting);
    let of_password = super::keys(&salted, &verifier.salting);
    assert!(of_password.client_key == keys.client_key && of_password.salt == keys.salt);
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

#[test]
fn trap_49_a_servers_challenge_is_bounded() {
    let challenged = |change: &dyn Fn(&str) -> String| {
        let opening = Opening::new(Binding::NotOffered);
        let nonce = opening.nonce.clone();
        opening.challenged(change(&nonce).as_bytes()).is_ok()
    };
    assert!(challenged(&|nonce| format!("r={nonce}x,s=AAAA,i=4096")));
    assert!(!challenged(&|nonce| format!("r={nonce},s=AAAA,i=4096")));
    assert!(!challenged(&|_| "r=other,s=AAAA,i=4096".into()));
    assert!(!challenged(&|nonce| format!("r={nonce}x,s=,i=4096")));
    assert!(!challenged(&|nonce| format!("r={nonce}x,s=AAAA,i=0")));
    assert!(!challenged(&|nonce| format!("r={nonce}x,s=AAAA,i=2147483648")));
    assert!(!challenged(&|nonce| format!("r={nonce}{},s=AAAA,i=1", "x".repeat(65_536))));
    assert!(!challenged(&|_| String::new()));
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

    #[test]
    fn no_challenge_breaks_a_login(challenge: Vec<u8>, text in "[rsi=,A-Z0-9]{0,60}") {
        let opening = || Opening::new(Binding::Unsupported);
        prop_assert!(opening().challenged(&challenge).is_err());
        prop_assert!(opening().challenged(text.as_bytes()).is_err());
    }
}
