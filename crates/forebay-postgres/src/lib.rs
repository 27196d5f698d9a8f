//! forebay-postgres
pub mod settings;
