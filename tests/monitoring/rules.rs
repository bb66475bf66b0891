//! The alert rules of `docs/monitoring/alerts.yml`, checked by `promtool`.

use std::collections::BTreeSet;

use crate::prometheus::promtool;

pub(crate) const ALERTS: &str = include_str!("../../docs/monitoring/alerts.yml");

/// The rules without their annotations, whose wording no test needs to repeat.
fn without_annotations() -> String {
    let mut skipping = false;
    let kept = ALERTS.lines().filter(|line| {
        let indent = line.len() - line.trim_start().len();
        if line.trim() == "annotations:" {
            skipping = true;
        } else if indent <= 8 {
            skipping = false;
        }
        !skipping
    });
    kept.map(|line| format!("{line}\n")).collect()
}

/// The names of the alerts.
pub(crate) fn alert_names() -> BTreeSet<&'static str> {
    ALERTS.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect()
}

#[test]
#[ignore = "needs promtool: scripts/test"]
fn the_rules_are_valid() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/monitoring/alerts.yml");
    let output = promtool(&["check", "rules", path], "");
    assert!(output.contains(&format!("{} rules found", alert_names().len())), "{output}");
}

/// Each alert fires when it should, and not before, nor without a reason.
#[test]
#[ignore = "needs promtool: scripts/test"]
fn each_alert_fires_when_it_should() {
    let cases = include_str!("alerts_test.yml");
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("alerts.yml"), without_annotations()).unwrap();
    let path = directory.path().join("alerts_test.yml");
    std::fs::write(&path, cases).unwrap();
    let output = promtool(&["test", "rules", path.to_str().unwrap()], "");
    assert!(output.contains("SUCCESS"), "{output}");

    // Each alert has a case in which it fires, and one in which it does not.
    let blocks: Vec<_> = cases.split("- eval_time: ").skip(1).collect();
    for name in alert_names() {
        let of_alert = |fires: bool| {
            blocks
                .iter()
                .filter(|block| {
                    block.contains(&format!("alertname: {name}\n")) && block.contains("exp_labels") == fires
                })
                .count()
        };
        assert!(of_alert(true) > 0, "no case in which {name} fires");
        assert!(of_alert(false) > 0, "no case in which {name} does not fire");
    }
    assert!(!without_annotations().contains("summary") && without_annotations().contains("severity"));
}
