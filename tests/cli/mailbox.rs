//! The transport for development, and the checks at enqueueing.

use serde_json::json;

use crate::smtp_server::SmtpServer;
use crate::tool::Tool;

#[test]
fn a_mailbox_accepts_all_mail_and_says_that_it_sends_nothing() {
    let tool = Tool::new();
    let (id, refused) = (tool.enqueue(&[]), tool.enqueue(&["--to", "ada@refuse.invalid"]));
    let output = tool.run_with_env(&[("RUST_LOG", "off")], &["work", "--drain", "--transport", "mailbox:"]);
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert!(output.stdout.starts_with("sent 1, retried 0, dead 1"), "{}", output.stdout);
    assert_eq!(output.stderr, "postrider: the transport mailbox: sends no mail; it is for development\n");
    let shown = tool.show(&id);
    assert_eq!((&shown["state"], &shown["attempts"][0]["transport"]), (&json!("sent"), &json!("mailbox")));
    assert!(shown["attempts"][0]["reply"].as_str().unwrap().contains("nothing was sent"), "{shown}");
    assert_eq!(tool.show(&refused)["state"], "dead");
}

/// A mailbox can stand wherever a transport can.
#[test]
fn a_mailbox_can_be_a_part_of_a_combination() {
    let server = SmtpServer::start();
    let tool = Tool::new();
    let id = tool.enqueue(&[]);
    let combined = format!("failover(mailbox:?check_as=smtp {})", server.url());
    let output = tool.run(&["work", "--drain", "--transport", &combined]);
    assert_eq!((output.code, server.accepted_count()), (0, 0), "{}", output.stderr);
    assert_eq!(tool.show(&id)["attempts"][0]["transport"], "failover/mailbox");
}

#[test]
fn a_wrong_mailbox_url_is_an_error_in_one_line() {
    let tool = Tool::new();
    for (url, why) in [
        ("mailbox:?check_as=h0rse", "can check as"),
        ("mailbox:?check=smtp", "unknown option"),
        ("mailbox://ada:h0rse@mail.example.com", "no host"),
        ("mailbox", "no known scheme"),
    ] {
        let output = tool.run(&["work", "--drain", "--transport", url]);
        assert_eq!((output.code, output.stderr.lines().count()), (2, 1), "{url}: {}", output.stderr);
        assert!(output.stderr.contains(why) && !output.stderr.contains("h0rse"), "{url}: {}", output.stderr);
    }
}

#[test]
fn enqueue_refuses_what_the_named_transport_cannot_carry() {
    let tool = Tool::new();
    let mail = ["enqueue", "--from", "ada@example.com", "--to", "bob@example.com", "--text", "Hello!"];
    // An attached message is sent as it is, and no line of a message can have a NUL (RFC 5321 section 4.5.2, RFC 2045 section 2.7).
    tool.file("a.eml", "Subject: a\r\n\r\n\0");
    let unsupported = [&mail[..], &["--attach", "a.eml"]].concat();
    let with_option = [&unsupported[..], &["--check-as", "smtp"]].concat();
    let from_environment = tool.run_with_env(&[("POSTRIDER_CHECK_AS", "smtp")], &unsupported);
    for output in [tool.run(&with_option), from_environment] {
        assert_eq!((output.code, output.stderr.lines().count()), (2, 1), "{}", output.stderr);
        assert!(output.stderr.contains("the transport cannot carry this message"), "{}", output.stderr);
    }
    let unknown = tool.run(&[&mail[..], &["--check-as", "smtps://ada:h0rse@mail.example.com"]].concat());
    assert_eq!(unknown.code, 2);
    assert!(unknown.stderr.contains("smtp") && !unknown.stderr.contains("h0rse"), "{}", unknown.stderr);
    assert_eq!(tool.stats()["pending"], 0, "a refused mail is in the outbox");
    tool.ok(&[&mail[..], &["--check-as", "smtp"]].concat());
    // Without a check, another process may be able to carry it.
    tool.ok(&unsupported);
    assert_eq!(tool.stats()["pending"], 2);
}
