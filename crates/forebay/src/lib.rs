//! forebay
pub mod demo;
