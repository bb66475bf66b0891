//! The options of `list`, the commands `prune` and `erase`, and the retention of `work`.

use serde_json::{Value, json};

use crate::smtp_server::{Answer, SmtpServer, Step};
use crate::tool::{Tool, wait_until};

#[test]
fn deliveries_are_found_pruned_and_erased_in_sqlite() {
    deliveries_are_found_pruned_and_erased(Tool::new());
}

#[test]
fn a_list_shows_who_did_not_get_a_mail_in_sqlite() {
    a_list_shows_who_did_not_get_a_mail(Tool::new());
}

#[test]
fn a_relay_deletes_what_is_old_in_sqlite() {
    a_relay_deletes_what_is_old(Tool::new());
}

fn ids(listed: &[Value]) -> Vec<&str> {
    listed.iter().map(|line| line["id"].as_str().unwrap()).collect()
}

/// The body of the SQLite test above and of the tests on each server in `databases.rs`.
pub(crate) fn deliveries_are_found_pruned_and_erased(tool: Tool) {
    let server = SmtpServer::with_script(|step| match step {
        Step::Recipient("nobody@example.net") => Answer::Refuse("550 5.1.1 no such user here"),
        _ => Answer::Accept,
    });
    tool.ok(&["migrate"]);
    let welcome = tool.enqueue(&["--subject", "Welcome, Bob", "--template-id", "welcome", "--key", "k-1"]);
    let copies = tool.enqueue(&["--cc", "Carol@Example.org", "--subject", "Both"]);
    let dead = tool.enqueue(&["--to", "nobody@example.net", "--subject", "Nobody"]);
    let scheduled = tool.enqueue(&["--send-at", "2100-01-01T00:00:00Z", "--subject", "Later"]);
    tool.drain(&server.url());

    let provider_id = tool.show(&welcome)["attempts"][0]["provider_id"].clone();
    for (args, expected) in [
        (&["--to", "carol@example.ORG"][..], &[copies.as_str()][..]),
        (&["--to", "@example.org"], &[&copies]),
        (&["--subject", "Welcome"], &[&welcome]),
        (&["--template-id", "welcome"], &[&welcome]),
        (&["--key", "k-1"], &[&welcome]),
        (&["--error", "no such user"], &[&dead]),
        (&["--state", "dead", "--transport", "smtp"], &[&dead]),
        (&["--since", "1h", "--state", "sent", "--newest"], &[&copies, &welcome]),
        (&["--until", "1h"], &[]),
        (&["--finished-since", "1h", "--finished-until", "2100-01-01T00:00:00Z"], &[&welcome, &copies, &dead]),
        (&["--newest", "--limit", "2"], &[&scheduled, &dead]),
        (&["--newest", "--after", &dead], &[&copies, &welcome]),
    ] {
        assert_eq!(ids(&tool.list(args)), expected, "{args:?}");
    }
    if let Some(provider_id) = provider_id.as_str() {
        assert_eq!(ids(&tool.list(&["--provider-id", provider_id])), [&welcome]);
    }
    assert_eq!(tool.ok(&["list", "--count"]), "4\n");
    assert_eq!(tool.ok(&["list", "--count", "--state", "sent", "--limit", "1"]), "1\n");
    let table = tool.ok(&["list", "--to", "carol@example.org"]);
    let line = table.lines().nth(1).unwrap();
    assert!(line.contains(" +1 ") && line.contains("Both"), "{table}");
    let shown = tool.list(&["--key", "k-1"]);
    assert_eq!((&shown[0]["subject"], &shown[0]["recipients"]), (&json!("Welcome, Bob"), &json!(1)));
    assert!(shown[0]["finished_at"].is_string(), "{shown:?}");

    let stats = tool.json(&["stats", "--json", "--since", "2h"]);
    let counted = |event: &str| {
        let hours = stats["hourly"].as_array().unwrap().iter().filter(|count| count["event"] == event);
        hours.map(|count| count["count"].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!((counted("sent"), counted("permanent"), counted("dead")), (2, 1, 1), "{stats}");
    assert!(
        tool.ok(&["stats", "--since", "2h"]).lines().any(|line| line.contains("permanent") && line.contains("smtp"))
    );

    let pruned = tool.ok(&["prune", "messages", "--state", "dead", "--older-than", "1h"]);
    assert_eq!(pruned, "deleted the messages of 0 deliveries\n");
    let pruned = tool.ok(&["prune", "messages", "--state", "dead", "--state", "in_doubt", "--older-than", "0s"]);
    assert_eq!(pruned, "deleted the messages of 1 delivery\n");
    let output = tool.run(&["resend", &dead]);
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (1, format!("{dead} unchanged: its message is deleted\n").as_str())
    );

    let output = tool.run(&["erase", "BOB@example.com"]);
    assert_eq!((output.code, output.stdout.as_str()), (1, "erased from 2 deliveries\n"), "{}", output.stderr);
    assert!(output.stderr.contains("left as they are: 1 delivery"), "{}", output.stderr);
    tool.ok(&["cancel", &scheduled]);
    assert_eq!(tool.ok(&["erase", "bob@example.com"]), "erased from 1 delivery\n");
    assert!(tool.list(&["--to", "bob@example.com"]).is_empty());
    let left = format!("{}{}", tool.ok(&["list", "--json"]), tool.ok(&["show", &copies]));
    assert!(!left.to_lowercase().contains("bob"), "{left}");
    assert!(left.to_lowercase().contains("carol@example.org"), "{left}");

    let prune = ["prune", "deliveries", "--state", "sent", "--state", "cancelled", "--older-than", "0s"];
    assert_eq!(tool.ok(&prune), "deleted 3 deliveries\n");
    assert_eq!(ids(&tool.list(&[])), [&dead]);
    assert!(!tool.json(&["stats", "--json", "--since", "2h"])["hourly"].as_array().unwrap().is_empty());
}

/// The body of the SQLite test above and of the tests on each server in `databases.rs`.
pub(crate) fn a_list_shows_who_did_not_get_a_mail(tool: Tool) {
    let server = SmtpServer::with_script(|step| match step {
        Step::Recipient("nobody@example.net") => Answer::Refuse("550 5.1.1 no such user here"),
        _ => Answer::Accept,
    });
    tool.ok(&["migrate"]);
    let mixed = tool.enqueue(&["--cc", "nobody@example.net", "--subject", "Mixed"]);
    tool.drain(&server.url());
    let listed = tool.list(&["--to", "nobody@example.net", "--newest", "--limit", "1"]);
    let fields = ["id", "state", "recipient", "recipient_state", "recipients", "failed_recipients"];
    let expected = json!([mixed, "sent", "nobody@example.net", "refused", 2, 1]);
    assert_eq!(Value::from_iter(fields.map(|field| listed[0][field].clone())), expected);
    for (args, to) in [
        (&["--to", "nobody@example.net"][..], "nobody@example.net (refused) +1  "),
        (&[], "b@example.com +1, 1 failed"),
    ] {
        let table = tool.ok(&[&["list", "--newest", "--limit", "1"], args].concat());
        assert!(table.lines().nth(1).unwrap().contains(to), "{table}");
    }
}

/// The body of the SQLite test above and of the tests on each server in `databases.rs`.
pub(crate) fn a_relay_deletes_what_is_old(tool: Tool) {
    let server = SmtpServer::start();
    tool.ok(&["migrate"]);
    let keyed = tool.enqueue(&["--key", "order-1"]);
    tool.drain(&server.url());
    let work =
        ["work", "--transport", &server.url(), "--keep-messages", "0s", "--keep-deliveries", "0s", "--keep-keys", "1h"];
    let running = tool.start(&work);
    wait_until("the delivery is deleted", || tool.list(&[]).is_empty());
    running.signal("TERM");
    let output = running.wait();
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert_eq!(tool.enqueue(&["--key", "order-1"]), keyed, "the key is still taken");
    assert_eq!(tool.stats()["pending"], 0);
}

#[test]
fn invalid_options_of_retention_prune_erase_and_list_are_refused() {
    let tool = Tool::new();
    for (args, complaint) in [
        (&["prune", "messages", "--older-than", "1d"][..], "--state"),
        (&["prune", "messages", "--state", "sent"], "--older-than"),
        (&["prune", "everything", "--state", "sent", "--older-than", "1d"], "messages, history or deliveries"),
        (
            &["prune", "messages", "--state", "pending", "--older-than", "1d"],
            "sent, dead, in_doubt, cancelled or dismissed",
        ),
        (&["erase", "@example.com"], "address"),
        (&["erase", "ada"], "address"),
        (&["work", "--transport", "smtp://x", "--drain", "--keep-messages", "1d"], "--drain"),
        (&["work", "--transport", "smtp://x", "--keep-keys", "1d"], "--keep-deliveries"),
        (&["list", "--since", "yesterday"], "2030-12-31T18:00:00Z"),
    ] {
        let output = tool.run(args);
        assert_eq!(output.code, 2, "{args:?}: {}", output.stderr);
        assert!(output.stderr.contains(complaint), "{args:?}: {}", output.stderr);
    }
}
