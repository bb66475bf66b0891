//! What an SMTP reply means, and what the relay would do. Needs no outbox and no server.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use postrider::Scope;
use postrider::smtp::{self, Explanation, Stage};
use postrider::transport::Class;
use serde_json::{Value, json};

use crate::args::Explain;
use crate::fail::Fail;
use crate::output::{Out, printable};

/// A reply has at most 64 KiB, which JSON may write sixfold.
const LONGEST_LINE: u64 = 512 * 1024;

pub(crate) fn run(how: &Explain, out: &mut Out) -> Result<(), Fail> {
    match (&how.file, &how.reply) {
        (Some(path), None) if path.as_os_str() == "-" => lines(std::io::stdin().lock(), "the standard input", out)?,
        (Some(path), None) => lines(open(path)?, &path.display().to_string(), out)?,
        (None, Some(reply)) => one(how, reply, out)?,
        _ => return Err(Fail::usage("give a reply with its --stage, or a --file")),
    }
    out.finish()
}

fn one(how: &Explain, reply: &str, out: &mut Out) -> Result<(), Fail> {
    let stage = how.stage.ok_or_else(|| Fail::usage("a reply means something at a stage: give --stage"))?;
    // On a command line, `\n` is easier to write than a line feed.
    let reply = reply.replace("\\r\\n", "\n").replace("\\n", "\n");
    let means = smtp::explain(stage, &reply).map_err(|error| Fail::usage(format!("{error}")))?;
    if how.json {
        return out.line(object(&means));
    }
    let wait =
        means.retry_after.map_or_else(|| "none named".to_owned(), |wait| humantime::format_duration(wait).to_string());
    out.line(format!("scope:   {}", scope_words(means.scope)))?;
    out.line(format!("class:   {}", class(means.class)))?;
    out.line(format!("sure:    {}", if means.sure { "yes" } else { "no: no rule knows it" }))?;
    out.line(format!(
        "doubt:   {}",
        if means.in_doubt { "it may have been accepted" } else { "certainly not accepted" }
    ))?;
    out.line(format!("wait:    {wait}"))?;
    out.line(format!("rule:    {}", printable(&means.rule)))?;
    out.line(format!("source:  {}", means.source))?;
    out.line(format!("relay:   {}", what_follows(&means)))
}

fn object(means: &Explanation) -> Value {
    json!({
        "scope": means.scope.as_str(),
        "class": class(means.class),
        "sure": means.sure,
        "in_doubt": means.in_doubt,
        "retry_after_s": means.retry_after.map(|wait| wait.as_secs()),
        "rule": means.rule,
        "source": means.source,
        "relay": what_follows(means),
    })
}

fn lines(input: impl Read, name: &str, out: &mut Out) -> Result<(), Fail> {
    let mut input = BufReader::new(input);
    for number in 1_u64.. {
        let mut line = Vec::new();
        let read = (&mut input).take(LONGEST_LINE + 1).read_until(b'\n', &mut line);
        let read = read.map_err(|error| Fail::runtime(format!("{name} cannot be read: {error}")))?;
        if read == 0 || out.closed() {
            break;
        }
        let wrong = |what: &str| Fail::usage(format!("{name}, line {number}: {what}"));
        if read as u64 > LONGEST_LINE {
            return Err(wrong("it is longer than any reply"));
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let object =
            serde_json::from_slice::<Value>(&line).map_err(|error| wrong(&format!("it is no JSON: {error}")))?;
        let text = |key: &str| {
            object
                .get(key)
                .and_then(Value::as_str)
                .ok_or_else(|| wrong(&format!("it is no object with a text \"{key}\"")))
        };
        let stage = stage(text("stage")?).map_err(|error| wrong(&error))?;
        let means = smtp::explain(stage, text("reply")?).map_err(|error| wrong(&error.to_string()))?;
        out.line(json!({
            "id": object.get("id"),
            "scope": means.scope.as_str(),
            "class": class(means.class),
            "in_doubt": means.in_doubt,
            "retry_after_s": means.retry_after.map(|wait| wait.as_secs()),
        }))?;
    }
    Ok(())
}

fn open(path: &Path) -> Result<std::fs::File, Fail> {
    std::fs::File::open(path).map_err(|error| Fail::runtime(format!("{} cannot be read: {error}", path.display())))
}

const STAGES: [(&str, Stage); 10] = [
    ("connect", Stage::Connect),
    ("greeting", Stage::Greeting),
    ("ehlo", Stage::Hello),
    ("starttls", Stage::StartTls),
    ("auth", Stage::Auth),
    ("mail", Stage::Mail),
    ("rcpt", Stage::Recipient),
    ("data", Stage::Data),
    ("dot", Stage::Accept),
    ("quit", Stage::Quit),
];

/// The stage that a word names.
pub(crate) fn stage(word: &str) -> Result<Stage, String> {
    let known = STAGES.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).map(|(_, stage)| *stage);
    known.ok_or_else(|| format!("the stages are {}", STAGES.map(|(name, _)| name).join(", ")))
}

fn class(class: Class) -> &'static str {
    match class {
        Class::Permanent => "permanent",
        Class::Transient => "transient",
    }
}

fn scope_words(scope: Scope) -> &'static str {
    match scope {
        Scope::Message => "message (this recipient, or this content)",
        Scope::Sender => "sender (the From, the envelope sender, or its domain)",
        Scope::Transport => "transport (the account, the client, the network, or the server)",
    }
}

fn what_follows(means: &Explanation) -> &'static str {
    match (means.scope, means.class) {
        _ if means.in_doubt => "pauses the transport; the mail is charged, and tried again or held, as its wish is",
        (Scope::Transport, _) => "pauses the transport; all mails wait, and none is charged",
        (Scope::Sender, _) => "pauses this sender; its mails wait uncharged, the others go on",
        (Scope::Message, Class::Transient) if means.sure => {
            "tries again later, with backoff; only this mail is charged"
        }
        (Scope::Message, Class::Transient) => {
            "tries again later, with backoff; charges the mail only if it is refused again while others of its sender go through"
        }
        (Scope::Message, Class::Permanent) if means.sure => {
            "gives up: to one recipient, this recipient; to the whole mail, a dead letter"
        }
        (Scope::Message, Class::Permanent) => {
            "tries once more before it believes it: a dead letter only if it is refused again while others of its sender go through"
        }
    }
}
