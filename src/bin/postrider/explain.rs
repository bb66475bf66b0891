//! The command `explain`: what an SMTP reply means, and how the relay handles it.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use postrider::Scope;
use postrider::smtp::{self, Explanation, Stage};
use postrider::transport::Class;
use serde_json::{Value, json};

use crate::args::ExplainArgs;
use crate::error::CliError;
use crate::output::{Output, printable};

/// A reply has at most 64 KiB, and JSON can escape a byte as six (`\u000a`).
const MAX_LINE: u64 = 512 * 1024;

pub(crate) fn run(args: &ExplainArgs, out: &mut Output) -> Result<(), CliError> {
    match (&args.file, &args.reply) {
        (Some(path), None) if path.as_os_str() == "-" => explain_lines(std::io::stdin().lock(), "standard input", out)?,
        (Some(path), None) => explain_lines(open(path)?, &path.display().to_string(), out)?,
        (None, Some(reply)) => explain_one(args, reply, out)?,
        _ => return Err(CliError::usage("give a reply with --stage, or --file")),
    }
    out.flush()
}

fn explain_one(args: &ExplainArgs, reply: &str, out: &mut Output) -> Result<(), CliError> {
    let stage =
        args.stage.ok_or_else(|| CliError::usage("the meaning of a reply depends on its stage: give --stage"))?;
    // A shell passes `\n` as two characters.
    let reply = reply.replace("\\r\\n", "\n").replace("\\n", "\n");
    let explanation = smtp::explain(stage, &reply).map_err(|error| CliError::usage(format!("{error}")))?;
    if args.json {
        return out.line(json_object(&explanation));
    }
    let wait = explanation.retry_after.map(|wait| humantime::format_duration(wait).to_string());
    let wait = wait.as_deref().unwrap_or("none requested");
    out.line(format!("scope:   {}", describe_scope(explanation.scope)))?;
    out.line(format!("class:   {}", class_name(explanation.class)))?;
    out.line(format!("sure:    {}", if explanation.sure { "yes" } else { "no: no rule matches it" }))?;
    out.line(format!(
        "doubt:   {}",
        if explanation.in_doubt { "the message may have been accepted" } else { "the message was not accepted" }
    ))?;
    out.line(format!("wait:    {wait}"))?;
    out.line(format!("rule:    {}", printable(&explanation.rule)))?;
    out.line(format!("source:  {}", explanation.source))?;
    out.line(format!("relay:   {}", relay_action(&explanation)))
}

fn json_object(explanation: &Explanation) -> Value {
    json!({
        "scope": explanation.scope.as_str(),
        "class": class_name(explanation.class),
        "sure": explanation.sure,
        "in_doubt": explanation.in_doubt,
        "retry_after_s": explanation.retry_after.map(|wait| wait.as_secs()),
        "rule": explanation.rule,
        "source": explanation.source,
        "relay": relay_action(explanation),
    })
}

fn explain_lines(input: impl Read, name: &str, out: &mut Output) -> Result<(), CliError> {
    let mut input = BufReader::new(input);
    for number in 1_u64.. {
        let mut line = Vec::new();
        let read = (&mut input).take(MAX_LINE + 1).read_until(b'\n', &mut line);
        let read = read.map_err(|error| CliError::runtime(format!("{name} cannot be read: {error}")))?;
        if read == 0 || out.closed() {
            break;
        }
        let invalid = |what: &str| CliError::usage(format!("{name}, line {number}: {what}"));
        if read as u64 > MAX_LINE {
            return Err(invalid("the line is longer than any reply"));
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let object = serde_json::from_slice::<Value>(&line)
            .map_err(|error| invalid(&format!("the line is not JSON: {error}")))?;
        let text = |key: &str| {
            object
                .get(key)
                .and_then(Value::as_str)
                .ok_or_else(|| invalid(&format!("the line is not an object with a string \"{key}\"")))
        };
        let stage = parse_stage(text("stage")?).map_err(|error| invalid(&error))?;
        let explanation = smtp::explain(stage, text("reply")?).map_err(|error| invalid(&error.to_string()))?;
        out.line(json!({
            "id": object.get("id"),
            "scope": explanation.scope.as_str(),
            "class": class_name(explanation.class),
            "in_doubt": explanation.in_doubt,
            "retry_after_s": explanation.retry_after.map(|wait| wait.as_secs()),
        }))?;
    }
    Ok(())
}

fn open(path: &Path) -> Result<std::fs::File, CliError> {
    std::fs::File::open(path).map_err(|error| CliError::runtime(format!("{} cannot be read: {error}", path.display())))
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

pub(crate) fn parse_stage(name: &str) -> Result<Stage, String> {
    let known = STAGES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, stage)| *stage);
    known.ok_or_else(|| format!("the stages are {}", STAGES.map(|(name, _)| name).join(", ")))
}

fn class_name(class: Class) -> &'static str {
    match class {
        Class::Permanent => "permanent",
        Class::Transient => "transient",
    }
}

fn describe_scope(scope: Scope) -> &'static str {
    match scope {
        Scope::Message => "message (this recipient or this content)",
        Scope::Sender => "sender (the From address, the envelope sender or its domain)",
        Scope::Transport => "transport (the account, the client, the network or the server)",
    }
}

fn relay_action(explanation: &Explanation) -> &'static str {
    match (explanation.scope, explanation.class) {
        _ if explanation.in_doubt => {
            "pauses the transport; charges the mail, and sends it again or holds it, as chosen when it was enqueued"
        }
        (Scope::Transport, _) => "pauses the transport; all mail waits uncharged",
        (Scope::Sender, _) => "pauses this sender; its mail waits uncharged, and other mail is sent",
        (Scope::Message, Class::Transient) if explanation.sure => "tries again later, with backoff; charges this mail",
        (Scope::Message, Class::Transient) => {
            "tries again later, with backoff; charges this mail only if it is refused again while other mail of its sender is accepted"
        }
        (Scope::Message, Class::Permanent) if explanation.sure => {
            "gives up on the recipient, or makes the mail a dead letter if the reply refuses the whole mail"
        }
        (Scope::Message, Class::Permanent) => {
            "tries again later, with backoff; the mail becomes a dead letter only if it is refused again while other mail of its sender is accepted"
        }
    }
}
