//! Where figures are kept.

use std::path::PathBuf;

/// Where criterion keeps its own: `CRITERION_HOME`, or in cargo's target folder.
pub(crate) fn folder() -> PathBuf {
    let target =
        || std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from).join("criterion");
    std::env::var_os("CRITERION_HOME").map_or_else(target, PathBuf::from)
}
