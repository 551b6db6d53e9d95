//! What the server shows of itself to Prometheus: its locks, its requests, its process.

use leasehold::LockManager;
use leasehold::metrics::{Exposition, configure_prometheus};
use metrics::counter;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;

use crate::exit::Failure;
use crate::logs;

/// Installs the process's recorder: before anything takes a handle.
///
/// # Errors
/// There is one already.
pub(crate) fn install() -> Result<PrometheusHandle, Failure> {
    let installed = configure_prometheus(PrometheusBuilder::new()).and_then(PrometheusBuilder::install_recorder);
    installed.map_err(|why| Failure::Os(format!("cannot record metrics: {why}")))
}

/// What `GET /metrics` answers.
pub(crate) fn exposition(recorder: PrometheusHandle, locks: &LockManager) -> Exposition {
    let process = Collector::default();
    process.describe();
    let exposition = Exposition::new(recorder).report(locks).before_each(move || process.collect());
    exposition.before_each(|| {
        for (reason, lines) in logs::dropped() {
            counter!("leasehold_log_lines_dropped_total", "reason" => reason).absolute(lines);
        }
    })
}
