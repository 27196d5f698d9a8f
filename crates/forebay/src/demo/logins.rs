//! Paced logins: what a product's people do while its agents work.
//!
//! An open loop: they come when they are due, whether or not the earlier ones have been
//! answered, and their time runs from when they were due. How late this machine woke the
//! timer is kept apart: no program on it can be better than that.

use std::sync::Arc;
use std::time::Duration;

use forebay_seam::time;
use tokio::task::JoinSet;

use super::client_pool::{ClientPool, QueryError};
use super::workload::{Pace, Tries};

/// Logins a second.
pub(crate) const LOGINS: u32 = 100;

/// What was seen of them.
#[derive(Default)]
pub(crate) struct Logins {
    /// The logins themselves.
    pub(crate) tries: Arc<Tries>,
    /// How late this machine's timers woke them.
    pub(crate) late: Tries,
}

impl Logins {
    /// Paced logins over `pool` for `length`, and until the last of them was answered.
    pub(crate) async fn run(&self, pool: &Arc<ClientPool>, length: Duration) {
        let start = time::now();
        let mut pace = Pace::new(start, LOGINS);
        let mut under_way = JoinSet::new();
        let mut id = 0;
        loop {
            let due = pace.next().await;
            if due >= start + length {
                break;
            }
            self.late.note(due, &Ok::<_, QueryError>(()));
            id = id % 10_000 + 1;
            let (pool, tries) = (Arc::clone(pool), Arc::clone(&self.tries));
            under_way.spawn(async move { tries.note(due, &pool.login(id).await) });
            while under_way.try_join_next().is_some() {}
        }
        while under_way.join_next().await.is_some() {}
    }
}
