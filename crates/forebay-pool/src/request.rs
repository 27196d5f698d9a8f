//! The AI request: the unit that leases, calls and overlaps belong to.
//!
//! Known by tenant *and* trace id, because a trace id is written by the client and can be
//! forged: two tenants with the same trace id are two requests.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use slotmap::{Key, KeyData};

use crate::slot::RequestId;

/// The trace id of a W3C `traceparent`: 16 bytes, not all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TraceId([u8; 16]);

impl TraceId {
    /// Reads the trace id out of a `traceparent` (W3C Trace Context 3.2.2):
    /// `version-traceid-parentid-flags`, all lower-case hex. Versions after 00 may carry
    /// more fields behind the flags; version `ff` is invalid, as is an id of zeros.
    pub fn from_traceparent(traceparent: &str) -> Option<Self> {
        let (fields, rest) = traceparent.trim().as_bytes().split_first_chunk::<55>()?;
        let (version, parent, flags) = (&fields[..2], &fields[36..52], &fields[53..]);
        let is_hex = |text: &[u8]| text.iter().all(|digit| hex(*digit).is_some());
        let well_formed = [fields[2], fields[35], fields[52]] == [b'-'; 3]
            && is_hex(version)
            && version != b"ff"
            && is_hex(parent)
            && parent != [b'0'; 16]
            && is_hex(flags)
            && (rest.is_empty() || (version != b"00" && rest.starts_with(b"-")));
        if !well_formed {
            return None;
        }
        let mut id = [0; 16];
        for (byte, pair) in id.iter_mut().zip(fields[3..35].chunks_exact(2)) {
            *byte = hex(pair[0])? << 4 | hex(pair[1])?;
        }
        (id != [0; 16]).then_some(Self(id))
    }

    /// The trace id of a request that is named in some other way: a `traceparent`, a trace id,
    /// a UUID (which is 16 bytes, too), or any other text of up to 128 bytes, which is hashed
    /// to 16 bytes, the same on both sides (FNV-1a). `None` for no name, or a longer one.
    pub fn of_request(name: &str) -> Option<Self> {
        const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
        const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
        let name = name.trim();
        if name.is_empty() || name.len() > LONGEST_NAME {
            return None;
        }
        Self::from_traceparent(name).or_else(|| Self::from_hex(name)).or_else(|| {
            let bytes = name.bytes().map(u128::from);
            let hash = bytes.fold(OFFSET, |hash, byte| (hash ^ byte).wrapping_mul(PRIME));
            (hash != 0).then(|| Self(hash.to_be_bytes()))
        })
    }

    /// 32 hexadecimal digits, as a UUID is written or in one piece.
    fn from_hex(text: &str) -> Option<Self> {
        let dashes = [8, 13, 18, 23];
        let is_uuid = text.len() == 36
            && text.bytes().enumerate().all(|(at, byte)| dashes.contains(&at) == (byte == b'-'));
        if !is_uuid && text.len() != 32 {
            return None;
        }
        let mut digits = text.bytes().filter(|byte| *byte != b'-' || !is_uuid);
        let mut id = [0; 16];
        for byte in &mut id {
            let mut digit = || hex(digits.next()?.to_ascii_lowercase());
            *byte = digit()? << 4 | digit()?;
        }
        (id != [0; 16]).then_some(Self(id))
    }
}

/// Bytes of a request's name that are read.
const LONGEST_NAME: usize = 128;

/// The value of a lower-case hex digit.
fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One AI request: whatever it takes from any destination is a lease of this request. Cheap to
/// clone; two of the same tenant and trace are equal, wherever they were made.
#[derive(Clone)]
pub struct Request(Arc<Card>);

/// What is known of a request in the whole process.
struct Card {
    tenant: Arc<str>,
    trace: TraceId,
    /// Leases that it has, of all pools.
    held: AtomicU32,
    /// Under which number a pool found it last: a hint, to be checked.
    number: AtomicU64,
}

impl Request {
    /// The request `trace` of `tenant`. Pools that are to know of each other's leases need
    /// the same card: [`Roster::request`](crate::Roster::request) gives it.
    pub fn new(tenant: Arc<str>, trace: TraceId) -> Self {
        let number = AtomicU64::new(RequestId::null().data().as_ffi());
        Self(Arc::new(Card { tenant, trace, held: AtomicU32::new(0), number }))
    }

    /// On whose account it runs.
    pub fn tenant(&self) -> &str {
        &self.0.tenant
    }

    pub(crate) fn tenant_name(&self) -> Arc<str> {
        Arc::clone(&self.0.tenant)
    }

    /// Its trace id.
    pub fn trace(&self) -> TraceId {
        self.0.trace
    }

    /// Leases that it has now, of all pools that were given this card.
    pub fn held(&self) -> u32 {
        self.0.held.load(Ordering::Relaxed)
    }

    pub(crate) fn takes(&self) {
        self.0.held.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn gives_back(&self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
    }

    /// The number that it may have, since some pool found it so last: one that finds it so
    /// again hashes nothing.
    pub(crate) fn number(&self) -> RequestId {
        KeyData::from_ffi(self.0.number.load(Ordering::Relaxed)).into()
    }

    /// A pool found it as `number`.
    pub(crate) fn has_number(&self, number: RequestId) {
        self.0.number.store(number.data().as_ffi(), Ordering::Relaxed);
    }

    /// Is the other a clone of this one? Those that are none may be equal, too.
    pub(crate) fn is_clone_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

impl PartialEq for Request {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || (self.0.trace == other.0.trace && self.0.tenant == other.0.tenant)
    }
}

impl Eq for Request {}

impl Hash for Request {
    /// The trace id tells nearly all apart; the tenant is left to `==`.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(u128::from_ne_bytes(self.0.trace.0));
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0.tenant, self.0.trace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03";

    #[test]
    fn trace_id_is_read_whatever_the_flags() {
        let id = TraceId::from_traceparent(GOOD).unwrap();
        assert_eq!(id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
    }

    #[test]
    fn later_versions_may_carry_more_fields_but_version_00_may_not() {
        assert!(TraceId::from_traceparent(&GOOD.replacen("00", "cc", 1)).is_some());
        assert!(
            TraceId::from_traceparent(&format!("{}-x", GOOD.replacen("00", "cc", 1))).is_some()
        );
        assert!(TraceId::from_traceparent(&format!("{GOOD}-x")).is_none());
    }

    #[test]
    fn a_request_may_be_named_by_a_trace_a_uuid_or_any_short_text() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        for name in
            [GOOD, id, "4BF92F35-77b3-4da6-a3ce-929d0e0e4736", " 4bf92f3577b34da6a3ce929d0e0e4736 "]
        {
            assert_eq!(TraceId::of_request(name).unwrap().to_string(), id, "{name}");
        }
        let order = TraceId::of_request("order 17").unwrap();
        assert_eq!(TraceId::of_request("order 17"), Some(order));
        assert_ne!(TraceId::of_request("order 18"), Some(order));
        // As published with the algorithm (RFC 9923): of "foobar".
        let foobar = TraceId::of_request("foobar").unwrap().to_string();
        assert_eq!(foobar, "343e1662793c64bf6f0d3597ba446f18");
        for nameless in ["", "  ", &"x".repeat(129), &"0".repeat(32)] {
            let id = TraceId::of_request(nameless);
            assert!(id.is_none() || nameless.starts_with('0'), "{nameless}");
        }
    }

    #[test]
    fn malformed_trace_parents_name_no_request() {
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceId::from_traceparent(bad), None, "{bad}");
        }
    }
}
