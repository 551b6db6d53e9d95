//! Fear: a manager's thread outlives it. Alone in its process, whose threads it counts.
#![cfg(target_os = "linux")]

use leasehold::LockManager;

fn threads_named(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|comm| comm.trim() == name).count()
}

#[test]
fn the_managers_thread_ends_with_the_manager_and_its_last_lock() {
    crate::alone::run("thread_end::the_managers_thread_ends_with_the_manager_and_its_last_lock", || {
        let before = threads_named("leasehold");
        let locks = LockManager::builder().build().unwrap();
        let lock = locks.try_lock_now("k").unwrap();
        assert_eq!(threads_named("leasehold"), before + 1);
        drop(locks.clone());
        drop(locks);
        assert_eq!(threads_named("leasehold"), before + 1);
        drop(lock);
        while threads_named("leasehold") > before {
            std::thread::yield_now();
        }
    });
}
