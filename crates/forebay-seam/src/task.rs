//! Tasks that the engine owns. A [`Spawner`] is taken where a runtime is at hand and
//! kept, because `Drop` runs anywhere.

use std::future::Future;

/// Starts tasks on the runtime in which it was made.
#[derive(Debug, Clone)]
pub struct Spawner {
    #[cfg(not(forebay_model))]
    handle: tokio::runtime::Handle,
}

impl Spawner {
    /// The spawner of the current runtime.
    ///
    /// # Panics
    /// Outside a runtime: a pool without one could open nothing.
    #[cfg(not(forebay_model))]
    pub fn current() -> Self {
        Self { handle: tokio::runtime::Handle::current() }
    }

    /// Runs `future` to its end, whoever asked for it.
    #[cfg(not(forebay_model))]
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        drop(self.handle.spawn(future));
    }

    /// Runs `work`, which blocks, on a thread for such work; `None` if it panicked, or the
    /// runtime ends. What it asks of the runtime, it asks of this one.
    #[cfg(not(forebay_model))]
    pub async fn block<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        self.handle.spawn_blocking(work).await.ok()
    }

    /// The model checker's scheduler.
    #[cfg(forebay_model)]
    pub fn current() -> Self {
        Self {}
    }

    /// Runs `future` as a task of the model.
    #[cfg(forebay_model)]
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        drop(shuttle::future::spawn(future));
    }
}

/// Tells everything that runs that it should come to an end. Dropping it tells too.
#[derive(Debug)]
pub struct Stopper {
    _tells_when_dropped: tokio::sync::watch::Sender<()>,
}

/// Hears a [`Stopper`].
#[derive(Debug, Clone)]
pub struct Stop(tokio::sync::watch::Receiver<()>);

impl Stopper {
    /// A signal and its first hearer.
    pub fn new() -> (Self, Stop) {
        let (sender, receiver) = tokio::sync::watch::channel(());
        (Self { _tells_when_dropped: sender }, Stop(receiver))
    }

    /// Tells all hearers, now and later.
    pub fn stop(self) {
        drop(self);
    }
}

impl Stop {
    /// Waits until the stop is told.
    ///
    /// # Cancel safety
    /// Nothing is lost when dropped.
    pub async fn told(&mut self) {
        while self.0.changed().await.is_ok() {}
    }

    /// Was it told?
    pub fn is_told(&self) -> bool {
        self.0.has_changed().is_err()
    }
}
