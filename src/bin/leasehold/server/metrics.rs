//! What the server shows of itself to Prometheus: its locks, its requests, its process.

use leasehold::LockManager;
use leasehold::metrics::{Exposition, configure_prometheus};
use metrics::{counter, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;

use super::connections::Counts;
use super::listener::Edge;
use super::{logs, reload};
use crate::exit::Failure;

/// Installs the process's recorder: before anything takes a handle.
///
/// # Errors
/// There is one already.
pub(crate) fn install() -> Result<PrometheusHandle, Failure> {
    let installed = configure_prometheus(PrometheusBuilder::new()).and_then(PrometheusBuilder::install_recorder);
    installed.map_err(|why| Failure::Os(format!("cannot record metrics: {why}")))
}

/// What `GET /metrics` answers.
pub(crate) fn exposition(recorder: PrometheusHandle, locks: &LockManager, edge: Edge) -> Exposition {
    let process = Collector::default();
    process.describe();
    let exposition = Exposition::new(recorder).report(locks).before_each(move || process.collect());
    exposition.before_each(move || {
        let Counts { open, evicted, refused_full, refused_address } = edge.connections.counts();
        gauge!("leasehold_connections_open").set(open as f64);
        counter!("leasehold_connections_evicted_total").absolute(evicted);
        for (reason, count) in [("full", refused_full), ("address", refused_address)] {
            counter!("leasehold_connections_refused_total", "reason" => reason).absolute(count);
        }
        for (wrong, count) in edge.bad_clients.counts() {
            counter!("leasehold_bad_clients_total", "wrong" => wrong).absolute(count);
        }
        for (what, done, failed) in reload::counts() {
            for (outcome, count) in [("done", done), ("failed", failed)] {
                counter!("leasehold_reloads_total", "what" => what, "outcome" => outcome).absolute(count);
            }
        }
        for (reason, lines) in logs::dropped() {
            counter!("leasehold_log_lines_dropped_total", "reason" => reason).absolute(lines);
        }
    })
}
