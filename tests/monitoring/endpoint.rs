//! The endpoint of `work --metrics`.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::served::{Served, request};
use crate::smtp_server::{Answer, SmtpServer, Step};
use crate::tool::{Tool, wait_until};

#[test]
fn the_endpoint_serves_metrics_and_health_until_the_relay_stops() {
    let server = SmtpServer::start();
    let tool = Tool::new();
    tool.enqueue(&[]);
    let served = Served::start(&tool, &server.url(), &[]);
    let sent = [("postrider_result", "sent")];
    wait_until("the mail is counted", || served.metrics().value("postrider_deliveries_settled_total", &sent) == 1.0);
    let answer = served.get("/metrics");
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
    wait_until("the outbox is read again", || {
        served.metrics().value("postrider_outbox_deliveries", &[("postrider_state", "sent")]) == 1.0
    });

    let (status, health) = served.health();
    assert_eq!((status, &health["state"], &health["healthy"]), (200, &"running".into(), &true.into()), "{health}");
    assert_eq!((&health["in_flight"], &health["paused"]), (&0.into(), &Value::Array(vec![])));
    assert!(health["database_answered_s_ago"].as_f64().unwrap() < 60.0);
    assert_eq!(health["database_unavailable_s"], Value::Null);
    assert_eq!(health["id"], tool.stats()["relays"][0]["id"]);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(health["host"], host.trim());

    served.running.signal("TERM");
    let output = served.running.wait();
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert!(request(&served.address, "GET", "/metrics").is_err(), "the endpoint is still there");
}

#[test]
fn a_stopping_relay_is_unhealthy_and_still_shown() {
    let holding = Arc::new(AtomicBool::new(true));
    let hold = Arc::clone(&holding);
    let server = SmtpServer::with_script(move |step| {
        while matches!(step, Step::Content) && hold.load(Ordering::SeqCst) {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Answer::Accept
    });
    let tool = Tool::new();
    tool.enqueue(&[]);
    let served = Served::start(&tool, &server.url(), &[]);
    wait_until("the mail is on its way", || server.received().len() == 1);
    assert_eq!(served.metrics().value("postrider_relay_in_flight", &[]), 1.0);
    served.running.signal("TERM");
    wait_until("the relay stops", || served.health().0 == 503);
    let (_, health) = served.health();
    assert_eq!((&health["state"], &health["in_flight"]), (&"stopping".into(), &1.into()));
    assert_eq!(served.metrics().value("postrider_relay_running", &[]), 0.0);
    holding.store(false, Ordering::SeqCst);
    let output = served.running.wait();
    assert_eq!((output.code, server.accepted_count()), (0, 1), "{}", output.stderr);
}

#[test]
fn a_refusal_is_shown_without_its_text_in_the_metrics() {
    let server = SmtpServer::with_script(|step| match step {
        Step::Auth => Answer::Refuse("535 5.7.8 bad credentials for ada@example.com"),
        _ => Answer::Accept,
    });
    let tool = Tool::new();
    tool.enqueue(&[]);
    let served = Served::start(&tool, &server.url_with("ada:h0rse"), &[]);
    let paused = [("messaging_system", "smtp")];
    wait_until("the pause is shown", || {
        served.metrics().find("postrider_relay_transport_paused", &paused) == Some(1.0)
    });
    let (status, health) = served.health();
    assert_eq!(status, 200, "a restart does not help: {health}");
    let reason = health["paused"][0].as_str().unwrap();
    assert!(health["paused_for_s"].is_number(), "{health}");
    assert!(reason.starts_with("smtp: ") && reason.contains("535"), "{reason}");
    let text = served.text() + &served.get("/healthz").body;
    for secret in ["h0rse", "ada@example.com", "bob@example.com"] {
        assert!(!text.contains(secret), "{secret} is shown:\n{text}");
    }
    assert!(!served.text().contains("bad credentials"));
}

/// A pause on purpose is healthy, and says who ordered it and why.
#[test]
fn a_pause_by_an_operator_is_shown_and_healthy() {
    let server = SmtpServer::start();
    let tool = Tool::new();
    let served = Served::start(&tool, &server.url(), &["--poll", "50ms"]);
    assert_eq!(served.health().1["paused_by_operator"], Value::Array(vec![]));
    tool.ok(&["pause", "--all", "--by", "ada", "--note", "wrong price"]);
    tool.ok(&["pause", "--sender", "shop@example.com", "--by", "bob@example.org"]);
    let shown = |health: &Value| health["paused_by_operator"].as_array().unwrap().len();
    wait_until("the pauses are shown", || shown(&served.health().1) == 2);
    let (status, health) = served.health();
    assert_eq!((status, &health["healthy"]), (200, &true.into()), "{health}");
    assert_eq!(health["paused_by_operator"][0], "outbox: paused by ada: wrong price");
    assert!(health["paused_by_operator"][1].as_str().unwrap().starts_with("sender "), "{health}");
    assert_eq!((&health["paused"], &health["paused_senders"]), (&Value::Array(vec![]), &0.into()));
    let text = served.get("/healthz").body;
    assert!(!text.contains("shop@example.com") && !text.contains("bob@example.org"), "{text}");
    tool.ok(&["resume", "--all"]);
    tool.ok(&["resume", "--sender", "shop@example.com"]);
    wait_until("no pause is shown", || shown(&served.health().1) == 0);
}

/// Whatever a stranger sends gets an answer or is dropped, and the relay goes on.
#[test]
fn other_requests_are_refused_and_silent_clients_do_not_block() {
    let server = SmtpServer::start();
    let tool = Tool::new();
    let served = Served::start(&tool, &server.url(), &[]);
    for (method, path, status) in [
        ("GET", "/", 404),
        ("GET", "/metrics/", 404),
        ("GET", "/metrics/../healthz", 404),
        ("GET", "//metrics", 404),
        ("POST", "/metrics", 405),
        ("DELETE", "/healthz", 405),
        ("GET", "/metrics?name=x", 200),
    ] {
        let answer = request(&served.address, method, path).unwrap();
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
    }
    let head = request(&served.address, "HEAD", "/metrics").unwrap();
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert!(request(&served.address, "BREW", "/metrics").unwrap().status == 405);

    let long = format!("GET /{} HTTP/1.0\r\n\r\n", "x".repeat(1 << 20));
    for hostile in ["\0\0\0\0\r\n\r\n", "GET", "GET /metrics HTTP/9.9\r\n\r\n", "GET /metrics\r\nX", &long] {
        let mut stream = TcpStream::connect(&served.address).unwrap();
        // The server may close the connection before it has read everything.
        let _ = stream.write_all(hostile.as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{hostile:.40}");
    }
    // More clients than the endpoint serves at once say nothing.
    let silent: Vec<_> = (0..200).map(|_| TcpStream::connect(&served.address).unwrap()).collect();
    tool.enqueue(&[]);
    wait_until("the mail is sent", || server.accepted_count() == 1);
    assert_eq!(served.get("/healthz").status, 200);
    drop(silent);
}

#[test]
fn an_address_that_is_taken_is_an_error_before_anything_is_sent() {
    let server = SmtpServer::start();
    let tool = Tool::new();
    tool.enqueue(&[]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = tool.run(&["work", "--transport", &server.url(), "--metrics", &address]);
    assert_eq!(output.code, 1);
    let expected = format!("postrider: --metrics cannot listen on {address}: ");
    assert!(output.stderr.starts_with(&expected), "{}", output.stderr);
    assert_eq!((output.stderr.lines().count(), server.accepted_count()), (1, 0));
    for bad in ["9464", "localhost", "127.0.0.1", "127.0.0.1:99999"] {
        assert_eq!(tool.run(&["work", "--transport", &server.url(), "--metrics", bad]).code, 2, "{bad}");
    }
}
