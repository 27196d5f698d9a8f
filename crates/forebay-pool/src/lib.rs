//! Forebay's engine: connections to one destination, shared by workload classes.
//!
//! A [`Pool`] keeps connections to one physical server or service. Its budget is divided by
//! *classes*: each has a guarantee that nobody else can take, a ceiling it never exceeds, a
//! bounded queue and a deadline. The engine names no protocol; what opens, probes and resets
//! a connection comes in through [`Connector`].
//!
//! The [`guide`] is the manual. Two programs show the whole of it, each in 150 lines:
//! `examples/tokio_postgres.rs` and `examples/hyper_tls.rs`.
//!
//! # The names to know
//!
//! | name | what it is |
//! |---|---|
//! | [`Connector`] | what a protocol brings: connect, look, probe, reset |
//! | [`ConnectFailure`] | why it could not connect: nobody there, busy, or denied |
//! | [`PoolSettings`] | everything that can be set, with defaults and units |
//! | [`Budget`] | how many connections there may be |
//! | [`ClassSettings`] | what one kind of work may always have, and never exceeds |
//! | [`Pool`] | the connections to one destination; cheap to clone |
//! | [`Ask`] | who wants a connection, as which class, for which request |
//! | [`Request`] | the request that several checkouts belong to |
//! | [`Lease`] | a connection, until it is given back or dropped |
//! | [`Condition`] | in which state it comes home |
//! | [`CheckoutError`] | why there is none, and when to try again |
//! | [`Snapshot`] | one picture of the pool, for every view |
//!
//! The others belong to these: [`ClassId`], [`ClassName`], [`Kind`] and [`Share`] to classes,
//! [`Mode`] and [`Policies`] to what classes may refuse, [`FailureKind`] and [`Refusal`] to
//! errors, [`TraceId`], [`Operation`] and [`Attempt`] to an ask, [`Activity`] and [`Roster`] to
//! requests that hold several connections, [`Timetable`] to budgets by the hour.
//!
//! # The life of a lease
//!
//! ```text
//! checkout ─┬─► refused at once          Lease ─┬─► given back clean ──► the next caller
//!           ├─► in line ─► set aside ─►         ├─► given back broken ─► closed
//!           └───────────────────────────►       └─► dropped ───────────► reset, then the next
//! ```
//!
//! 1. A caller asks with [`Pool::checkout`]: on whose behalf (identity), as which class, and
//!    for which [`Request`] if that is known.
//! 2. An idle connection of its identity is lent at once if the class may have one more.
//!    Otherwise the caller stands in line: classes below their guarantee first, then
//!    requests that already hold a connection, then those that were admitted within the last
//!    minute, then new ones. A full queue, a destination that is down and a refused login
//!    are told at once, each by an error of its own ([`CheckoutError`]).
//! 3. A connection that comes home goes straight to the first in line. It is set aside for
//!    that caller in the same step, so nobody can take it in between, and if the caller has
//!    left meanwhile it goes to the next.
//! 4. The [`Lease`] is given back in a [`Condition`]: clean ones serve the next caller at
//!    once, broken ones are closed, and of all others (a lease that was dropped among them)
//!    the connector proves the state anew, in a task of the pool's own. Until then the seat
//!    stays taken, so a storm of cancellations exceeds no ceiling.
//!
//! Connections are opened few at a time and at a limited pace, only where waiting would take
//! longer, and belong to the pool: a caller that leaves does not break its connect off. Idle
//! ones are probed now and then, closed after their TTL or their lifetime (each with its own
//! jitter), and make room for other identities when the budget is used up. The whole story,
//! with what a drop does at each point, is in [`guide::life_of_a_lease`].
//!
//! # Cancel safety
//!
//! Every future of this crate may be dropped at every await point. A checkout that is dropped
//! leaves the queue at once; a lease that is dropped sends its connection home; neither waits
//! nor fails. What a [`Connector`] does runs in tasks of the pool and is never broken off by
//! a caller.
//!
//! # Deciding and acting
//!
//! The `ledger` decides and touches nothing: no clock, no lock, no socket. The `pool` holds
//! the connections, has one lock, and carries out what the ledger decided after it released
//! that lock. The tests and the simulator drive the same ledger.
//!
//! # Example
//!
//! ```
//! use std::sync::atomic::{AtomicU32, Ordering};
//!
//! use forebay_pool::{Ask, Budget, Condition, ConnectFailure, Connector, Pool, PoolSettings};
//!
//! /// Connections that are numbers.
//! #[derive(Default)]
//! struct Numbers(AtomicU32);
//!
//! impl Connector for Numbers {
//!     type Identity = String;
//!     type Connection = u32;
//!
//!     async fn connect(&self, _: &String) -> Result<u32, ConnectFailure> {
//!         Ok(self.0.fetch_add(1, Ordering::Relaxed))
//!     }
//!
//!     fn is_open(&self, _: &mut u32) -> bool {
//!         true // a look without waiting: did the other side close it?
//!     }
//!
//!     async fn probe(&self, number: u32) -> Option<u32> {
//!         Some(number) // ask whether it still answers
//!     }
//!
//!     async fn reset(&self, number: u32) -> Option<u32> {
//!         Some(number) // bring it back to the state of a fresh one, or say `None`
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let settings = PoolSettings::new("numbers", Budget::Fixed(10));
//! let pool = Pool::new(Numbers::default(), settings);
//! let class = pool.class("core").ok_or("one of the three standard classes")?;
//! let ask = Ask::new("app".to_owned(), class);
//!
//! let mut lease = pool.checkout(ask.clone()).await?;
//! assert_eq!(*lease.connection(), 0);
//! lease.give_back(Condition::Clean);
//!
//! // The same connection serves the next caller.
//! assert_eq!(*pool.checkout(ask).await?.connection(), 0);
//! assert_eq!(pool.snapshot().opened, 1);
//! # Ok(())
//! # }
//! ```

mod admission;
mod ask;
mod breaker;
mod budget;
mod cap;
pub mod class;
mod connect;
mod cost;
mod crowd;
mod deadlock;
pub mod dry;
pub mod event;
mod evidence;
mod fair;
mod feature;
mod forecast;
mod freshness;
mod generation;
pub mod guide;
mod learnt;
mod lease;
mod ledger;
mod limiter;
mod mode;
mod nesting;
mod operation;
pub mod overflow;
pub mod overlap;
pub mod policy;
mod pool;
mod queue;
pub mod rate;
mod request;
mod retry;
mod roster;
mod settings;
mod shed;
mod slot;
pub mod stats;
mod target;
mod terms;
pub mod timetable;
mod window;
mod wishes;

pub use ask::{Ask, Attempt, Resumes};
pub use cap::Cap;
pub use class::{ClassId, ClassName, ClassSettings, Kind, ParkWhen, Policies, Share};
pub use connect::{ConnectFailure, Connector, FailureKind};
pub use deadlock::Activity;
pub use lease::{Condition, Lease};
pub use mode::Mode;
pub use operation::Operation;
pub use overflow::Overflow;
pub use pool::{Beside, CheckoutError, Count, NoPlace, Offer, Pool, Refusal, WeakPool};
pub use request::{Request, TraceId};
pub use roster::Roster;
pub use settings::{Budget, Parting, PoolSettings};
pub use stats::Snapshot;
pub use terms::{Access, Terms};
pub use timetable::Timetable;
