//! Options of `enqueue`: times, priorities, keys and counts.

use serde_json::json;

use crate::smtp_server::{Mail, SmtpServer};
use crate::tool::{Tool, wait_until};

#[test]
fn a_mail_is_not_sent_before_its_send_time() {
    let (tool, server) = (Tool::new(), SmtpServer::start());
    let later = tool.enqueue(&["--send-at", "2100-01-01T02:00:00+02:00"]);
    let now = tool.enqueue(&["--send-at", "2020-01-01T00:00:00Z"]);
    assert_eq!(tool.drain(&server.url())["sent"], 1);
    assert_eq!(server.accepted()[0].delivery_id(), now);
    let shown = tool.show(&later);
    assert_eq!((&shown["state"], &shown["due_at"]), (&json!("pending"), &json!("2100-01-01T00:00:00.000Z")));
    assert_eq!(tool.stats()["oldest_due_s"], json!(null), "a scheduled mail is not due");
}

#[test]
fn an_expired_mail_is_not_sent() {
    let (tool, server) = (Tool::new(), SmtpServer::start());
    let soon = tool.enqueue(&["--expires-in", "1ms"]);
    let late = tool.enqueue(&["--expires-in", "2h"]);
    let mut dead = 0;
    wait_until("the mail has expired", || {
        dead += tool.drain(&server.url())["dead"].as_u64().unwrap();
        dead == 1
    });
    let shown = tool.show(&soon);
    assert_eq!((&shown["state"], &shown["attempts"]), (&json!("dead"), &json!([])));
    assert!(shown["reason"].as_str().unwrap().starts_with("expired"), "{shown}");
    let arrived: Vec<_> = server.accepted().iter().map(Mail::delivery_id).collect();
    assert_eq!(arrived, [late]);
}

#[test]
fn the_highest_priority_is_sent_first() {
    let (tool, server) = (Tool::new(), SmtpServer::start());
    let enqueue = |level: &str| tool.enqueue(&["--priority", level]);
    let (low, normal, high, top) = (enqueue("0"), tool.enqueue(&[]), enqueue("8"), enqueue("9"));
    tool.ok(&["work", "--drain", "--concurrency", "1", "--transport", &server.url()]);
    let order: Vec<_> = server.accepted().iter().map(Mail::delivery_id).collect();
    assert_eq!(order, [top, high, normal, low]);
}

#[test]
fn the_same_key_gives_the_same_delivery() {
    let (tool, server) = (Tool::new(), SmtpServer::start());
    let first = tool.enqueue(&["--key", "order-1"]);
    assert_eq!(tool.enqueue(&["--key", "order-1", "--text", "something else"]), first);
    assert_ne!(tool.enqueue(&["--key", "order-2"]), first);
    assert_eq!(tool.show(&first)["key"], "order-1");
    assert_eq!(tool.drain(&server.url())["sent"], 2);
    assert_eq!(tool.enqueue(&["--key", "order-1"]), first, "also after the mail was sent");

    let many = |count: &str| {
        let args = ["enqueue", "--from", "a@example.com", "--to", "b@example.com", "--text", "x", "--key", "run"];
        tool.ok(&[&args[..], &["--count", count]].concat())
    };
    let three = many("3");
    let five = many("5");
    assert!(five.starts_with(&three), "the first three keys give the same deliveries");
    let keys: Vec<_> = five.lines().map(|id| tool.show(id)["key"].as_str().unwrap().to_owned()).collect();
    assert_eq!(keys, ["run-1", "run-2", "run-3", "run-4", "run-5"]);
}

#[test]
fn mail_of_several_transactions_is_enqueued_in_order() {
    let tool = Tool::new();
    let printed =
        tool.ok(&["enqueue", "--from", "a@example.com", "--to", "b@example.com", "--text", "x", "--count", "2001"]);
    let listed = tool.list(&[]);
    assert_eq!(listed.len(), 2001, "all pages");
    let ids: Vec<_> = listed.iter().map(|line| line["id"].as_str().unwrap()).collect();
    assert_eq!(printed.lines().collect::<Vec<_>>(), ids);

    assert_eq!(tool.list(&["--limit", "700"]).len(), 700);
    let rest = tool.list(&["--after", ids[1499], "--state", "pending"]);
    assert_eq!(rest.len(), 501);
    assert_eq!(rest[0]["id"], ids[1500]);
    assert!(tool.list(&["--state", "sent"]).is_empty());
}
