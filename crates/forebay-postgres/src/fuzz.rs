//! Bytes that nobody should send: valid messages, harmed by chance, go to every parser of wire
//! bytes. None may panic, go on for ever, take memory for what a length only claims, or write
//! what cannot be read again.
//!
//! Seeds count from 0, so a run can be repeated; `FOREBAY_FUZZ_ROUNDS` says how many inputs
//! each target gets. Inputs that were of interest once are in `fuzz/corpus`.

mod frontend;
mod harm;
mod server;
mod sql;

use harm::Harm;

/// Inputs for each target in one run of the test command.
const ROUNDS: u64 = 4_000;

/// Runs `target` with each of `seeds`, harmed and not, and with the corpus of `name`.
fn fuzz(name: &str, seeds: &[Vec<u8>], target: impl Fn(&[u8])) {
    let rounds = std::env::var("FOREBAY_FUZZ_ROUNDS").ok().map(|n| n.parse().unwrap());
    let corpus = corpus(name);
    let all: Vec<&[u8]> = seeds.iter().chain(&corpus).map(Vec::as_slice).collect();
    all.iter().for_each(|seed| target(seed));
    for round in 0..rounds.unwrap_or(ROUNDS) {
        let mut harm = Harm::new(round);
        let input = harm.harmed(&all);
        let told = Told(name, round, &input);
        target(&input);
        drop(told);
    }
}

/// Says which input it was, if the target panics.
struct Told<'a>(&'a str, u64, &'a [u8]);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}, round {}: {:?}", self.0, self.1, String::from_utf8_lossy(self.2));
            eprintln!("bytes: {:?}", self.2);
        }
    }
}

/// One input a line, bytes escaped as Rust does.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let lines = include_str!("fuzz/corpus.txt").lines().filter(|line| !line.starts_with('#'));
    let of_name = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    of_name.map(unescaped).collect()
}

/// `\xNN` is a byte, everything else itself.
fn unescaped(line: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = line;
    while let Some(at) = rest.find("\\x") {
        out.extend(rest[..at].bytes());
        out.push(u8::from_str_radix(&rest[at + 2..at + 4], 16).unwrap());
        rest = &rest[at + 4..];
    }
    out.extend(rest.bytes());
    out
}
