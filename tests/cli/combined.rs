//! Transports made of others, on the command line.

use crate::server::{Answer, Ask, Server};
use crate::tool::Tool;

/// A server that takes nobody's password.
fn locked() -> Server {
    Server::with(|ask| match ask {
        Ask::Password => Answer::Say("535 5.7.8 bad credentials"),
        _ => Answer::Yes,
    })
}

#[test]
fn where_one_fails_the_next_one_sends() {
    let (bad, good) = (locked(), Server::start());
    let tool = Tool::new();
    let ids: Vec<_> = (0..3).map(|_| tool.enqueue(&[])).collect();
    let summary = tool.drain(&format!("failover( {} {} )", bad.url_with("ada:h0rse"), good.url()));
    assert_eq!((&summary["sent"], &summary["paused"]), (&3.into(), &serde_json::Value::Null));
    assert_eq!((bad.accepted_count(), good.accepted_count()), (0, 3));
    assert!(ids.iter().all(|id| tool.show(id)["attempts"][0]["transport"] == "failover/smtp#2"));
    // That the first one takes no mail must not go unseen.
    let stats = tool.stats();
    let paused = stats["relays"][0]["paused"].as_str().unwrap();
    assert!(paused.starts_with("failover/smtp: ") && paused.contains("535"), "{paused}");
    assert!(!paused.contains("smtp#2") && !paused.contains("h0rse"), "{paused}");
}

#[test]
fn where_all_fail_all_is_kept_and_both_are_named() {
    let tool = Tool::new();
    tool.enqueue(&[]);
    let (one, two) = (locked(), locked());
    let url = format!("failover({} {})", one.url_with("ada:h0rse"), two.url_with("ada:h0rse"));
    let ran = tool.run(&["work", "--drain", "--attempts", "1", "--transport", &url]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    let said = ran.stderr.lines().last().unwrap();
    assert!(said.starts_with("postrider: the transport failover is paused: "), "{said}");
    assert!(said.contains("smtp: ") && said.contains("smtp#2: ") && said.contains("535"), "{said}");
    assert!(!ran.stderr.contains("h0rse") && !tool.ok(&["stats"]).contains("h0rse"));
    assert_eq!(tool.stats()["pending"], 1);
    // Alone, in parentheses within parentheses.
    let works = Server::start();
    tool.drain_until_sent(&format!("timeout(1m timeout(50s {}))", works.url()), 1);
}

#[test]
fn each_has_its_share() {
    let (large, small, spare) = (Server::start(), Server::start(), Server::start());
    let tool = Tool::new();
    let args = ["enqueue", "--from", "a@example.com", "--to", "b@example.com", "--text", "x", "--count", "40"];
    tool.ok(&args);
    let url = format!("round-robin(3*{} {} 0*{})", large.url(), small.url(), spare.url());
    assert_eq!(tool.drain(&url)["sent"], 40);
    let each = (large.accepted_count(), small.accepted_count(), spare.accepted_count());
    assert_eq!(each, (30, 10, 0));
}

#[test]
fn staging_mails_nobody_else() {
    let server = Server::start();
    let tool = Tool::new();
    tool.enqueue(&["--cc", "carol@example.com"]);
    assert_eq!(tool.drain(&format!("redirect(staging@example.com {})", server.url()))["sent"], 1);
    let mail = &server.accepted()[0];
    assert_eq!(mail.to, ["staging@example.com"]);
    let originals = mail.header("X-Postrider-Original-To").unwrap();
    assert!(originals.contains("bob@example.com") && originals.contains("carol@example.com"), "{originals}");
}

#[test]
#[cfg(feature = "rate-limit")]
fn a_limit_lets_all_pass_in_the_end() {
    let server = Server::start();
    let tool = Tool::new();
    for _ in 0..3 {
        tool.enqueue(&[]);
    }
    let start = std::time::Instant::now();
    assert_eq!(tool.drain(&format!("rate-limit(10/1s {})", server.url()))["sent"], 3);
    // Two waits of a tenth of a second.
    assert!(start.elapsed() >= std::time::Duration::from_millis(200));
}
