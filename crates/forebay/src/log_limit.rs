//! Log lines for what happens, at most ten a second of each kind: what comes on top is summed
//! up, so that a storm stays readable.
//!
//! The counters have everything; this is for finding the place in the code. Always true:
//! nothing is left out without a line that says how much.

use std::collections::BTreeMap;
use std::time::Duration;

use forebay_seam::time::{self, Instant};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

/// Lines of one kind in one window.
const LINES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(1);
/// The kind of what was missed because it came too fast to be read.
const UNREAD: &str = "any";

/// What can be logged.
pub(crate) trait Logged: Clone {
    /// What it is one of; a few kinds, known when the program is built.
    fn kind(&self) -> &'static str;
    /// How long it lasted, where that means something.
    fn lasted(&self) -> Duration {
        Duration::ZERO
    }
    /// Is it told in the log at all?
    fn has_line(&self) -> bool {
        true
    }
    /// Writes its line.
    fn log(&self);
    /// Writes that `left` of `kind` had no line of their own.
    fn log_rest(kind: &'static str, left: LeftOut);
}

/// What had no line of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LeftOut {
    /// How many.
    pub(crate) count: u64,
    /// How long they lasted, all together; of those that could not be read it is not known.
    pub(crate) lasted: Duration,
}

/// Logs what comes out of `events`, until their sender is gone.
pub(crate) async fn run<E: Logged>(mut events: Receiver<E>) {
    let mut windows = Windows::default();
    loop {
        let event = match windows.end() {
            Some(end) => {
                let left = end.saturating_duration_since(time::now());
                time::timeout(left, events.recv()).await
            }
            None => Ok(events.recv().await),
        };
        let now = time::now();
        windows.close::<E>(now);
        match event {
            Ok(Ok(event)) if !event.has_line() => {}
            Ok(Ok(event)) => match windows.may_log(event.kind(), now) {
                Verdict::Log => event.log(),
                Verdict::LeaveOut => windows.leave_out(event.kind(), 1, event.lasted(), now),
            },
            Ok(Err(RecvError::Lagged(missed))) => {
                windows.leave_out(UNREAD, missed, Duration::ZERO, now);
            }
            Ok(Err(RecvError::Closed)) => break,
            Err(_) => {}
        }
    }
    windows.close_all::<E>();
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Log,
    LeaveOut,
}

/// What the present window of one kind has had.
#[derive(Debug)]
struct Window {
    end: Instant,
    lines: u32,
    left: LeftOut,
}

/// The windows that are open, by kind.
#[derive(Debug, Default)]
struct Windows(BTreeMap<&'static str, Window>);

impl Windows {
    fn of(&mut self, kind: &'static str, now: Instant) -> &mut Window {
        let open = || Window { end: now + WINDOW, lines: 0, left: LeftOut::default() };
        self.0.entry(kind).or_insert_with(open)
    }

    fn may_log(&mut self, kind: &'static str, now: Instant) -> Verdict {
        let window = self.of(kind, now);
        window.lines = window.lines.saturating_add(1);
        if window.lines <= LINES { Verdict::Log } else { Verdict::LeaveOut }
    }

    fn leave_out(&mut self, kind: &'static str, count: u64, lasted: Duration, now: Instant) {
        let left = &mut self.of(kind, now).left;
        left.count += count;
        left.lasted += lasted;
    }

    /// When the first of them is over.
    fn end(&self) -> Option<Instant> {
        self.0.values().map(|window| window.end).min()
    }

    /// Those that are over: says what was left out, and forgets it.
    fn close<E: Logged>(&mut self, now: Instant) {
        self.0.retain(|kind, window| {
            let is_open = now < window.end;
            if !is_open && window.left.count > 0 {
                E::log_rest(kind, window.left);
            }
            is_open
        });
    }

    fn close_all<E: Logged>(&mut self) {
        if let Some(last) = self.0.values().map(|window| window.end).max() {
            self.close::<E>(last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone)]
    struct Nothing;

    impl Logged for Nothing {
        fn kind(&self) -> &'static str {
            "nothing"
        }

        fn log(&self) {}

        fn log_rest(_: &'static str, _: LeftOut) {}
    }

    #[tokio::test(start_paused = true)]
    async fn ten_lines_a_second_and_the_rest_is_summed_up() {
        let (mut windows, start) = (Windows::default(), time::now());
        let verdicts = (0..25).map(|_| windows.may_log("hold", start));
        assert_eq!(verdicts.filter(|verdict| *verdict == Verdict::Log).count(), 10);
        let two = Duration::from_secs(2);
        (0..15).for_each(|_| windows.leave_out("hold", 1, two, start));
        let left = LeftOut { count: 15, lasted: 15 * two };
        assert_eq!(windows.of("hold", start).left, left);
        assert_eq!(windows.may_log("down", start), Verdict::Log, "another kind has its own ten");
        windows.close::<Nothing>(start + WINDOW);
        assert_eq!(windows.end(), None, "what was left out was told and forgotten");
        assert_eq!(windows.may_log("hold", start + WINDOW), Verdict::Log, "a new window");
    }
}
