//! The rate of mail over SMTP, compared with `smtp-source` (the fastest known client) and with the pool of lettre.
//!
//! All send the same bytes to one server. The time includes opening the connections.

#![allow(clippy::expect_used, clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its figures")]

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt;
use lettre::address::Envelope;
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use postrider::smtp::{Smtp, Tls};
use postrider::transport::Outgoing;
use postrider::{DeliveryId, MemoryStore, Outbox, Store};
use postrider_transport::Mime;
use support::figures::{Figures, write_json};
use support::proxy::Proxy;
use support::{Options, databases, mail_of};
use tempfile::NamedTempFile;

/// The size of a mail's text, in bytes.
const SIZE: usize = 10 * 1024;

#[tokio::main]
async fn main() {
    let options = Options::read();
    let sink = Sink::start();
    let octets = Mime::new()
        .render(&Outgoing::new(DeliveryId::new(), SystemTime::now(), mail_of(0, SIZE)))
        .expect("the mail can be written");
    println!("\nmails of {} bytes on the wire", octets.len());
    let mut tables = BTreeMap::new();
    for delay in [0, 20] {
        let proxy = Proxy::start(sink.port, Duration::from_millis(delay) / 2).await;
        let port = if delay == 0 { sink.port } else { proxy.port() };
        for connections in [1, 8, 32] {
            // Enough mails for a second or more. lettre is slow even without a round trip.
            let count = if delay == 0 { options.count.unwrap_or(15_000) } else { 40 * connections };
            let few = 30 * connections;
            let title = format!("{delay} ms of round trip, {connections} connections");
            let wants = |who: &str| options.wants(&format!("{who} ×{connections} {delay} ms"));
            let mut rates = Figures::default();
            for _ in 0..options.rounds {
                if wants("relay over memory") {
                    rates.add("relay over memory", relay(MemoryStore::new(), port, connections, count).await);
                }
                if wants("relay in one thread") {
                    rates.add("relay in one thread", relay_in_one_thread(port, connections, count).await);
                }
                if wants("relay over PostgreSQL") && delay == 0 {
                    rates.add("relay over PostgreSQL", relay_over_postgres(port, connections, count).await);
                }
                if wants("smtp-source") {
                    rates.add("smtp-source", smtp_source(&octets, port, connections, count));
                }
                if wants("lettre") {
                    rates.add("lettre", lettre_pool(&octets, port, connections, few).await);
                }
            }
            if !rates.is_empty() {
                rates.print_with_bases(&title, "mails/s", &["smtp-source", "lettre", "relay over memory"]);
                tables.insert(title, rates);
            }
        }
    }
    if let Some(path) = &options.json {
        write_json(path, &tables);
    }
}

/// `smtp-sink` of Postfix, which accepts all mail and stores none.
struct Sink {
    port: u16,
    child: Child,
}

impl Sink {
    fn start() -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        drop(listener);
        // The sink dies with this process. It refuses to run as root. If it changed its user itself, it would lose the death signal.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if std::fs::metadata("/proc/self").expect("/proc is readable").uid() == 0 {
            command.args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]);
        }
        let child = command
            .args(["/usr/sbin/smtp-sink", &format!("127.0.0.1:{port}"), "1024"])
            .stdout(Stdio::null())
            .spawn()
            .expect("setpriv is there: it comes with util-linux");
        let mut sink = Self { port, child };
        let start = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = sink.child.try_wait().expect("the state of the child");
            assert!(ended.is_none(), "smtp-sink, which comes with Postfix, does not run");
            assert!(start.elapsed() < Duration::from_secs(10), "smtp-sink does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        sink
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A relay on a single-threaded runtime, which saves wake-ups of other threads.
async fn relay_in_one_thread(port: u16, connections: usize, count: usize) -> f64 {
    let thread = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(relay(MemoryStore::new(), port, connections, count))
    };
    tokio::task::spawn_blocking(thread).await.expect("the drain succeeds")
}

async fn relay_over_postgres(port: u16, connections: usize, count: usize) -> f64 {
    relay(databases::pg_store(10).await, port, connections, count).await
}

/// The rate from an outbox to the server.
async fn relay<S: Store>(store: S, port: u16, connections: usize, count: usize) -> f64 {
    let smtp = Smtp::builder("127.0.0.1").port(port).tls(Tls::None).max_connections(connections);
    let outbox = Outbox::new(store, smtp.max_messages_per_connection(u32::MAX).build().expect("a transport"));
    for first in (0..count).step_by(1000) {
        let mails = (first..count.min(first + 1000)).map(|number| mail_of(number, SIZE));
        outbox.enqueue_all(mails).await.expect("the mails are enqueued");
    }
    let start = Instant::now();
    // More permits than connections, so that no connection waits for the database.
    let summary = outbox.relay().concurrency(connections + 256).drain().await.expect("the drain succeeds");
    let took = start.elapsed();
    assert_eq!(summary.sent, count as u64, "a mail was not sent");
    count as f64 / took.as_secs_f64()
}

fn smtp_source(octets: &[u8], port: u16, connections: usize, count: usize) -> f64 {
    // smtp-source adds the CRs.
    let mail = NamedTempFile::new().expect("a file");
    let text = String::from_utf8(octets.to_vec()).expect("a text").replace("\r\n", "\n");
    std::fs::write(mail.path(), text).expect("it can be written");
    let start = Instant::now();
    let status = Command::new("/usr/sbin/smtp-source")
        .args(["-d", "-s", &connections.to_string(), "-m", &count.to_string(), "-F"])
        .arg(mail.path())
        .args(["-f", "orders@shop.example", "-t", "customer-0@example.org", &format!("127.0.0.1:{port}")])
        .status()
        .expect("smtp-source is there: it comes with Postfix");
    assert!(status.success(), "smtp-source works");
    count as f64 / start.elapsed().as_secs_f64()
}

/// The mail is rendered before the measurement, which favours lettre.
async fn lettre_pool(octets: &[u8], port: u16, connections: usize, count: usize) -> f64 {
    let pool = lettre::transport::smtp::PoolConfig::new().max_size(u32::try_from(connections).expect("a number"));
    let transport =
        AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous("127.0.0.1").port(port).pool_config(pool).build();
    let from = "orders@shop.example".parse().expect("an address");
    let to = "customer-0@example.org".parse().expect("an address");
    let envelope = Envelope::new(Some(from), vec![to]).expect("an envelope");
    let start = Instant::now();
    let sends = futures_util::stream::iter(0..count).map(|_| transport.send_raw(&envelope, octets));
    let sent = sends.buffer_unordered(connections).filter(|sent| std::future::ready(sent.is_ok())).count().await;
    assert_eq!(sent, count, "a mail was not sent");
    count as f64 / start.elapsed().as_secs_f64()
}
