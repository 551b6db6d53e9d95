//! A process of its own for a test whose subject is the whole process: its threads, its forks.
//!
//! The test's binary is run again for that test only, so that other tests, which may be threads beside it, stay apart.

use std::process::Command;

/// Tells the second process that it is the second.
const VARIABLE: &str = "LEASEHOLD_TEST_ALONE";

/// Does `work` in a process where no other test is; `name` is the full name of the calling test.
#[track_caller]
pub(crate) fn run(name: &str, work: impl FnOnce()) {
    if std::env::var_os(VARIABLE).is_some() {
        return work();
    }
    let mut binary = Command::new(std::env::current_exe().unwrap());
    let output = binary.args(["--exact", name, "--nocapture"]).env(VARIABLE, "1").output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    let has_passed = output.status.success() && shown.contains("1 passed");
    assert!(has_passed, "{name}: {shown}{}", String::from_utf8_lossy(&output.stderr));
}
