//! How often each pool allocates for a checkout and its return, when it has been in use for
//! a while: once where nobody waits, and once where everybody does.

use allocation_counter::measure;
use beside_pools::candidates::{Bb8, Candidate, Deadpool, Full, Harness, Mobc, Plain, Sqlx, User};

const WARM_UP: u64 = 1_000;
const OPERATIONS: u64 = 10_000;
/// Tasks for one connection.
const WAITING: u64 = 16;

fn main() {
    println!("allocations per operation, one thread, after {WARM_UP} operations of each task\n");
    println!("{:<16} {:>12} {:>16}", "", "nobody waits", "everybody waits");
    count::<Full>();
    count::<Plain>();
    count::<Deadpool>();
    count::<Bb8>();
    count::<Sqlx>();
    count::<Mobc>();
    count::<Harness>();
}

fn count<C: Candidate>() {
    println!(
        "{:<16} {:>12.3} {:>16.3}",
        C::NAME,
        per_operation::<C>(1),
        per_operation::<C>(WAITING)
    );
}

#[expect(clippy::cast_precision_loss, reason = "small counts")]
fn per_operation<C: Candidate>(tasks: u64) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be started");
    let pool = runtime.block_on(async { C::new(1) });
    let all = |operations: u64| {
        let tasks: Vec<_> = (0..tasks)
            .map(|number| {
                let number = usize::try_from(number).expect("a small number");
                runtime.spawn(work(pool.user(number), operations))
            })
            .collect();
        runtime.block_on(async {
            for task in tasks {
                task.await.expect("tasks do not panic");
            }
        });
    };
    all(WARM_UP);
    // The tasks themselves are allocated too: they are counted with no operation, and taken off.
    let own = measure(|| all(0)).count_total;
    let counted = measure(|| all(OPERATIONS)).count_total;
    counted.saturating_sub(own) as f64 / (tasks * OPERATIONS) as f64
}

async fn work<U: User>(mut user: U, operations: u64) {
    for _ in 0..operations {
        let Some(held) = user.take().await else { continue };
        tokio::task::yield_now().await;
        U::give_back(held);
    }
}
