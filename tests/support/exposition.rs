//! Reads Prometheus's text format (<https://prometheus.io/docs/instrumenting/exposition_formats/>), as far as these tests need it.

use std::collections::{BTreeMap, BTreeSet};

/// One line with a value.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

/// The samples of one answer.
#[derive(Debug, Clone)]
pub(crate) struct Exposition {
    pub(crate) samples: Vec<Sample>,
    /// The type of each metric, by its name.
    pub(crate) types: BTreeMap<String, String>,
}

impl Exposition {
    pub(crate) fn parse(text: &str) -> Self {
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let types = types.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect();
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self { samples: lines.map(sample).collect(), types }
    }

    /// The sum of all samples of this name whose labels include these. Panics if there is none.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels).unwrap_or_else(|| panic!("there is no {name} with {labels:?}: {:#?}", self.samples))
    }

    /// The sum of all samples of this name whose labels include these. `None` if there is none.
    pub(crate) fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let has = |sample: &&Sample| {
            let labelled = labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|v| v == value));
            sample.name == name && labelled
        };
        let found: Vec<_> = self.samples.iter().filter(has).map(|sample| sample.value).collect();
        (!found.is_empty()).then(|| found.iter().sum())
    }

    /// The names of all metrics. A histogram counts once.
    pub(crate) fn names(&self) -> BTreeSet<&str> {
        self.types.keys().map(String::as_str).collect()
    }

    /// All values of all labels, but the bounds of buckets.
    pub(crate) fn label_values(&self) -> BTreeSet<&str> {
        let labels = self.samples.iter().flat_map(|sample| &sample.labels);
        labels.filter(|(name, _)| *name != "le").map(|(_, value)| value.as_str()).collect()
    }
}

fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("not a sample: {line}"));
    let (name, labels) = series.split_once('{').map_or((series, ""), |(name, rest)| (name, &rest[..rest.len() - 1]));
    let labels = labels.split("\",").filter(|label| !label.is_empty()).map(|label| {
        let (name, value) = label.split_once("=\"").unwrap_or_else(|| panic!("not a label: {line}"));
        (name.to_owned(), value.trim_end_matches('"').to_owned())
    });
    Sample { name: name.to_owned(), labels: labels.collect(), value: value.parse().unwrap() }
}
