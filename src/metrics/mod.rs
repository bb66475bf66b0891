//! Metrics by the facade `metrics`.

mod counters;
mod gauges;
mod names;
mod observer;
mod transports;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ::metrics::{Level, Metadata, Recorder};

use crate::Outbox;
use crate::admin::Stats;
use crate::relay::{RelayHandle, RelayHealth};
use crate::store::{AdminStore, StoreError, StoreErrorKind};
use counters::Counters;
use gauges::{OutboxGauges, RelayGauges};
use transports::{TransportMetrics, Transports};

const METADATA: Metadata<'static> = Metadata::new("postrider", Level::INFO, Some("postrider"));

/// The time limit for reading the gauges of the outbox.
const REFRESH_LIMIT: Duration = Duration::from_secs(10);

/// Records metrics through the facade [`metrics`](https://docs.rs/metrics), for any exporter that works with it.
///
/// As an [observer](crate::Relay::observer) of relays it records counters and histograms. The gauges are read when
/// [`refresh`](Self::refresh) is called, or again and again by [`refresh_every`](Self::refresh_every):
///
/// ```no_run
/// # async fn demo<S: postrider::AdminStore, T: postrider::Transport>(outbox: postrider::Outbox<S, T>) -> Result<(), postrider::StoreError> {
/// use std::time::Duration;
/// use postrider::Metrics;
///
/// // First install the exporter: PrometheusBuilder::new().install()?
/// let metrics = Metrics::new();
/// let relay = outbox.relay().observer(metrics.clone());
/// tokio::spawn(metrics.refresh_every(Duration::from_secs(10), outbox.clone(), vec![relay.handle()]));
/// relay.run(std::future::pending()).await?;
/// # Ok(()) }
/// ```
///
/// `docs/monitoring.md` lists the metrics, with alert rules and a dashboard for them. Labels have few values: the names of transports (64
/// at most), outcomes, scopes, results and states. No label contains an address, a domain, a subject, a template or the text of an error.
///
/// Clones are cheap and record the same metrics. One value serves all relays of a process.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    /// `None` for the global recorder.
    recorder: Option<Arc<dyn Recorder + Send + Sync>>,
    // Each is registered when it is first used, because the global recorder may be installed after this value was made.
    counters: OnceLock<Counters>,
    outbox: OnceLock<OutboxGauges>,
    relays: OnceLock<RelayGauges>,
    transports: Transports,
}

impl Metrics {
    /// The histograms, and the upper bounds of their buckets in seconds, for exporters that ask for them. OpenTelemetry's conventions advise
    /// those of `messaging.client.operation.duration` up to 10 s; longer calls have more.
    ///
    /// ```
    /// # fn main() -> Result<(), metrics_exporter_prometheus::BuildError> {
    /// use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
    /// use postrider::Metrics;
    ///
    /// let mut exporter = PrometheusBuilder::new().with_recommended_naming(true);
    /// for (name, bounds) in Metrics::BUCKETS {
    ///     exporter = exporter.set_buckets_for_metric(Matcher::Full((*name).to_owned()), bounds)?;
    /// }
    /// # let _ = exporter;
    /// # Ok(()) }
    /// ```
    pub const BUCKETS: &'static [(&'static str, &'static [f64])] =
        &[(names::CALL, names::CALL_BUCKETS), (names::QUEUE_WAIT, names::WAIT_BUCKETS)];

    /// Records to the global recorder of the facade.
    ///
    /// Install the recorder before the relay runs and before the gauges are refreshed. What is recorded without one is lost, also later.
    #[allow(clippy::new_without_default, reason = "it writes to a global recorder, which a default must not do")]
    pub fn new() -> Self {
        Self::to(None)
    }

    /// Records to this recorder, and not to the global one.
    pub fn with_recorder(recorder: impl Recorder + Send + Sync + 'static) -> Self {
        let metrics = Self::to(Some(Arc::new(recorder)));
        metrics.counters();
        metrics
    }

    fn to(recorder: Option<Arc<dyn Recorder + Send + Sync>>) -> Self {
        let (counters, outbox, relays) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Self { inner: Arc::new(Inner { recorder, counters, outbox, relays, transports: Transports::default() }) }
    }

    /// Records the gauges of the outbox from counts that the caller has read with [`Outbox::stats`].
    pub fn record_stats(&self, stats: &Stats) {
        self.counters();
        self.inner.outbox.get_or_init(|| self.record(OutboxGauges::register)).set(stats);
    }

    /// Records the gauges of the relays of this process. Pass all of them at once: the gauges are their sums.
    pub fn record_health(&self, relays: &[RelayHealth]) {
        self.counters();
        self.inner.relays.get_or_init(|| self.record(RelayGauges::register)).set(relays);
        let working: Vec<_> = relays.iter().filter_map(|relay| relay.transport.as_deref()).collect();
        let paused = relays.iter().flat_map(|relay| relay.paused.iter().chain(&relay.paused_inner));
        let paused: Vec<_> = paused.map(|paused| &*paused.transport).collect();
        self.record(|recorder| self.inner.transports.set_paused(&working, &paused, recorder));
    }

    /// Reads and records all gauges once: those of the relays from memory, then those of the outbox from the database.
    ///
    /// # Errors
    /// If the database fails, or does not answer within ten seconds. The gauges of the outbox then keep their values, and
    /// `postrider.outbox.refresh.timestamp` tells their age.
    ///
    /// # Cancel safety
    /// A dropped call has recorded all gauges, those of the relays only, or none.
    pub async fn refresh<S: AdminStore, T>(
        &self,
        outbox: &Outbox<S, T>,
        relays: &[RelayHandle],
    ) -> Result<(), StoreError> {
        let health: Vec<_> = relays.iter().map(RelayHandle::health).collect();
        self.record_health(&health);
        let stats = tokio::time::timeout(REFRESH_LIMIT, outbox.stats()).await.unwrap_or_else(|_| {
            let text = format!("the database has not counted the deliveries within {} s", REFRESH_LIMIT.as_secs());
            Err(StoreError::new(StoreErrorKind::Unavailable, text))
        })?;
        self.record_stats(&stats);
        Ok(())
    }

    /// [Refreshes](Self::refresh) all gauges at once and then after each interval, until the future is dropped. Errors are logged at the
    /// level `debug`, because the relay logs outages already.
    ///
    /// # Cancel safety
    /// The future can be dropped at any point.
    pub async fn refresh_every<S: AdminStore, T>(
        self,
        interval: Duration,
        outbox: Outbox<S, T>,
        relays: Vec<RelayHandle>,
    ) {
        loop {
            if let Err(error) = self.refresh(&outbox, &relays).await {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "the metrics of the outbox could not be read"
                );
            }
            tokio::time::sleep(interval).await;
        }
    }

    fn record<R>(&self, record: impl FnOnce(&dyn Recorder) -> R) -> R {
        match &self.inner.recorder {
            Some(recorder) => record(recorder),
            None => ::metrics::with_recorder(record),
        }
    }

    /// The counters. At their first use, all metrics are described.
    fn counters(&self) -> &Counters {
        self.inner.counters.get_or_init(|| self.record(Counters::register))
    }

    fn transport(&self, name: &str) -> Arc<TransportMetrics> {
        self.record(|recorder| self.inner.transports.get(name, recorder))
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}
