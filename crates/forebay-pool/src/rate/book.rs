//! The accounts of one destination: what each limit has left, and what its service announced.
//!
//! Plain arithmetic: no clock, no lock. Always true: what is reserved anywhere is the sum of
//! the reservations that were neither settled nor given back.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lru::LruCache;

use super::bucket::Bucket;
use super::{
    Account, Amounts, Announcement, Cause, Limits, RateSettings, Refill, Refused, Scope, Standing,
    Unit,
};

/// Tenants with accounts of their own; who comes back after so many others begins anew.
const TENANTS: NonZeroUsize = NonZeroUsize::new(4_096).expect("it is not zero");
/// However long a service says that it rests, it is asked again after this.
const LONGEST_REST: Duration = Duration::from_secs(600);

/// All accounts of one destination.
pub(crate) struct Book {
    each_tenant: Limits,
    named: HashMap<Arc<str>, Limits>,
    whole: Page,
    tenants: LruCache<Arc<str>, Page>,
    pages: u64,
}

/// What one account has left.
struct Page {
    /// Which page it is: one that was thrown away is not mistaken for its successor.
    number: u64,
    limits: [Option<(super::Rate, Bucket)>; 2],
    announced: [Option<Announced>; 2],
    /// Which announcement holds, so that what was reserved before it does not count on it.
    epoch: [u64; 2],
    rests_until: Option<Instant>,
    reserved: [u64; 2],
}

struct Announced {
    bucket: Bucket,
    until: Instant,
}

/// What was reserved, and where it is to be settled.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) amounts: Amounts,
    pub(crate) tenant: Arc<str>,
    whole: [u64; 2],
    /// The tenant's page and the epochs of its announcements, where it has one.
    own: Option<(u64, [u64; 2])>,
}

impl Page {
    fn new(number: u64, limits: Limits, now: Instant) -> Self {
        let open = |rate: Option<super::Rate>| rate.map(|rate| (rate, Bucket::full(rate, now)));
        Self {
            number,
            limits: [open(limits.requests), open(limits.tokens)],
            announced: [None, None],
            epoch: [0; 2],
            rests_until: None,
            reserved: [0; 2],
        }
    }

    /// How long until `amounts` may be taken, and what makes it so long.
    fn wait(&mut self, amounts: Amounts, now: Instant) -> Option<(Duration, Cause)> {
        let mut longest: Option<(Duration, Cause)> = None;
        let mut consider = |wait: Duration, cause| {
            if !wait.is_zero() && longest.is_none_or(|(known, _)| known < wait) {
                longest = Some((wait, cause));
            }
        };
        if let Some(until) = self.rests_until {
            consider(until.saturating_duration_since(now), Cause::Rests);
        }
        for unit in Unit::ALL {
            let (place, amount) = (unit.place(), amounts.of(unit));
            if let Some((_, bucket)) = &mut self.limits[place] {
                consider(bucket.wait(amount, now).unwrap_or(LONGEST_REST), Cause::Limit(unit));
            }
            if let Some(announced) = &mut self.announced[place] {
                let left = announced.until.saturating_duration_since(now);
                let wait = announced.bucket.wait(amount, now).map_or(left, |wait| wait.min(left));
                consider(wait, Cause::Announced(unit));
            }
        }
        longest
    }

    fn take(&mut self, amounts: Amounts, now: Instant) {
        for unit in Unit::ALL {
            let (place, amount) = (unit.place(), amounts.of(unit));
            self.reserved[place] += amount;
            if let Some((_, bucket)) = &mut self.limits[place] {
                bucket.take(amount);
            }
            self.announced[place].take_if(|announced| announced.until <= now);
            if let Some(announced) = &mut self.announced[place] {
                announced.bucket.take(amount);
            }
        }
    }

    fn settle(&mut self, reserved: Amounts, used: Amounts, epoch: [u64; 2]) {
        for unit in Unit::ALL {
            let place = unit.place();
            let (reserved, used) = (reserved.of(unit), used.of(unit));
            self.reserved[place] = self.reserved[place].saturating_sub(reserved);
            if let Some((_, bucket)) = &mut self.limits[place] {
                bucket.settle(reserved, used);
            }
            if let Some(announced) = &mut self.announced[place]
                && self.epoch[place] == epoch[place]
            {
                announced.bucket.settle(reserved, used);
            }
        }
    }

    fn announce(&mut self, said: Announcement, now: Instant) {
        let reset = said.reset.min(LONGEST_REST);
        let place = said.unit.place();
        self.epoch[place] += 1;
        if reset.is_zero() {
            self.announced[place] = None;
            return;
        }
        let capacity = said.limit.unwrap_or(0).max(said.remaining).max(1);
        let gain = match said.refill {
            Refill::Gradual => capacity - said.remaining,
            Refill::AtOnce => 0,
        };
        let bucket = Bucket::holding(said.remaining, capacity, gain, reset, now);
        self.announced[place] = Some(Announced { bucket, until: now + reset });
    }

    fn standings(&mut self, scope: Scope, now: Instant) -> impl Iterator<Item = Standing> {
        let reserved = self.reserved;
        let limits = self.limits.iter_mut().zip(Unit::ALL);
        limits.filter_map(move |(limit, unit)| {
            let (rate, bucket) = limit.as_mut()?;
            Some(Standing {
                scope,
                unit,
                rate: *rate,
                remaining: bucket.remaining(now),
                reset: bucket.until_full(now).unwrap_or_default(),
                reserved: reserved[unit.place()],
            })
        })
    }
}

impl Book {
    pub(crate) fn new(settings: RateSettings, now: Instant) -> Self {
        Self {
            each_tenant: settings.each_tenant,
            named: settings.tenants,
            whole: Page::new(0, settings.whole, now),
            tenants: LruCache::new(TENANTS),
            pages: 0,
        }
    }

    /// Reserves `amounts` for `tenant`, or says how long it would have to wait.
    pub(crate) fn reserve(
        &mut self,
        tenant: &Arc<str>,
        amounts: Amounts,
        now: Instant,
    ) -> Result<Entry, Refused> {
        let whole = self.whole.wait(amounts, now).map(|longest| (Scope::Destination, longest));
        let has_own = self.limits_of(tenant).is_some() || self.tenants.contains(tenant);
        let mut own = if has_own { Some(self.page(tenant, now)) } else { None };
        let tenants = own.as_mut().and_then(|page| page.wait(amounts, now));
        let tenants = tenants.map(|longest| (Scope::Tenant, longest));
        let longest = [whole, tenants].into_iter().flatten().max_by_key(|(_, (wait, _))| *wait);
        if let Some((scope, (retry_after, cause))) = longest {
            return Err(Refused { retry_after, scope, cause });
        }
        let own = own.map(|page| {
            page.take(amounts, now);
            (page.number, page.epoch)
        });
        self.whole.take(amounts, now);
        Ok(Entry { amounts, tenant: Arc::clone(tenant), whole: self.whole.epoch, own })
    }

    /// What `entry` reserved was `used` in truth.
    pub(crate) fn settle(&mut self, entry: &Entry, used: Amounts) {
        self.whole.settle(entry.amounts, used, entry.whole);
        if let Some((number, epoch)) = entry.own
            && let Some(page) = self.tenants.peek_mut(&entry.tenant)
            && page.number == number
        {
            page.settle(entry.amounts, used, epoch);
        }
    }

    /// The service said what is left of `account`.
    pub(crate) fn announce(&mut self, account: &Account, said: Announcement, now: Instant) {
        self.account(account, now).announce(said, now);
    }

    /// The service wants no calls of `account` for `rest`. A shorter one ends no longer one.
    pub(crate) fn rest(&mut self, account: &Account, rest: Duration, now: Instant) {
        let until = now + rest.min(LONGEST_REST);
        let page = self.account(account, now);
        page.rests_until = Some(page.rests_until.map_or(until, |known| known.max(until)));
    }

    /// What the destination's limits, and those of `tenant`, have left.
    pub(crate) fn standings(&mut self, tenant: Option<&Arc<str>>, now: Instant) -> Vec<Standing> {
        let mut all: Vec<_> = self.whole.standings(Scope::Destination, now).collect();
        if let Some(tenant) = tenant
            && self.limits_of(tenant).is_some()
        {
            all.extend(self.page(tenant, now).standings(Scope::Tenant, now));
        }
        all
    }

    /// What the service announced of the whole destination, and how long it rests.
    pub(crate) fn announced(&mut self, now: Instant) -> (Vec<(Unit, u64)>, Duration) {
        let announced = self.whole.announced.iter_mut().zip(Unit::ALL);
        let left = announced.filter_map(|(announced, unit)| {
            let announced = announced.as_mut().filter(|a| a.until > now)?;
            Some((unit, announced.bucket.remaining(now)))
        });
        let left = left.collect();
        let rests = self.whole.rests_until.map(|until| until.saturating_duration_since(now));
        (left, rests.unwrap_or_default())
    }

    /// Tenants that have accounts of their own, and those of them that would be refused now.
    pub(crate) fn tenants(&mut self, now: Instant) -> (usize, usize) {
        let one = Amounts { requests: 1, tokens: 1 };
        let limited = self.tenants.iter_mut().filter_map(|(_, page)| page.wait(one, now)).count();
        (self.tenants.len(), limited)
    }

    fn limits_of(&self, tenant: &Arc<str>) -> Option<Limits> {
        let own = self.named.get(tenant).copied().unwrap_or_default();
        let limits = Limits {
            requests: own.requests.or(self.each_tenant.requests),
            tokens: own.tokens.or(self.each_tenant.tokens),
        };
        (limits.requests.is_some() || limits.tokens.is_some()).then_some(limits)
    }

    fn account(&mut self, account: &Account, now: Instant) -> &mut Page {
        match account {
            Account::Destination => &mut self.whole,
            Account::Tenant(tenant) => self.page(tenant, now),
        }
    }

    fn page(&mut self, tenant: &Arc<str>, now: Instant) -> &mut Page {
        let limits = self.limits_of(tenant).unwrap_or_default();
        let pages = &mut self.pages;
        self.tenants.get_or_insert_mut_ref(tenant, || {
            *pages += 1;
            Page::new(*pages, limits, now)
        })
    }
}
