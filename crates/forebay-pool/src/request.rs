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
}

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
