//! The command `explain`.

use serde_json::{Value, json};

use crate::tool::Tool;

/// Explains a reply from a file.
fn explain(tool: &Tool, stage: &str, reply: &str) -> Value {
    let line = json!({ "id": "x", "stage": stage, "reply": reply }).to_string();
    let output = tool.run_with_stdin(&line, &["explain", "--file", "-"]);
    assert_eq!(output.code, 0, "{}", output.stderr);
    serde_json::from_str(&output.stdout).unwrap()
}

#[test]
fn a_reply_is_explained_without_a_database() {
    // This database does not exist.
    let tool = Tool::with_env(vec![("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nothing".to_owned())]);
    let text = tool.ok(&["explain", "--stage", "mail", "550 5.4.5 Daily user sending limit exceeded."]);
    for part in
        ["scope:   transport", "class:   transient", "sure:    yes", "wait:    none", "Google", "pauses the transport"]
    {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    let object = tool.json(&["explain", "--stage", "rcpt", "--json", "450 4.7.1 Greylisted, try again in 15 seconds"]);
    assert_eq!(object["scope"], "message");
    assert_eq!((&object["retry_after_s"], &object["sure"]), (&json!(15), &json!(true)));
    let keys: Vec<_> = object.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["class", "in_doubt", "relay", "retry_after_s", "rule", "scope", "source", "sure"]);

    let unknown = tool.json(&["explain", "--stage", "dot", "--json", "550 5.7.999 frobnicated"]);
    assert_eq!((&unknown["sure"], &unknown["class"]), (&json!(false), &json!("permanent")));
    assert!(unknown["relay"].as_str().unwrap().contains("only if it is refused again"), "{unknown}");
}

#[test]
fn an_invalid_reply_is_explained_as_a_failure_of_the_transport() {
    let tool = Tool::without_tables();
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
        assert_eq!(explain(&tool, stage, reply), expected, "{stage}: {reply}");
    }
}

#[test]
fn a_file_is_explained_line_by_line() {
    let tool = Tool::without_tables();
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
fn an_error_names_the_line_of_the_file() {
    let tool = Tool::without_tables();
    let good = r#"{"id": 1, "stage": "rcpt", "reply": "550 5.1.1 no"}"#;
    for (bad, why) in [
        ("nonsense", "not JSON"),
        ("[]", "\"stage\""),
        (r#"{"stage": "rcpt"}"#, "\"reply\""),
        (r#"{"stage": 3, "reply": "550 no"}"#, "\"stage\""),
        (r#"{"stage": "lunch", "reply": "550 no"}"#, "greeting, ehlo"),
        (r#"{"stage": "rcpt", "reply": "250 ok"}"#, "not a refusal"),
        (&format!("{{\"reply\": \"{}\"}}", "x".repeat(600_000)), "longer"),
    ] {
        tool.file("replies", format!("{good}\n{bad}\n"));
        let output = tool.run(&["explain", "--file", "replies"]);
        assert_eq!((output.code, output.stdout.lines().count()), (2, 1), "{why}: {}", output.stderr);
        assert!(output.stderr.contains("line 2") && output.stderr.contains(why), "{}", output.stderr);
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
