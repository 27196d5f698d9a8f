//! What is done for the connections to a service without being asked: names are resolved
//! again, and who has to go is told to.
//!
//! Always true: it ends with the pool, and nothing is closed that a call is on.

use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use forebay_seam::time;

use super::Desk;
use crate::addresses::Verdict;
use crate::link::{End, Link};

/// How often it looks, at least.
const ROUND: Duration = Duration::from_secs(1);
/// And at the most.
const ROUND_LEAST: Duration = Duration::from_millis(50);

/// Looks after the connections of `desk`, until it is gone.
pub(super) async fn look_after(desk: Weak<Desk>) {
    let mut round = ROUND_LEAST;
    loop {
        time::sleep(round).await;
        let Some(desk) = desk.upgrade() else { return };
        desk.look().await;
        round = desk.round();
    }
}

impl Desk {
    /// Until the next look: often enough for a service that closes soon.
    fn round(&self) -> Duration {
        let patience = self.site.idleness.most().map_or(ROUND, |most| most / 8);
        patience.min(self.terms.load().habits.resolve_interval / 2).clamp(ROUND_LEAST, ROUND)
    }

    async fn look(&self) {
        let links = self.berths.links();
        if !links.is_empty() && self.site.addresses.is_due(time::now()) {
            // What is wrong, whoever connects will hear.
            if let Err(error) = self.site.addresses.resolve().await {
                tracing::debug!(host = self.target.host, %error, "a name leads nowhere");
            }
        }
        let now = time::now();
        self.site.idleness.doubt(now);
        for link in &links {
            if let Some(end) = self.must_leave(link, now) {
                link.leave(end);
            }
        }
        self.reconsider();
        // Also those that the service has closed: what should be warm is opened anew.
        let ended = self.site.counts.all_ended().map(|(_, count)| count).sum();
        let some_ended = self.ended.swap(ended, Ordering::Relaxed) != ended;
        if some_ended || links.iter().any(|link| !link.is_open()) {
            self.replace_outdated();
        }
    }

    fn must_leave(&self, link: &Link, now: Instant) -> Option<End> {
        let birth = &link.birth;
        let verdict = birth.address.map(|address| self.site.addresses.verdict(address, now));
        match verdict {
            Some(Verdict::Vanished) => return Some(End::Vanished),
            Some(Verdict::Ejected) => return Some(End::Ejected),
            Some(Verdict::Stays) | None => {}
        }
        if birth.expires.is_some_and(|expires| expires <= now) {
            return Some(End::Lifetime);
        }
        let worn = birth.identity.as_ref();
        let worn = worn.and_then(|identity| self.terms.load().wallet.certificate(identity));
        if birth.identity.is_some() && worn.map(|worn| worn.id()) != birth.certificate {
            return Some(End::Certificate);
        }
        let most = self.site.idleness.most();
        most.is_some_and(|most| link.rested(now) >= most).then_some(End::Stale)
    }
}
