//! Figures of several rounds, as a table and as JSON.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// The measurements of each case, by round. Cases are in the order of their first run.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    rows: Vec<(String, Vec<f64>)>,
}

impl Figures {
    pub(crate) fn add(&mut self, case: &str, figure: f64) {
        match self.rows.iter_mut().find(|(name, _)| name == case) {
            Some((_, figures)) => figures.push(figure),
            None => self.rows.push((case.to_owned(), vec![figure])),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Prints the medians, and their ratio to that of `base`, or of the first case if `base` did not run.
    pub(crate) fn print(&self, title: &str, unit: &str, base: &str) {
        let Some((first, _)) = self.rows.first() else { return };
        let base = if self.median_of(base).is_some() { base } else { first };
        self.print_with_bases(title, unit, &[base]);
    }

    /// Prints the medians, and their ratio to that of each of `bases`.
    pub(crate) fn print_with_bases(&self, title: &str, unit: &str, bases: &[&str]) {
        let columns: String = bases.iter().map(|base| format!(" ÷ {base} |")).collect();
        println!("\n{title}\n\n| case | median {unit} | smallest–largest |{columns}");
        println!("|---|--:|--:|{}", "--:|".repeat(bases.len()));
        for (name, figures) in &self.rows {
            let (low, middle, high) = spread(figures);
            let ratio =
                |base: &&str| self.median_of(base).map_or_else(String::new, |base| format!("{:.2}", middle / base));
            let ratios: String = bases.iter().map(|base| format!(" {} |", ratio(base))).collect();
            println!("| {name} | {} | {}–{} |{ratios}", short(middle), short(low), short(high));
        }
    }

    pub(crate) fn median_of(&self, case: &str) -> Option<f64> {
        self.rows.iter().find(|(name, _)| name == case).map(|(_, figures)| spread(figures).1)
    }

    fn json(&self) -> serde_json::Value {
        self.rows
            .iter()
            .map(|(name, figures)| (name.clone(), serde_json::json!(figures)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }
}

/// The times of many calls.
#[derive(Debug, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    pub(crate) fn join(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// A percentile of the times, in milliseconds: 50 is the median, and 100 the longest.
    pub(crate) fn percentile(&self, percent: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }
}

/// The smallest, the median and the largest.
fn spread(figures: &[f64]) -> (f64, f64, f64) {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    (sorted[0], sorted[sorted.len() / 2], sorted[sorted.len() - 1])
}

fn short(figure: f64) -> String {
    if figure >= 100.0 { format!("{figure:.0}") } else { format!("{figure:.2}") }
}

/// Writes the tables of one benchmark, by title.
pub(crate) fn write_json(path: &Path, tables: &BTreeMap<String, Figures>) {
    let tables: serde_json::Map<_, _> = tables.iter().map(|(title, figures)| (title.clone(), figures.json())).collect();
    std::fs::write(path, serde_json::Value::from(tables).to_string()).expect("the figures can be written");
}
