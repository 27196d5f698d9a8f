//! Requests that need several connections at the same time: only so many may begin that one
//! of them can always finish (engine notes c.7, "prevent").
//!
//! A request that holds a connection is never held back, so each may come to hold all it
//! needs but one. One more connection lets the first of them finish, and with what it gives
//! back the next: `Σ (C − 1) + 1 ≤ L`, HikariCP's formula for a pool's size ("About Pool
//! Sizing", pool-locking) turned round. Work that needs one connection comes home by itself.

/// Can all requests under way finish that need so many connections each at the same time,
/// where their class can get `all`?
pub(crate) fn is_safe(all: u32, needs: impl IntoIterator<Item = u32>) -> bool {
    let kept: u64 = needs.into_iter().map(|needs| u64::from(needs.saturating_sub(1))).sum();
    kept < u64::from(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_may_begin_as_the_formula_of_hikari_has_it() {
        for all in 1..40_u32 {
            for needs in 2..6_u32 {
                let begun = (0..).take_while(|n| is_safe(all, vec![needs; n + 1])).count();
                assert_eq!(u32::try_from(begun).unwrap(), (all - 1) / (needs - 1), "{all} {needs}");
            }
        }
    }

    #[test]
    fn however_those_that_began_go_on_one_of_them_can_finish() {
        // Every way in which three requests can hold what is there.
        for needs in [[2, 2, 2], [2, 3, 4], [5, 2, 3]] {
            for all in 1..12_u32 {
                let finishes = |held: [u32; 3]| {
                    let free = all - held.iter().sum::<u32>();
                    held.iter().zip(needs).any(|(held, needs)| needs - held <= free)
                };
                let mut states = Vec::new();
                for a in 0..=needs[0] {
                    for b in 0..=needs[1] {
                        for c in 0..=needs[2] {
                            states.push([a, b, c]);
                        }
                    }
                }
                let possible = states.into_iter().filter(|held| held.iter().sum::<u32>() <= all);
                let always = possible.clone().all(finishes);
                assert_eq!(is_safe(all, needs), always, "{needs:?} {all}");
            }
        }
    }
}
