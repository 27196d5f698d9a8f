//! Makes a script that fails as short as it can: what is not needed for a difference is left
//! out, rounds first, then turns, then single messages.

use std::time::Duration;

use super::play::{Difference, play};
use super::script::Script;
use crate::bench::Bench;

/// Answers that are missing are waited for again and again.
const PATIENCE: Duration = Duration::from_secs(2);

/// The shortest script found in `most_tries` that still makes a difference, and the difference.
pub(super) async fn shrink(
    bench: &Bench,
    script: &Script,
    difference: Difference,
    name: &str,
    most_tries: u64,
) -> (Script, Difference) {
    let mut best = (script.clone(), difference);
    best.0.rounds.truncate(best.1.round + 1);
    let mut tries = 0;
    loop {
        let before = best.0.len();
        for place in best.0.places() {
            if tries == most_tries {
                return best;
            }
            let Some(shorter) = best.0.without(place) else { continue };
            tries += 1;
            let found = play(bench, &shorter, &format!("{name}_{tries:03}"), PATIENCE).await;
            if let Some(difference) = found.filter(|found| found.is_like(&best.1)) {
                best = (shorter, difference);
            }
        }
        if best.0.len() == before {
            return best;
        }
    }
}
