//! forebay-postgres
