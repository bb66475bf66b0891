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
        .replace("postrider_outbox_lag_undeferred_seconds) > 300", "postrider_outbox_lag_undeferred_seconds) > 3")
        .replace("for: 15m", "for: 1s")
        .replace("for: 5m", "for: 1s")
        .replace("for: 1m", "for: 1s");
    assert!(quick.contains("> 3\n") && !quick.contains("m\n        labels"), "{quick}");
    quick
}

/// The relay's options. No mail uses up its budget during a test.
const QUICK: [&str; 6] = ["--retry-base", "200ms", "--retry-cap", "200ms", "--attempts", "1000000"];

/// A lag as Prometheus has stored it.
struct Lag<'a> {
    prometheus: &'a Prometheus,
    series: String,
}

impl<'a> Lag<'a> {
    fn new(prometheus: &'a Prometheus, metric: &str) -> Self {
        Self { prometheus, series: format!("{metric}{{job=\"{}\"}}", prometheus.job) }
    }

    fn samples(&self) -> Vec<f64> {
        self.prometheus.samples(&self.series)
    }

    fn last(&self) -> f64 {
        self.samples().last().copied().unwrap_or_default()
    }

    /// Waits for eight more scrapes from now on, and asserts that the lag grew in each.
    fn assert_grows(&self) {
        let before = self.samples().len();
        wait_until("there are eight more scrapes", || self.samples().len() >= before + 8);
        let lag = &self.samples()[before..];
        assert!(lag.windows(2).all(|pair| pair[0] <= pair[1]), "the lag fell during the outage: {lag:?}");
        assert!(lag[7] - lag[0] > 3.0, "the lag stood still: {lag:?}");
    }
}

fn is_firing(prometheus: &Prometheus, name: &str) -> bool {
    prometheus.firing().iter().any(|alert| alert == name)
}

/// The next hop refuses everything for a while. The lag grows from scrape to scrape although the relay probes with the mail, the alerts
/// fire, and all of it clears by itself. Another mail waits all the time because of a full mailbox: it raises no alert before the outage,
/// and keeps none firing after it.
#[test]
#[ignore = "needs Prometheus: scripts/test"]
fn an_outage_of_the_next_hop_is_seen_and_clears_by_itself() {
    let down = Arc::new(AtomicBool::new(false));
    let is_down = Arc::clone(&down);
    let server = SmtpServer::with_script(move |step| match step {
        Step::Recipient(_) if is_down.load(Ordering::SeqCst) => Answer::Refuse("421 4.3.2 shutting down"),
        Step::Recipient(to) if to.contains("full@") => Answer::Refuse("452 4.2.2 mailbox full"),
        _ => Answer::Accept,
    });
    let tool = Tool::new();
    let deferred = tool.enqueue(&["--to", "full@example.com"]);
    let served = Served::start(&tool, &server.url(), &QUICK);
    let prometheus = Prometheus::watch("outage", &served.address, &quick_rules());
    let all = Lag::new(&prometheus, "postrider_outbox_lag_seconds");
    let undeferred = Lag::new(&prometheus, "postrider_outbox_lag_undeferred_seconds");
    let attempts = format!("sum(messaging_client_sent_messages_total{{job=\"{}\"}})", prometheus.job);
    let attempts = || prometheus.query(&attempts).first().map_or(0.0, |(_, value)| *value);

    wait_until("the deferred mail has waited for twice the limit", || {
        all.last() > 6.0 && undeferred.samples().len() > 5
    });
    assert!(attempts() > 4.0, "it is tried again and again");
    assert_eq!(prometheus.firing(), Vec::<String>::new(), "a full mailbox raises an alarm");

    down.store(true, Ordering::SeqCst);
    let before = attempts();
    tool.enqueue(&[]);
    let expected = ["PostriderMailWaits", "PostriderTransportPaused"];
    wait_until("the alerts fire", || expected.iter().all(|name| is_firing(&prometheus, name)));
    // The mail was tried again meanwhile.
    wait_until("several attempts were made", || attempts() >= before + 4.0);
    undeferred.assert_grows();
    let others: Vec<_> = prometheus.firing().into_iter().filter(|alert| !expected.contains(&alert.as_str())).collect();
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
    wait_until("nothing waits but the deferred mail", || undeferred.last() == 0.0);
    assert!(all.last() > 6.0 && tool.show(&deferred)["state"] != "dead");

    // No series that Prometheus has stored names a person or a domain.
    for (labels, _) in prometheus.query(&format!("{{job=\"{}\"}}", prometheus.job)) {
        let text = labels.to_string();
        assert!(!text.contains('@') && !text.contains("example"), "{text}");
    }
    served.running.signal("TERM");
    assert_eq!(served.running.wait().code, 0);
}

/// A next hop that takes the mail and does not answer: the attempt is charged, since the mail may have been accepted, and the lag still
/// grows. After that, an operator pauses everything: the lag goes on growing until the pause ends.
#[test]
#[ignore = "needs Prometheus: scripts/test"]
fn lost_replies_and_pauses_by_operators_do_not_reset_the_lag() {
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = Arc::clone(&broken);
    let server = SmtpServer::with_script(move |step| match step {
        Step::Content if is_broken.load(Ordering::SeqCst) => Answer::Close,
        _ => Answer::Accept,
    });
    let tool = Tool::new();
    let id = tool.enqueue(&[]);
    let served = Served::start(&tool, &server.url(), &QUICK);
    let prometheus = Prometheus::watch("lost", &served.address, &quick_rules());
    let undeferred = Lag::new(&prometheus, "postrider_outbox_lag_undeferred_seconds");
    wait_until("a reply was lost", || tool.show(&id)["attempts"][0]["charged"] == true);
    wait_until("the alert fires", || is_firing(&prometheus, "PostriderMailWaits"));
    undeferred.assert_grows();

    tool.ok(&["pause", "--all", "--by", "ada"]);
    wait_until("the relay is paused", || served.health().1["paused_by_operator"][0].is_string());
    broken.store(false, Ordering::SeqCst);
    undeferred.assert_grows();
    assert!(is_firing(&prometheus, "PostriderMailWaits"));
    assert_eq!((served.health().0, server.accepted_count()), (200, 0));

    tool.ok(&["resume", "--all", "--by", "ada"]);
    wait_within(Duration::from_secs(300), "the mail is sent", || server.accepted_count() == 1);
    wait_until("the alerts clear", || prometheus.firing().is_empty());
    served.running.signal("TERM");
    assert_eq!(served.running.wait().code, 0);
}
