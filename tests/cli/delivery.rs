//! Enqueued mail arrives once, and refusals are recorded.

use std::collections::HashSet;
use std::sync::Mutex;

use serde_json::json;

use crate::smtp_server::{Answer, SmtpServer, Step};
use crate::tool::Tool;

#[test]
fn a_thousand_mails_arrive_once_each() {
    let (tool, server) = (Tool::new(), SmtpServer::start());
    let printed =
        tool.ok(&["enqueue", "--from", "a@example.com", "--to", "b@example.com", "--text", "x", "--count", "1000"]);
    let ids: HashSet<String> = printed.lines().map(str::to_owned).collect();
    assert_eq!((printed.lines().count(), ids.len()), (1000, 1000));

    let summary = tool.drain(&server.url());
    assert_eq!(
        (&summary["sent"], &summary["retried"], &summary["dead"], &summary["in_doubt"], &summary["paused"]),
        (&json!(1000), &json!(0), &json!(0), &json!(0), &json!(null)),
    );
    let arrived: Vec<_> = server.accepted().iter().map(crate::smtp_server::Mail::delivery_id).collect();
    assert_eq!(arrived.len(), 1000, "each mail arrives once");
    assert_eq!(arrived.into_iter().collect::<HashSet<_>>(), ids, "the Message-ID contains the id of the delivery");

    assert_eq!(tool.drain(&server.url())["sent"], 0, "sent mail is not sent again");
    let one_more = tool.enqueue(&[]);
    assert!(!ids.contains(&one_more));
    assert_eq!(tool.drain(&server.url())["sent"], 1);
    assert_eq!(server.accepted_count(), 1001);
    assert_eq!(server.accepted().last().unwrap().delivery_id(), one_more);
}

#[test]
fn a_retry_sends_the_same_bytes() {
    let refusals_left = Mutex::new(2);
    let server = SmtpServer::with_script(move |step| {
        let mut left = refusals_left.lock().unwrap();
        match step {
            Step::Content if *left > 0 => {
                *left -= 1;
                Answer::Refuse("451 4.7.1 greylisted, try later")
            }
            _ => Answer::Accept,
        }
    });
    let tool = Tool::new();
    tool.file("flowers.png", [0x89, 0x50, 0x00, 0xff]);
    let id = tool.enqueue(&["--subject", "Grüße", "--html", "<p>Hello</p>", "--attach", "flowers.png"]);
    assert_eq!(tool.drain(&server.url())["retried"], 1);
    tool.drain_until_sent(&server.url(), 1);

    let received = server.received();
    assert_eq!(received.len(), 3);
    assert!(received.iter().all(|mail| *mail == received[0]), "Message-ID, Date and boundary are the same");
    assert_eq!(received[0].delivery_id(), id);
    let shown = tool.show(&id);
    let attempts = shown["attempts"].as_array().unwrap();
    let outcomes: Vec<_> = attempts.iter().map(|attempt| attempt["outcome"].as_str().unwrap()).collect();
    let numbers: Vec<_> = attempts.iter().map(|attempt| attempt["number"].as_u64().unwrap()).collect();
    assert_eq!((outcomes, numbers), (vec!["transient", "transient", "sent"], vec![1, 2, 3]));
    assert_eq!(attempts[0]["reply"], "451 4.7.1 greylisted, try later");
    assert!(attempts.iter().all(|a| a["started_at"].as_str().unwrap() <= a["finished_at"].as_str().unwrap()));
}

#[test]
fn show_lists_the_outcome_of_each_recipient() {
    let server = SmtpServer::with_script(|step| match step {
        Step::Recipient("bob@example.com") => Answer::Refuse("550 5.1.1 no such user here"),
        _ => Answer::Accept,
    });
    let tool = Tool::new();
    let id = tool.enqueue(&["--to", "ada@example.com", "--to", "bob@example.com", "--cc", "cy@example.com"]);
    assert_eq!(tool.drain(&server.url())["sent"], 1);

    let shown = tool.show(&id);
    assert_eq!(shown["state"], "sent");
    let outcome = |index: usize| {
        let recipient = &shown["recipients"][index];
        (recipient["address"].as_str().unwrap().to_owned(), recipient["state"].as_str().unwrap().to_owned())
    };
    assert_eq!(outcome(0), ("ada@example.com".to_owned(), "sent".to_owned()));
    assert_eq!(outcome(1), ("bob@example.com".to_owned(), "refused".to_owned()));
    assert_eq!(outcome(2), ("cy@example.com".to_owned(), "sent".to_owned()));
    assert_eq!(shown["recipients"][1]["reply"], "550 5.1.1 no such user here");
    assert_eq!(server.accepted()[0].to, ["ada@example.com", "cy@example.com"]);

    let text = tool.ok(&["show", &id]);
    let bob = text.lines().find(|line| line.contains("bob@example.com")).unwrap();
    assert!(bob.contains("refused") && bob.contains("550 5.1.1 no such user here"), "{text}");
}

#[test]
fn a_dead_letter_can_be_sent_again() {
    let refused = Mutex::new(true);
    let server = SmtpServer::with_script(move |step| match step {
        Step::Content if std::mem::take(&mut *refused.lock().unwrap()) => Answer::Refuse("552 5.3.4 too large today"),
        _ => Answer::Accept,
    });
    let tool = Tool::new();
    let id = tool.enqueue(&[]);
    assert_eq!(tool.drain(&server.url())["dead"], 1);
    let dead = tool.show(&id);
    assert_eq!(dead["state"], "dead");
    assert!(dead["reason"].as_str().unwrap().starts_with("permanent: "), "{dead}");
    assert_eq!(tool.list(&["--state", "dead"])[0]["id"].as_str(), Some(id.as_str()));
    assert_eq!(tool.drain(&server.url())["sent"], 0, "a dead letter stays dead");

    assert!(tool.ok(&["resend", &id]).starts_with(&id));
    tool.drain_until_sent(&server.url(), 1);
    let sent = tool.show(&id);
    assert_eq!((&sent["state"], &sent["reason"]), (&json!("sent"), &json!(null)));
    let numbers: Vec<_> = sent["attempts"].as_array().unwrap().iter().map(|a| (&a["number"], &a["cycle"])).collect();
    assert_eq!(numbers, [(&json!(1), &json!(1)), (&json!(2), &json!(2))]);
}

#[test]
fn a_spent_budget_is_a_dead_letter() {
    let server = SmtpServer::with_script(|step| match step {
        Step::Content => Answer::Refuse("452 4.2.2 mailbox full"),
        _ => Answer::Accept,
    });
    let tool = Tool::new();
    let id = tool.enqueue(&[]);
    let work = ["work", "--drain", "--json", "--transport", &server.url(), "--attempts", "1"];
    assert_eq!(tool.json(&work)["dead"], 1);
    assert!(tool.show(&id)["reason"].as_str().unwrap().starts_with("budget: "));
}

#[test]
fn cancel_and_resend_continue_after_an_id_that_cannot_be_changed() {
    let (tool, server) = (Tool::new(), SmtpServer::start());
    let sent = tool.enqueue(&[]);
    tool.drain(&server.url());
    let (first, last) = (tool.enqueue(&[]), tool.enqueue(&[]));
    let unknown = "00000000-0000-7000-8000-000000000000";

    let output = tool.run(&["cancel", &first, unknown, &sent, &last]);
    assert_eq!(output.code, 1);
    let lines: Vec<_> = output.stdout.lines().collect();
    assert_eq!(
        lines,
        [
            format!("{first} cancelled"),
            format!("{unknown} not found"),
            format!("{sent} unchanged: sent"),
            format!("{last} cancelled")
        ]
    );
    assert_eq!(output.stderr, "postrider: 2 of 4 deliveries not found or unchanged\n");
    assert_eq!(tool.drain(&server.url())["sent"], 0, "a cancelled mail is not sent");
    assert_eq!(server.accepted_count(), 1);

    let pending = tool.enqueue(&[]);
    let output = tool.run(&["resend", unknown, &pending, &first]);
    assert_eq!(output.code, 1, "a pending delivery cannot be resent");
    assert_eq!(tool.show(&first)["state"], "pending", "a cancelled delivery can be resent");
}
