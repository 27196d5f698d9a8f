//! What a service says about a connection of HTTP/2 itself, read over hyper's shoulder: how
//! many streams it allows (SETTINGS), and that it is about to go (GOAWAY).
//!
//! hyper tells neither in time: it would take calls for a connection that is going, and queue
//! streams above the limit where nobody sees them. Here the heads of frames are followed as
//! their bytes pass (RFC 9113, 4.1); nothing is changed, kept or refused, and what is no frame
//! is for hyper to complain about. Always true: the cost is nine bytes for each frame.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::berths::Socket;
use crate::link::{End, Link};

/// The head of a frame: length (24 bits), type, flags, stream.
const HEAD: usize = 9;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
/// A setting: its name (16 bits) and its value (32 bits).
const SETTING: usize = 6;
const MAX_CONCURRENT_STREAMS: u16 = 3;

/// What a frame says of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    /// The service allows so many streams, where it says so.
    Streams(Option<u32>),
    GoesAway,
}

/// Where in a frame the bytes are.
#[derive(Debug)]
enum Place {
    Head {
        have: usize,
        bytes: [u8; HEAD],
    },
    /// In a frame that says nothing; so many bytes of it are still to come.
    Body {
        left: usize,
    },
    Settings {
        left: usize,
        have: usize,
        bytes: [u8; SETTING],
        streams: Option<u32>,
    },
}

const AT_HEAD: Place = Place::Head { have: 0, bytes: [0; HEAD] };

/// Follows the frames.
#[derive(Debug)]
struct Follower {
    place: Place,
}

impl Follower {
    fn follow(&mut self, mut bytes: &[u8], mut tell: impl FnMut(News)) {
        while !bytes.is_empty() {
            match &mut self.place {
                Place::Body { left } => {
                    let some = bytes.len().min(*left);
                    bytes = bytes.get(some..).unwrap_or_default();
                    *left -= some;
                    if *left == 0 {
                        self.place = AT_HEAD;
                    }
                }
                Place::Head { have, bytes: head } => {
                    bytes = fill(head, have, bytes);
                    if *have == HEAD {
                        let head = *head;
                        self.begin(head, &mut tell);
                    }
                }
                Place::Settings { left, have, bytes: setting, streams } => {
                    let some = bytes.len().min(*left).min(SETTING - *have);
                    let (now, later) = bytes.split_at(some);
                    fill(setting, have, now);
                    (bytes, *left) = (later, *left - some);
                    if *have == SETTING {
                        *have = 0;
                        let [a, b, value @ ..] = *setting;
                        if u16::from_be_bytes([a, b]) == MAX_CONCURRENT_STREAMS {
                            *streams = Some(u32::from_be_bytes(value));
                        }
                    }
                    if *left == 0 {
                        tell(News::Streams(*streams));
                        self.place = AT_HEAD;
                    }
                }
            }
        }
    }

    fn begin(&mut self, head: [u8; HEAD], tell: &mut impl FnMut(News)) {
        let [a, b, c, kind, flags, ..] = head;
        let left = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
        let is_ack = flags & ACK != 0;
        if kind == GOAWAY {
            tell(News::GoesAway);
        }
        self.place = match (kind, left) {
            (SETTINGS, 0) if !is_ack => {
                tell(News::Streams(None));
                AT_HEAD
            }
            (_, 0) => AT_HEAD,
            (SETTINGS, left) if !is_ack => {
                Place::Settings { left, have: 0, bytes: [0; SETTING], streams: None }
            }
            (_, left) => Place::Body { left },
        };
    }
}

/// Fills `to`, which has `have` bytes, from `bytes`; what is left of them.
fn fill<'b>(to: &mut [u8], have: &mut usize, bytes: &'b [u8]) -> &'b [u8] {
    let room = to.get_mut(*have..).unwrap_or_default();
    let some = room.len().min(bytes.len());
    let (now, later) = bytes.split_at(some);
    for (to, from) in room.iter_mut().zip(now) {
        *to = *from;
    }
    *have += some;
    later
}

/// A connection of HTTP/2 whose frames are followed.
pub(crate) struct Followed<S> {
    stream: S,
    link: Arc<Link>,
    follower: Follower,
    /// Whether the service has said how many streams it allows; what it leaves out later stays
    /// as it is (RFC 9113, 6.5.3).
    settled: Settled,
    _open: Socket,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Settled {
    NotYet,
    Yes,
}

impl<S> Followed<S> {
    /// Tells `link` what the frames on `stream` say of it; `open` is kept until it is closed.
    pub(crate) fn new(stream: S, link: Arc<Link>, open: Socket) -> Self {
        let follower = Follower { place: AT_HEAD };
        Self { stream, link, follower, settled: Settled::NotYet, _open: open }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Followed<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        let (link, settled) = (&this.link, &mut this.settled);
        let new = buf.filled().get(before..).unwrap_or_default();
        this.follower.follow(new, |news| match news {
            News::GoesAway => drop(link.leave(End::GoAway)),
            News::Streams(None) if *settled == Settled::Yes => {}
            News::Streams(streams) => {
                *settled = Settled::Yes;
                link.allows(streams);
            }
        });
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Followed<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, flags: u8, body: &[u8]) -> Vec<u8> {
        let [_, a, b, c] = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[a, b, c, kind, flags, 0, 0, 0, 0][..], body].concat()
    }

    fn news(pieces: &[&[u8]]) -> Vec<News> {
        let (mut follower, mut news) = (Follower { place: AT_HEAD }, Vec::new());
        pieces.iter().for_each(|piece| follower.follow(piece, |said| news.push(said)));
        news
    }

    fn conversation() -> Vec<u8> {
        [
            frame(SETTINGS, 0, &[0, 4, 0, 1, 0, 0, 0, 3, 0, 0, 0, 128]),
            frame(SETTINGS, ACK, &[]),
            frame(0, 0, &[SETTINGS; 300]),
            frame(SETTINGS, 0, &[]),
            frame(1, 4, &[GOAWAY; 9]),
            frame(GOAWAY, 0, &[0, 0, 0, 9, 0, 0, 0, 0, b'b', b'y', b'e']),
            frame(SETTINGS, 0, &[0, 1, 0, 0, 0, 0]),
        ]
        .concat()
    }

    const SAID: [News; 4] =
        [News::Streams(Some(128)), News::Streams(None), News::GoesAway, News::Streams(None)];

    #[test]
    fn settings_and_farewells_are_found_among_other_frames() {
        assert_eq!(news(&[&conversation()]), SAID);
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_reads_end(cuts in prop::collection::vec(1..40_usize, 0..40)) {
            let (all, mut pieces) = (conversation(), Vec::new());
            let mut rest = &all[..];
            for cut in cuts {
                let (piece, later) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = later;
            }
            pieces.push(rest);
            prop_assert_eq!(news(&pieces), SAID);
        }

        #[test]
        fn whatever_comes_it_goes_on(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            news(&[&bytes]);
        }
    }
}
