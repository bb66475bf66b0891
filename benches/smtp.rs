//! How fast mail goes out by SMTP, beside the fastest client known and a client library's own pool.

#![allow(clippy::expect_used, clippy::print_stdout, clippy::print_stderr, reason = "a benchmark talks to its reader")]

mod support;

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use postrider::smtp::{Smtp, Tls};
use postrider::{MemoryStore, Outbox, Store};
use support::figures::{Figures, write_json};
use support::proxy::Proxy;
use support::{Options, databases, mail_of};

/// The octets of a mail's text.
const SIZE: usize = 10 * 1024;

#[tokio::main]
async fn main() {
    let options = Options::read();
    let count = options.count.unwrap_or(10_000);
    let sink = Sink::start();
    let mut tables = BTreeMap::new();
    for delay in [0, 20] {
        let proxy = Proxy::start(sink.port, Duration::from_millis(delay) / 2).await;
        let port = if delay == 0 { sink.port } else { proxy.port() };
        let mut rates = Figures::default();
        for _ in 0..options.rounds {
            for connections in [1, 8, 32] {
                // As many as take a second or so.
                let some = if delay == 0 { count } else { 40 * connections };
                let name = |who: &str| format!("{who} ×{connections}");
                if options.wants("relay in memory") {
                    rates.add(&name("relay in memory"), relay(MemoryStore::new(), port, connections, some).await);
                }
                if options.wants("relay on postgres") && delay == 0 {
                    let store = databases::pg_store(10).await;
                    rates.add(&name("relay on postgres"), relay(store, port, connections, some).await);
                }
                if options.wants("smtp-source") {
                    rates.add(&name("smtp-source"), smtp_source(port, connections, some));
                }
                if options.wants("lettre") {
                    rates.add(&name("lettre"), lettre_pool(port, connections, 20 * connections).await);
                }
            }
        }
        rates.print(&format!("10 KiB mails, {delay} ms of round trip"), "mails/s", "smtp-source ×1");
        tables.insert(format!("{delay} ms"), rates);
    }
    if let Some(path) = &options.json {
        write_json(path, &tables);
    }
}

/// Postfix's server that takes everything and keeps nothing.
struct Sink {
    port: u16,
    child: Child,
}

impl Sink {
    fn start() -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        drop(listener);
        let child = Command::new("/usr/sbin/smtp-sink")
            .args(["-u", "nobody", "-c", &format!("127.0.0.1:{port}"), "1024"])
            .stdout(Stdio::null())
            .spawn()
            .expect("smtp-sink is there: it comes with Postfix");
        let start = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(10), "smtp-sink does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { port, child }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The whole way, from an outbox to the server.
async fn relay<S: Store>(store: S, port: u16, connections: usize, count: usize) -> f64 {
    let smtp = Smtp::builder("127.0.0.1").port(port).tls(Tls::None).max_connections(connections);
    let outbox = Outbox::new(store, smtp.max_messages_per_connection(u32::MAX).build().expect("a transport"));
    for first in (0..count).step_by(1000) {
        let mails = (first..count.min(first + 1000)).map(|number| mail_of(number, SIZE));
        outbox.enqueue_all(mails).await.expect("they are enqueued");
    }
    let start = Instant::now();
    // More in hand than connections, so that none waits for the database.
    let pass = outbox.relay().concurrency(connections + 256).drain().await.expect("it drains");
    let took = start.elapsed();
    assert_eq!(pass.sent, count as u64, "each is sent");
    count as f64 / took.as_secs_f64()
}

fn smtp_source(port: u16, connections: usize, count: usize) -> f64 {
    let start = Instant::now();
    let status = Command::new("/usr/sbin/smtp-source")
        .args(["-d", "-s", &connections.to_string(), "-m", &count.to_string(), "-l", &SIZE.to_string()])
        .args(["-f", "a@example.com", "-t", "b@example.org", &format!("127.0.0.1:{port}")])
        .status()
        .expect("smtp-source is there: it comes with Postfix");
    assert!(status.success(), "smtp-source works");
    count as f64 / start.elapsed().as_secs_f64()
}

async fn lettre_pool(port: u16, connections: usize, count: usize) -> f64 {
    let pool = lettre::transport::smtp::PoolConfig::new().max_size(u32::try_from(connections).expect("a number"));
    let transport =
        AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous("127.0.0.1").port(port).pool_config(pool).build();
    let body = mail_of(0, SIZE).text().expect("a text").to_owned();
    let message = lettre::Message::builder()
        .from("a@example.com".parse().expect("an address"))
        .to("b@example.org".parse().expect("an address"))
        .subject("Order")
        .body(body)
        .expect("a message");
    let start = Instant::now();
    let sends = futures_util::stream::iter(0..count).map(|_| transport.send(message.clone()));
    let sent = sends.buffer_unordered(connections).filter(|sent| std::future::ready(sent.is_ok())).count().await;
    assert_eq!(sent, count, "each is sent");
    count as f64 / start.elapsed().as_secs_f64()
}
