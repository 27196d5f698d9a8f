//! A small pool of one's own, and a shared one for the burst.
//!
//! Knows nothing of protocols: both pools have connectors of one kind, and where the shared
//! one leads (straight to the destination, or through another Forebay) is theirs to know.
//! Always true: one ask ends in one lease or one error; it stands in one line at a time; and
//! while the shared pool is away, the own one is all there is, and nobody waits for the other.

use std::borrow::Borrow;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use forebay_seam::time;
use serde::Serialize;

use crate::ask::Ask;
use crate::class::{ClassId, ClassName};
use crate::connect::Connector;
use crate::lease::Lease;
use crate::pool::{CheckoutError, Pool};

/// Who would wait for longer in the own pool asks the shared one.
const PATIENCE: Duration = Duration::from_millis(5);

/// The two pools do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the shared pool has no class `{class}`: give both pools the same classes")]
pub struct OverflowError {
    /// The class that it lacks.
    pub class: ClassName,
}

/// Where leases came from, since start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct OverflowCounts {
    /// From the own pool, with at most 5 ms of waiting.
    pub local: u64,
    /// From the shared pool.
    pub overflowed: u64,
    /// From the own pool, since the shared one was away or full.
    pub fell_back: u64,
}

/// A small pool of one's own with a shared one behind it. Cheap to clone.
pub struct Overflow<K: Connector> {
    inner: Arc<Inner<K>>,
}

impl<K: Connector> Clone for Overflow<K> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

struct Inner<K: Connector> {
    local: Pool<K>,
    shared: Pool<K>,
    /// What each class of the own pool is in the shared one.
    classes: Vec<ClassId>,
    from_local: AtomicU64,
    overflowed: AtomicU64,
    fell_back: AtomicU64,
}

impl<K: Connector> Overflow<K> {
    /// `shared` serves what `local` cannot serve within 5 ms.
    ///
    /// # Errors
    /// When `shared` lacks a class of `local`; they are matched by name.
    pub fn new(local: Pool<K>, shared: Pool<K>) -> Result<Self, OverflowError> {
        let classes = local
            .class_names()
            .map(|class| {
                let found = shared.class(class.as_str());
                found.ok_or_else(|| OverflowError { class: class.clone() })
            })
            .collect::<Result<_, _>>()?;
        let none = AtomicU64::default;
        let (from_local, overflowed, fell_back) = (none(), none(), none());
        let inner = Inner { local, shared, classes, from_local, overflowed, fell_back };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The own pool.
    pub fn local(&self) -> &Pool<K> {
        &self.inner.local
    }

    /// The shared pool.
    pub fn shared(&self) -> &Pool<K> {
        &self.inner.shared
    }

    /// Where leases came from, since start.
    pub fn counts(&self) -> OverflowCounts {
        OverflowCounts {
            local: self.inner.from_local.load(Ordering::Relaxed),
            overflowed: self.inner.overflowed.load(Ordering::Relaxed),
            fell_back: self.inner.fell_back.load(Ordering::Relaxed),
        }
    }

    /// A connection of the own pool if it can be had within 5 ms, or else of the shared one;
    /// where that is away or full, of the own pool after all. All within one deadline: that
    /// of `ask`, whose class is of the own pool, and that class's checkout timeout there.
    ///
    /// # Errors
    /// Why there is none, from the pool that was asked last.
    ///
    /// # Cancel safety
    /// As [`Pool::checkout`], which it awaits for one pool after the other: dropped at any
    /// await point, it holds no place and no connection in either.
    pub async fn checkout(
        &self,
        ask: impl Borrow<Ask<K::Identity>>,
    ) -> Result<Lease<K>, CheckoutError> {
        let ask = ask.borrow();
        let Inner { local, shared, .. } = &*self.inner;
        let now = time::now();
        let outlook = local.outlook(ask.class, now);
        let latest = ask.deadline.map_or(outlook.latest, |own| own.min(outlook.latest));
        let ask = Ask { deadline: Some(latest), ..ask.clone() };
        if outlook.wait.is_none_or(|wait| wait <= PATIENCE) {
            match within(PATIENCE, local.checkout(&ask)).await {
                Some(Ok(lease)) => return Ok(counted(lease, &self.inner.from_local)),
                Some(Err(error)) if is_final(&error) => return Err(error),
                Some(Err(_)) | None => {}
            }
        }
        let elsewhere = Ask { class: self.class_elsewhere(ask.class), ..ask.clone() };
        let asked = shared.checkout(&elsewhere);
        // One that does not answer is asked so that it is tried again, and not waited for.
        let answer = match shared.outlook(elsewhere.class, time::now()).is_away {
            true => within(PATIENCE, asked).await,
            false => Some(asked.await),
        };
        match answer {
            Some(Ok(lease)) => return Ok(counted(lease, &self.inner.overflowed)),
            Some(Err(error)) if !is_the_pools(&error) => return Err(error),
            Some(Err(_)) | None => {}
        }
        let lease = local.checkout(&ask).await?;
        Ok(counted(lease, &self.inner.fell_back))
    }

    fn class_elsewhere(&self, class: ClassId) -> ClassId {
        let known = self.inner.classes.get(class.index()).copied();
        // One that the own pool got later, and the shared one has not: its first takes it.
        let found = || self.inner.shared.class(self.inner.local.class_name(class).as_str());
        known.or_else(found).unwrap_or(ClassId(0))
    }
}

/// What a pool is like for one who would ask it now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outlook {
    /// How long a newcomer would wait, where that is known.
    pub(crate) wait: Option<Duration>,
    /// When the class's checkout timeout would end.
    pub(crate) latest: Instant,
    /// Its destination does not answer, and no connection to it is left.
    pub(crate) is_away: bool,
}

fn counted<K: Connector>(lease: Lease<K>, counter: &AtomicU64) -> Lease<K> {
    counter.fetch_add(1, Ordering::Relaxed);
    lease
}

/// What `future` says in this time; `None`: nothing, and it was dropped.
async fn within<F: Future>(patience: Duration, future: F) -> Option<F::Output> {
    time::timeout(patience, future).await.ok()
}

/// Would another pool for the same work say the same, or must not be asked?
fn is_final(error: &CheckoutError) -> bool {
    match error {
        CheckoutError::Denied { .. }
        | CheckoutError::Deadlock { .. }
        | CheckoutError::Closed { .. } => true,
        CheckoutError::QueueFull { .. }
        | CheckoutError::TimedOut { .. }
        | CheckoutError::Refused { .. }
        | CheckoutError::Unreachable { .. } => false,
    }
}

/// Is it the shared pool's trouble, which the own one does not share?
fn is_the_pools(error: &CheckoutError) -> bool {
    match error {
        CheckoutError::QueueFull { .. }
        | CheckoutError::Unreachable { .. }
        | CheckoutError::Closed { .. } => true,
        CheckoutError::TimedOut { .. }
        | CheckoutError::Refused { .. }
        | CheckoutError::Denied { .. }
        | CheckoutError::Deadlock { .. } => false,
    }
}
