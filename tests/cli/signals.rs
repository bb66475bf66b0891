//! Stopping, in good order and in haste.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use serde_json::json;

use crate::server::{Answer, Ask, Server};
use crate::tool::{Running, Tool, wait_until};

/// A server that gives its last answer only when it is let, and says when a mail has come so far.
fn holding() -> (Server, Receiver<()>, Sender<()>) {
    let (came, has_come) = channel();
    let (release, released) = channel::<()>();
    let gate = Mutex::new((came, released));
    let server = Server::with(move |ask| {
        if let Ask::Content = ask {
            let gate = gate.lock().unwrap();
            gate.0.send(()).unwrap();
            // When the test is over, nobody is left to hear the answer.
            if gate.1.recv().is_err() {
                return Answer::Close;
            }
        }
        Answer::Yes
    });
    (server, has_come, release)
}

fn work(tool: &Tool, server: &Server) -> Running {
    tool.start(&["work", "--json", "--concurrency", "1", "--poll", "20ms", "--transport", &server.url()])
}

#[test]
fn a_signal_in_mid_send_lets_it_finish_and_begins_no_other() {
    for signal in ["TERM", "INT"] {
        let (server, has_come, release) = holding();
        let tool = Tool::new();
        let (first, second) = (tool.enqueue(&[]), tool.enqueue(&[]));
        let running = work(&tool, &server);
        has_come.recv_timeout(crate::tool::LIMIT).unwrap();
        running.signal(signal);
        wait_until("the signal is heard", || running.said().contains("stopping"));
        release.send(()).unwrap();

        let ran = running.wait();
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let summary: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(summary["sent"], 1);
        let shown = tool.show(&first);
        assert_eq!(shown["state"], "sent");
        assert_eq!(shown["attempts"].as_array().unwrap().len(), 1);
        assert_eq!(shown["attempts"][0]["outcome"], "sent");
        assert_eq!(tool.show(&second)["state"], "pending");
        assert_eq!(server.accepted_count(), 1);
        assert_eq!(tool.stats()["relays"], json!([]), "it has said good-bye");
    }
}

#[test]
fn a_second_signal_waits_no_longer() {
    let (server, has_come, _release) = holding();
    let tool = Tool::new();
    let id = tool.enqueue(&["--hold"]);
    let mut running = work(&tool, &server);
    has_come.recv_timeout(crate::tool::LIMIT).unwrap();
    running.signal("INT");
    wait_until("the first signal is heard", || running.said().contains("stopping"));
    assert!(running.ended().is_none(), "the mail is still being sent");
    running.signal("INT");

    let ran = running.wait();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("waiting no longer"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("end of the grace"), "it was the signal that ended it: {}", ran.stderr);
    let shown = tool.show(&id);
    assert_eq!(shown["state"], "in_doubt", "nobody knows whether it was accepted");
    assert_eq!(shown["attempts"][0]["outcome"], "in_doubt");
    assert_eq!(tool.stats()["leased"], 0, "nothing is left in its hands");
}

#[test]
fn a_relay_is_seen_while_it_works_and_picks_up_what_others_enqueue() {
    let (server, has_come, release) = holding();
    let tool = Tool::new();
    let running = work(&tool, &server);
    wait_until("the relay is seen", || tool.stats()["relays"].as_array().unwrap().len() == 1);
    let id = tool.enqueue(&[]);
    has_come.recv_timeout(crate::tool::LIMIT).unwrap();
    let stats = tool.stats();
    assert_eq!(stats["leased"], 1);
    assert_eq!(tool.show(&id)["state"], "leased");
    let ran = tool.run(&["cancel", &id]);
    assert_eq!((ran.code, ran.stdout), (1, format!("{id} left as it was: leased\n")), "it may be on the wire");
    release.send(()).unwrap();
    wait_until("it is sent", || tool.show(&id)["state"] == "sent");
    running.signal("TERM");
    assert_eq!(running.wait().code, 0);
}

/// RFC 5321 section 4.1.1.10: however the work ends, the connections that are kept are told goodbye.
#[test]
fn the_servers_are_told_goodbye_at_the_end_and_on_a_signal() {
    for drain in [true, false] {
        let (server, spare) = (Server::start(), Server::start());
        let tool = Tool::new();
        for _ in 0..20 {
            tool.enqueue(&[]);
        }
        let transport = format!("round-robin({} {})", server.url(), spare.url());
        let args = ["work", "--concurrency", "4", "--poll", "20ms", "--transport", &transport];
        let running = if drain {
            tool.start(&[&args[..], &["--drain"]].concat())
        } else {
            let running = tool.start(&args);
            wait_until("all is sent", || server.accepted_count() + spare.accepted_count() == 20);
            running.signal("TERM");
            running
        };
        let ran = running.wait();
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        for server in [&server, &spare] {
            let (connections, goodbyes) = server.connections();
            assert!(connections > 0);
            assert_eq!(goodbyes, connections, "drain: {drain}");
        }
    }
}
