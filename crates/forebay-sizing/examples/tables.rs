//! Plays the simulations of docs/simulations.md and writes their tables into it.
//!
//! `cargo run --release -p forebay-sizing --example tables` writes all of them;
//! names behind `--` only those, and to the terminal.

use std::error::Error;
use std::{env, fs};

use forebay_sizing::tables::{ALL, with_block};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/simulations.md");

fn main() -> Result<(), Box<dyn Error>> {
    let named: Vec<String> = env::args().skip(1).collect();
    if !named.is_empty() {
        for (name, play) in ALL.iter().filter(|(name, _)| named.iter().any(|n| n == name)) {
            println!("{name}\n\n{}", play());
        }
        return Ok(());
    }
    let mut document = fs::read_to_string(DOCUMENT)?;
    for (name, play) in ALL {
        document = with_block(&document, name, &play())?;
    }
    fs::write(DOCUMENT, document)?;
    Ok(())
}
