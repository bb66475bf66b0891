//! While a transport is paused, no mail is lost.

use serde_json::{Value, json};

use crate::smtp_server::{Answer, SmtpServer, Step};
use crate::tool::Tool;

#[test]
fn a_wrong_password_pauses_the_transport_and_keeps_the_mail_pending() {
    let server = SmtpServer::with_script(|step| match step {
        Step::Auth => Answer::Refuse("535 5.7.8 bad credentials"),
        _ => Answer::Accept,
    });
    let tool = Tool::new();
    for _ in 0..5 {
        tool.enqueue(&[]);
    }
    let url = server.url_with("ada:h0rse");
    let output = tool.run_with_env(&[("RUST_LOG", "off"), ("TRANSPORT_URL", &url)], &["work", "--drain", "--json"]);
    assert_eq!(output.code, 3);
    assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
    assert!(output.stderr.starts_with("postrider: the transport smtp is paused: "), "{}", output.stderr);
    assert!(output.stderr.contains("535") && output.stderr.contains("pending"), "{}", output.stderr);
    assert!(!output.stderr.contains("h0rse"));
    let summary: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!((&summary["sent"], &summary["dead"]), (&json!(0), &json!(0)));
    assert!(summary["paused"].as_str().unwrap().contains("535"));

    let stats = tool.stats();
    let counts = (&stats["pending"], &stats["dead"], &stats["sent"], &stats["leased"]);
    assert_eq!(counts, (&json!(5), &json!(0), &json!(0), &json!(0)));
    assert!(stats["relays"][0]["paused"].as_str().unwrap().contains("535"), "{stats}");
    assert!(stats["relays"][0]["paused_for_s"].is_number(), "{stats}");
    assert!(server.received().is_empty());

    // The logs contain no secret. The first five deliveries are due after the pause, so this run sends a sixth.
    tool.enqueue(&[]);
    let output = tool.run_with_env(&[("RUST_LOG", "trace"), ("TRANSPORT_URL", &url)], &["work", "--drain"]);
    assert!(output.stderr.contains("535"), "no attempt was made: {}", output.stderr);
    assert!(!output.stderr.contains("h0rse") && !output.stdout.contains("h0rse"));
    assert!(!output.stderr.contains("AGFkYQBoMHJzZQ"), "the password is in the logs in base64");

    let working = SmtpServer::start();
    tool.drain_until_sent(&working.url_with("ada:h0rse"), 6);
    assert_eq!(working.accepted_count(), 6);
}

#[test]
fn an_unreachable_server_pauses_the_transport() {
    let tool = Tool::new();
    let id = tool.enqueue(&[]);
    // The listener is dropped, so nothing listens on its port.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("smtp://127.0.0.1:{port}");
    let output = tool.run(&["work", "--drain", "--transport", &url]);
    assert_eq!(output.code, 3);
    assert!(output.stdout.starts_with("sent 0, retried 0, dead 0, in doubt 0"), "{}", output.stdout);
    let shown = tool.show(&id);
    assert_eq!(shown["state"], "pending");
    assert!(shown["attempts"].as_array().unwrap().iter().all(|attempt| attempt["scope"] == "transport"));
}

#[test]
fn a_mail_in_doubt_is_held_if_requested() {
    let server = SmtpServer::with_script(|step| match step {
        Step::Content => Answer::Close,
        _ => Answer::Accept,
    });
    let tool = Tool::new();
    let (held, again) = (tool.enqueue(&["--hold"]), tool.enqueue(&[]));
    // Both calls run at once. A server that does not answer pauses the transport, so the run ends with a pause.
    let output = tool.run(&["work", "--drain", "--json", "--transport", &server.url()]);
    assert_eq!(output.code, 3, "{}", output.stderr);
    let summary: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!((&summary["in_doubt"], &summary["retried"]), (&json!(1), &json!(1)));
    for (id, state) in [(&held, "in_doubt"), (&again, "pending")] {
        let shown = tool.show(id);
        assert_eq!(shown["state"], state);
        assert_eq!(shown["attempts"][0]["outcome"], "in_doubt");
    }
    assert_eq!(tool.list(&["--state", "in_doubt"]).len(), 1);
}
