//! A service that sends mail, with metrics for Prometheus. It runs until Ctrl-C.
//!
//! ```text
//! SMTP_URL=smtps://USER:PASSWORD@smtp.example.com MAIL_FROM=you@example.com MAIL_TO=ada@example.com \
//!     cargo run --example prometheus --features metrics,sqlite,smtp
//! curl http://127.0.0.1:9464/metrics
//! ```

use std::net::SocketAddr;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use postrider::smtp::Smtp;
use postrider::{Metrics, Outbox, SqliteStore};

mod common;

#[tokio::main]
async fn main() -> common::Result {
    // The exporter of your service. It serves whatever your service records through the facade `metrics`.
    let address: SocketAddr = std::env::var("METRICS_ADDRESS").unwrap_or("127.0.0.1:9464".to_owned()).parse()?;
    let mut exporter = PrometheusBuilder::new().with_http_listener(address).with_recommended_naming(true);
    for (name, bounds) in Metrics::BUCKETS {
        exporter = exporter.set_buckets_for_metric(Matcher::Full((*name).to_owned()), bounds)?;
    }
    exporter.install()?;

    let smtp = Smtp::from_url(&common::variable("SMTP_URL")?)?;
    let outbox = Outbox::new(SqliteStore::open("sqlite://outbox.db").await?, smtp);
    outbox.migrate().await?;

    // The relay's counters and histograms, and the gauges of the outbox every ten seconds.
    let metrics = Metrics::new();
    let relay = outbox.relay().observer(metrics.clone());
    tokio::spawn(metrics.refresh_every(Duration::from_secs(10), outbox.clone(), vec![relay.handle()]));

    outbox.enqueue(common::full_mail()?).await?;
    relay.run(async { _ = tokio::signal::ctrl_c().await }).await?;
    Ok(())
}
