//! The HTTP endpoint of `work --metrics`: `/metrics` for Prometheus, and `/healthz`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use postrider::transport::mask_addresses;
use postrider::{AdminStore, Metrics, Outbox, Pause, PausedTransport, RelayHandle, RelayHealth};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};

use crate::error::CliError;

/// The largest number of connections at once. Further ones wait in the system's queue.
const CONNECTIONS: usize = 64;

/// The time limit of a connection, which serves one request.
const CONNECTION_LIMIT: Duration = Duration::from_secs(30);

/// The time limit for the head of a request.
const HEAD_LIMIT: Duration = Duration::from_secs(3);

/// Gauges of the outbox that are younger than this are not read again, however often somebody asks for the metrics.
const MIN_AGE: Duration = Duration::from_millis(500);

/// How long a request for the metrics waits for the database. After that it gets the gauges as they are. Prometheus's own limit is 10 s.
const REFRESH_WAIT: Duration = Duration::from_millis(500);

/// How often the samples of histograms are moved into buckets. They would otherwise pile up while nobody asks for the metrics.
const UPKEEP: Duration = Duration::from_secs(5);

/// The type of Prometheus's text format, version 0.0.4 (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const PLAIN_TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// A bound address, and the metrics that it will serve.
pub(crate) struct Endpoint {
    listener: TcpListener,
    metrics: Metrics,
    prometheus: PrometheusHandle,
}

impl Endpoint {
    /// Binds the address. Connections wait until [`serve`](Self::serve) is called.
    pub(crate) async fn bind(address: SocketAddr) -> Result<Self, CliError> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| CliError::runtime(format!("--metrics cannot listen on {address}: {error}")))?;
        let invalid = |error| CliError::runtime(format!("the metrics cannot be recorded: {error}"));
        let mut builder = PrometheusBuilder::new().with_recommended_naming(true);
        for (name, bounds) in Metrics::BUCKETS {
            builder = builder.set_buckets_for_metric(Matcher::Full((*name).to_owned()), bounds).map_err(invalid)?;
        }
        let recorder = builder.build_recorder();
        let prometheus = recorder.handle();
        Ok(Self { listener, metrics: Metrics::with_recorder(recorder), prometheus })
    }

    /// The observer of the relay.
    pub(crate) fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// Answers requests until the future is dropped.
    pub(crate) async fn serve<S: AdminStore>(self, outbox: Outbox<S>, relay: RelayHandle) {
        let Self { listener, metrics, prometheus } = self;
        if let Ok(address) = listener.local_addr() {
            // With port 0, the system has chosen the port.
            tracing::info!(%address, "serving /metrics and /healthz");
        }
        let state = Arc::new(State { outbox, relay, metrics, prometheus: prometheus.clone(), read: Arc::default() });
        let upkeep = async {
            loop {
                tokio::time::sleep(UPKEEP).await;
                prometheus.run_upkeep();
            }
        };
        tokio::join!(upkeep, accept(listener, state));
    }
}

async fn accept<S: AdminStore>(listener: TcpListener, state: Arc<State<S>>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    // Dropping the set ends the connections.
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let state = Arc::clone(&state);
                tasks.spawn(async move {
                    let _permit = permit;
                    // A client that breaks the connection is no concern of the relay.
                    let _ = tokio::time::timeout(CONNECTION_LIMIT, connection(stream, state)).await;
                });
            }
            Err(error) => {
                // For instance too many open files.
                tracing::debug!(error = &error as &dyn std::error::Error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        while tasks.try_join_next().is_some() {}
    }
}

async fn connection<S: AdminStore>(stream: TcpStream, state: Arc<State<S>>) -> hyper::Result<()> {
    let answer = service_fn(|request: Request<Incoming>| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(state.answer(request.method(), request.uri().path()).await) }
    });
    hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .serve_connection(TokioIo::new(stream), answer)
        .await
}

struct State<S> {
    outbox: Outbox<S>,
    relay: RelayHandle,
    metrics: Metrics,
    prometheus: PrometheusHandle,
    /// When the gauges of the outbox were last read. Locked while they are being read.
    read: Arc<Mutex<Option<Instant>>>,
}

impl<S: AdminStore> State<S> {
    async fn answer(self: &Arc<Self>, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut response = response(StatusCode::METHOD_NOT_ALLOWED, PLAIN_TEXT, "use GET or HEAD\n".to_owned());
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match path {
            "/metrics" => {
                self.refresh().await;
                response(StatusCode::OK, PROMETHEUS_TEXT, self.prometheus.render())
            }
            "/healthz" => {
                let health = self.relay.health();
                let status = if health.is_healthy() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                let mut body = health_json(&self.relay, &health).to_string();
                body.push('\n');
                response(status, JSON, body)
            }
            _ => response(StatusCode::NOT_FOUND, PLAIN_TEXT, "see /metrics and /healthz\n".to_owned()),
        }
    }

    /// Reads the gauges, unless they are new or being read. Waits for a while; the read goes on after that.
    async fn refresh(self: &Arc<Self>) {
        let Ok(mut read) = Arc::clone(&self.read).try_lock_owned() else {
            self.metrics.record_health(&[self.relay.health()]);
            return;
        };
        if read.is_some_and(|at| at.elapsed() < MIN_AGE) {
            self.metrics.record_health(&[self.relay.health()]);
            return;
        }
        let state = Arc::clone(self);
        let reading = tokio::spawn(async move {
            if let Err(error) = state.metrics.refresh(&state.outbox, std::slice::from_ref(&state.relay)).await {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "the metrics of the outbox could not be read"
                );
            }
            *read = Some(Instant::now());
        });
        let _ = tokio::time::timeout(REFRESH_WAIT, reading).await;
    }
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The body of `/healthz`. Its keys are a stable interface.
fn health_json(relay: &RelayHandle, health: &RelayHealth) -> Value {
    let paused = |paused: &PausedTransport| format!("{}: {}", paused.transport, paused.reason);
    let by_operator = |pause: &Pause| mask_addresses(&pause.to_string()).into_owned();
    let seconds = |duration: Option<Duration>| duration.map(|duration| (duration.as_secs_f64() * 1e3).round() / 1e3);
    json!({
        "id": relay.id().to_string(),
        "host": relay.host(),
        "state": health.state.as_str(),
        "healthy": health.is_healthy(),
        "in_flight": health.in_flight,
        "database_answered_s_ago": seconds(health.store_answered_ago),
        "database_unavailable_s": seconds(health.store_unavailable_for),
        "paused": health.paused.iter().chain(&health.paused_inner).map(paused).collect::<Vec<_>>(),
        "paused_senders": health.paused_senders,
        "paused_for_s": seconds(health.paused_for),
        "paused_by_operator": health.operator_pauses.iter().map(by_operator).collect::<Vec<_>>(),
    })
}
