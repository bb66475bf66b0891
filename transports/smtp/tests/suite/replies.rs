//! Scores the rules on a corpus of replies with known meaning.
//!
//! Each line of `tests/replies.jsonl` has the stage of a reply, its codes and characteristic words, its scope, class and source.
//! `scripts/replies FILE` scores another file of this format.

use std::fmt::Write as _;
use std::io::Write as _;

use postrider_smtp::{Stage, explain};
use postrider_transport::{Class, Scope};
use serde_json::Value;

/// A reply and its meaning. The labels `account` and `server` are the transport's scope, `recipient` and `message` the message's.
struct LabelledReply {
    id: String,
    stage: Stage,
    reply: String,
    scope: Scope,
    /// `None` if the sources disagree.
    class: Option<Class>,
}

/// How the rules score.
#[derive(Debug, Default, PartialEq, Eq)]
struct Score {
    count: usize,
    /// The scope is right, and so is the class if the scope is the message's. The class has no effect with other scopes.
    right: usize,
    /// A failure of the account or the server that the rules take for a permanent failure of the message.
    given_up: usize,
    /// A failure of the message that the rules take for the transport's, so that all mail would wait.
    held_up: usize,
    /// No rule matches.
    unsure: usize,
}

impl Score {
    fn percent(&self) -> f64 {
        100.0 * self.right as f64 / self.count.max(1) as f64
    }
}

fn parse(line: &str, number: usize) -> Option<LabelledReply> {
    let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("line {number}: {error}"));
    let text = |key: &str| value[key].as_str().unwrap_or_else(|| panic!("line {number} has no text \"{key}\""));
    if value["ambiguous"] == true {
        return None;
    }
    let stage = match text("stage") {
        "connect" => Stage::Connect,
        "greeting" => Stage::Greeting,
        "ehlo" => Stage::Hello,
        "starttls" => Stage::StartTls,
        "auth" => Stage::Auth,
        "mail" => Stage::Mail,
        "rcpt" => Stage::Recipient,
        "data" => Stage::Data,
        "dot" => Stage::Accept,
        other => panic!("line {number}: there is no stage {other}"),
    };
    let scope = match text("scope") {
        "recipient" | "message" => Scope::Message,
        "sender" => Scope::Sender,
        "account" | "server" | "transport" => Scope::Transport,
        other => panic!("line {number}: there is no scope {other}"),
    };
    let class = match value["class"].as_str().or(value["expect"]["class"].as_str()) {
        _ if value["class_unsure"] == true => None,
        Some("permanent") => Some(Class::Permanent),
        Some("transient") => Some(Class::Transient),
        _ => panic!("line {number} has no class"),
    };
    let id = value["id"].as_str().map_or_else(|| format!("line {number}"), str::to_owned);
    Some(LabelledReply { id, stage, reply: text("reply").to_owned(), scope, class })
}

fn score(file: &str, wrong: &mut String) -> Score {
    let mut score = Score::default();
    for (line, number) in file.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty()) {
        let Some(labelled) = parse(line, number) else { continue };
        let LabelledReply { id, stage, reply, scope, class } = labelled;
        let found = explain(stage, &reply).unwrap_or_else(|error| panic!("{id}: {error}"));
        score.count += 1;
        score.unsure += usize::from(!found.sure);
        score.given_up +=
            usize::from(scope == Scope::Transport && (found.scope, found.class) == (Scope::Message, Class::Permanent));
        score.held_up += usize::from(scope == Scope::Message && found.scope == Scope::Transport);
        let class_right = scope != Scope::Message || class.is_none_or(|class| class == found.class);
        if found.scope == scope && class_right {
            score.right += 1;
        } else {
            let (got, rule) = (found.scope, &found.rule);
            writeln!(wrong, "  {id}: {stage}, {reply:?}: {scope}, not {got} {:?} by {rule}", found.class).unwrap();
        }
    }
    score
}

/// Prints to stdout itself, since the test harness hides the output of a test that passes.
fn print(score: &Score, wrong: &str) {
    let Score { count, right, given_up, held_up, unsure } = score;
    let percent = score.percent();
    let text = format!(
        "{wrong}SMTP replies: {right} of {count} right in effect, {percent:.1} %\n\
         \u{20} a failure of the account or the server that would make a dead letter: {given_up}\n\
         \u{20} a failure of the message that would stop the others: {held_up}\n\
         \u{20} without a matching rule: {unsure}\n"
    );
    std::io::stdout().write_all(text.as_bytes()).unwrap();
}

/// `POSTRIDER_REPLIES`, which `scripts/replies FILE` sets, names another corpus.
#[test]
fn the_corpus_is_classified_as_labelled() {
    let file = match std::env::var_os("POSTRIDER_REPLIES") {
        Some(path) => std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())),
        None => include_str!("../replies.jsonl").to_owned(),
    };
    let mut wrong = String::new();
    let score = score(&file, &mut wrong);
    print(&score, &wrong);
    assert!(score.count > 0);
    assert!(score.percent() >= 97.0, "{score:?}");
    assert_eq!(score.given_up, 0);
    assert!(score.held_up <= 2, "{score:?}");
}

#[test]
fn a_wrong_label_lowers_the_score() {
    for (label, expected) in [
        (("account", "transient"), Score { count: 1, given_up: 1, ..Score::default() }),
        (("sender", "permanent"), Score { count: 1, ..Score::default() }),
        (("recipient", "transient"), Score { count: 1, ..Score::default() }),
        (("recipient", "permanent"), Score { count: 1, right: 1, ..Score::default() }),
    ] {
        let (scope, class) = label;
        let line = format!(
            r#"{{"stage": "rcpt", "reply": "550 5.1.1 User unknown", "scope": "{scope}", "class": "{class}"}}"#
        );
        assert_eq!(score(&line, &mut String::new()), expected, "{label:?}");
    }
    let line = r#"{"stage": "rcpt", "reply": "421 4.3.2 closing", "scope": "recipient", "class": "transient"}"#;
    assert_eq!(score(line, &mut String::new()), Score { count: 1, held_up: 1, ..Score::default() });
}
