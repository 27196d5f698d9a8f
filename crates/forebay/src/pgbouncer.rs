//! PgBouncer's own configuration: read, checked, turned into settings of ours.
//!
//! [`migrate`] writes those down, once; `forebay pgbouncer` carries them out each time. Both go
//! the same way: the ini file becomes a text of ours, and that is read like any other, so there
//! is one meaning of a setting.

pub mod command;
mod connstr;
mod daemon;
mod document;
mod file;
mod identity;
mod ini;
mod load;
pub mod migrate;
mod overrides;
mod parameter;
mod pidfile;
pub mod reference;
mod secrets;
mod setting;
mod translate;
mod value;

pub use file::{FileError, Mistake};
pub use identity::IdentityError;
pub use ini::{IniError, Place};
pub use load::LoadError;
pub use overrides::{Before, Overrides, SetError};
pub use pidfile::PidfileError;
