//! Hashing passwords, off the threads that serve clients: it takes milliseconds each time.
//!
//! As many hash at once as the machine has processors; the others wait, and cost nothing
//! meanwhile. What was hashed is counted, so that a test can say that a wrong password and an
//! unknown user cost the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use forebay_seam::secret::SecretString;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::scram::{ITERATIONS, Salted, Salting, Verifier};
use super::secret::Plain;

/// Hashes passwords.
pub(crate) struct Hashing {
    places: Arc<Semaphore>,
    iterations: AtomicU64,
}

impl Default for Hashing {
    fn default() -> Self {
        let places = thread::available_parallelism().map_or(1, usize::from);
        Self { places: Arc::new(Semaphore::new(places)), iterations: AtomicU64::new(0) }
    }
}

impl Hashing {
    /// Salts `password`; `None` only while the program ends.
    pub(crate) async fn salt(&self, password: SecretString, salting: Salting) -> Option<Salted> {
        let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
        self.iterations.fetch_add(u64::from(salting.iterations.get()), Ordering::Relaxed);
        let hashed = spawn_blocking(move || {
            let salted = Salted::new(&password, &salting);
            drop(place);
            salted
        });
        hashed.await.ok()
    }

    /// Makes the verifier of a password; `None` only while the program ends.
    pub(crate) async fn make_verifier(&self, plain: Arc<Plain>) -> Option<Arc<Verifier>> {
        let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
        self.iterations.fetch_add(u64::from(ITERATIONS.get()), Ordering::Relaxed);
        let hashed = spawn_blocking(move || {
            let verifier = plain.make_verifier();
            drop(place);
            verifier
        });
        hashed.await.ok()
    }

    /// Iterations since the start.
    pub(crate) fn iterations(&self) -> u64 {
        self.iterations.load(Ordering::Relaxed)
    }
}
