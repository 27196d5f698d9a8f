//! The requests under way in this process, and the pools they take connections from: so that
//! a connection held at one destination counts while the same request waits at another, and a
//! circle of requests that wait for each other is found wherever it runs through.
//!
//! Always true: one card for each request that anybody holds; what nobody holds any more is
//! forgotten.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Weak};

use forebay_seam::sync::Mutex;

use crate::deadlock::{self, Census};
use crate::request::{Request, TraceId};
use crate::slot::WaiterId;

/// Requests known before the first look for those that nobody holds any more.
const FIRST_SWEEP: usize = 1_024;

/// A pool, as the roster sees it.
pub(crate) trait Member: Send + Sync {
    /// Who holds and who waits.
    fn census(&self) -> Census;
    /// The waiter can never be served: it is told so.
    fn fail(self: Arc<Self>, waiter: WaiterId);
}

/// The requests under way, and the pools that take part. One for each process; pools join
/// it with [`Pool::join`](crate::Pool::join).
#[derive(Default)]
pub struct Roster {
    cards: Mutex<Cards>,
    members: Mutex<Vec<Weak<dyn Member>>>,
}

#[derive(Default)]
struct Cards {
    known: HashMap<(Arc<str>, TraceId), Request>,
    sweep_at: usize,
}

impl fmt::Debug for Roster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roster").finish_non_exhaustive()
    }
}

impl Roster {
    /// The one card of the request `trace` of `tenant`.
    pub fn request(&self, tenant: &Arc<str>, trace: TraceId) -> Request {
        let mut cards = self.cards.lock();
        let key = (Arc::clone(tenant), trace);
        if let Some(request) = cards.known.get(&key) {
            return request.clone();
        }
        if cards.known.len() >= cards.sweep_at.max(FIRST_SWEEP) {
            cards.known.retain(|_, request| request.is_shared());
            cards.sweep_at = cards.known.len() * 2;
        }
        let request = Request::new(Arc::clone(tenant), trace);
        cards.known.insert(key, request.clone());
        request
    }

    /// Requests that hold leases now, by tenant and trace id.
    pub fn under_way(&self) -> Vec<Request> {
        let cards = self.cards.lock();
        let mut held: Vec<_> = cards.known.values().filter(|r| r.held() > 0).cloned().collect();
        drop(cards);
        held.sort_by(|a, b| (a.tenant(), a.trace()).cmp(&(b.tenant(), b.trace())));
        held
    }

    pub(crate) fn join(&self, member: Weak<dyn Member>) {
        let mut members = self.members.lock();
        members.retain(|other| other.strong_count() > 0);
        members.push(member);
    }

    /// Looks for requests that wait for each other in a circle through several pools, and
    /// fails the youngest.
    ///
    /// Each pool is asked under its own lock, so what they say together may never have been
    /// true at one moment. But a deadlock stays: what the pools say twice of the same waits,
    /// the second time after all had answered the first, was true in between.
    pub(crate) fn untangle(&self) {
        let members: Vec<_> = self.members.lock().iter().filter_map(Weak::upgrade).collect();
        if members.len() < 2 {
            return;
        }
        let census = || members.iter().map(|member| member.census()).collect::<Vec<_>>();
        let Some(first) = deadlock::find(&census()) else { return };
        let Some(second) = deadlock::find(&census()) else { return };
        if first == second
            && let Some(member) = members.into_iter().nth(second.pool)
        {
            member.fail(second.waiter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(n: u32) -> TraceId {
        TraceId::from_traceparent(&format!("00-{n:032x}-0000000000000001-01")).unwrap()
    }

    #[test]
    fn a_request_has_one_card_however_often_it_is_named() {
        let roster = Roster::default();
        let tenant = Arc::from("acme");
        let one = roster.request(&tenant, trace(1));
        one.takes();
        assert_eq!(roster.request(&tenant, trace(1)).held(), 1);
        assert_eq!(roster.request(&Arc::from("other"), trace(1)).held(), 0);
    }

    #[test]
    fn what_nobody_holds_is_forgotten() {
        let roster = Roster::default();
        let tenant = Arc::from("acme");
        let kept = roster.request(&tenant, trace(1));
        for n in 2..20_000 {
            drop(roster.request(&tenant, trace(n)));
        }
        assert!(roster.cards.lock().known.len() <= FIRST_SWEEP + 1);
        kept.takes();
        assert_eq!(roster.request(&tenant, trace(1)).held(), 1);
        assert_eq!(roster.under_way(), [kept], "the others hold nothing");
    }
}
