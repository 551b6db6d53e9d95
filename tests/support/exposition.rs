//! Reads the text format of Prometheus.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::{BTreeMap, BTreeSet};

type Labels = BTreeMap<String, String>;

pub(crate) struct Samples(Vec<(String, Labels, f64)>);

impl Samples {
    pub(crate) fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let mut seen = BTreeSet::new();
        let samples = lines.map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
            assert!(seen.insert(series.to_owned()), "twice: {series}");
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let labels = labels.strip_suffix('}').unwrap_or_else(|| panic!("{line}"));
            let pairs = labels.split("\",").filter(|pair| !pair.is_empty());
            let labels = pairs.map(|pair| {
                let (name, value) = pair.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
                (name.to_owned(), value.trim_end_matches('"').to_owned())
            });
            (name.to_owned(), labels.collect(), value.parse().unwrap_or_else(|_| panic!("{line}")))
        });
        Self(samples.collect())
    }

    /// The names of what there is, those of histograms without their endings.
    pub(crate) fn families(&self) -> BTreeSet<String> {
        self.0.iter().map(|(name, _, _)| family(name)).collect()
    }

    /// The names of a family's labels, if there are samples of it.
    pub(crate) fn labels(&self, of: &str) -> Option<BTreeSet<String>> {
        let (_, labels, _) = self.0.iter().find(|(name, _, _)| family(name) == of)?;
        Some(labels.keys().filter(|label| *label != "le").cloned().collect())
    }

    /// Of exactly these labels.
    #[track_caller]
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels: Labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let found = self.0.iter().find(|sample| sample.0 == name && sample.1 == labels);
        found.unwrap_or_else(|| panic!("no {name} {labels:?}")).2
    }

    #[track_caller]
    pub(crate) fn sum(&self, name: &str) -> f64 {
        let all: Vec<_> = self.0.iter().filter(|sample| sample.0 == name).map(|sample| sample.2).collect();
        assert!(!all.is_empty(), "no {name}");
        all.iter().sum()
    }

    /// Over all samples with this label.
    pub(crate) fn sum_where(&self, name: &str, (label, value): (&str, &str)) -> f64 {
        let fits = |labels: &Labels| labels.get(label).is_some_and(|found| found == value);
        self.0.iter().filter(|sample| sample.0 == name && fits(&sample.1)).map(|sample| sample.2).sum()
    }
}

fn family(name: &str) -> String {
    let ending = ["_bucket", "_sum", "_count"].into_iter().find_map(|ending| name.strip_suffix(ending));
    ending.unwrap_or(name).to_owned()
}
