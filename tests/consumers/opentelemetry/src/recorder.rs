//! Passes what is recorded through the facade `metrics` to a meter of OpenTelemetry.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, SharedString, Unit};
use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;
use postrider::Metrics;

/// A recorder of the facade. The first registration of an instrument sets its unit and description, so each is made once.
pub struct Recorder {
    meter: Meter,
    descriptions: Mutex<HashMap<String, (&'static str, String)>>,
    counters: Mutex<HashMap<String, opentelemetry::metrics::Counter<u64>>>,
    gauges: Mutex<HashMap<String, opentelemetry::metrics::Gauge<f64>>>,
    histograms: Mutex<HashMap<String, opentelemetry::metrics::Histogram<f64>>>,
}

impl Recorder {
    pub fn new(meter: Meter) -> Self {
        let descriptions = Mutex::default();
        Self { meter, descriptions, counters: Mutex::default(), gauges: Mutex::default(), histograms: Mutex::default() }
    }

    fn describe(&self, name: &KeyName, unit: Option<Unit>, description: SharedString) {
        let unit = unit.map(|unit| unit.as_canonical_label()).unwrap_or_default();
        lock(&self.descriptions).insert(name.as_str().to_owned(), (unit, description.into_owned()));
    }

    fn description(&self, name: &str) -> (&'static str, String) {
        lock(&self.descriptions).get(name).cloned().unwrap_or_default()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn attributes(key: &Key) -> Vec<KeyValue> {
    key.labels().map(|label| KeyValue::new(label.key().to_owned(), label.value().to_owned())).collect()
}

/// One series: an instrument with attributes.
struct Series<I> {
    instrument: I,
    attributes: Vec<KeyValue>,
}

impl CounterFn for Series<opentelemetry::metrics::Counter<u64>> {
    fn increment(&self, value: u64) {
        self.instrument.add(value, &self.attributes);
    }

    // postrider does not use it.
    fn absolute(&self, _: u64) {}
}

impl GaugeFn for Series<opentelemetry::metrics::Gauge<f64>> {
    fn set(&self, value: f64) {
        self.instrument.record(value, &self.attributes);
    }

    // postrider does not use them.
    fn increment(&self, _: f64) {}
    fn decrement(&self, _: f64) {}
}

impl HistogramFn for Series<opentelemetry::metrics::Histogram<f64>> {
    fn record(&self, value: f64) {
        self.instrument.record(value, &self.attributes);
    }
}

impl metrics::Recorder for Recorder {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, description: SharedString) {
        self.describe(&name, unit, description);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, description: SharedString) {
        self.describe(&name, unit, description);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, description: SharedString) {
        self.describe(&name, unit, description);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let mut counters = lock(&self.counters);
        let instrument = counters.entry(key.name().to_owned()).or_insert_with(|| {
            let (unit, description) = self.description(key.name());
            self.meter.u64_counter(key.name().to_owned()).with_unit(unit).with_description(description).build()
        });
        Counter::from_arc(Arc::new(Series { instrument: instrument.clone(), attributes: attributes(key) }))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        let mut gauges = lock(&self.gauges);
        let instrument = gauges.entry(key.name().to_owned()).or_insert_with(|| {
            let (unit, description) = self.description(key.name());
            self.meter.f64_gauge(key.name().to_owned()).with_unit(unit).with_description(description).build()
        });
        Gauge::from_arc(Arc::new(Series { instrument: instrument.clone(), attributes: attributes(key) }))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let mut histograms = lock(&self.histograms);
        let instrument = histograms.entry(key.name().to_owned()).or_insert_with(|| {
            let (unit, description) = self.description(key.name());
            let builder = self.meter.f64_histogram(key.name().to_owned()).with_unit(unit).with_description(description);
            match Metrics::BUCKETS.iter().find(|(name, _)| *name == key.name()) {
                Some((_, bounds)) => builder.with_boundaries(bounds.to_vec()).build(),
                None => builder.build(),
            }
        });
        Histogram::from_arc(Arc::new(Series { instrument: instrument.clone(), attributes: attributes(key) }))
    }
}
