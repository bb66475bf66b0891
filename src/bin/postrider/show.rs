//! The command `show`. The JSON keys are a stable interface.

use postrider::{AdminStore, Attempt, Delivery, DeliveryId, Scope};
use serde_json::{Value, json};

use crate::error::CliError;
use crate::output::{Output, printable, rfc3339};

pub(crate) async fn delivery<S: AdminStore>(
    id: DeliveryId,
    json: bool,
    store: &S,
    out: &mut Output,
) -> Result<(), CliError> {
    let delivery = store.get(id).await?.ok_or_else(|| CliError::runtime(format!("there is no delivery {id}")))?;
    if json { out.line(delivery_json(&delivery)) } else { delivery_lines(&delivery, out) }
}

fn delivery_json(delivery: &Delivery) -> Value {
    let recipients = delivery.recipients.iter().map(
        |status| json!({ "address": status.recipient.as_str(), "state": status.state.as_str(), "reply": status.reply }),
    );
    json!({
        "id": delivery.id.to_string(),
        "state": delivery.state.as_str(),
        "reason": delivery.reason,
        "subject": delivery.subject,
        "template_id": delivery.template_id,
        "tags": delivery.tags,
        "key": delivery.key,
        "priority": delivery.priority.level(),
        "when_in_doubt": delivery.when_in_doubt.as_str(),
        "traceparent": delivery.traceparent.map(|parent| parent.to_string()),
        "created_at": rfc3339(delivery.created_at),
        "due_at": delivery.due_at.map(rfc3339),
        "finished_at": delivery.finished_at.map(rfc3339),
        "expires_at": delivery.expires_at.map(rfc3339),
        "cycle": delivery.cycle,
        "recipients": recipients.collect::<Vec<_>>(),
        "attempts": delivery.attempts.iter().map(attempt_json).collect::<Vec<_>>(),
        "malformed": delivery.malformed,
    })
}

fn attempt_json(attempt: &Attempt) -> Value {
    json!({
        "number": attempt.number,
        "cycle": attempt.cycle,
        "started_at": rfc3339(attempt.started_at),
        "finished_at": rfc3339(attempt.finished_at),
        "outcome": attempt.outcome.as_str(),
        "scope": attempt.scope.map(Scope::as_str),
        "sure": attempt.sure,
        "charged": attempt.charged,
        "note": attempt.note,
        "error": attempt.error,
        "reply": attempt.reply,
        "provider_id": attempt.provider_id,
        "transport": attempt.transport,
    })
}

fn delivery_lines(delivery: &Delivery, out: &mut Output) -> Result<(), CliError> {
    let mut line = |name: &str, value: Option<String>| match value {
        Some(value) => out.line(format_args!("{name:<12}{}", printable(&value))),
        None => Ok(()),
    };
    line("id", Some(delivery.id.to_string()))?;
    line("state", Some(delivery.state.to_string()))?;
    line("reason", delivery.reason.clone())?;
    line("malformed", delivery.malformed.clone())?;
    line("subject", delivery.subject.clone())?;
    line("template", delivery.template_id.clone())?;
    line("tags", (!delivery.tags.is_empty()).then(|| delivery.tags.join(", ")))?;
    line("key", delivery.key.clone())?;
    line("priority", Some(delivery.priority.level().to_string()))?;
    line("in doubt", Some(delivery.when_in_doubt.to_string()))?;
    line("trace", delivery.traceparent.map(|parent| parent.to_string()))?;
    line("created", Some(rfc3339(delivery.created_at)))?;
    line("due", delivery.due_at.map(rfc3339))?;
    line("finished", delivery.finished_at.map(rfc3339))?;
    line("expires", delivery.expires_at.map(rfc3339))?;
    line("cycle", Some(delivery.cycle.to_string()))?;
    out.line("recipients")?;
    for status in &delivery.recipients {
        let reply = status.reply.as_deref().map(printable).unwrap_or_default();
        let line = format!("  {:<9} {}  {reply}", status.state, printable(status.recipient.as_str()));
        out.line(line.trim_end())?;
    }
    out.line(if delivery.attempts.is_empty() { "no attempts" } else { "attempts" })?;
    for attempt in &delivery.attempts {
        attempt_lines(attempt, out)?;
    }
    Ok(())
}

fn attempt_lines(attempt: &Attempt, out: &mut Output) -> Result<(), CliError> {
    let Attempt { number, cycle, outcome, .. } = attempt;
    let took = attempt.finished_at.duration_since(attempt.started_at).unwrap_or_default();
    let scope = match attempt.scope {
        Some(Scope::Sender) => ", scope sender",
        Some(Scope::Transport) => ", scope transport",
        _ => "",
    };
    let unsure = if attempt.sure { "" } else { ", unsure" };
    let uncharged = if attempt.charged { "" } else { ", not charged" };
    let started = rfc3339(attempt.started_at);
    out.line(format_args!(
        "  {number} (cycle {cycle})  {started}  {} ms  {outcome}{scope}{unsure}{uncharged}",
        took.as_millis()
    ))?;
    let texts = [
        ("note", &attempt.note),
        ("transport", &attempt.transport),
        ("error", &attempt.error),
        ("reply", &attempt.reply),
        ("provider id", &attempt.provider_id),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            out.line(format_args!("      {name}: {}", printable(text)))?;
        }
    }
    Ok(())
}
