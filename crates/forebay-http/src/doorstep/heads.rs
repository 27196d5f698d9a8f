//! Heads of HTTP/1 calls that two parsers could read differently, found in the raw bytes.
//!
//! hyper settles some doubts by itself and leaves no trace: it takes the chunks where there is
//! a length too, one of two equal lengths, a bare line feed for the end of a line. Somebody
//! else may settle them otherwise, and then what one takes for a body is a call to the other.
//! So bytes are looked at on their way to hyper. Knows nothing of calls: counts heads, and
//! tells the first in doubt. Always true: nothing is kept but the beginning of one line, and
//! what is watched is never changed; losing the thread means doubt, not trust.

/// What of a line is looked at; no field that matters is longer.
const LINE: usize = 160;

/// Watches what one agent sends.
pub(super) struct Heads {
    place: Place,
    /// Heads that ended.
    ended: u64,
    line: Vec<u8>,
    is_long: bool,
    /// The last two bytes of the line so far.
    last: [u8; 2],
    head: Head,
}

/// What of a head matters.
#[derive(Default)]
struct Head {
    has_begun: bool,
    lengths: u32,
    length: u64,
    codings: u32,
}

/// Where in its words the agent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In a head.
    Head,
    /// So many bytes before the end of a body, or of a chunk with its line's end.
    Data { left: u64, then: Then },
    /// In the line with a chunk's size.
    ChunkSize,
    /// In the lines behind the last chunk.
    Trailers,
    /// Nobody knows: everything from here on is in doubt.
    Lost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Head,
    ChunkSize,
}

impl Heads {
    /// At the beginning.
    pub(super) fn new() -> Self {
        let (line, head) = (Vec::new(), Head::default());
        Self { place: Place::Head, ended: 0, line, is_long: false, last: [0; 2], head }
    }

    /// Looks at the next bytes. `Some(n)`: from the head with number n on (the first is 0) all
    /// are in doubt.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Option<u64> {
        while !bytes.is_empty() {
            match self.place {
                Place::Lost => break,
                Place::Data { left, then } => {
                    let here = u64::try_from(bytes.len()).unwrap_or(u64::MAX).min(left);
                    let skip = usize::try_from(here).unwrap_or(bytes.len());
                    bytes = bytes.get(skip..).unwrap_or_default();
                    self.place = match (left - here, then) {
                        (0, Then::Head) => Place::Head,
                        (0, Then::ChunkSize) => Place::ChunkSize,
                        (left, then) => Place::Data { left, then },
                    };
                }
                Place::Head | Place::ChunkSize | Place::Trailers => {
                    let end = memchr::memchr(b'\n', bytes);
                    if let Some(end) = end.filter(|end| *end < LINE && self.line.is_empty())
                        && let Some((line, rest)) = bytes.split_at_checked(end + 1)
                    {
                        // It is there as a whole: nothing of it needs to be kept.
                        self.last = last_two(line, self.last);
                        self.place = self.line(line);
                        self.last = [0; 2];
                        bytes = rest;
                        continue;
                    }
                    let (line, rest) = match end {
                        Some(end) => bytes.split_at(end + 1),
                        None => (bytes, [].as_slice()),
                    };
                    bytes = rest;
                    self.keep(line);
                    if end.is_some() {
                        let line = std::mem::take(&mut self.line);
                        self.place = self.line(&line);
                        self.line = line;
                        self.line.clear();
                        (self.is_long, self.last) = (false, [0; 2]);
                    }
                }
            }
        }
        (self.place == Place::Lost).then_some(self.ended)
    }

    fn keep(&mut self, part: &[u8]) {
        let room = LINE.saturating_sub(self.line.len());
        self.is_long |= part.len() > room;
        self.line.extend_from_slice(part.get(..room).unwrap_or(part));
        self.last = last_two(part, self.last);
    }

    /// Where we are behind `line`, which is whole but for what is too long.
    fn line(&mut self, line: &[u8]) -> Place {
        if self.last != *b"\r\n" {
            return Place::Lost;
        }
        let line = if self.is_long { line } else { line.strip_suffix(b"\r\n").unwrap_or(line) };
        // What is too long to be kept is hyper's: it takes neither in a field.
        if memchr::memchr2(b'\r', 0, line).is_some() {
            return Place::Lost;
        }
        match self.place {
            Place::Head => self.field(line),
            Place::ChunkSize => self.chunk(line),
            Place::Trailers if line.is_empty() => self.end(Place::Head),
            Place::Trailers => Place::Trailers,
            Place::Data { .. } | Place::Lost => self.place,
        }
    }

    fn end(&mut self, place: Place) -> Place {
        self.head = Head::default();
        place
    }

    fn field(&mut self, line: &[u8]) -> Place {
        if line.is_empty() {
            return if self.head.has_begun { self.head_ends() } else { Place::Head };
        }
        if !self.head.has_begun {
            self.head.has_begun = true;
            return Place::Head;
        }
        let colon = memchr::memchr(b':', line);
        let (name, value) = line.split_at(colon.unwrap_or(line.len()));
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.trim_ascii().eq_ignore_ascii_case(b"content-length") {
            self.head.lengths += 1;
            match decimal(value) {
                Some(length) if !self.is_long => self.head.length = length,
                Some(_) | None => return Place::Lost,
            }
        } else if name.trim_ascii().eq_ignore_ascii_case(b"transfer-encoding") {
            self.head.codings += 1;
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Place::Lost;
            }
        }
        if self.head.lengths + self.head.codings > 1 { Place::Lost } else { Place::Head }
    }

    fn head_ends(&mut self) -> Place {
        self.ended += 1;
        if self.head.codings > 0 {
            return Place::ChunkSize;
        }
        match self.head.length {
            0 => self.end(Place::Head),
            left => self.end(Place::Data { left, then: Then::Head }),
        }
    }

    fn chunk(&mut self, line: &[u8]) -> Place {
        let size = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        match hexadecimal(size) {
            Some(0) => Place::Trailers,
            // With the end of its line.
            Some(size) => match size.checked_add(2) {
                Some(left) => Place::Data { left, then: Then::ChunkSize },
                None => Place::Lost,
            },
            None => Place::Lost,
        }
    }
}

/// The last two bytes of a line that goes on with `part`; they were `before` until then.
fn last_two(part: &[u8], before: [u8; 2]) -> [u8; 2] {
    match part {
        [.., one, last] => [*one, *last],
        [last] => [before[1], *last],
        [] => before,
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let are_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    are_digits.then(|| std::str::from_utf8(digits).ok()?.parse().ok()).flatten()
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    let are_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    are_digits.then(|| u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The first head in doubt.
    fn doubt(text: &str) -> Option<u64> {
        Heads::new().read(text.as_bytes())
    }

    #[test]
    fn what_has_one_reading_is_not_in_doubt() {
        let get = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        let length = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n\r\n\n\r\r";
        let chunked = "POST / HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: Chunked\r\n\r\n\
                       5;x=y\r\n\r\n\n\r\r\r\nA\r\n0123456789\r\n0\r\nx-end: 1\r\n\r\n";
        let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(5_000));
        let all = [get, length, chunked, &long, "\r\n", get].concat();
        assert_eq!(doubt(&all), None);
    }

    #[test]
    fn what_has_two_readings_is_in_doubt_from_its_head_on() {
        let good = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        for bad in [
            "content-length: 3\r\ncontent-length: 3\r\n",
            "content-length: 3\r\ntransfer-encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: gzip, chunked\r\n",
            "transfer-encoding: \x0bchunked\r\n",
            "content-length: +3\r\n",
            "content-length: 3, 3\r\n",
            "content-length: 99999999999999999999999\r\n",
            "content-length:\r\n",
            "x: y\n",
            "x: y\rz: w\r\n",
            "x: y\0\r\n",
        ] {
            let text = format!("{good}{good}POST / HTTP/1.1\r\nhost: a\r\n{bad}\r\n");
            assert_eq!(doubt(&text), Some(2), "{bad:?}");
        }
        for body in ["x\r\n", "\r\n", "5\n", "0x5\r\n", "-1\r\n", "fffffffffffffffff\r\n"] {
            let text = format!("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{body}");
            assert_eq!(doubt(&text), Some(1), "{body:?}");
        }
        let long = format!("POST / HTTP/1.1\r\ncontent-length: {}3\r\n\r\n", "0".repeat(500));
        assert_eq!(doubt(&long), Some(0));
        assert_eq!(doubt(&format!("GET / HTTP/1.1\r\nx: {}\n\r\n", "y".repeat(500))), Some(0));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_the_network_cuts(
            parts in proptest::collection::vec(
                "(content-length: [0-3]|transfer-encoding: chunked|x: [a-z]{0,200}|0|3|abc|)\r?\n?",
                0..12,
            ),
            cuts in proptest::collection::vec(1..40_usize, 0..40),
        ) {
            let text = format!("POST / HTTP/1.1\r\n{}\r\n", parts.concat());
            let mut heads = Heads::new();
            let (mut rest, mut seen) = (text.as_bytes(), None);
            for cut in cuts {
                let (part, others) = rest.split_at(cut.min(rest.len()));
                (rest, seen) = (others, heads.read(part));
            }
            if !rest.is_empty() {
                seen = heads.read(rest);
            }
            prop_assert_eq!(seen, doubt(&text));
        }
    }
}
