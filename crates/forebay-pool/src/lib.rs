//! Forebay's engine: connections to one destination, shared by workload classes.
pub mod class;
mod connect;
pub mod overlap;
mod request;
mod settings;
pub mod stats;

pub use class::{ClassId, ClassName, ClassSettings, Kind, Share};
pub use connect::{ConnectFailure, Connector, FailureKind};
pub use request::{Request, TraceId};
pub use settings::{Budget, PoolSettings};
pub use stats::Snapshot;
