//! Keys for cancel requests, as clients get them and send them back ("Message Formats",
//! BackendKeyData, CancelRequest).
//!
//! In a fleet the process id says which instance gave it. A client of protocol 3.0 gets four
//! secret bytes, and one of protocol 3.2 a key that cannot be guessed: a version, the instance,
//! a proof that only the process that gave it can make, and, where the fleet has a secret, a
//! MAC by which every instance knows a key of the fleet. Always true: keys are compared in
//! constant time, and a client of protocol 3.2 is not cancelled by four bytes.

use aws_lc_rs::{constant_time, hmac};
use forebay_seam::random;
use smallvec::SmallVec;

use super::fleet::{Fleet, InstanceId};

/// The length of the secret part of a key ("Message Formats", CancelRequest).
pub(crate) const LENGTHS: std::ops::RangeInclusive<usize> = 4..=256;
/// What the secret part of a long key begins with.
const KEY: u8 = 1;
/// What the secret part of a key begins with that an instance has sent on.
const FORWARDED: u8 = 2;
const PROOF: usize = 16;

/// Which keys a client takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Form {
    /// Protocol 3.0 and 3.1.
    #[default]
    Short,
    /// Protocol 3.2.
    Long,
}

/// What a client's key is made of.
#[derive(Clone, Copy, Default)]
pub(super) struct ClientKey {
    pub(super) pid: i32,
    pub(super) random: [u8; 4],
    pub(super) form: Form,
}

/// The bytes behind the process id.
pub(crate) type Secret = SmallVec<[u8; 64]>;

/// A CancelRequest.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) pid: i32,
    pub(crate) secret: Secret,
    travel: Travel,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a request for process {}", self.pid)
    }
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Travel {
    FromClient,
    /// From another instance: it is for this one, or for nobody.
    FromFleet,
}

impl Request {
    /// From what stood in a CancelRequest.
    pub(crate) fn new(pid: i32, secret: &[u8]) -> Self {
        let (secret, travel) = match secret {
            [FORWARDED, of_client @ ..] if LENGTHS.contains(&of_client.len()) => {
                (of_client, Travel::FromFleet)
            }
            _ => (secret, Travel::FromClient),
        };
        Self { pid, secret: Secret::from_slice(secret), travel }
    }

    /// The other instance that it is for, if any, and if it may be sent there.
    pub(super) fn instance(&self, fleet: &Fleet) -> Option<InstanceId> {
        if self.travel == Travel::FromFleet {
            return None;
        }
        let of_pid = InstanceId::of_pid(self.pid);
        if self.secret.len() > 4 {
            let key = Long::read(&self.secret)?;
            if key.instance != of_pid || !fleet.knows(&key, self.pid) {
                return None;
            }
        }
        Some(of_pid).filter(|instance| *instance != fleet.id())
    }

    /// The secret part for the instance that it is sent on to.
    pub(super) fn forwarded(&self) -> Vec<u8> {
        let mut secret = vec![FORWARDED];
        secret.extend_from_slice(&self.secret);
        secret
    }
}

/// The secret part of a long key.
pub(super) struct Long<'k> {
    pub(super) instance: InstanceId,
    proof: &'k [u8],
    pub(super) mac: &'k [u8],
}

impl<'k> Long<'k> {
    fn read(secret: &'k [u8]) -> Option<Self> {
        let (head, rest) = secret.split_at_checked(3)?;
        let [KEY, high, low] = *head else { return None };
        let (proof, mac) = rest.split_at_checked(PROOF)?;
        if !mac.is_empty() && mac.len() != PROOF {
            return None;
        }
        Some(Self { instance: InstanceId::from_be_bytes([high, low]), proof, mac })
    }

    /// What the fleet's MAC is made of.
    pub(super) fn signed(&self, pid: i32) -> Vec<u8> {
        let parts: [&[u8]; 3] = [&self.instance.to_be_bytes(), &pid.to_be_bytes(), self.proof];
        parts.concat()
    }
}

/// Makes and checks the keys of this process.
pub(super) struct Keys(hmac::Key);

impl Keys {
    pub(super) fn new() -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &random::bytes::<32>()))
    }

    /// The secret part of `key`, as its client gets it.
    pub(super) fn secret(&self, key: ClientKey, fleet: &Fleet) -> Secret {
        if key.form == Form::Short {
            return Secret::from_slice(&key.random);
        }
        let proof = self.proof(key);
        let instance = InstanceId::of_pid(key.pid);
        let mut secret = Secret::from_slice(&[KEY]);
        secret.extend_from_slice(&instance.to_be_bytes());
        secret.extend_from_slice(&proof);
        let long = Long { instance, proof: &proof, mac: &[] };
        secret.extend(fleet.mac(&long, key.pid).into_iter().flatten());
        secret
    }

    /// Is `secret` that of `key`?
    pub(super) fn fits(&self, key: ClientKey, secret: &[u8]) -> bool {
        let equal = constant_time::verify_slices_are_equal;
        match key.form {
            Form::Short => equal(&key.random, secret).is_ok(),
            Form::Long => {
                Long::read(secret).is_some_and(|long| equal(&self.proof(key), long.proof).is_ok())
            }
        }
    }

    fn proof(&self, key: ClientKey) -> [u8; PROOF] {
        shortened(&hmac::sign(&self.0, &[&key.pid.to_be_bytes()[..], &key.random].concat()))
    }
}

/// As much of a MAC as a key has room for.
pub(super) fn shortened(tag: &hmac::Tag) -> [u8; PROOF] {
    let mut short = [0; PROOF];
    short.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
    short
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::settings::FleetSettings;

    fn fleet(id: u16) -> Fleet {
        let settings = serde_json::json!({
            "id": id,
            "secret": "sixteen and more characters",
            "peers": [{"id": 1, "address": "a"}, {"id": 2, "address": "b"}],
        });
        let settings: FleetSettings = serde_json::from_value(settings).unwrap();
        Fleet::new(&settings).unwrap()
    }

    fn key(fleet: &Fleet, form: Form) -> ClientKey {
        ClientKey { pid: fleet.id().pid(-1), random: [1, 2, 3, 4], form }
    }

    #[test]
    fn a_key_says_whose_it_is_and_only_its_own_process_takes_it() {
        let (one, two) = (fleet(1), fleet(2));
        for form in [Form::Short, Form::Long] {
            let (keys, others) = (Keys::new(), Keys::new());
            let key = key(&one, form);
            let secret = keys.secret(key, &one);
            assert!(keys.fits(key, &secret));
            assert_eq!(others.fits(key, &secret), form == Form::Short);
            let request = Request::new(key.pid, &secret);
            assert_eq!(request.instance(&two), Some(one.id()));
            assert_eq!(request.instance(&one), None, "it is its own");
            let sent_on = Request::new(key.pid, &request.forwarded());
            assert_eq!(sent_on.secret, request.secret);
            assert_eq!(sent_on.instance(&two), None, "once is enough");
        }
    }

    #[test]
    fn a_client_of_a_newer_protocol_is_not_cancelled_by_four_bytes() {
        let (one, keys) = (fleet(1), Keys::new());
        let (short, long) = (key(&one, Form::Short), key(&one, Form::Long));
        assert!(!keys.fits(long, &keys.secret(short, &one)));
        assert!(!keys.fits(short, &keys.secret(long, &one)));
    }

    proptest! {
        #[test]
        fn no_request_breaks_the_reader(pid: i32, secret: Vec<u8>) {
            let (one, keys) = (fleet(1), Keys::new());
            let request = Request::new(pid, &secret);
            let long = key(&one, Form::Long);
            prop_assert!(!keys.fits(long, &request.secret));
            if secret.len() > 4 {
                prop_assert_eq!(request.instance(&one), None);
            }
        }
    }
}
