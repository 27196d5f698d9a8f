//! Locks. A poisoned lock is not a state we have: `lock()` returns the guard.
#![allow(clippy::disallowed_types, reason = "this module is the door")]

#[cfg(not(forebay_model))]
pub use fast::{Mutex, MutexGuard};

#[cfg(not(forebay_model))]
mod fast {
    pub use parking_lot::MutexGuard;

    /// Mutual exclusion. Hold it for a decision, never across an await.
    #[derive(Debug, Default)]
    pub struct Mutex<T>(parking_lot::Mutex<T>);

    impl<T> Mutex<T> {
        /// A lock around `value`.
        pub const fn new(value: T) -> Self {
            Self(parking_lot::Mutex::new(value))
        }

        /// Waits for the lock.
        pub fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock()
        }
    }
}

#[cfg(forebay_model)]
pub use model::{Mutex, MutexGuard};

/// The same names on shuttle's primitives, so that it may interleave at each lock.
#[cfg(forebay_model)]
mod model {
    pub use shuttle::sync::MutexGuard;

    /// Mutual exclusion under the model checker.
    #[derive(Debug, Default)]
    pub struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        /// A lock around `value`.
        pub fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        /// Waits for the lock.
        pub fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("a panic ends the model run")
        }
    }
}
