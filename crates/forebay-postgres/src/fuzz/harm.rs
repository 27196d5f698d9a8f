//! Harms bytes by chance, as networks, bugs and attackers do.

/// What means something somewhere: lengths at their limits, and what texts are made of.
const PIECES: &[&[u8]] = &[
    b"\0",
    b"\0\0\0\0",
    b"\0\0\0\x04",
    b"\0\0\0\x03",
    b"\x7f\xff\xff\xff",
    b"\x80\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x3f\xff\xff\xff",
    b"\xff\xff",
    b"\x80\0",
    b"'",
    b"''",
    b"\"",
    b"$$",
    b"$a$",
    b"$1",
    b"/*",
    b"*/",
    b"--",
    b"\n",
    b"\r",
    b"\x0b",
    b"\x0c",
    b"\t ",
    b";",
    b"\\",
    b"E'",
    b"U&\"",
    b"(",
    b")",
    b".",
    b",",
    b"=",
    b"%",
    b"%%3A",
    b"\xc3\xa4",
    b"\xf0\x9f\x98\x80",
    b"\xff",
    b"SET ",
    b"BEGIN",
    b"DEALLOCATE ALL",
    b"__forebay_18446744073709551616",
    b"n,,n=,r=",
    b",i=4294967296,",
];

/// A generator (splitmix64) that changes bytes.
pub(super) struct Harm(u64);

impl Harm {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 if there is none.
    pub(super) fn below(&mut self, n: usize) -> usize {
        let n = u64::try_from(n).unwrap().max(1);
        usize::try_from(self.next() % n).unwrap()
    }

    /// One of `seeds`, with a few changes.
    pub(super) fn harmed(&mut self, seeds: &[&[u8]]) -> Vec<u8> {
        let mut bytes = seeds[self.below(seeds.len())].to_vec();
        for _ in 0..=self.below(6) {
            let at = self.below(bytes.len() + 1);
            match self.below(9) {
                0 => bytes.truncate(at),
                1 => drop(bytes.drain(..at)),
                2 => {
                    let bit = 1 << self.below(8);
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= bit;
                    }
                }
                3 => {
                    let byte = self.next().to_be_bytes()[0];
                    bytes.insert(at, byte);
                }
                4 | 5 => {
                    let piece = PIECES[self.below(PIECES.len())];
                    bytes.splice(at..at, piece.iter().copied());
                }
                6 => {
                    let piece = PIECES[self.below(PIECES.len())];
                    let end = bytes.len().min(at + piece.len());
                    bytes.splice(at..end, piece.iter().copied());
                }
                // A part of it once more, a few times or often.
                7 => {
                    let end = at + self.below(bytes.len() - at + 1);
                    let part = bytes[at..end].to_vec();
                    let times = [1, 3, 200][self.below(3)];
                    bytes.splice(at..at, part.repeat(times));
                    bytes.truncate(64 * 1024);
                }
                _ => {
                    let other = seeds[self.below(seeds.len())];
                    let from = self.below(other.len() + 1);
                    bytes.truncate(at);
                    bytes.extend_from_slice(&other[from..]);
                }
            }
        }
        bytes
    }
}
