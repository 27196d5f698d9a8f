//! Randomness: from the operating system for secrets, from a seed for decisions.

use std::ops::Range;

/// Fills `bytes` from the operating system's generator: for keys, nonces and salts.
///
/// # Panics
/// When the operating system has no randomness to give, which no caller can mend.
#[cfg(not(forebay_model))]
pub fn fill(bytes: &mut [u8]) {
    aws_lc_rs::rand::fill(bytes).expect("the operating system gives random bytes");
}

/// Fills `bytes` from the model checker's generator, so that a schedule can be replayed.
#[cfg(forebay_model)]
pub fn fill(bytes: &mut [u8]) {
    use shuttle::rand::RngCore;
    shuttle::rand::thread_rng().fill_bytes(bytes);
}

/// A random array, as [`fill`].
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    fill(&mut out);
    out
}

/// A seed for [`Dice`] from the operating system.
pub fn seed() -> u64 {
    u64::from_le_bytes(bytes())
}

/// A seeded generator for jitter and sampling. Not for secrets.
///
/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators",
/// OOPSLA 2014): one addition and two multiplications, and the same seed replays a run.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The sequence that belongs to `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `[0, 1)`.
    #[allow(clippy::cast_precision_loss, reason = "53 bits are exact in an f64")]
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform in `range`.
    pub fn between(&mut self, range: Range<f64>) -> f64 {
        range.start + (range.end - range.start) * self.unit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_replays_the_same_run() {
        let mut a = Dice::new(7);
        let mut b = Dice::new(7);
        assert!((0..1000).all(|_| a.next_u64() == b.next_u64()));
    }

    #[test]
    fn between_stays_inside_its_range() {
        let mut dice = Dice::new(1);
        assert!((0..10_000).all(|_| (0.9..1.1).contains(&dice.between(0.9..1.1))));
    }
}
