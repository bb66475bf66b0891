//! Stopping a relay by signals.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use serde_json::json;

use crate::smtp_server::{Answer, SmtpServer, Step};
use crate::tool::{Running, Tool, wait_until};

/// A server that holds its reply to a mail until it is released. The receiver signals that a mail has arrived.
fn holding_server() -> (SmtpServer, Receiver<()>, Sender<()>) {
    let (arrived, has_arrived) = channel();
    let (release, released) = channel::<()>();
    let gate = Mutex::new((arrived, released));
    let server = SmtpServer::with_script(move |step| {
        if let Step::Content = step {
            let gate = gate.lock().unwrap();
            gate.0.send(()).unwrap();
            // The test is over and has dropped the sender.
            if gate.1.recv().is_err() {
                return Answer::Close;
            }
        }
        Answer::Accept
    });
    (server, has_arrived, release)
}

fn work(tool: &Tool, server: &SmtpServer) -> Running {
    tool.start(&["work", "--json", "--concurrency", "1", "--poll", "20ms", "--transport", &server.url()])
}

#[test]
fn the_first_signal_finishes_the_send_and_starts_no_other() {
    for signal in ["TERM", "INT"] {
        let (server, has_arrived, release) = holding_server();
        let tool = Tool::new();
        let (first, second) = (tool.enqueue(&[]), tool.enqueue(&[]));
        let running = work(&tool, &server);
        has_arrived.recv_timeout(crate::tool::TIMEOUT).unwrap();
        running.signal(signal);
        wait_until("the signal is handled", || running.stderr().contains("stopping"));
        release.send(()).unwrap();

        let output = running.wait();
        assert_eq!(output.code, 0, "{}", output.stderr);
        let summary: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
        assert_eq!(summary["sent"], 1);
        let shown = tool.show(&first);
        assert_eq!(shown["state"], "sent");
        assert_eq!(shown["attempts"].as_array().unwrap().len(), 1);
        assert_eq!(shown["attempts"][0]["outcome"], "sent");
        assert_eq!(tool.show(&second)["state"], "pending");
        assert_eq!(server.accepted_count(), 1);
        assert_eq!(tool.stats()["relays"], json!([]), "a stopped relay is still listed");
    }
}

#[test]
fn the_second_signal_ends_the_wait() {
    let (server, has_arrived, _release) = holding_server();
    let tool = Tool::new();
    let id = tool.enqueue(&["--hold"]);
    let mut running = work(&tool, &server);
    has_arrived.recv_timeout(crate::tool::TIMEOUT).unwrap();
    running.signal("INT");
    wait_until("the first signal is handled", || running.stderr().contains("stopping"));
    assert!(running.try_wait().is_none(), "the relay did not wait for the send");
    running.signal("INT");

    let output = running.wait();
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert!(output.stderr.contains("not waiting any longer"), "{}", output.stderr);
    assert!(!output.stderr.contains("grace"), "the grace ended the wait, not the signal: {}", output.stderr);
    let shown = tool.show(&id);
    assert_eq!(shown["state"], "in_doubt", "the server gave no reply");
    assert_eq!(shown["attempts"][0]["outcome"], "in_doubt");
    assert_eq!(tool.stats()["leased"], 0, "a stopped relay still has a lease");
}

#[test]
fn a_running_relay_is_listed_and_sends_mail_of_other_processes() {
    let (server, has_arrived, release) = holding_server();
    let tool = Tool::new();
    let running = work(&tool, &server);
    wait_until("the relay is listed", || tool.stats()["relays"].as_array().unwrap().len() == 1);
    let id = tool.enqueue(&[]);
    has_arrived.recv_timeout(crate::tool::TIMEOUT).unwrap();
    let stats = tool.stats();
    assert_eq!(stats["leased"], 1);
    assert_eq!(tool.show(&id)["state"], "leased");
    let output = tool.run(&["cancel", &id]);
    assert_eq!(
        (output.code, output.stdout),
        (1, format!("{id} unchanged: leased\n")),
        "a leased delivery cannot be cancelled"
    );
    release.send(()).unwrap();
    wait_until("the mail is sent", || tool.show(&id)["state"] == "sent");
    running.signal("TERM");
    assert_eq!(running.wait().code, 0);
}

/// RFC 5321 section 4.1.1.10: a client sends QUIT before it closes a connection.
#[test]
fn idle_connections_end_with_quit() {
    for drain in [true, false] {
        let (server, other) = (SmtpServer::start(), SmtpServer::start());
        let tool = Tool::new();
        for _ in 0..20 {
            tool.enqueue(&[]);
        }
        let transport = format!("round-robin({} {})", server.url(), other.url());
        let args = ["work", "--concurrency", "4", "--poll", "20ms", "--transport", &transport];
        let running = if drain {
            tool.start(&[&args[..], &["--drain"]].concat())
        } else {
            let running = tool.start(&args);
            wait_until("all mail is sent", || server.accepted_count() + other.accepted_count() == 20);
            running.signal("TERM");
            running
        };
        let output = running.wait();
        assert_eq!(output.code, 0, "{}", output.stderr);
        for server in [&server, &other] {
            let connections = server.connections();
            assert!(connections.opened > 0);
            assert_eq!(connections.quit, connections.opened, "drain: {drain}");
        }
    }
}
