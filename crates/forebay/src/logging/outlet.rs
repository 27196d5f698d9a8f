//! The way of log lines out: a thread of their own writes them, so that a reader who has
//! stopped, or gone, stops nobody else.
//!
//! Knows no format. Always true: a line goes out whole or not at all, whoever logs does not
//! wait, and what had no room, or could not be written, is counted.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, Thread};
use std::time::Duration;

use forebay_seam::sync::Mutex;
use forebay_seam::time;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait for their reader.
const ROOM: usize = 2_048;
/// How long the end of the program waits for them.
const MOMENT: Duration = Duration::from_millis(200);

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
    /// Who waits until all are done.
    waits: Mutex<Option<Thread>>,
}

impl Lines {
    /// Lines that were not written, because nobody reads them or the output is closed.
    pub fn lost(&self) -> u64 {
        self.counts.lost.load(Ordering::Relaxed)
    }

    /// Waits a moment for lines that are on their way: 200 ms at the most.
    pub fn settle(&self) {
        *self.counts.waits.lock() = Some(thread::current());
        let deadline = time::now() + MOMENT;
        while self.counts.done.load(Ordering::Acquire) < self.counts.taken.load(Ordering::Acquire) {
            let left = deadline.saturating_duration_since(time::now());
            if left.is_zero() {
                break;
            }
            thread::park_timeout(left);
        }
        *self.counts.waits.lock() = None;
    }
}

/// A line on its way, and how grave it is.
type Sent = (Level, Vec<u8>);

/// Takes lines, and hands them to the thread that writes.
pub(super) struct Outlet {
    sender: SyncSender<Sent>,
    lines: Lines,
}

impl Outlet {
    /// Starts the thread, which gives each line to `output`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn to(
        output: impl FnMut(Level, &[u8]) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(ROOM);
        let lines = Lines::default();
        let written = lines.clone();
        let thread = thread::Builder::new().name("forebay-log".to_owned());
        drop(thread.spawn(move || write_all(output, &receiver, &written))?);
        Ok(Self { sender, lines })
    }

    pub(super) fn lines(&self) -> Lines {
        self.lines.clone()
    }
}

fn write_all(
    mut output: impl FnMut(Level, &[u8]) -> io::Result<()>,
    receiver: &Receiver<Sent>,
    lines: &Lines,
) {
    while let Ok((level, line)) = receiver.recv() {
        if output(level, &line).is_err() {
            lines.counts.lost.fetch_add(1, Ordering::Relaxed);
        }
        lines.counts.done.fetch_add(1, Ordering::Release);
        if let Some(waits) = &*lines.counts.waits.lock() {
            waits.unpark();
        }
    }
}

/// Writes one line.
pub(super) struct Line<'o> {
    outlet: &'o Outlet,
    level: Level,
}

impl<'o> MakeWriter<'o> for Outlet {
    type Writer = Line<'o>;

    fn make_writer(&'o self) -> Line<'o> {
        Line { outlet: self, level: Level::INFO }
    }

    fn make_writer_for(&'o self, metadata: &Metadata<'_>) -> Line<'o> {
        Line { outlet: self, level: *metadata.level() }
    }
}

/// Each write is a line.
impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let Outlet { sender, lines } = self.outlet;
        lines.counts.taken.fetch_add(1, Ordering::AcqRel);
        if sender.try_send((self.level, line.to_vec())).is_err() {
            lines.counts.lost.fetch_add(1, Ordering::Relaxed);
            lines.counts.done.fetch_add(1, Ordering::Release);
            if let Some(waits) = &*lines.counts.waits.lock() {
                waits.unpark();
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_has_stopped_stops_nobody_and_what_is_lost_is_counted() {
        let (unread, mut output) = io::pipe().unwrap();
        let outlet = Outlet::to(move |_, line| output.write_all(line)).unwrap();
        // More than a pipe and the room take.
        let line = [b'x'; 1_024];
        for _ in 0..2 * ROOM {
            outlet.make_writer().write_all(&line).unwrap();
        }
        let lost = outlet.lines().lost();
        assert!(lost > 0 && lost < 2 * u64::try_from(ROOM).unwrap(), "{lost}");
        drop(unread);
        outlet.lines().settle();
        assert!(outlet.lines().lost() > lost, "nobody will read the others either");
    }

    #[test]
    fn lines_come_out_whole_and_in_order() {
        let (mut read, mut output) = io::pipe().unwrap();
        let outlet = Outlet::to(move |_, line| output.write_all(line)).unwrap();
        outlet.make_writer().write_all(b"one\n").unwrap();
        outlet.make_writer().write_all(b"two\n").unwrap();
        outlet.lines().settle();
        let mut out = [0; 8];
        io::Read::read_exact(&mut read, &mut out).unwrap();
        assert_eq!((&out, outlet.lines().lost()), (b"one\ntwo\n", 0));
    }
}
