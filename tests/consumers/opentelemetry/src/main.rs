//! A service that passes the metrics and traces of its relay to OpenTelemetry, and prints them. In a service of your own, replace the
//! exporters by those of `opentelemetry-otlp`.

mod recorder;
mod traces;

use opentelemetry::metrics::MeterProvider;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use postrider::testkit::ScriptedTransport;
use postrider::{Email, MemoryStore, Metrics, Outbox};
use tracing::Instrument;
use tracing_subscriber::Registry;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> Result {
    let meters =
        SdkMeterProvider::builder().with_periodic_exporter(opentelemetry_stdout::MetricExporter::default()).build();
    let tracers =
        SdkTracerProvider::builder().with_simple_exporter(opentelemetry_stdout::SpanExporter::default()).build();
    observe(&meters, &tracers).await?;
    meters.shutdown()?;
    tracers.shutdown()?;
    Ok(())
}

/// Sends a mail, with metrics and traces.
async fn observe(meters: &SdkMeterProvider, tracers: &SdkTracerProvider) -> Result {
    // The relay has a span for each call of the transport: `delivery`, with the delivery's id and the number of the attempt.
    let traces = tracing_opentelemetry::layer().with_tracer(tracers.tracer("postrider"));
    Registry::default().with(traces).init();

    let metrics = Metrics::with_recorder(recorder::Recorder::new(meters.meter("postrider")));
    let outbox = Outbox::new(MemoryStore::new(), ScriptedTransport::<Email>::new()).trace_context(traces::current);
    let email = Email::builder().from("shop@example.com").to("ada@example.com").text("Hello").build()?;
    outbox.enqueue(email).instrument(tracing::info_span!("request")).await?;

    let relay = outbox.relay().observer(metrics.clone()).link_spans(traces::link);
    let handle = relay.handle();
    relay.drain().await?;
    metrics.refresh(&outbox, &[handle]).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use opentelemetry_sdk::metrics::InMemoryMetricExporter;
    use opentelemetry_sdk::metrics::data::{AggregatedMetrics, Metric, MetricData};
    use opentelemetry_sdk::trace::InMemorySpanExporter;

    use super::*;

    fn attributes<'a>(attributes: impl Iterator<Item = &'a opentelemetry::KeyValue>) -> Vec<String> {
        let mut all: Vec<_> = attributes.map(|pair| format!("{}={}", pair.key, pair.value)).collect();
        all.sort();
        all
    }

    #[tokio::test]
    async fn metrics_and_traces_arrive_in_the_sdk() {
        let (metrics, spans) = (InMemoryMetricExporter::default(), InMemorySpanExporter::default());
        let meters = SdkMeterProvider::builder().with_periodic_exporter(metrics.clone()).build();
        let tracers = SdkTracerProvider::builder().with_simple_exporter(spans.clone()).build();
        observe(&meters, &tracers).await.unwrap();
        meters.force_flush().unwrap();
        tracers.force_flush().unwrap();

        let finished = metrics.get_finished_metrics().unwrap();
        let all: Vec<&Metric> =
            finished.iter().flat_map(|one| one.scope_metrics()).flat_map(|scope| scope.metrics()).collect();
        let find = |name: &str| {
            let found: Vec<_> = all.iter().filter(|metric| metric.name() == name).collect();
            assert_eq!(found.len(), 1, "{name}: {:?}", all.iter().map(|metric| metric.name()).collect::<Vec<_>>());
            assert!(!found[0].description().is_empty(), "{name}");
            found[0]
        };
        let accepted = ["messaging.operation.name=send", "messaging.system=scripted"];
        let AggregatedMetrics::U64(MetricData::Sum(attempts)) = find("messaging.client.sent.messages").data() else {
            panic!("it is a counter");
        };
        let sent = attempts.data_points().find(|point| attributes(point.attributes()) == accepted).expect("an attempt");
        assert_eq!((sent.value(), attempts.is_monotonic()), (1, true));
        let calls = find("messaging.client.operation.duration");
        assert_eq!(calls.unit(), "s");
        let AggregatedMetrics::F64(MetricData::Histogram(calls)) = calls.data() else { panic!("it is a histogram") };
        let call = calls.data_points().find(|point| attributes(point.attributes()) == accepted).expect("a call");
        assert_eq!(call.count(), 1);
        // The boundaries that the conventions advise come first.
        assert_eq!(call.bounds().take(3).collect::<Vec<_>>(), [0.005, 0.01, 0.025]);
        let AggregatedMetrics::F64(MetricData::Gauge(outbox)) = find("postrider.outbox.deliveries").data() else {
            panic!("it is a gauge");
        };
        let state = outbox.data_points().find(|point| attributes(point.attributes()) == ["postrider.state=sent"]);
        assert_eq!(state.expect("a state").value(), 1.0);

        let spans = spans.get_finished_spans().unwrap();
        let delivery = spans.iter().find(|span| span.name == "delivery").expect("a span of the call");
        assert!(delivery.attributes.iter().any(|pair| pair.key.as_str() == "attempt"), "{delivery:?}");
        let request = spans.iter().find(|span| span.name == "request").expect("a span of the request");
        let linked: Vec<_> = delivery.links.iter().map(|link| link.span_context.span_id()).collect();
        assert_eq!(linked, [request.span_context.span_id()]);
        assert!(!format!("{spans:?} {finished:?}").contains("example.com"));
    }
}
