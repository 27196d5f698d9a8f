//! All lives of a small pool.
