//! The text that Prometheus scrapes: what its recorder renders, and beside it the times that shards count in buckets of
//! their own. The two never have a family in common.

use std::fmt::{self, Write};
use std::sync::Arc;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use super::metric_names::{self, FAMILIES, Family, FamilyKind};
use super::reporter::{Reporter, Times};
use crate::LockManager;
use crate::error::AttemptOutcome;
use crate::supervise::hook;

/// Gives the builder the buckets of every histogram here. Without them the exporter makes summaries, of which no
/// quantile over several processes can be had.
///
/// # Errors
/// None that these buckets cause: the builder refuses empty lists only.
pub fn configure_prometheus(builder: PrometheusBuilder) -> Result<PrometheusBuilder, BuildError> {
    let histograms = FAMILIES.iter().filter(|family| family.kind == FamilyKind::Histogram);
    histograms.into_iter().try_fold(builder, |builder, family| {
        builder.set_buckets_for_metric(Matcher::Full(family.name.to_owned()), family.buckets)
    })
}

/// The whole text for a scrape. Cheap to clone; in `app_data` it answers `GET /metrics`.
#[derive(Clone)]
#[must_use]
pub struct Exposition {
    handle: PrometheusHandle,
    reporters: Vec<Reporter>,
    before: Vec<Arc<dyn Fn() + Send + Sync>>,
}

impl Exposition {
    /// Of the recorder that the process has installed.
    pub fn new(handle: PrometheusHandle) -> Self {
        Self { handle, reporters: Vec::new(), before: Vec::new() }
    }

    /// Adds a manager. It needs no [`Reporter`] besides.
    pub fn report(self, locks: &LockManager) -> Self {
        self.report_named("default", locks)
    }

    /// Adds one of several managers; the name is its label `manager`.
    pub fn report_named(mut self, name: &str, locks: &LockManager) -> Self {
        self.reporters.push(Reporter::with(name, locks, Times::Exposition));
        // `install_recorder` does no upkeep: samples of histograms would pile up until the next scrape.
        if let Some(runtime) = locks.runtime().filter(|_| self.reporters.len() == 1) {
            let handle = self.handle.clone();
            runtime.spawn(async move {
                loop {
                    tokio::time::sleep(super::reporter::EVERY).await;
                    hook(|| handle.run_upkeep());
                }
            });
        }
        self
    }

    /// Calls `update` before every scrape, for families of somebody else's that want to be collected then.
    pub fn before_each(mut self, update: impl Fn() + Send + Sync + 'static) -> Self {
        self.before.push(Arc::new(update));
        self
    }

    /// The text, as of now.
    #[must_use]
    pub fn render(&self) -> String {
        self.before.iter().for_each(|update| update());
        self.reporters.iter().for_each(Reporter::publish);
        let mut text = self.handle.render();
        // Into a string it cannot fail.
        let _ = self.append(&mut text);
        text
    }

    fn append(&self, text: &mut String) -> fmt::Result {
        let totals: Vec<_> = self.reporters.iter().flat_map(Reporter::totals).collect();
        if totals.is_empty() {
            return Ok(());
        }
        let waits = metric_names::family(metric_names::WAIT_SECONDS);
        head(text, waits)?;
        for (manager, namespace, totals) in &totals {
            let labels = labels(manager, namespace);
            for (outcome, times) in AttemptOutcome::ALL.iter().zip(&totals.tally.waits) {
                let labels = format!("{labels},outcome=\"{}\"", outcome.as_str());
                histogram(text, waits, &labels, &times.counts, times.nanos)?;
            }
        }
        text.push('\n');
        let holds = metric_names::family(metric_names::HOLD_SECONDS);
        head(text, holds)?;
        for (manager, namespace, totals) in &totals {
            histogram(text, holds, &labels(manager, namespace), &totals.holds.counts, totals.counters.hold_nanos)?;
        }
        text.push('\n');
        Ok(())
    }
}

fn head(text: &mut String, family: &Family) -> fmt::Result {
    writeln!(text, "# HELP {} {}\n# TYPE {} histogram", family.name, family.help, family.name)
}

fn histogram(text: &mut String, family: &Family, labels: &str, counts: &[u64], nanos: u64) -> fmt::Result {
    let (name, mut below) = (family.name, 0);
    for (bound, count) in family.buckets.iter().zip(counts) {
        below += count;
        writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {below}")?;
    }
    let all: u64 = counts.iter().sum();
    writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {all}")?;
    writeln!(text, "{name}_sum{{{labels}}} {}", nanos as f64 / 1e9)?;
    writeln!(text, "{name}_count{{{labels}}} {all}")
}

fn labels(manager: &str, namespace: &str) -> String {
    format!("manager=\"{}\",lock_namespace=\"{}\"", Escaped(manager), Escaped(namespace))
}

/// A label's value as the text format wants it.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            other => f.write_char(other),
        })
    }
}

debug_of!(Exposition, |it| reporters: it.reporters);
