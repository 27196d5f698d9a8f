//! Several instances behind one address: a cancel request may come to any of them, and is sent
//! on to the one that gave its key. Nobody has to be asked who that is: the key says it.
//!
//! Always true: a request is sent on once at the most, since the other instance is told that it
//! was, and within a few seconds.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::time::Duration;

use aws_lc_rs::{constant_time, hmac};
use forebay_seam::net::Address;
use forebay_seam::secret::ExposeSecret;
use forebay_seam::{net, time};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::key::{Long, Request, shortened};
use super::request;
use crate::server::place::Place;
use crate::settings::FleetSettings;

/// An instance that has not dealt with a request within this does not.
const PATIENCE: Duration = Duration::from_secs(5);
/// The port of an instance whose address names none.
const PORT: u16 = 6432;
/// Bits of a process id below those of the instance.
const BITS_OF_SESSION: u32 = 17;
/// A shorter secret can be guessed.
const SHORTEST_SECRET: usize = 16;

/// Which instance of a fleet; 0 without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct InstanceId(u16);

impl InstanceId {
    /// As PgBouncer's `peer_id`.
    pub(crate) const HIGHEST: u16 = 16_383;

    /// Who gave a key with this process id, in a fleet.
    pub(super) fn of_pid(pid: i32) -> Self {
        Self(u16::try_from(pid >> BITS_OF_SESSION).unwrap_or_default())
    }

    /// A process id that says so, of random bits.
    pub(super) fn pid(self, random: i32) -> i32 {
        if self.0 == 0 {
            return random & i32::MAX;
        }
        i32::from(self.0) << BITS_OF_SESSION | random & ((1 << BITS_OF_SESSION) - 1)
    }

    pub(super) fn from_be_bytes(bytes: [u8; 2]) -> Self {
        Self(u16::from_be_bytes(bytes))
    }

    pub(super) fn to_be_bytes(self) -> [u8; 2] {
        self.0.to_be_bytes()
    }
}

/// The fleet that this instance is part of; none by default.
#[derive(Default)]
pub(crate) struct Fleet {
    id: InstanceId,
    others: HashMap<InstanceId, Place>,
    /// By it keys of the fleet are known.
    key: Option<hmac::Key>,
}

/// A setting of `[postgres.fleet]` that cannot be carried out: its path there and the reason.
type Wrong = (String, String);

impl Fleet {
    /// The fleet of `settings`; reads its secret.
    ///
    /// # Errors
    /// As [`Fleet::check`]; also a secret that cannot be read, or is too short.
    pub(crate) fn new(settings: &FleetSettings) -> Result<Self, Wrong> {
        let others = Self::check(settings)?;
        let wrong = |reason| ("secret".to_owned(), reason);
        let secret = settings.secret.as_ref().map(|secret| secret.read()).transpose();
        let secret = secret.map_err(|error| wrong(error.to_string()))?;
        if secret.as_ref().is_some_and(|s| s.expose_secret().len() < SHORTEST_SECRET) {
            let reason = format!("it can be guessed: {SHORTEST_SECRET} characters at least");
            return Err(wrong(reason));
        }
        let key = secret.map(|secret| {
            let secret = hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes());
            let derived = hmac::sign(&secret, b"forebay: keys for cancel requests");
            hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref())
        });
        Ok(Self { id: InstanceId(settings.id), others, key })
    }

    /// The other instances, if `settings` can be carried out. Reads no secret.
    ///
    /// # Errors
    /// The first that cannot.
    pub(crate) fn check(settings: &FleetSettings) -> Result<HashMap<InstanceId, Place>, Wrong> {
        let good = 1..=InstanceId::HIGHEST;
        let range = || format!("expected a number from 1 to {}", InstanceId::HIGHEST);
        if !good.contains(&settings.id) {
            return Err(("id".into(), range()));
        }
        let mut others = HashMap::new();
        for (number, peer) in settings.peers.iter().enumerate() {
            let at = |key: &str| format!("peers[{number}].{key}");
            if !good.contains(&peer.id) {
                return Err((at("id"), range()));
            }
            let place = Place::parse_with(&peer.address, PORT);
            let place = place.map_err(|reason| (at("address"), reason))?;
            // One list may serve the whole fleet.
            if peer.id != settings.id && others.insert(InstanceId(peer.id), place).is_some() {
                return Err((at("id"), format!("another instance has the number {}", peer.id)));
            }
        }
        Ok(others)
    }

    pub(super) fn id(&self) -> InstanceId {
        self.id
    }

    /// Was `key` given by an instance of this fleet, as far as can be told?
    pub(super) fn knows(&self, key: &Long<'_>, pid: i32) -> bool {
        let Some(expected) = self.mac(key, pid) else { return true };
        constant_time::verify_slices_are_equal(&expected, key.mac).is_ok()
    }

    pub(super) fn mac(&self, key: &Long<'_>, pid: i32) -> Option<[u8; 16]> {
        let tag = hmac::sign(self.key.as_ref()?, &key.signed(pid));
        Some(shortened(&tag))
    }

    /// The other instance that `asked` is for, if there is one.
    pub(super) fn place_of(&self, asked: &Request) -> Option<&Place> {
        asked.instance(self).and_then(|other| self.others.get(&other))
    }
}

/// Sends `asked` on to the instance at `place`, and waits until that has dealt with it.
pub(super) async fn forward(asked: &Request, place: &Place) {
    let exchange = async {
        let addresses = place.addresses().await?;
        exchange(&addresses, asked.pid, &asked.forwarded()).await
    };
    if let Err(error) = in_time(exchange).await {
        tracing::warn!(
            instance = InstanceId::of_pid(asked.pid).0,
            %error,
            "a cancel request did not reach the instance that it is for"
        );
    }
}

/// Sends `asked` on, as it came, to the process `before` that had our place, and waits until
/// that has dealt with it.
pub(super) async fn pass_on(asked: &Request, before: Address) {
    let exchange = exchange(std::slice::from_ref(&before), asked.pid, &asked.secret);
    if let Err(error) = in_time(exchange).await {
        tracing::debug!(%error, "a cancel request did not reach the process before");
    }
}

async fn in_time(exchange: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    let done = time::timeout(PATIENCE, exchange).await;
    done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn exchange(to: &[Address], pid: i32, secret: &[u8]) -> io::Result<()> {
    let (mut stream, _) = net::reach(to).await?;
    stream.write_all(&request(pid, secret)).await?;
    // Nothing comes; a reset is an end as well.
    drop(stream.read(&mut [0; 1]).await);
    Ok(())
}
