//! What [`Metrics`] records of a relay. Prometheus's exporter reads it, which does not know this crate.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/exposition.rs"]
#[allow(dead_code, reason = "the suite `monitoring` uses the rest")]
mod exposition;
mod support;

use std::time::Duration;

use exposition::Exposition;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use postrider::store::TestClock;
use postrider::testkit::ScriptedTransport;
use postrider::transport::{Failover, Outgoing, Receipt};
use postrider::{
    Email, Failure, MemoryStore, Metrics, NewDelivery, Outbox, Priority, Prune, RetryPolicy, Scope, State, Transport,
    WhenInDoubt,
};
use support::wait::until;

fn recorder() -> (Metrics, PrometheusHandle) {
    let mut exporter = PrometheusBuilder::new().with_recommended_naming(true);
    for (name, bounds) in Metrics::BUCKETS {
        exporter = exporter.set_buckets_for_metric(Matcher::Full((*name).to_owned()), bounds).unwrap();
    }
    let recorder = exporter.build_recorder();
    let handle = recorder.handle();
    (Metrics::with_recorder(recorder), handle)
}

fn read(handle: &PrometheusHandle) -> Exposition {
    Exposition::parse(&handle.render())
}

fn mail(to: &str) -> NewDelivery<Email> {
    let email = Email::builder().from("secret-sender@secret.example").to(format!("{to}@secret.example"));
    let email = email.subject("Secret subject").text("Secret body").template_id("secret-template").tag("secret-tag");
    NewDelivery::new(email.build().unwrap()).when_in_doubt(WhenInDoubt::Hold)
}

/// One immediate retry.
fn eager() -> RetryPolicy {
    RetryPolicy::default().attempts(2).backoff(Duration::from_millis(1), Duration::from_millis(1)).jitter(0.0)
}

const ATTEMPTS: &str = "messaging_client_sent_messages_total";
const CALLS: &str = "messaging_client_operation_duration_seconds_count";
const SETTLED: &str = "postrider_deliveries_settled_total";

fn settled(result: &str) -> [(&str, &str); 1] {
    [("postrider_result", result)]
}

#[tokio::test]
async fn counters_are_those_of_the_summary() {
    let (metrics, handle) = recorder();
    let answer = "550 5.1.1 <secret-person@secret.example>: unknown";
    let transport = ScriptedTransport::new()
        .then(Ok(Receipt::new().with_reply(answer)))
        .then(Err(Failure::permanent(Scope::Message, answer).with_reply(answer)))
        .then(Err(Failure::transient(Scope::Message, answer)))
        .then(Err(Failure::maybe_accepted(answer).with_scope(Scope::Message)))
        .then(Err(Failure::permanent(Scope::Transport, answer)));
    let outbox = Outbox::new(MemoryStore::new(), transport);
    let before = read(&handle);
    for result in ["sent", "retried", "released", "dead", "held"] {
        assert_eq!(before.value(SETTLED, &settled(result)), 0.0, "{result} does not begin at 0");
    }
    for number in 0..5 {
        outbox.enqueue(mail(&format!("secret-{number}"))).await.unwrap();
    }
    let relay = outbox.relay().concurrency(1).retry(eager()).observer(metrics.clone());
    let summary = relay.drain().await.unwrap();
    assert_eq!((summary.sent, summary.dead, summary.retried, summary.in_doubt, summary.released), (1, 1, 1, 1, 1));

    let after = read(&handle);
    for result in ["sent", "retried", "released", "dead", "held"] {
        assert_eq!(after.value(SETTLED, &settled(result)), 1.0, "{result}");
    }
    let failures =
        [("permanent", "message"), ("transient", "message"), ("in_doubt", "message"), ("permanent", "transport")];
    for (error, scope) in failures {
        let labels = [("messaging_system", "scripted"), ("error_type", error), ("postrider_scope", scope)];
        assert_eq!(after.value(ATTEMPTS, &labels), 1.0, "{error} {scope}");
        assert_eq!(after.value(CALLS, &labels), 1.0, "{error} {scope}");
    }
    let all = [("messaging_system", "scripted"), ("messaging_operation_name", "send")];
    assert_eq!((after.value(ATTEMPTS, &all), after.value(CALLS, &all)), (5.0, 5.0));
    let accepted =
        after.samples.iter().filter(|sample| sample.name == ATTEMPTS && !sample.labels.contains_key("error_type"));
    assert_eq!(accepted.map(|sample| sample.value).sum::<f64>(), 1.0);
    let claims = [("messaging_system", "postrider"), ("messaging_operation_name", "claim")];
    assert_eq!(after.value("messaging_client_consumed_messages_total", &claims), 5.0);
    let paused = [("messaging_system", "scripted"), ("postrider_scope", "transport")];
    assert_eq!(after.value("postrider_pauses_total", &paused), 1.0);

    let text = handle.render().to_lowercase();
    for secret in ["secret", "@", "550", "unknown"] {
        assert!(!text.contains(secret), "{secret} is in the metrics:\n{text}");
    }
}

#[tokio::test]
async fn the_wait_is_recorded_at_the_first_call_of_each_cycle() {
    const WAITS: &str = "postrider_queue_wait_duration_seconds_count";
    let (metrics, handle) = recorder();
    let transport = ScriptedTransport::new().then(Err(Failure::transient(Scope::Message, "busy")));
    let outbox = Outbox::new(MemoryStore::new(), transport.clone());
    let drain = || outbox.relay().retry(eager()).observer(metrics.clone()).drain();
    let id = outbox.enqueue(mail("ada")).await.unwrap();
    drain().await.unwrap();
    until("the retry is sent", || async { drain().await.unwrap().sent == 1 }).await;
    assert_eq!(transport.calls().len(), 2);
    assert_eq!(read(&handle).value(WAITS, &[]), 1.0);
    assert_eq!(outbox.resend(id).await.unwrap(), postrider::UpdateOutcome::Updated);
    assert_eq!(drain().await.unwrap().sent, 1);
    assert_eq!(read(&handle).value(WAITS, &[]), 2.0);
}

#[tokio::test]
async fn gauges_show_the_outbox_and_the_relays() {
    let (metrics, handle) = recorder();
    let failures = |_: &_| async { Err(Failure::permanent(Scope::Transport, "535 secret@secret.example refused")) };
    let outbox = Outbox::new(MemoryStore::new(), ScriptedTransport::new().with_handler(failures));
    for state in State::ALL {
        let labels = [("postrider_state", state.as_str())];
        assert_eq!(read(&handle).find("postrider_outbox_deliveries", &labels), None, "nothing was read yet");
    }
    outbox.enqueue(mail("ada")).await.unwrap();
    let cancelled = outbox.enqueue(mail("bob").priority(Priority::BULK)).await.unwrap();
    assert_eq!(outbox.cancel(cancelled).await.unwrap(), postrider::UpdateOutcome::Updated);

    let relay = outbox.relay().observer(metrics.clone());
    let relay_handle = relay.handle();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let worker = tokio::spawn(relay.run(async { _ = stopped.await }));
    let paused = [("messaging_system", "scripted")];
    until("the pause is shown", || async {
        metrics.refresh(&outbox, std::slice::from_ref(&relay_handle)).await.unwrap();
        let shown = read(&handle);
        shown.find("postrider_relay_transport_paused", &paused) == Some(1.0)
            && shown.find("postrider_outbox_relays_paused", &[]) == Some(1.0)
    })
    .await;
    let shown = read(&handle);
    assert_eq!(shown.value("postrider_outbox_deliveries", &[("postrider_state", "cancelled")]), 1.0);
    let live =
        ["pending", "leased"].map(|state| shown.value("postrider_outbox_deliveries", &[("postrider_state", state)]));
    assert_eq!(live.iter().sum::<f64>(), 1.0);
    assert_eq!(shown.value("postrider_relay_running", &[]), 1.0);
    assert_eq!(shown.value("postrider_outbox_relays", &[]), 1.0);
    assert_eq!(shown.value("postrider_relay_database_available", &[]), 1.0);

    stop.send(()).unwrap();
    worker.await.unwrap().unwrap();
    metrics.refresh(&outbox, std::slice::from_ref(&relay_handle)).await.unwrap();
    let shown = read(&handle);
    assert_eq!(shown.value("postrider_relay_running", &[]), 0.0);
    assert_eq!(shown.value("postrider_relay_transport_paused", &paused), 0.0, "a stopped relay has no pause");
    assert!(!handle.render().contains("secret"));
}

/// A transport with any name, even one with an address in it.
struct Named(&'static str);

impl Transport for Named {
    type Message = Email;

    fn name(&self) -> &str {
        self.0
    }

    async fn send(&self, _: &Outgoing<Email>) -> Result<Receipt, Failure> {
        Ok(Receipt::new())
    }
}

#[tokio::test]
async fn a_combined_transport_is_shown_by_its_path_and_an_address_never() {
    let (metrics, handle) = recorder();
    let outbox = Outbox::new(MemoryStore::new(), Failover::new(Named("first")));
    outbox.enqueue(mail("ada")).await.unwrap();
    assert_eq!(outbox.relay().observer(metrics.clone()).drain().await.unwrap().sent, 1);
    let outbox = Outbox::new(MemoryStore::new(), Named("to ada@example.com"));
    outbox.enqueue(mail("ada")).await.unwrap();
    assert_eq!(outbox.relay().observer(metrics.clone()).drain().await.unwrap().sent, 1);

    let shown = read(&handle);
    assert_eq!(shown.value(ATTEMPTS, &[("messaging_system", "failover/first")]), 1.0);
    assert_eq!(shown.value(ATTEMPTS, &[("messaging_system", "other")]), 1.0);
    assert!(shown.label_values().iter().all(|value| !value.contains('@')), "{:?}", shown.label_values());
}

#[tokio::test]
async fn retention_is_counted_by_what_it_deletes() {
    let (metrics, handle) = recorder();
    let clock = TestClock::new();
    let outbox = Outbox::new(MemoryStore::with_test_clock(clock.clone()), ScriptedTransport::<Email>::new());
    outbox.enqueue(mail("ada")).await.unwrap();
    let deletions =
        [Prune::messages(Duration::ZERO).state(State::Sent), Prune::deliveries(Duration::ZERO).state(State::Sent)];
    assert_eq!(outbox.relay().drain().await.unwrap().sent, 1);
    // The limit of zero holds for deliveries that ended before now, not at the same time.
    clock.advance(Duration::from_secs(1));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let relay = outbox.relay().retention(deletions).observer(metrics);
    let worker = tokio::spawn(relay.run(async { _ = stopped.await }));
    let deleted = |part: &str| read(&handle).value("postrider_retention_deletions_total", &[("postrider_part", part)]);
    until("the delivery is deleted", || async { deleted("deliveries") == 1.0 }).await;
    assert_eq!((deleted("messages"), deleted("history")), (1.0, 0.0));
    stop.send(()).unwrap();
    worker.await.unwrap().unwrap();
}

#[tokio::test]
async fn without_a_recorder_nothing_happens() {
    let outbox = Outbox::new(MemoryStore::new(), ScriptedTransport::<Email>::new());
    outbox.enqueue(mail("ada")).await.unwrap();
    let metrics = Metrics::new();
    let relay = outbox.relay().observer(metrics.clone());
    let relay_handle = relay.handle();
    assert_eq!(relay.drain().await.unwrap().sent, 1);
    metrics.refresh(&outbox, std::slice::from_ref(&relay_handle)).await.unwrap();
}
