//! The commands of operators: changes by filter, pauses, probes, and the audit trail.

use serde_json::{Value, json};

use crate::smtp_server::{Answer, SmtpServer, Step};
use crate::tool::{Tool, wait_until};

#[test]
fn operators_act_in_sqlite() {
    operators_act(Tool::new());
}

/// An interrupted bulk change ends its transaction, and prints how to continue.
#[test]
fn an_interrupted_bulk_change_says_where_to_continue() {
    const MAILS: u64 = 15_000;
    for signal in ["INT", "TERM"] {
        let tool = Tool::new();
        let mail = ["enqueue", "--from", "a@example.com", "--to", "b@example.com", "--text", "Hello"];
        tool.ok(&[&mail[..], &["--count", &MAILS.to_string()]].concat());
        let running = tool.start(&["cancel", "--state", "pending"]);
        wait_until("some are cancelled", || tool.stats()["cancelled"].as_u64() >= Some(500));
        running.signal(signal);
        let output = running.wait();
        let done: u64 = output.stdout.strip_suffix(" cancelled\n").unwrap().parse().unwrap();
        assert_eq!((output.code, tool.stats()["cancelled"].as_u64()), (1, Some(done)), "{}", output.stderr);
        assert!(done < MAILS, "it ended before the signal");
        let (_, after) = output.stderr.trim_end().split_once("; to continue, add --after ").unwrap();
        let rest = tool.ok(&["cancel", "--state", "pending", "--after", after, "--preview"]);
        assert_eq!(rest, format!("{} would be cancelled\n", MAILS - done));
    }
}

#[test]
fn a_bulk_change_without_a_fitting_state_says_which_fit() {
    let tool = Tool::new();
    for args in [&["cancel", "--template-id", "news"][..], &["cancel", "--state", "sent"], &["cancel"]] {
        let output = tool.run(args);
        assert_eq!(output.code, 2, "{args:?}");
        assert!(output.stderr.contains("cancel takes ids, or --state with one of pending"), "{}", output.stderr);
    }
    assert!(tool.run(&["resend"]).stderr.contains("sent, dead, in_doubt, cancelled, dismissed"));
    for args in [&["list", "--to", "ada"][..], &["resend", "--state", "dead", "--to", "ada"]] {
        let output = tool.run(args);
        assert!(output.code == 2 && output.stderr.contains("a domain with @ before it"), "{}", output.stderr);
    }
}

fn audit(tool: &Tool, args: &[&str]) -> Vec<Value> {
    let text = tool.ok(&[&["audit", "--json"], args].concat());
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The body of the SQLite test above and of the tests on each server in `databases.rs`.
pub(crate) fn operators_act(tool: Tool) {
    let server = SmtpServer::with_script(|step| match step {
        Step::Recipient("nobody@example.net") => Answer::Refuse("550 5.1.1 no such user here"),
        _ => Answer::Accept,
    });
    tool.ok(&["migrate"]);
    let dead: Vec<String> = (0..3).map(|_| tool.enqueue(&["--to", "nobody@example.net"])).collect();
    let news = tool.enqueue(&["--template-id", "news"]);

    // Paused before the relay starts.
    let pause = ["pause", "--template-id", "news", "--by", "ada", "--note", "wrong price"];
    assert_eq!(tool.ok(&pause), "template news paused\n");
    assert_eq!(tool.ok(&pause), "template news was paused already\n");
    tool.drain(&server.url());
    assert_eq!(tool.show(&news)["state"], "pending");
    let stats = tool.json(&["stats", "--json"]);
    assert_eq!((&stats["dead"], &stats["pending"]), (&json!(3), &json!(1)), "{stats}");
    assert!(stats["oldest_waiting_s"].as_f64().is_some(), "{stats}");
    let pauses = &stats["pauses"][0];
    assert_eq!(
        (&pauses["kind"], &pauses["name"], &pauses["operator"]),
        (&json!("template"), &json!("news"), &json!("ada"))
    );
    let shown = tool.ok(&["stats"]);
    assert!(shown.contains("paused      template news since ") && shown.contains(" by ada: wrong price"), "{shown}");

    // A running relay obeys too.
    let running = tool.start(&["work", "--transport", &server.url()]);
    assert_eq!(tool.ok(&["pause", "--all", "--by", "ada"]), "outbox paused\n");
    wait_until("the relay says that it is paused", || {
        let relays = tool.json(&["stats", "--json"])["relays"].clone();
        relays[0]["paused"].as_str().is_some_and(|paused| paused.contains("outbox: paused by ada"))
    });
    assert_eq!(tool.ok(&["resume", "--template-id", "news", "--by", "bob"]), "template news resumed\n");
    assert_eq!(tool.ok(&["resume", "--all", "--by", "bob"]), "outbox resumed\n");
    assert_eq!(tool.ok(&["resume", "--all", "--by", "bob"]), "outbox was not paused\n");
    wait_until("the mail is sent", || tool.show(&news)["state"] == "sent");
    running.signal("TERM");
    assert_eq!(running.wait().code, 0);

    // Changes by filter.
    let to_nobody = ["--state", "dead", "--to", "nobody@example.net"];
    let with = |command: &'static str, rest: &[&'static str]| [&[command], &to_nobody[..], rest].concat();
    assert_eq!(tool.ok(&with("resend", &["--preview"])), "3 would be pending again\n");
    assert_eq!(tool.ok(&with("resend", &["--preview", "--limit", "2"])), "2 would be pending again\n");
    // As it is pasted.
    for to in ["Nobody <nobody@example.net>", "mailto:nobody@example.net", " <Nobody@example.net>, "] {
        assert_eq!(tool.list(&["--to", to]).len(), 3, "{to}");
    }
    let nothing = tool.run(&["list", "--to", "eve@example.net", "--since", "2026-01-01"]);
    assert_eq!((nothing.code, nothing.stderr.contains("no delivery matches")), (0, true), "{}", nothing.stderr);
    let ids = [&dead[0], &news, "01977c0e-0000-7000-8000-000000000000"].map(|id| id.to_owned());
    let preview = [&["cancel", "--preview"], &ids.each_ref().map(String::as_str)[..]].concat();
    let [dead_one, sent, none] = &ids;
    assert_eq!(tool.ok(&preview), format!("{dead_one} unchanged: dead\n{sent} unchanged: sent\n{none} not found\n"));
    let preview = tool.ok(&["resend", "--preview", dead_one, sent]);
    assert_eq!(preview, format!("{dead_one} would be pending again\n{sent} would be pending again\n"));
    assert_eq!(tool.show(dead_one)["state"], "dead");
    assert_eq!(tool.ok(&with("resend", &["--by", "ada"])), "3 pending again\n");
    let cancel = ["cancel", "--state", "pending", "--after", dead[0].as_str(), "--by", "ada", "--limit", "1"];
    assert_eq!(tool.ok(&cancel), "1 cancelled\n");
    let cancel = ["cancel", "--state", "pending", "--after", dead[0].as_str(), "--by", "ada"];
    assert_eq!(tool.ok(&cancel), "1 cancelled\n");
    tool.drain(&server.url());
    assert_eq!(tool.ok(&with("dismiss", &["--by", "bob", "--note", "moved away"])), "1 dismissed\n");
    assert_eq!(tool.show(&dead[0])["state"], "dismissed");
    assert_eq!(tool.list(&["--state", "dismissed"]).len(), 1);
    let output = tool.run(&["cancel", "--state", "sent"]);
    assert!(
        output.code == 2 && output.stderr.contains("cancel takes ids, or --state with one of pending"),
        "{}",
        output.stderr
    );
    for wrong in
        [&["resend"][..], &["resend", "--to", "ada@example.com"], &["resend", "--state", "dead", &dead[0]], &["pause"]]
    {
        assert_eq!(tool.run(wrong).code, 2, "{wrong:?}");
    }

    assert_eq!(tool.ok(&["probe", "--by", "ada"]), "relays will probe a paused transport within two seconds\n");
    tool.ok(&["prune", "messages", "--state", "dismissed", "--older-than", "0s", "--by", "ada"]);
    tool.ok(&["erase", "nobody@example.net", "--by", "ada", "--note", "asked by mail"]);

    // The newest entry first.
    let of_one = audit(&tool, &["--id", &dead[0]]);
    let actions: Vec<_> = of_one.iter().map(|entry| (entry["action"].clone(), entry["operator"].clone())).collect();
    assert_eq!(actions, [(json!("dismiss"), json!("bob")), (json!("resend"), json!("ada"))]);
    assert_eq!(of_one[0]["note"], "moved away");
    assert_eq!(of_one[0]["target"], "state dead, recipient n***@example.net");
    let all = audit(&tool, &[]);
    let newest: Vec<_> = all.iter().map(|entry| entry["action"].as_str().unwrap()).take(6).collect();
    assert_eq!(newest, ["erase", "erase", "prune", "prune", "probe", "dismiss"]);
    // An interrupted deletion has the first record.
    assert_eq!((&all[1]["target"], &all[0]["target"]), (&json!("started"), &json!("3 deliveries")));
    assert!(all[3]["target"].as_str().unwrap().starts_with("started, "), "{}", all[3]);
    assert_eq!(all.len(), 3 + 2 + 1 + 3 + 4 + 2, "{all:?}");
    assert!(!format!("{all:?}").contains("nobody@"), "the audit trail names an erased person");
    assert_eq!(audit(&tool, &["--limit", "2"]), all[..2]);
    for (option, key, value) in [("--operator", "operator", "bob"), ("--action", "action", "dismiss")] {
        let wanted: Vec<_> = all.iter().filter(|entry| entry[key] == value).cloned().collect();
        assert!(!wanted.is_empty() && wanted.len() < all.len());
        assert_eq!(audit(&tool, &[option, value]), wanted, "{option}");
    }
    assert_eq!(tool.run(&["audit", "--action", "sing"]).code, 2);
    // A bulk change is one line for people.
    let lines = tool.ok(&["audit"]);
    let lines: Vec<_> = lines.lines().skip(1).collect();
    assert!(lines[0].contains("asked by mail"), "{lines:#?}");
    let bulk: Vec<_> = lines.iter().filter(|line| line.contains(" deliveries ")).collect();
    assert_eq!(bulk.len(), 2, "{lines:#?}");
    assert!(bulk[0].contains("cancel   2 deliveries ") && bulk[1].contains("resend   3 deliveries "), "{bulk:#?}");
    assert_eq!(lines.len(), all.len() - 3, "{lines:#?}");
    assert_eq!(tool.ok(&["audit", "--limit", "2"]).lines().skip(1).collect::<Vec<_>>(), lines[..2]);

    // What may be misspelt is stored with a warning.
    let pause = |args: &[&str]| tool.run(&[&["pause", "--by", "ada"], args].concat());
    for (args, warning) in [
        (&["--transport", "smpp"][..], "no mail was sent by a transport of this name in the last 7 days, but by smtp"),
        (&["--template-id", "nwes"], "no delivery has this template"),
    ] {
        let paused = pause(args);
        assert_eq!((paused.code, paused.stdout.ends_with(" paused\n")), (0, true), "{args:?}");
        assert_eq!(paused.stderr, format!("postrider: {warning}\n"), "{args:?}");
        tool.ok(&[&["resume"], args].concat());
    }
    for args in [&["--transport", "smtp"][..], &["--template-id", "news"], &["--sender", "@example.com"], &["--all"]] {
        let paused = pause(args);
        assert_eq!((paused.code, paused.stderr.as_str()), (0, ""), "{args:?}");
    }
    let shop = pause(&["--sender", "Shop <Shop@example.com>"]);
    assert_eq!(shop.stdout, "sender shop@example.com paused\n", "{}", shop.stderr);
    assert_eq!(tool.ok(&["resume", "--sender", "shop@example.com"]), "sender shop@example.com resumed\n");
    let drained = tool.run(&["work", "--drain", "--transport", &server.url()]);
    assert!(
        drained.stderr.contains("paused by ada: sender @example.com; its mail is still pending"),
        "{}",
        drained.stderr
    );
}
