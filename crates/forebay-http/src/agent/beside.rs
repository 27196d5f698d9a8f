//! A future beside a busy one in the same task, polled only when it is itself that was woken.
//!
//! An agent's connection wakes its task with each packet; what else the task waits for comes
//! perhaps once in its life, and to ask it each time costs as much as a part of the call.
//! Always true: a wake is never lost, whichever of the two it is for and whenever it comes.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use forebay_seam::sync::Mutex;

/// Remembers that it was woken, and wakes the task.
struct Bell {
    is_rung: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_rung.store(true, Ordering::Release);
        let task = self.task.lock().clone();
        if let Some(task) = task {
            task.wake();
        }
    }
}

/// The future beside.
pub(super) struct Beside<F> {
    future: Pin<Box<F>>,
    bell: Arc<Bell>,
    waker: Waker,
    /// Whom the bell wakes.
    task: Option<Waker>,
}

impl<F: Future> Beside<F> {
    /// `future`, which is polled once to begin with.
    pub(super) fn new(future: F) -> Self {
        let bell = Arc::new(Bell { is_rung: AtomicBool::new(true), task: Mutex::new(None) });
        let waker = Waker::from(Arc::clone(&bell));
        Self { future: Box::pin(future), bell, waker, task: None }
    }
}

impl<F: Future> Future for Beside<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        // The task first, then the look: what rings in between is seen.
        if !this.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            this.task = Some(cx.waker().clone());
            *this.bell.task.lock() = this.task.clone();
        }
        if !this.bell.is_rung.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        this.future.as_mut().poll(&mut Context::from_waker(&this.waker))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::pin::pin;

    use tokio::sync::Notify;

    use super::*;

    #[test]
    fn it_is_polled_when_it_was_woken_and_only_then() {
        let (polls, notify) = (Cell::new(0), Notify::new());
        let mut notified = pin!(notify.notified());
        let mut beside = pin!(Beside::new(poll_fn(|cx| {
            polls.set(polls.get() + 1);
            notified.as_mut().poll(cx)
        })));
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..3 {
            assert!(beside.as_mut().poll(&mut cx).is_pending());
        }
        assert_eq!(polls.get(), 1);
        notify.notify_waiters();
        assert!(beside.as_mut().poll(&mut cx).is_ready());
        assert_eq!(polls.get(), 2);
    }

    #[tokio::test]
    async fn a_wake_reaches_the_task_that_polls_it_last() {
        let (told, hears) = tokio::sync::oneshot::channel::<()>();
        let mut beside = Beside::new(hears);
        let mut elsewhere = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut beside).poll(&mut elsewhere).is_pending());
        let task = tokio::spawn(beside);
        tokio::task::yield_now().await;
        told.send(()).unwrap();
        assert!(task.await.unwrap().is_ok());
    }
}
