//! Forebay's engine: connections to one destination, shared by workload classes.
pub mod class;
mod connect;
mod lease;
pub mod overlap;
mod pool;
mod request;
mod settings;
pub mod stats;

pub use class::{ClassId, ClassName, ClassSettings, Kind, Share};
pub use connect::{ConnectFailure, Connector, FailureKind};
pub use lease::{Condition, Lease};
pub use pool::{Ask, CheckoutError, Pool};
pub use request::{Request, TraceId};
pub use settings::{Budget, PoolSettings};
pub use stats::Snapshot;
