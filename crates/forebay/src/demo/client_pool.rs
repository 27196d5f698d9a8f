//! An ordinary client-side pool, as SQLAlchemy's, HikariCP's or pgx's: so many connections,
//! first come first served, an error for who waits too long.
//!
//! Without Forebay the whole product shares one, with the server connections as its size.
//! With Forebay each part has one of its own, large enough that nobody waits in it: its
//! connections lead to Forebay and cost the server nothing. Always true: at most `size`
//! connections; one that was not given back in order is closed.

use std::sync::Arc;
use std::time::Duration;

use forebay_seam::sync::Mutex;
use forebay_seam::time;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Config, Statement};

use super::database::{Session, cancel, connect, told};

/// How long a caller waits for a connection: SQLAlchemy's default.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The login of the product: a lookup by primary key that takes 2 ms.
const LOGIN: &str = "SELECT email, pg_sleep(0.002) FROM accounts WHERE id = $1";
/// One query of a retrieval: 15 ms.
const RETRIEVE: &str = "SELECT body, pg_sleep(0.015) FROM documents WHERE id = $1";

/// A pool of connections.
pub(crate) struct ClientPool {
    config: Config,
    seats: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
    forgotten: Mutex<Vec<(Connection, OwnedSemaphorePermit)>>,
}

/// A connection with what its users prepare once.
pub(crate) struct Connection {
    /// The connection itself.
    pub(crate) session: Session,
    login: Statement,
    retrieve: Statement,
}

/// A connection on loan, closed when dropped; given back by [`Loan::give_back`].
pub(crate) struct Loan {
    connection: Connection,
    pool: Arc<ClientPool>,
    /// Released last, when the connection is back.
    seat: OwnedSemaphorePermit,
}

/// What a connection is good for after a query.
enum After {
    /// The next one.
    Usable,
    /// Nobody can say.
    Unsure,
}

/// Why a query was not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueryError {
    /// Waited in vain.
    #[error("no connection of the pool was free for {}s", PATIENCE.as_secs())]
    PoolTimeout,
    /// The server, or Forebay, said no.
    #[error("{}", told(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// The query found nothing, which cannot be.
    #[error("the row is not there")]
    NoRow,
    /// Nobody is left who could say what came out.
    #[error("the query was given up")]
    GivenUp,
}

impl QueryError {
    /// Was it turned away for want of a connection, without having run?
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::PoolTimeout => true,
            Self::Postgres(error) => error.code() == Some(&SqlState::TOO_MANY_CONNECTIONS),
            Self::NoRow | Self::GivenUp => false,
        }
    }
}

impl ClientPool {
    /// A pool of `size` connections that call themselves `application`, all open.
    pub(crate) async fn open(
        config: &Config,
        application: &str,
        size: usize,
    ) -> Result<Arc<Self>, tokio_postgres::Error> {
        let mut config = config.clone();
        config.application_name(application);
        let (idle, forgotten) = (Mutex::default(), Mutex::default());
        let pool = Self { config, seats: Arc::new(Semaphore::new(size)), idle, forgotten };
        for _ in 0..size {
            let connection = pool.connect().await?;
            pool.idle.lock().push(connection);
        }
        Ok(Arc::new(pool))
    }

    /// A connection, when there is one.
    pub(crate) async fn take(self: &Arc<Self>) -> Result<Loan, QueryError> {
        let seat = time::timeout(PATIENCE, Arc::clone(&self.seats).acquire_owned()).await;
        let Ok(Ok(seat)) = seat else { return Err(QueryError::PoolTimeout) };
        let idle = self.idle.lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        Ok(Loan { connection, pool: Arc::clone(self), seat })
    }

    async fn connect(&self) -> Result<Connection, tokio_postgres::Error> {
        let session = connect(&self.config).await?;
        let login = session.prepare(LOGIN).await?;
        let retrieve = session.prepare(RETRIEVE).await?;
        Ok(Connection { session, login, retrieve })
    }

    /// The statement `text` of one number, prepared for nobody else.
    ///
    /// # Cancel safety
    /// Dropped while it waits for a connection, it has not begun. Dropped later, it is
    /// cancelled at the server, as drivers do it, and the connection goes back after that.
    pub(crate) async fn ask(self: &Arc<Self>, text: String, number: i32) -> Result<(), QueryError> {
        let loan = self.take().await?;
        let (mut asker, answer) = oneshot::channel();
        tokio::spawn(async move {
            let (outcome, after) = loan.ask(&text, number, asker.closed()).await;
            match after {
                After::Usable => loan.give_back(),
                After::Unsure => drop(loan),
            }
            // Who asked may have gone.
            asker.send(outcome).ok();
        });
        answer.await.unwrap_or(Err(QueryError::GivenUp))
    }

    /// A login of account `id`.
    pub(crate) async fn login(self: &Arc<Self>, id: i32) -> Result<(), QueryError> {
        let loan = self.take().await?;
        let rows = loan.session().query(&loan.connection.login, &[&id]).await?;
        loan.give_back();
        rows.first().map(drop).ok_or(QueryError::NoRow)
    }

    /// One query of a retrieval.
    pub(crate) async fn retrieve(self: &Arc<Self>, id: i32) -> Result<(), QueryError> {
        let loan = self.take().await?;
        let rows = loan.session().query(&loan.connection.retrieve, &[&id]).await?;
        loan.give_back();
        rows.first().map(drop).ok_or(QueryError::NoRow)
    }
}

impl Loan {
    /// The connection.
    pub(crate) fn session(&self) -> &Session {
        &self.connection.session
    }

    /// Asks, and cancels when `gone` happens first.
    async fn ask(
        &self,
        text: &str,
        number: i32,
        gone: impl Future<Output = ()>,
    ) -> (Result<(), QueryError>, After) {
        let session = self.session();
        let parameters: [(&(dyn ToSql + Sync), Type); 1] = [(&number, Type::INT4)];
        let mut query = std::pin::pin!(session.execute_typed(text, &parameters));
        let (outcome, cancelled) = tokio::select! {
            outcome = &mut query => (outcome, false),
            () = gone => {
                // What cannot be cancelled is waited for.
                cancel(session, &self.pool.config).await.ok();
                (query.await, true)
            }
        };
        let was_hit =
            outcome.as_ref().is_err_and(|error| error.code() == Some(&SqlState::QUERY_CANCELED));
        // A cancellation that did not hit this query may still hit the next one.
        let after = if session.is_closed() || cancelled && !was_hit {
            After::Unsure
        } else {
            After::Usable
        };
        (outcome.map(drop).map_err(QueryError::from), after)
    }

    /// Neither gives the connection back nor closes it: as long as there is the pool, it is
    /// open and counts as lent, as where a client's clean-up was itself cancelled.
    pub(crate) fn forget(self) {
        let Self { connection, pool, seat } = self;
        pool.forgotten.lock().push((connection, seat));
    }

    /// Gives the connection back, with nothing left open on it.
    pub(crate) fn give_back(self) {
        let Self { connection, pool, seat } = self;
        pool.idle.lock().push(connection);
        drop(seat);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::database::Server;
    use crate::demo::watch::Sessions;

    #[tokio::test]
    async fn who_asks_and_leaves_is_cancelled_and_the_connection_serves_the_next_one() {
        let server = Server::private().await.unwrap();
        let database = server.create().await.unwrap();
        let pool = ClientPool::open(database.config(), "shop", 1).await.unwrap();
        let watch = server.watch(&database).await.unwrap();
        for _ in 0..3 {
            // Longer than anybody waits for a connection.
            let long = pool.ask("SELECT pg_sleep(60) WHERE $1 > 0".to_owned(), 1);
            tokio::select! {
                answered = long => panic!("{answered:?}"),
                () = until(&watch, |sessions| sessions.active == 1) => {}
            }
            pool.login(1).await.unwrap();
        }
        assert_eq!(watch.look().await.unwrap().active, 0);
        server.close().await;
    }

    #[tokio::test]
    async fn a_forgotten_connection_stays_lent_and_open_as_long_as_there_is_the_pool() {
        let server = Server::private().await.unwrap();
        let database = server.create().await.unwrap();
        let pool = ClientPool::open(database.config(), "shop", 1).await.unwrap();
        let watch = server.watch(&database).await.unwrap();
        let loan = pool.take().await.unwrap();
        loan.session().batch_execute("BEGIN").await.unwrap();
        loan.forget();
        assert_eq!(pool.seats.available_permits(), 0);
        assert_eq!(watch.look().await.unwrap().idle_in_transaction, 1);
        drop(pool);
        until(&watch, |sessions| sessions.open == 0).await;
        server.close().await;
    }

    async fn until(watch: &crate::demo::watch::Watch, wanted: impl Fn(Sessions) -> bool) {
        while !wanted(watch.look().await.unwrap()) {
            time::sleep(Duration::from_millis(10)).await;
        }
    }
}
