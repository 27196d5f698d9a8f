//! Guessing keys is slow: whoever shows many wrong ones from one address is not listened to
//! for a while.
//!
//! What opens would be told by who is let in, so then even a right key is not, unless it was
//! let in from there within the hour: one agent that is out of its mind does not lock its
//! neighbours out. Memory is bounded; what is not looked at fades by itself.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use forebay_seam::sync::Mutex;
use lru::LruCache;

use crate::secrets::Digest;

/// Addresses that are remembered.
const ADDRESSES: NonZeroUsize = NonZeroUsize::new(16_384).expect("16384 is not zero");
/// Pairs of address and key that were let in.
const PROVEN: NonZeroUsize = NonZeroUsize::new(16_384).expect("16384 is not zero");
/// Wrong keys from one address that cost nothing.
const FREE: u32 = 20;
/// Each wrong key is forgiven after this.
const FORGIVEN: Duration = Duration::from_secs(1);
/// A key that was let in counts as proven for so long.
const PROVEN_FOR: Duration = Duration::from_secs(3_600);

/// Wrong keys by address.
pub(super) struct Throttle {
    book: Mutex<Book>,
    hasher: RandomState,
}

struct Book {
    /// Until when each address has to be good to be forgiven everything.
    wrong: LruCache<u64, Instant>,
    proven: LruCache<u64, Instant>,
}

impl Default for Throttle {
    fn default() -> Self {
        let book = Book { wrong: LruCache::new(ADDRESSES), proven: LruCache::new(PROVEN) };
        Self { book: Mutex::new(book), hasher: RandomState::new() }
    }
}

impl Throttle {
    /// A wrong key came from `address`. Says how long it is not listened to, if it is not.
    pub(super) fn wrong(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let network = self.network(address);
        let mut book = self.book.lock();
        let debt = book.wrong.get(&network).copied().unwrap_or(now).max(now);
        let rest = rest(debt, now);
        if rest.is_none() {
            book.wrong.put(network, debt + FORGIVEN);
        }
        rest
    }

    /// A right key, whose digest is `key`, came from `address`. Says how long it is not
    /// listened to, if it is not.
    pub(super) fn right(&self, address: IpAddr, key: &Digest, now: Instant) -> Option<Duration> {
        let network = self.network(address);
        let pair = self.hasher.hash_one((network, key));
        let mut book = self.book.lock();
        let debt = book.wrong.peek(&network).copied();
        let rest = debt.and_then(|debt| rest(debt, now));
        let is_proven = book.proven.get(&pair).is_some_and(|until| now < *until);
        if rest.is_some() && !is_proven {
            return rest;
        }
        book.proven.put(pair, now + PROVEN_FOR);
        None
    }

    /// A v4 address, or the network of a v6 one: whoever has one of its addresses has them
    /// all.
    fn network(&self, address: IpAddr) -> u64 {
        match address {
            IpAddr::V4(v4) => self.hasher.hash_one(v4),
            IpAddr::V6(v6) => self.hasher.hash_one(v6.to_bits() >> 64),
        }
    }
}

/// How long an address with this debt is not listened to.
fn rest(debt: Instant, now: Instant) -> Option<Duration> {
    let over = debt.saturating_duration_since(now).checked_sub(FORGIVEN * FREE)?;
    Some(over + FORGIVEN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_seam::time;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn whoever_guesses_is_not_listened_to_even_if_he_is_right_at_last() {
        let (throttle, now) = (Throttle::default(), time::now());
        let (known, guessed) = ([1; 32], [2; 32]);
        assert_eq!(throttle.right(HERE, &known, now), None);
        let heard = (0..100).filter(|_| throttle.wrong(HERE, now).is_none()).count();
        assert_eq!(heard, 20);
        assert!(throttle.right(HERE, &guessed, now).is_some());
        // Who was let in before, and whoever is elsewhere, do not notice.
        assert_eq!(throttle.right(HERE, &known, now), None);
        assert_eq!(throttle.right(THERE, &guessed, now), None);
        assert_eq!(throttle.wrong(THERE, now), None);
    }

    #[test]
    fn wrong_keys_are_forgiven_one_by_one() {
        let (throttle, now) = (Throttle::default(), time::now());
        while throttle.wrong(HERE, now).is_none() {}
        let later = now + throttle.wrong(HERE, now).unwrap();
        assert_eq!(throttle.wrong(HERE, later), None);
        assert!(throttle.wrong(HERE, later).is_some());
        assert_eq!(throttle.right(HERE, &[3; 32], later + FORGIVEN * 2), None);
    }

    #[test]
    fn one_network_has_one_account_however_many_addresses() {
        let (throttle, now) = (Throttle::default(), time::now());
        let address = |host: u128| IpAddr::V6(((0x2001_0db8_u128 << 96) + host).into());
        let heard = (0..100).filter(|host| throttle.wrong(address(*host), now).is_none()).count();
        assert_eq!(heard, 20);
    }
}
