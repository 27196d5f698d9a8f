//! The way of log lines to stderr: a thread of their own writes them, so that a reader who has
//! stopped, or gone, stops nobody else.
//!
//! Knows no format. Always true: a line goes out whole or not at all, whoever logs does not
//! wait, and what had no room, or could not be written, is counted.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

/// Lines that may wait for their reader.
const ROOM: usize = 2_048;
/// How long the end of the program waits for them, in looks.
const LOOKS: u32 = 40;
const LOOK: Duration = Duration::from_millis(5);

/// What became of the lines so far. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Lines {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    taken: AtomicU64,
    done: AtomicU64,
    lost: AtomicU64,
}

impl Lines {
    /// Lines that were not written, because nobody reads them or the output is closed.
    pub fn lost(&self) -> u64 {
        self.counts.lost.load(Ordering::Relaxed)
    }

    /// One more was lost.
    pub(super) fn lose(&self) {
        self.counts.lost.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits a moment for lines that are on their way: 200 ms at the most.
    pub fn settle(&self) {
        for _ in 0..LOOKS {
            let done = self.counts.done.load(Ordering::Acquire);
            if done >= self.counts.taken.load(Ordering::Acquire) {
                return;
            }
            thread::sleep(LOOK);
        }
    }
}

/// Takes lines, and hands them to the thread that writes.
pub(super) struct Outlet {
    sender: SyncSender<Vec<u8>>,
    lines: Lines,
}

impl Outlet {
    /// Starts the thread, which writes to `output`; `lines` count.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn to(output: impl Write + Send + 'static, lines: &Lines) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(ROOM);
        let lines = lines.clone();
        let written = lines.clone();
        let thread = thread::Builder::new().name("forebay-log".to_owned());
        drop(thread.spawn(move || write_all(output, &receiver, &written))?);
        Ok(Self { sender, lines })
    }

    /// Takes a line, or loses it.
    pub(super) fn take(&self, line: &[u8]) {
        let counts = &self.lines.counts;
        counts.taken.fetch_add(1, Ordering::AcqRel);
        if self.sender.try_send(line.to_vec()).is_err() {
            self.lines.lose();
            counts.done.fetch_add(1, Ordering::Release);
        }
    }
}

fn write_all(mut output: impl Write, receiver: &Receiver<Vec<u8>>, lines: &Lines) {
    while let Ok(line) = receiver.recv() {
        if output.write_all(&line).and_then(|()| output.flush()).is_err() {
            lines.lose();
        }
        lines.counts.done.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_has_stopped_stops_nobody_and_what_is_lost_is_counted() {
        let (unread, output) = io::pipe().unwrap();
        let lines = Lines::default();
        let outlet = Outlet::to(output, &lines).unwrap();
        // More than a pipe and the room take.
        let line = [b'x'; 1_024];
        for _ in 0..2 * ROOM {
            outlet.take(&line);
        }
        let lost = lines.lost();
        assert!(lost > 0 && lost < 2 * u64::try_from(ROOM).unwrap(), "{lost}");
        drop(unread);
        lines.settle();
        assert!(lines.lost() > lost, "nobody will read the others either");
    }

    #[test]
    fn lines_come_out_whole_and_in_order() {
        let (mut read, output) = io::pipe().unwrap();
        let lines = Lines::default();
        let outlet = Outlet::to(output, &lines).unwrap();
        outlet.take(b"one\n");
        outlet.take(b"two\n");
        lines.settle();
        let mut out = [0; 8];
        io::Read::read_exact(&mut read, &mut out).unwrap();
        assert_eq!((&out, lines.lost()), (b"one\ntwo\n", 0));
    }
}
