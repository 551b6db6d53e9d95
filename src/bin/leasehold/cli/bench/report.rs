//! What `leasehold bench` tells: rates, percentiles and, on a terminal, the acquires as a histogram.

use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::json;

use super::{BenchArgs, Seen};
use crate::exit::Failure;
use crate::output::{notice, print, print_line};
use crate::print::{Cell, Reader, Table};

const PERCENTILES: [(&str, f64); 4] = [("p50_us", 50.0), ("p90_us", 90.0), ("p99_us", 99.0), ("p99_9_us", 99.9)];

/// What JSON has besides, in nanoseconds.
const DETAILED: [f64; 9] = [10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99];

pub(super) fn report(args: &BenchArgs, seen: &Seen, took: Duration) -> Result<(), Failure> {
    let rate = |histogram: &Histogram<u64>| histogram.len() as f64 / took.as_secs_f64();
    let calls = [("acquire", &seen.acquires), ("release", &seen.releases)];
    if args.json {
        let figures = |histogram: &Histogram<u64>| {
            let mut figures = json!({
                "calls": histogram.len(), "per_second": rate(histogram).round(), "max_us": micros(histogram.max()),
            });
            figures["percentiles_ns"] = DETAILED.map(|at| json!([at, histogram.value_at_percentile(at)])).into();
            for (name, percentile) in PERCENTILES {
                figures[name] = micros(histogram.value_at_percentile(percentile)).into();
            }
            figures
        };
        let mut all = json!({ "clients": args.clients, "keys": args.keys, "refused": seen.refused });
        for (name, histogram) in calls {
            all[name] = figures(histogram);
        }
        return print_line(&all.to_string());
    }
    let reader = Reader::of_stdout();
    let mut table = Table::new(&["CALL", "CALLS", "PER SECOND", "P50", "P90", "P99", "P99.9", "MAX"]);
    for (name, histogram) in calls {
        let latency = |ns: u64| match reader {
            Reader::Pipe => Cell::number(micros(ns)),
            Reader::Plain | Reader::Coloured => Cell::text(readable(ns)),
        };
        let [p50, p90, p99, p999] = PERCENTILES.map(|(_, at)| latency(histogram.value_at_percentile(at)));
        let per_second = Cell::text(format!("{:.0}", rate(histogram)));
        table.row([
            Cell::text(name),
            Cell::number(histogram.len()),
            per_second,
            p50,
            p90,
            p99,
            p999,
            latency(histogram.max()),
        ]);
    }
    print(&table.render(reader))?;
    if reader != Reader::Pipe {
        print(&drawn(&seen.acquires))?;
    }
    if seen.refused > 0 {
        notice(format_args!("{} times the lock was held by others for too long", seen.refused));
    }
    Ok(())
}

/// In microseconds, rounded up: none took no time.
const fn micros(ns: u64) -> u64 {
    ns.div_ceil(1000)
}

/// A latency in the unit in which it has one to three digits before the point.
fn readable(ns: u64) -> String {
    let ns = ns as f64;
    match ns {
        ..1e3 => format!("{ns:.0} ns"),
        ..1e6 => format!("{:.1} µs", ns / 1e3),
        ..1e9 => format!("{:.2} ms", ns / 1e6),
        _ => format!("{:.2} s", ns / 1e9),
    }
}

/// How many characters the longest bar has.
const WIDTH: f64 = 50.0;

/// A bar for each step of 1, 2, 5, 10, … in which there are acquires, and for those between them.
fn drawn(latencies: &Histogram<u64>) -> String {
    let mut bars = Vec::new();
    let mut from = 0;
    for end in steps() {
        let count = latencies.count_between(from, end - 1);
        bars.push((end, count));
        from = end;
    }
    let first = bars.iter().position(|(_, count)| *count > 0).unwrap_or(0);
    let last = bars.iter().rposition(|(_, count)| *count > 0).map_or(0, |last| last + 1);
    let most = bars.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1) as f64;
    let all = latencies.len().max(1) as f64;
    let mut text = String::new();
    for (end, count) in bars.get(first..last).unwrap_or_default() {
        let count = *count as f64;
        let bar = "#".repeat((count / most * WIDTH).ceil() as usize);
        let _ = writeln!(text, "below {:>8} {bar:<50} {:>5.1} %", readable(*end), count / all * 100.0);
    }
    text
}

/// 100 ns, 200 ns, 500 ns, 1 µs and so on to what no latency reaches.
fn steps() -> impl Iterator<Item = u64> {
    let decades = (2..=11).map(|power| 10_u64.pow(power));
    decades.flat_map(|decade| [decade, 2 * decade, 5 * decade])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_latency_is_in_one_bar_and_no_bar_is_empty_at_either_end() {
        let mut latencies = Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap();
        for ns in [40, 1_500, 1_600, 1_700, 30_000_000, 60_000_000_000] {
            latencies.record(ns).unwrap();
        }
        let text = drawn(&latencies);
        let rows: Vec<&str> = text.lines().collect();
        assert!(rows[0].contains("below   100 ns #") && rows[0].ends_with("16.7 %"), "{text}");
        assert!(text.contains(&format!("below   2.0 µs {} ", "#".repeat(50))) && text.contains("50.0 %"), "{text}");
        assert!(rows.last().unwrap().contains("below 100.00 s #"), "{text}");
        assert_eq!(drawn(&Histogram::new_with_bounds(1, 2, 3).unwrap()), "");
    }

    #[test]
    fn a_latency_is_shown_in_its_own_unit() {
        assert_eq!([90, 1_500, 2_340_000, 1_200_000_000].map(readable), ["90 ns", "1.5 µs", "2.34 ms", "1.20 s"]);
        assert_eq!([1, 999, 1_000, 1_001].map(micros), [1, 1, 1, 2]);
    }
}
