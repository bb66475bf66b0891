//! A client of the Prometheus that `scripts/servers/prometheus.sh` runs.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use crate::served::request;

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run scripts/test"))
}

/// Runs `promtool`, and panics with its output if it fails.
pub(crate) fn promtool(args: &[&str], input: &str) -> String {
    let mut command = Command::new(variable("POSTRIDER_TEST_PROMTOOL"));
    let command = command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "promtool {args:?}: {text}");
    text
}

/// Rules see the targets of all tests, so one test at a time uses the server.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The targets and the rules of one test. They are removed when it is dropped.
pub(crate) struct Prometheus {
    _turn: MutexGuard<'static, ()>,
    /// The label `job` of the target. It differs in each run, since the server may have the series of an earlier one.
    pub(crate) job: String,
    address: String,
    files: Vec<PathBuf>,
}

impl Prometheus {
    /// Scrapes this address, and evaluates these rules.
    pub(crate) fn watch(name: &str, target: &str, rules: &str) -> Self {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let job = format!("{name}-{}", target.replace(':', "-"));
        let address = variable("POSTRIDER_TEST_PROMETHEUS_URL").strip_prefix("http://").unwrap().to_owned();
        let directory = PathBuf::from(variable("POSTRIDER_TEST_PROMETHEUS_DIR"));
        let targets = serde_json::json!([{ "targets": [target], "labels": { "job": job } }]);
        let files = vec![directory.join(format!("targets/{name}.json")), directory.join(format!("rules/{name}.yml"))];
        std::fs::write(&files[0], targets.to_string()).unwrap();
        std::fs::write(&files[1], rules).unwrap();
        let prometheus = Self { _turn: turn, job, address, files };
        prometheus.reload();
        prometheus
    }

    fn reload(&self) {
        let answer = request(&self.address, "POST", "/-/reload").unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// The result of an instant query: the labels and the value of each series.
    pub(crate) fn query(&self, query: &str) -> Vec<(Value, f64)> {
        let answer = self.api(&format!("/api/v1/query?query={}", escape(query)));
        let series = answer["data"]["result"].as_array().unwrap().iter();
        series.map(|series| (series["metric"].clone(), number(&series["value"][1]))).collect()
    }

    /// All samples of a series that are stored, oldest first.
    pub(crate) fn samples(&self, series: &str) -> Vec<f64> {
        let answer = self.api(&format!("/api/v1/query?query={}", escape(&format!("{series}[10m]"))));
        let values = answer["data"]["result"][0]["values"].as_array().cloned().unwrap_or_default();
        values.iter().map(|value| number(&value[1])).collect()
    }

    /// The names of the alerts that fire.
    pub(crate) fn firing(&self) -> Vec<String> {
        let alerts = self.query("ALERTS{alertstate=\"firing\"}");
        alerts.iter().map(|(labels, _)| labels["alertname"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) fn api(&self, path: &str) -> Value {
        let answer = request(&self.address, "GET", path).unwrap();
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        for file in &self.files {
            let _ = std::fs::remove_file(file);
        }
        let _ = request(&self.address, "POST", "/-/reload");
    }
}

fn number(value: &Value) -> f64 {
    value.as_str().unwrap().parse().unwrap()
}

/// Percent-encodes what is not a letter or a digit (RFC 3986 section 2.1).
fn escape(text: &str) -> String {
    let octet =
        |octet: u8| if octet.is_ascii_alphanumeric() { char::from(octet).to_string() } else { format!("%{octet:02X}") };
    text.bytes().map(octet).collect()
}
