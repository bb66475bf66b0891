//! Combined transports on the command line.

use crate::smtp_server::{Answer, SmtpServer, Step};
use crate::tool::Tool;

/// A server that refuses every login.
fn refusing_logins() -> SmtpServer {
    SmtpServer::with_script(|step| match step {
        Step::Auth => Answer::Refuse("535 5.7.8 bad credentials"),
        _ => Answer::Accept,
    })
}

#[test]
fn failover_sends_by_the_next_transport() {
    let (bad, good) = (refusing_logins(), SmtpServer::start());
    let tool = Tool::new();
    let ids: Vec<_> = (0..3).map(|_| tool.enqueue(&[])).collect();
    let summary = tool.drain(&format!("failover( {} {} )", bad.url_with("ada:h0rse"), good.url()));
    assert_eq!((&summary["sent"], &summary["paused"]), (&3.into(), &serde_json::Value::Null));
    assert_eq!((bad.accepted_count(), good.accepted_count()), (0, 3));
    assert!(ids.iter().all(|id| tool.show(id)["attempts"][0]["transport"] == "failover/smtp#2"));
    // The stats show the failing transport although all mail was sent.
    let stats = tool.stats();
    let paused = stats["relays"][0]["paused"].as_str().unwrap();
    assert!(paused.starts_with("failover/smtp: ") && paused.contains("535"), "{paused}");
    assert!(!paused.contains("smtp#2") && !paused.contains("h0rse"), "{paused}");
}

#[test]
fn if_all_fail_the_mail_stays_pending_and_the_error_names_each() {
    let tool = Tool::new();
    tool.enqueue(&[]);
    let (one, two) = (refusing_logins(), refusing_logins());
    let url = format!("failover({} {})", one.url_with("ada:h0rse"), two.url_with("ada:h0rse"));
    let output = tool.run(&["work", "--drain", "--attempts", "1", "--transport", &url]);
    assert_eq!(output.code, 3, "{}", output.stderr);
    let line = output.stderr.lines().last().unwrap();
    assert!(line.starts_with("postrider: the transport failover is paused: "), "{line}");
    assert!(line.contains("smtp: ") && line.contains("smtp#2: ") && line.contains("535"), "{line}");
    assert!(!output.stderr.contains("h0rse") && !tool.ok(&["stats"]).contains("h0rse"));
    assert_eq!(tool.stats()["pending"], 1);
    // A nested call with a single URL.
    let works = SmtpServer::start();
    tool.drain_until_sent(&format!("timeout(1m timeout(50s {}))", works.url()), 1);
}

#[test]
fn round_robin_sends_by_weight() {
    let (large, small, backup) = (SmtpServer::start(), SmtpServer::start(), SmtpServer::start());
    let tool = Tool::new();
    let args = ["enqueue", "--from", "a@example.com", "--to", "b@example.com", "--text", "x", "--count", "40"];
    tool.ok(&args);
    let url = format!("round-robin(3*{} {} 0*{})", large.url(), small.url(), backup.url());
    assert_eq!(tool.drain(&url)["sent"], 40);
    let counts = (large.accepted_count(), small.accepted_count(), backup.accepted_count());
    assert_eq!(counts, (30, 10, 0));
}

#[test]
fn redirect_sends_to_no_other_address() {
    let server = SmtpServer::start();
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
fn a_rate_limit_delays_mail_and_loses_none() {
    let server = SmtpServer::start();
    let tool = Tool::new();
    for _ in 0..3 {
        tool.enqueue(&[]);
    }
    let start = std::time::Instant::now();
    assert_eq!(tool.drain(&format!("rate-limit(10/1s {})", server.url()))["sent"], 3);
    // Two waits of 100 ms each.
    assert!(start.elapsed() >= std::time::Duration::from_millis(200));
}
