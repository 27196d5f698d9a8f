//! Runs one pool for so many operations on one thread, for a profiler that counts
//! instructions: `valgrind --tool=callgrind target/release/instructions full 1 20000`. Twice
//! the operations and half the difference leave out what starting costs.

use beside_pools::candidates::{Candidate, Deadpool, Full, Gateway, Plain, User};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let pool = arguments.next().unwrap_or_default();
    let number = |text: Option<String>| text.and_then(|text| text.parse::<u64>().ok());
    let (tasks, operations) = (number(arguments.next()), number(arguments.next()));
    let (Some(tasks), Some(operations)) = (tasks, operations) else { return usage() };
    match pool.as_str() {
        "full" => run::<Full>(tasks, operations),
        "gateway" => run::<Gateway>(tasks, operations),
        "plain" => run::<Plain>(tasks, operations),
        "deadpool" => run::<Deadpool>(tasks, operations),
        _ => usage(),
    }
}

fn usage() {
    eprintln!("instructions full|gateway|plain|deadpool TASKS OPERATIONS");
}

fn run<C: Candidate>(tasks: u64, operations: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be started");
    runtime.block_on(async {
        let pool = C::new(8);
        let tasks: Vec<_> = (0..tasks)
            .map(|number| {
                let number = usize::try_from(number).expect("a small number");
                tokio::spawn(work(pool.user(number), operations))
            })
            .collect();
        for task in tasks {
            task.await.expect("tasks do not panic");
        }
    });
}

async fn work<U: User>(mut user: U, operations: u64) {
    for _ in 0..operations {
        let Some(held) = user.take().await else { continue };
        tokio::task::yield_now().await;
        U::give_back(held);
    }
}
