//! What a reply means, asked of the tool.

use serde_json::{Value, json};

use crate::tool::Tool;

/// As a file gives a reply, and as the tool answers.
fn explained(tool: &Tool, stage: &str, reply: &str) -> Value {
    let line = json!({ "id": "x", "stage": stage, "reply": reply }).to_string();
    let ran = tool.run_fed(&line, &["explain", "--file", "-"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    serde_json::from_str(&ran.stdout).unwrap()
}

#[test]
fn a_reply_is_explained_without_an_outbox() {
    // No database of any kind: the one that the environment names does not exist.
    let tool = Tool::of(vec![("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nothing".to_owned())]);
    let said = tool.ok(&["explain", "--stage", "mail", "550 5.4.5 Daily user sending limit exceeded."]);
    for part in
        ["scope:   transport", "class:   transient", "sure:    yes", "wait:    none", "Google", "pauses the transport"]
    {
        assert!(said.contains(part), "{part} is not in:\n{said}");
    }
    let object = tool.json(&["explain", "--stage", "rcpt", "--json", "450 4.7.1 Greylisted, try again in 15 seconds"]);
    assert_eq!(object["scope"], "message");
    assert_eq!((&object["retry_after_s"], &object["sure"]), (&json!(15), &json!(true)));
    let keys: Vec<_> = object.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["class", "in_doubt", "relay", "retry_after_s", "rule", "scope", "source", "sure"]);

    let unknown = tool.json(&["explain", "--stage", "dot", "--json", "550 5.7.999 frobnicated"]);
    assert_eq!((&unknown["sure"], &unknown["class"]), (&json!(false), &json!("permanent")));
    assert!(unknown["relay"].as_str().unwrap().contains("once more"), "{unknown}");
}

#[test]
fn what_is_no_reply_is_explained_by_what_is_done_with_it() {
    let tool = Tool::bare();
    for (stage, reply, in_doubt) in [
        ("dot", "I beg your pardon", true),
        ("dot", "250-ok", true),
        ("dot", "354 go on", true),
        ("dot", "", true),
        ("rcpt", "25", false),
        ("data", "250 ok", false),
        ("greeting", "550-a\n551 b", false),
    ] {
        let expected = json!({
            "id": "x", "scope": "transport", "class": "transient", "in_doubt": in_doubt, "retry_after_s": null
        });
        assert_eq!(explained(&tool, stage, reply), expected, "{stage}: {reply}");
    }
}

#[test]
fn a_file_has_an_object_for_each_line() {
    let tool = Tool::bare();
    tool.file(
        "replies.jsonl",
        concat!(
            r#"{"id": "a", "stage": "rcpt", "reply": "550-5.1.1 The email account\n550 5.1.1 does not exist"}"#,
            "\n\n",
            r#"{"id": 2, "stage": "DOT", "reply": "554 5.7.1 spam", "more": [1]}"#,
            "\n",
            r#"{"stage": "mail", "reply": "550 5.1.8 Domain of sender address does not exist"}"#,
        ),
    );
    let lines: Vec<Value> = tool
        .ok(&["explain", "--file", "replies.jsonl"])
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let line = |id: Value, scope: &str| json!({ "id": id, "scope": scope, "class": "permanent", "in_doubt": false, "retry_after_s": null });
    assert_eq!(lines, [line(json!("a"), "message"), line(json!(2), "message"), line(Value::Null, "sender")]);
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    let tool = Tool::bare();
    let good = r#"{"id": 1, "stage": "rcpt", "reply": "550 5.1.1 no"}"#;
    for (bad, why) in [
        ("nonsense", "no JSON"),
        ("[]", "\"stage\""),
        (r#"{"stage": "rcpt"}"#, "\"reply\""),
        (r#"{"stage": 3, "reply": "550 no"}"#, "\"stage\""),
        (r#"{"stage": "lunch", "reply": "550 no"}"#, "greeting, ehlo"),
        (r#"{"stage": "rcpt", "reply": "250 ok"}"#, "not a refusal"),
        (&format!("{{\"reply\": \"{}\"}}", "x".repeat(600_000)), "longer"),
    ] {
        tool.file("replies", format!("{good}\n{bad}\n"));
        let ran = tool.run(&["explain", "--file", "replies"]);
        assert_eq!((ran.code, ran.stdout.lines().count()), (2, 1), "{why}: {}", ran.stderr);
        assert!(ran.stderr.contains("line 2") && ran.stderr.contains(why), "{}", ran.stderr);
    }
    for args in [
        &["explain"][..],
        &["explain", "550 no"],
        &["explain", "--stage", "lunch", "550 no"],
        &["explain", "--stage", "rcpt", "250 ok"],
        &["explain", "--stage", "rcpt", "--file", "x"],
        &["explain", "--file", "x", "550 no"],
    ] {
        assert_eq!(tool.run(args).code, 2, "{args:?}");
    }
    assert_eq!(tool.run(&["explain", "--file", "missing"]).code, 1);
}
