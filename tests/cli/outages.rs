//! A transport that can send for nobody costs no mail.

use serde_json::{Value, json};

use crate::server::{Answer, Ask, Server};
use crate::tool::Tool;

#[test]
fn a_wrong_password_pauses_the_transport_and_kills_no_mail() {
    let server = Server::with(|ask| match ask {
        Ask::Password => Answer::Say("535 5.7.8 bad credentials"),
        _ => Answer::Yes,
    });
    let tool = Tool::new();
    for _ in 0..5 {
        tool.enqueue(&[]);
    }
    let url = server.url_with("ada:h0rse");
    let ran = tool.run_with(&[("RUST_LOG", "off"), ("TRANSPORT_URL", &url)], &["work", "--drain", "--json"]);
    assert_eq!(ran.code, 3);
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    assert!(ran.stderr.starts_with("postrider: the transport smtp is paused: "), "{}", ran.stderr);
    assert!(ran.stderr.contains("535") && ran.stderr.contains("pending"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("h0rse"));
    let summary: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&summary["sent"], &summary["dead"]), (&json!(0), &json!(0)));
    assert!(summary["paused"].as_str().unwrap().contains("535"));

    let stats = tool.stats();
    let counts = (&stats["pending"], &stats["dead"], &stats["sent"], &stats["leased"]);
    assert_eq!(counts, (&json!(5), &json!(0), &json!(0), &json!(0)));
    assert!(stats["relays"][0]["paused"].as_str().unwrap().contains("535"), "{stats}");
    assert!(server.offered().is_empty());

    // Logs are another matter, but no place for secrets either. The first five are put off for the length of the pause.
    tool.enqueue(&[]);
    let ran = tool.run_with(&[("RUST_LOG", "trace"), ("TRANSPORT_URL", &url)], &["work", "--drain"]);
    assert!(ran.stderr.contains("535"), "it has tried: {}", ran.stderr);
    assert!(!ran.stderr.contains("h0rse") && !ran.stdout.contains("h0rse"));
    assert!(!ran.stderr.contains("AGFkYQBoMHJzZQ"), "nor in the form in which it travels");

    let works = Server::start();
    tool.drain_until_sent(&works.url_with("ada:h0rse"), 6);
    assert_eq!(works.accepted_count(), 6);
}

#[test]
fn a_server_that_is_not_there_pauses_too() {
    let tool = Tool::new();
    let id = tool.enqueue(&[]);
    // Nothing listens on a port that was given back.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("smtp://127.0.0.1:{port}");
    let ran = tool.run(&["work", "--drain", "--transport", &url]);
    assert_eq!(ran.code, 3);
    assert!(ran.stdout.starts_with("sent 0, retried 0, dead 0, in doubt 0"), "{}", ran.stdout);
    let shown = tool.show(&id);
    assert_eq!(shown["state"], "pending");
    assert!(shown["attempts"].as_array().unwrap().iter().all(|attempt| attempt["scope"] == "transport"));
}

#[test]
fn what_may_have_been_accepted_is_held_on_demand() {
    let server = Server::with(|ask| match ask {
        Ask::Content => Answer::Close,
        _ => Answer::Yes,
    });
    let tool = Tool::new();
    let (held, again) = (tool.enqueue(&["--hold"]), tool.enqueue(&[]));
    // Both calls are under way together; who does not answer may answer nobody, so that the pass ends with a pause.
    let pass = tool.run(&["work", "--drain", "--json", "--transport", &server.url()]);
    assert_eq!(pass.code, 3, "{}", pass.stderr);
    let summary: Value = serde_json::from_str(&pass.stdout).unwrap();
    assert_eq!((&summary["in_doubt"], &summary["retried"]), (&json!(1), &json!(1)));
    for (id, state) in [(&held, "in_doubt"), (&again, "pending")] {
        let shown = tool.show(id);
        assert_eq!(shown["state"], state);
        assert_eq!(shown["attempts"][0]["outcome"], "in_doubt");
    }
    assert_eq!(tool.list(&["--state", "in_doubt"]).len(), 1);
}
