//! The endpoint during an outage of the database.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::database_servers::postgres;
use crate::served::Served;
use crate::smtp_server::SmtpServer;
use crate::tool::{Tool, wait_until, wait_within};

/// A network between the tool and its database, which can be cut.
struct Network {
    port: u16,
    is_cut: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Network {
    fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let network = Self { port, is_cut: Arc::default(), streams: Arc::default() };
        let (is_cut, streams) = (Arc::clone(&network.is_cut), Arc::clone(&network.streams));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if is_cut.load(Ordering::SeqCst) {
                    continue;
                }
                let server = TcpStream::connect(server).unwrap();
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
                streams.lock().unwrap().extend([client, server]);
            }
        });
        network
    }

    fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn mend(&self) {
        self.is_cut.store(false, Ordering::SeqCst);
    }
}

/// During the outage, health reports it, the metrics are still served, and the gauges of the outbox keep their values and show their age.
/// After it, all recovers.
#[test]
#[ignore = "needs PostgreSQL: run scripts/test"]
fn an_outage_of_the_database_is_shown_and_recovers() {
    let (direct, schema) = postgres();
    direct.ok(&["migrate"]);
    let (head, rest) = direct.database_url().rsplit_once(':').unwrap();
    let (port, name) = rest.split_once('/').unwrap();
    let network = Network::to(SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap())));
    let url = format!("{head}:{}/{name}", network.port);
    let tool = Tool::with_env(vec![("DATABASE_URL", url), ("POSTRIDER_SCHEMA", schema)]);
    direct.enqueue(&["--send-at", "2099-01-01T00:00:00Z"]);
    let served = Served::start(&tool, &SmtpServer::start().url(), &[]);
    let pending = [("postrider_state", "pending")];
    wait_until("the outbox is read", || served.metrics().find("postrider_outbox_deliveries", &pending) == Some(1.0));
    assert_eq!(served.health().0, 200);
    let refreshed = || served.metrics().value("postrider_outbox_refresh_timestamp_seconds", &[]);
    assert_eq!(served.metrics().value("postrider_relay_database_available", &[]), 1.0);

    network.cut();
    // The pool of the database tries for half a minute before it gives up.
    wait_within(std::time::Duration::from_secs(180), "health shows the outage", || served.health().0 == 503);
    let (_, health) = served.health();
    assert!(health["database_unavailable_s"].as_f64().is_some() && health["state"] == "running", "{health}");
    let during = served.metrics();
    assert_eq!(during.value("postrider_relay_database_available", &[]), 0.0);
    assert_eq!(during.value("postrider_database_outages_total", &[]), 1.0);
    assert_eq!(during.value("postrider_outbox_deliveries", &pending), 1.0);
    let at = refreshed();
    let since = |health: &serde_json::Value| health["database_unavailable_s"].as_f64().unwrap();
    wait_until("the outage goes on", || since(&served.health().1) > since(&health) + 2.0);
    assert_eq!(refreshed(), at, "the gauges of the outbox look new");

    network.mend();
    wait_within(std::time::Duration::from_secs(180), "the outage is over", || served.health().0 == 200);
    wait_until("the outbox is read again", || refreshed() > at);
    assert_eq!(served.metrics().value("postrider_relay_database_available", &[]), 1.0);
    served.running.signal("TERM");
    assert_eq!(served.running.wait().code, 0);
}
