//! `docs/monitoring.md`, the alert rules and the dashboard name the metrics of the endpoint, and no others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::prometheus::{Prometheus, promtool};
use crate::rules::{ALERTS, alert_names};
use crate::served::Served;
use crate::smtp_server::{Answer, SmtpServer, Step};
use crate::tool::{Tool, wait_until};

const PAGE: &str = include_str!("../../docs/monitoring.md");
const DASHBOARD: &str = include_str!("../../docs/monitoring/grafana.json");

/// An endpoint of a relay that has sent a mail and has been paused, so that each metric has a sample.
fn served_after_a_pause(tool: &Tool) -> Served {
    let refused = Arc::new(AtomicBool::new(false));
    let server = SmtpServer::with_script(move |step| match step {
        Step::Recipient(_) if !refused.swap(true, Ordering::SeqCst) => Answer::Refuse("421 4.3.2 shutting down"),
        _ => Answer::Accept,
    });
    tool.enqueue(&[]);
    let served = Served::start(tool, &server.url(), &["--retry-base", "10ms", "--retry-cap", "10ms"]);
    let sent = [("postrider_result", "sent")];
    wait_until("the mail is sent", || served.metrics().value("postrider_deliveries_settled_total", &sent) == 1.0);
    wait_until("the outbox is read", || served.metrics().find("postrider_outbox_lag_seconds", &[]).is_some());
    served
}

/// The rows of the page's table: the metric's name, its name in Prometheus, and its type.
fn documented() -> BTreeMap<&'static str, (&'static str, &'static str)> {
    let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows = rows.filter(|row| row.starts_with("postrider.") || row.starts_with("messaging."));
    let row = |row: &'static str| {
        let cells: Vec<_> = row.split(" | ").map(|cell| cell.trim().trim_matches('`')).collect();
        (cells[1], (cells[0], cells[2]))
    };
    rows.map(row).collect()
}

/// The names of metrics in an expression. Those of the parts of a histogram count as that of the histogram.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let labels = ["postrider_result", "postrider_state", "postrider_scope", "postrider_part"];
    let labels: Vec<_> = labels.into_iter().chain(["messaging_system", "messaging_operation_name"]).collect();
    let words = words.filter(|word| word.starts_with("postrider_") || word.starts_with("messaging_"));
    let part =
        |word| ["_bucket", "_sum", "_count"].iter().find_map(|part| str::strip_suffix(word, part)).unwrap_or(word);
    words.filter(|word| !labels.contains(word)).map(part).collect()
}

fn dashboard_expressions() -> Vec<String> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(object) => {
                found.extend(object.get("expr").and_then(Value::as_str).map(str::to_owned));
                object.values().for_each(|value| collect(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    collect(&serde_json::from_str(DASHBOARD).unwrap(), &mut found);
    assert!(found.len() > 5);
    found
}

#[test]
fn the_page_names_every_metric_and_no_other() {
    let tool = Tool::new();
    let served = served_after_a_pause(&tool);
    let shown = served.metrics();
    let documented = documented();
    assert_eq!(documented.keys().copied().collect::<BTreeSet<_>>(), shown.names());
    for (prometheus, (name, kind)) in &documented {
        // OpenTelemetry's rules for names in Prometheus: dots become underscores, then come the unit and `_total`.
        let plain = name.replace('.', "_");
        assert!(
            prometheus.strip_prefix(&*plain).is_some_and(|rest| ["", "_seconds", "_total"].contains(&rest)),
            "{name}"
        );
        assert_eq!(kind, &shown.types[*prometheus], "{name}");
    }
    // Each label of the endpoint is on the page.
    for label in shown.samples.iter().flat_map(|sample| sample.labels.keys()).filter(|label| *label != "le") {
        assert!(PAGE.contains(&format!("`{label}`")), "{label} is not on the page");
    }
    for alert in alert_names() {
        assert!(PAGE.contains(&format!("`{alert}`")), "{alert} is not on the page");
    }
    assert!(!shown.label_values().iter().any(|value| value.contains('@') || value.contains("example")));
}

#[test]
fn alerts_and_dashboard_use_metrics_of_the_page() {
    let documented = documented();
    let expressions = dashboard_expressions().join("\n");
    for used in metrics_in(ALERTS).into_iter().chain(metrics_in(&expressions)) {
        assert!(documented.contains_key(used), "{used} is used and not on the page");
    }
}

#[test]
#[ignore = "needs promtool: scripts/test"]
fn promtool_finds_no_fault_in_the_text() {
    let tool = Tool::new();
    let text = served_after_a_pause(&tool).text();
    let output = promtool(&["check", "metrics"], &text);
    assert_eq!(output, "", "{text}");
}

/// Prometheus accepts each expression of the dashboard.
#[test]
#[ignore = "needs Prometheus: scripts/test"]
fn the_dashboard_asks_what_prometheus_understands() {
    let tool = Tool::new();
    let served = served_after_a_pause(&tool);
    let prometheus = Prometheus::watch("dashboard", &served.address, "groups: []");
    let sent = format!("messaging_client_sent_messages_total{{job=\"{}\",error_type=\"\"}}", prometheus.job);
    wait_until("the endpoint is scraped", || prometheus.samples(&sent).len() > 4);
    for expression in dashboard_expressions() {
        let expression = expression.replace("$__rate_interval", "1m").replace("$job", &prometheus.job);
        wait_until(&format!("{expression} finds something"), || !prometheus.query(&expression).is_empty());
    }
}
