//! Forebay's engine: connections to one destination, shared by workload classes.
mod budget;
pub mod class;
mod connect;
mod lease;
mod ledger;
pub mod overlap;
mod pool;
mod queue;
mod request;
mod settings;
mod slot;
pub mod stats;
mod target;

pub use class::{ClassId, ClassName, ClassSettings, Kind, Share};
pub use connect::{ConnectFailure, Connector, FailureKind};
pub use lease::{Condition, Lease};
pub use pool::{Ask, CheckoutError, Pool};
pub use request::{Request, TraceId};
pub use settings::{Budget, PoolSettings};
pub use stats::Snapshot;
