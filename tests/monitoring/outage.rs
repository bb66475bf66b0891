//! A real Prometheus watches a relay through an outage of its next hop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::prometheus::Prometheus;
use crate::rules::ALERTS;
use crate::served::Served;
use crate::smtp_server::{Answer, SmtpServer, Step};
use crate::tool::{Tool, wait_until, wait_within};

/// The rules with limits of seconds.
fn quick_rules() -> String {
    let quick = ALERTS
        .replace("postrider_outbox_lag_seconds) > 300", "postrider_outbox_lag_seconds) > 3")
        .replace("for: 15m", "for: 1s")
        .replace("for: 5m", "for: 1s")
        .replace("for: 1m", "for: 1s");
    assert!(quick.contains("> 3\n") && !quick.contains("m\n        labels"), "{quick}");
    quick
}

/// The next hop refuses everything for a while. The lag grows from scrape to scrape although the relay probes with the mail, the alerts
/// fire, and all of it clears by itself.
#[test]
#[ignore = "needs Prometheus: scripts/test"]
fn an_outage_of_the_next_hop_is_seen_and_clears_by_itself() {
    let down = Arc::new(AtomicBool::new(true));
    let is_down = Arc::clone(&down);
    let server = SmtpServer::with_script(move |step| match step {
        Step::Recipient(_) if is_down.load(Ordering::SeqCst) => Answer::Refuse("421 4.3.2 shutting down"),
        _ => Answer::Accept,
    });
    let tool = Tool::new();
    tool.enqueue(&[]);
    let served = Served::start(&tool, &server.url(), &["--retry-base", "200ms", "--retry-cap", "200ms"]);
    let prometheus = Prometheus::watch("outage", &served.address, &quick_rules());
    let lag_series = format!("postrider_outbox_lag_seconds{{job=\"{}\"}}", prometheus.job);
    let attempts = format!("sum(messaging_client_sent_messages_total{{job=\"{}\"}})", prometheus.job);

    wait_until("the alerts fire", || {
        let firing = prometheus.firing();
        ["PostriderMailWaits", "PostriderTransportPaused"].iter().all(|name| firing.iter().any(|alert| alert == name))
    });
    // The mail was tried again meanwhile.
    let attempts = || prometheus.query(&attempts).first().map_or(0.0, |(_, value)| *value);
    wait_until("several attempts were made", || attempts() >= 4.0);
    wait_until("there are eight scrapes", || prometheus.samples(&lag_series).len() >= 8);
    let lag = prometheus.samples(&lag_series);
    assert!(lag.windows(2).all(|pair| pair[0] <= pair[1]), "the lag fell during the outage: {lag:?}");
    assert!(lag[7] - lag[0] > 3.0, "the lag stood still: {lag:?}");
    let others: Vec<_> = prometheus
        .firing()
        .into_iter()
        .filter(|alert| !["PostriderMailWaits", "PostriderTransportPaused"].contains(&alert.as_str()))
        .collect();
    assert!(others.is_empty(), "alerts without a reason: {others:?}");
    let alerts = prometheus.api("/api/v1/alerts");
    let paused = alerts["data"]["alerts"].as_array().unwrap().iter();
    let paused = paused.filter(|alert| alert["labels"]["alertname"] == "PostriderTransportPaused").count();
    assert_eq!(paused, 1);
    assert!(alerts.to_string().contains("The transport smtp is paused"), "{alerts}");

    down.store(false, Ordering::SeqCst);
    // The pause may have grown to a minute by now.
    wait_within(Duration::from_secs(300), "the mail is sent", || server.accepted_count() == 1);
    wait_until("the alerts clear", || prometheus.firing().is_empty());
    assert_eq!(prometheus.samples(&lag_series).last(), Some(&0.0));

    // No series that Prometheus has stored names a person or a domain.
    for (labels, _) in prometheus.query(&format!("{{job=\"{}\"}}", prometheus.job)) {
        let text = labels.to_string();
        assert!(!text.contains('@') && !text.contains("example"), "{text}");
    }
    served.running.signal("TERM");
    assert_eq!(served.running.wait().code, 0);
}
