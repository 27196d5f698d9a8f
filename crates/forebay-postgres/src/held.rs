//! Memory for messages that are not whole yet, over all clients.
//!
//! One client may hold a message up to `postgres.max_message`; ten thousand that each send
//! most of one and stay would hold the machine. What a client holds beyond [`FREE`] is
//! counted here, and who would go beyond the limit of all is sent away.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that a client may hold uncounted: batches of drivers are shorter.
pub(crate) const FREE: usize = 64 * 1024;

/// What all clients hold together.
#[derive(Debug)]
pub(crate) struct Account {
    held: AtomicUsize,
    limit: AtomicUsize,
}

impl Account {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { held: AtomicUsize::new(0), limit: AtomicUsize::new(limit) })
    }

    /// Who asks for more from now on meets this limit.
    pub(crate) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Bytes that are held now.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

/// More is held than all clients may hold together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full {
    pub(crate) limit: usize,
}

/// What one client holds; dropped, it holds nothing.
#[derive(Debug)]
pub(crate) struct Holding {
    account: Arc<Account>,
    counted: usize,
}

impl Holding {
    pub(crate) fn nothing(account: &Arc<Account>) -> Self {
        Self { account: Arc::clone(account), counted: 0 }
    }

    /// The client holds `bytes` from now on.
    ///
    /// # Errors
    /// When all together would hold too much; then the client must let go.
    pub(crate) fn set(&mut self, bytes: usize) -> Result<(), Full> {
        let counts = if bytes > FREE { bytes } else { 0 };
        if counts == self.counted {
            return Ok(());
        }
        let held = &self.account.held;
        if counts < self.counted {
            held.fetch_sub(self.counted - counts, Ordering::Relaxed);
            self.counted = counts;
            return Ok(());
        }
        let more = counts - self.counted;
        self.counted = counts;
        let before = held.fetch_add(more, Ordering::Relaxed);
        let limit = self.account.limit.load(Ordering::Relaxed);
        if before.saturating_add(more) > limit {
            return Err(Full { limit });
        }
        Ok(())
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.account.held.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_clients_together_hold_no_more_than_the_limit() {
        let account = Account::new(10 * FREE);
        let (mut one, mut other) = (Holding::nothing(&account), Holding::nothing(&account));
        one.set(6 * FREE).unwrap();
        assert_eq!(other.set(5 * FREE), Err(Full { limit: 10 * FREE }));
        drop(other);
        let mut other = Holding::nothing(&account);
        other.set(4 * FREE).unwrap();
        one.set(FREE).unwrap();
        other.set(10 * FREE).unwrap();
        drop((one, other));
        assert_eq!(account.held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn short_batches_are_free() {
        let account = Account::new(FREE);
        let mut holdings: Vec<_> = (0..100).map(|_| Holding::nothing(&account)).collect();
        assert!(holdings.iter_mut().all(|holding| holding.set(FREE).is_ok()));
    }
}
