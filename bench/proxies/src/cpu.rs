//! What a process and its children used, from the kernel's books: /proc/PID/task/*/schedstat
//! (nanoseconds on a CPU, all threads) and /proc/PID/statm.

use std::fs;
use std::time::Duration;

/// CPU of `id` and of its living children.
pub fn of_tree(id: u32) -> Duration {
    tree(id).into_iter().map(of).sum()
}

/// Resident memory of the same, bytes.
pub fn memory_of_tree(id: u32) -> u64 {
    let pages = |id: u32| -> Option<u64> {
        fs::read_to_string(format!("/proc/{id}/statm")).ok()?.split(' ').nth(1)?.parse().ok()
    };
    tree(id).into_iter().filter_map(pages).sum::<u64>() * 4096
}

/// CPU of this process, which is the agents' and the origins'.
pub fn own() -> Duration {
    of(std::process::id())
}

fn of(id: u32) -> Duration {
    let Ok(tasks) = fs::read_dir(format!("/proc/{id}/task")) else { return Duration::ZERO };
    let nanos = tasks.flatten().filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

fn tree(id: u32) -> Vec<u32> {
    let mut all = vec![id];
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
        all.extend(tree(child));
    }
    all
}
