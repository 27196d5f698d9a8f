//! forebay-sizing
