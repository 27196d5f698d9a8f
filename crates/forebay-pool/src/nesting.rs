//! Requests that need several connections at the same time: some are kept back, so that those
//! who began can always finish (engine notes c.7, "prevent").
//!
//! The banker's algorithm (Dijkstra, EWD-108, 1965; Coffman, Elphick, Shoshani, "System
//! Deadlocks", 1971) for one kind of resource: a state is safe if some order exists in which
//! every request gets all it needs. For equal needs it is HikariCP's pool size turned round:
//! with L connections and C for each, ⌊(L − 1) / (C − 1)⌋ requests may begin.

use smallvec::SmallVec;

/// A request that needs several connections at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Nested {
    /// Connections that it holds.
    pub(crate) held: u32,
    /// Connections that it needs at the same time, at the most.
    pub(crate) needs: u32,
}

impl Nested {
    fn missing(self) -> u32 {
        self.needs.saturating_sub(self.held)
    }
}

/// Can all of `requests` finish, one after another, with `free` connections to begin with?
pub(crate) fn is_safe(mut free: u32, requests: impl IntoIterator<Item = Nested>) -> bool {
    let mut requests: SmallVec<[Nested; 16]> = requests.into_iter().collect();
    requests.sort_unstable_by_key(|request| request.missing());
    requests.into_iter().all(|request| {
        let can_finish = request.missing() <= free;
        free += request.held;
        can_finish
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many requests that need `needs` may each hold one of `connections`.
    fn may_begin(connections: u32, needs: u32) -> u32 {
        let mut begun = 0;
        while begun < connections {
            let all = vec![Nested { held: 1, needs }; usize::try_from(begun + 1).unwrap()];
            if !is_safe(connections - begun - 1, all) {
                break;
            }
            begun += 1;
        }
        begun
    }

    #[test]
    fn as_many_may_begin_as_the_formula_of_hikari_has_it() {
        for connections in 1..40 {
            for needs in 2..6_u32 {
                let formula = (connections - 1) / (needs - 1);
                let formula = if needs > connections { 0 } else { formula };
                assert_eq!(may_begin(connections, needs), formula, "{connections} {needs}");
            }
        }
    }

    #[test]
    fn one_that_needs_less_may_begin_where_another_may_not() {
        let deep = Nested { held: 1, needs: 3 };
        assert!(!is_safe(1, [deep, Nested { held: 1, needs: 3 }]));
        assert!(is_safe(1, [deep, Nested { held: 1, needs: 2 }]) || !is_safe(0, [deep]));
    }
}
