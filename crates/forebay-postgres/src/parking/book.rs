//! What became of transactions that idled: how many are parked, how often and for how long, what
//! could have been parked where parking only observes, and why others were not.
//!
//! Written when a transaction idles for long, so one lock is enough. Always true: what is parked
//! is counted as long as its [`Stay`] lives, whichever way that ends; no list grows beyond its
//! bound.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use forebay_pool::{ClassId, ClassName, Mode};
use forebay_seam::sync::Mutex;
use forebay_seam::time::{self, Instant};
use serde::Serialize;

use super::Reason;

/// Refused statements that are told apart; what comes after is counted with its reason only.
const TOLD_APART: usize = 200;

/// Of one server.
#[derive(Default)]
pub(crate) struct Book {
    pages: Mutex<Pages>,
}

#[derive(Default)]
struct Pages {
    classes: Vec<(ClassId, Page)>,
    refused: HashMap<(Reason, ClassId, Arc<str>, Arc<str>), u64>,
    /// Why the server's proof cannot be used.
    closed: Option<String>,
    version: Option<u32>,
}

/// Of one class.
struct Page {
    class: ClassName,
    mode: Mode,
    parked: u32,
    parks: u64,
    could: u64,
    resumed: u64,
    lost: u64,
    parked_for: Duration,
    could_for: Duration,
    refusals: BTreeMap<&'static str, u64>,
}

/// What parking came to at one server.
#[derive(Debug, Clone, Serialize)]
pub struct ParkingSnapshot {
    /// The server's version (`150004`), once its proof was checked.
    pub version: Option<u32>,
    /// Why nothing is parked there: its proof cannot be used.
    pub closed: Option<String>,
    /// By class.
    pub classes: Vec<ParkingCounts>,
    /// What was not parked, the most frequent first; up to 200.
    pub unparkable: Vec<Unparkable>,
}

/// What parking came to in one class.
#[derive(Debug, Clone, Serialize)]
pub struct ParkingCounts {
    /// The class.
    pub class: ClassName,
    /// `off`, `observe` or `enforce`.
    pub mode: Mode,
    /// Transactions that are parked now.
    pub parked: u32,
    /// Transactions that were parked, since start.
    pub parks: u64,
    /// Those that could have been, where parking observes.
    pub could_park: u64,
    /// Parked ones that went on with a connection.
    pub resumed: u64,
    /// Parked ones that could not go on, and were told so (40001).
    pub lost: u64,
    /// How long they were parked, of those that are no longer: connection-seconds that others
    /// had.
    pub seconds: f64,
    /// The same of those that could have been.
    pub could_seconds: f64,
    /// Why transactions that were looked at were not parked, how often.
    pub refusals: BTreeMap<&'static str, u64>,
}

/// What was not parked.
#[derive(Debug, Clone, Serialize)]
pub struct Unparkable {
    /// Why.
    pub reason: &'static str,
    /// What that means.
    pub meaning: &'static str,
    /// Its class.
    pub class: ClassName,
    /// The endpoint, agent or tool.
    pub feature: Arc<str>,
    /// The last statement, without literals.
    pub statement: Arc<str>,
    /// How often.
    pub times: u64,
}

impl Book {
    /// There is such a class.
    pub(crate) fn knows(&self, class: ClassId, name: &ClassName, mode: Mode) {
        let mut pages = self.pages.lock();
        if let Some((_, page)) = pages.classes.iter_mut().find(|(id, _)| *id == class) {
            page.mode = mode;
            return;
        }
        let page = Page {
            class: name.clone(),
            mode,
            parked: 0,
            parks: 0,
            could: 0,
            resumed: 0,
            lost: 0,
            parked_for: Duration::ZERO,
            could_for: Duration::ZERO,
            refusals: BTreeMap::new(),
        };
        pages.classes.push((class, page));
    }

    /// The server's proof was checked; a version that it works with, or why it does not.
    pub(crate) fn is_checked(&self, outcome: Result<u32, String>) {
        let mut pages = self.pages.lock();
        match outcome {
            Ok(version) => (pages.version, pages.closed) = (Some(version), None),
            Err(why) => pages.closed = Some(why),
        }
    }

    /// A transaction is parked from now on.
    pub(crate) fn parks(self: &Arc<Self>, class: ClassId) -> Stay {
        self.on_page(class, |page| {
            page.parks += 1;
            page.parked += 1;
        });
        Stay { book: Arc::clone(self), class, since: time::now(), kind: Kind::Parked }
    }

    /// A transaction could be parked from now on.
    pub(crate) fn could_park(self: &Arc<Self>, class: ClassId) -> Stay {
        self.on_page(class, |page| page.could += 1);
        Stay { book: Arc::clone(self), class, since: time::now(), kind: Kind::Possible }
    }

    /// A parked transaction has got a connection.
    pub(crate) fn resumed(&self, class: ClassId) {
        self.on_page(class, |page| page.resumed += 1);
    }

    /// A transaction was told that it cannot go on.
    pub(crate) fn lost(&self, class: ClassId) {
        self.on_page(class, |page| page.lost += 1);
    }

    /// A transaction of `feature`, whose last statement was `statement`, is not parked.
    pub(crate) fn refuses(
        &self,
        class: ClassId,
        reason: Reason,
        feature: &Arc<str>,
        statement: &Arc<str>,
    ) {
        let mut pages = self.pages.lock();
        if let Some((_, page)) = pages.classes.iter_mut().find(|(id, _)| *id == class) {
            *page.refusals.entry(reason.name()).or_default() += 1;
        }
        let key = (reason, class, Arc::clone(feature), Arc::clone(statement));
        let is_full = pages.refused.len() >= TOLD_APART;
        match pages.refused.get_mut(&key) {
            Some(times) => *times += 1,
            None if is_full => {}
            None => drop(pages.refused.insert(key, 1)),
        }
    }

    fn on_page(&self, class: ClassId, change: impl FnOnce(&mut Page)) {
        if let Some((_, page)) = self.pages.lock().classes.iter_mut().find(|(id, _)| *id == class) {
            change(page);
        }
    }

    /// One picture.
    pub(crate) fn snapshot(&self) -> ParkingSnapshot {
        let pages = self.pages.lock();
        let name = |class: &ClassId| {
            let page = pages.classes.iter().find(|(id, _)| id == class);
            page.map_or_else(|| ClassName::new("?"), |(_, page)| page.class.clone())
        };
        let mut unparkable: Vec<_> = pages
            .refused
            .iter()
            .map(|((reason, class, feature, statement), times)| Unparkable {
                reason: reason.name(),
                meaning: reason.meaning(),
                class: name(class),
                feature: Arc::clone(feature),
                statement: Arc::clone(statement),
                times: *times,
            })
            .collect();
        unparkable.sort_by_key(|refused| std::cmp::Reverse(refused.times));
        let counts = |page: &Page| ParkingCounts {
            class: page.class.clone(),
            mode: page.mode,
            parked: page.parked,
            parks: page.parks,
            could_park: page.could,
            resumed: page.resumed,
            lost: page.lost,
            seconds: page.parked_for.as_secs_f64(),
            could_seconds: page.could_for.as_secs_f64(),
            refusals: page.refusals.clone(),
        };
        ParkingSnapshot {
            version: pages.version,
            closed: pages.closed.clone(),
            classes: pages.classes.iter().map(|(_, page)| counts(page)).collect(),
            unparkable,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Parked,
    Possible,
}

/// A transaction is parked, or could be, until this is dropped.
#[must_use = "dropped at once, nothing was parked"]
pub(crate) struct Stay {
    book: Arc<Book>,
    class: ClassId,
    since: Instant,
    kind: Kind,
}

impl Drop for Stay {
    fn drop(&mut self) {
        let stayed = self.since.elapsed();
        self.book.on_page(self.class, |page| match self.kind {
            Kind::Parked => {
                page.parked -= 1;
                page.parked_for += stayed;
            }
            Kind::Possible => page.could_for += stayed,
        });
    }
}
