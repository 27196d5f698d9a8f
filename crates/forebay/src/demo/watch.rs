//! What PostgreSQL itself shows of the sessions in a database, looked at from another one.
//!
//! Counts every session there, whoever opened it and whether or not it still has a client.

use std::cell::Cell;
use std::time::Duration;

use forebay_seam::time;

use super::database::{DatabaseError, Session};

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Sessions of clients by what they do.
const QUESTION: &str = "
SELECT count(*),
       count(*) FILTER (WHERE state = 'active'),
       count(*) FILTER (WHERE state LIKE 'idle in transaction%')
FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'client backend'";

/// Looks at one database.
pub(crate) struct Watch {
    session: Session,
    database: String,
}

/// Sessions at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sessions {
    /// All of them.
    pub(crate) open: u64,
    /// Of these, at work on a statement.
    pub(crate) active: u64,
    /// Of these, in a transaction of which nothing runs.
    pub(crate) idle_in_transaction: u64,
}

impl Watch {
    /// Looks from `session`, which is in another database, at `database`.
    pub(crate) fn new(session: Session, database: &str) -> Self {
        Self { session, database: database.to_owned() }
    }

    /// The sessions now.
    pub(crate) async fn look(&self) -> Result<Sessions, DatabaseError> {
        let row = self.session.query_one(QUESTION, &[&self.database]).await?;
        let count = |place| u64::try_from(row.get::<_, i64>(place)).unwrap_or(0);
        Ok(Sessions { open: count(0), active: count(1), idle_in_transaction: count(2) })
    }

    /// Does `work` and gives, with what came out, the most sessions open meanwhile.
    pub(crate) async fn beside<T>(
        &self,
        work: impl Future<Output = T>,
    ) -> Result<(T, u64), DatabaseError> {
        let most = Cell::new(0);
        let looking = async {
            loop {
                most.set(self.look().await?.open.max(most.get()));
                time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            done = work => Ok((done, most.get())),
            failed = looking => failed,
        }
    }
}
