//! forebay-http
pub mod settings;
