//! The commands `list`, `show` and `stats`. The JSON keys are a stable interface.

use std::time::Duration;

use postrider::{
    AdminStore, Attempt, Delivery, DeliveryId, DeliverySummary, Filter, Outbox, RelayStatus, Scope, Stats,
};
use serde_json::{Value, json};

use crate::args::ListArgs;
use crate::error::CliError;
use crate::output::{Output, printable, rfc3339};

const PAGE_SIZE: u32 = 500;
const TABLE_HEADER: &str =
    "ID                                    STATE      ATTEMPTS  DUE                       TEMPLATE          LAST ERROR";

pub(crate) async fn list<S: AdminStore>(args: &ListArgs, store: &S, out: &mut Output) -> Result<(), CliError> {
    let mut left = args.limit.unwrap_or(u32::MAX);
    let mut filter = Filter::new();
    filter.state = args.state;
    filter.after = args.after;
    let mut needs_header = !args.json;
    while left > 0 && !out.closed() {
        filter.limit = left.min(PAGE_SIZE);
        let page = store.list(&filter).await?;
        if std::mem::take(&mut needs_header) {
            out.line(TABLE_HEADER)?;
        }
        for summary in &page {
            if args.json { out.line(summary_json(summary))? } else { out.line(summary_line(summary))? }
        }
        out.flush()?;
        let found = u32::try_from(page.len()).unwrap_or(u32::MAX);
        left = left.saturating_sub(found);
        match page.last() {
            Some(last) if found == filter.limit => filter.after = Some(last.id),
            _ => break,
        }
    }
    Ok(())
}

fn summary_json(summary: &DeliverySummary) -> Value {
    json!({
        "id": summary.id.to_string(),
        "state": summary.state.as_str(),
        "template_id": summary.template_id,
        "attempts": summary.attempts,
        "created_at": rfc3339(summary.created_at),
        "due_at": summary.due_at.map(rfc3339),
        "last_error": summary.last_error,
    })
}

fn summary_line(summary: &DeliverySummary) -> String {
    let DeliverySummary { id, state, attempts, .. } = summary;
    let due = or_dash(summary.due_at.map(rfc3339));
    let template = or_dash(summary.template_id.clone());
    let error = summary.last_error.as_deref().map(printable).unwrap_or_default();
    format!("{id}  {state:9}  {attempts:>8}  {due:24}  {template:16}  {error}").trim_end().to_owned()
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

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
    let recipients = delivery.recipients.iter().map(|status| {
        json!({ "address": status.recipient.as_str(), "outcome": status.state.as_str(), "reply": status.reply })
    });
    json!({
        "id": delivery.id.to_string(),
        "state": delivery.state.as_str(),
        "reason": delivery.reason,
        "template_id": delivery.template_id,
        "key": delivery.key,
        "priority": delivery.priority.level(),
        "when_in_doubt": delivery.when_in_doubt.as_str(),
        "created_at": rfc3339(delivery.created_at),
        "due_at": delivery.due_at.map(rfc3339),
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
    line("template", delivery.template_id.clone())?;
    line("key", delivery.key.clone())?;
    line("priority", Some(delivery.priority.level().to_string()))?;
    line("in doubt", Some(delivery.when_in_doubt.to_string()))?;
    line("created", Some(rfc3339(delivery.created_at)))?;
    line("due", delivery.due_at.map(rfc3339))?;
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

pub(crate) async fn stats<S: AdminStore>(json: bool, store: &S, out: &mut Output) -> Result<(), CliError> {
    let stats = Outbox::enqueue_only(store.clone()).stats().await?;
    if json {
        return out.line(stats_json(&stats));
    }
    let Stats { pending, leased, sent, dead, in_doubt, cancelled, .. } = stats;
    let counts = [
        ("pending", pending),
        ("leased", leased),
        ("sent", sent),
        ("dead", dead),
        ("in doubt", in_doubt),
        ("cancelled", cancelled),
    ];
    for (name, count) in counts {
        out.line(format_args!("{name:<12}{count}"))?;
    }
    match stats.oldest_due {
        Some(age) => out.line(format_args!("oldest due  {} ago", humantime::format_duration(whole_seconds(age))))?,
        None => out.line("oldest due  -")?,
    }
    for relay in &stats.relays {
        let RelayStatus { id, in_flight, .. } = relay;
        let seen = humantime::format_duration(whole_seconds(relay.seen_ago));
        let paused = relay.paused.as_deref().map(|why| format!(", paused: {}", printable(why))).unwrap_or_default();
        out.line(format_args!("relay       {id}  seen {seen} ago, {in_flight} in flight{paused}"))?;
    }
    Ok(())
}

fn stats_json(stats: &Stats) -> Value {
    let relays = stats.relays.iter().map(|relay| {
        json!({
            "id": relay.id,
            "seen_s_ago": seconds(relay.seen_ago),
            "in_flight": relay.in_flight,
            "paused": relay.paused,
        })
    });
    json!({
        "pending": stats.pending,
        "leased": stats.leased,
        "sent": stats.sent,
        "dead": stats.dead,
        "in_doubt": stats.in_doubt,
        "cancelled": stats.cancelled,
        "oldest_due_s": stats.oldest_due.map(seconds),
        "relays": relays.collect::<Vec<_>>(),
    })
}

/// Rounded to milliseconds.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000.0).round() / 1_000.0
}

fn whole_seconds(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs())
}
