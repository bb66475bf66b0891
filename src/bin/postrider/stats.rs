//! The command `stats`. The JSON keys are a stable interface.

use std::time::{Duration, SystemTime};

use postrider::{AdminStore, HourlyCount, Outbox, Pause, RelayStatus, Stats};
use serde_json::{Value, json};

use crate::error::CliError;
use crate::output::{self, Output, printable, rfc3339};

pub(crate) async fn stats<S: AdminStore>(
    json: bool,
    since: Option<SystemTime>,
    store: &S,
    out: &mut Output,
) -> Result<(), CliError> {
    let outbox = Outbox::enqueue_only(store.clone());
    let stats = outbox.stats().await?;
    let hourly = match since {
        Some(since) => Some(outbox.hourly(since).await?),
        None => None,
    };
    if json {
        let mut object = stats_json(&stats);
        object["pauses"] = outbox.controls().await?.pauses.iter().map(pause_json).collect();
        if let Some(hourly) = hourly {
            object["hourly"] = hourly.iter().map(hourly_json).collect();
        }
        return out.line(object);
    }
    let controls = outbox.controls().await?;
    let Stats { pending, leased, sent, dead, in_doubt, cancelled, .. } = stats;
    let counts = [
        ("pending", pending),
        ("  due", stats.due),
        ("  scheduled", stats.scheduled),
        ("  retrying", stats.retrying),
        ("leased", leased),
        ("sent", sent),
        ("dead", dead),
        ("in doubt", in_doubt),
        ("cancelled", cancelled),
        ("dismissed", stats.dismissed),
    ];
    for (name, count) in counts {
        out.line(format_args!("{name:<12}{count}"))?;
    }
    let ages =
        [("waiting", stats.oldest_waiting), ("undeferred", stats.oldest_undeferred), ("oldest due", stats.oldest_due)];
    for (name, age) in ages {
        match age {
            Some(age) => out.line(format_args!("{name:<12}{} ago", humantime::format_duration(whole_seconds(age))))?,
            None => out.line(format_args!("{name:<12}-"))?,
        }
    }
    for pause in &controls.pauses {
        let note = pause.note.as_deref().map(|note| format!(": {}", printable(note))).unwrap_or_default();
        let (target, by) = (pause.target.to_string(), printable(&pause.operator));
        out.line(format_args!(
            "paused      {} since {} by {by}{note}",
            printable(&target),
            output::seconds(pause.since)
        ))?;
    }
    for relay in &stats.relays {
        let RelayStatus { id, in_flight, .. } = relay;
        let seen = humantime::format_duration(whole_seconds(relay.seen_ago));
        let lasted =
            relay.paused_for.map(|lasted| format!(" for {}", humantime::format_duration(whole_seconds(lasted))));
        let lasted = lasted.unwrap_or_default();
        let is = if relay.is_running() { "" } else { "not running; was " };
        let paused = relay.paused.as_deref().map(|why| format!(", {is}paused{lasted}: {}", printable(why)));
        let paused = paused.unwrap_or_default();
        let host = relay.host.as_deref().map(|host| format!(" on {}", printable(host))).unwrap_or_default();
        out.line(format_args!("relay       {id}{host}  seen {seen} ago, {in_flight} in flight{paused}"))?;
    }
    if let Some(hourly) = hourly {
        out.line("HOUR                  WHAT       COUNT  TRANSPORT")?;
        for HourlyCount { hour, event, transport, count, .. } in &hourly {
            let transport = printable(transport.as_deref().unwrap_or("-"));
            out.line(format_args!("{}  {event:9}  {count:>5}  {transport}", output::seconds(*hour)))?;
        }
    }
    Ok(())
}

fn stats_json(stats: &Stats) -> Value {
    let relays = stats.relays.iter().map(|relay| {
        json!({
            "id": relay.id,
            "host": relay.host,
            "seen_s_ago": seconds(relay.seen_ago),
            "in_flight": relay.in_flight,
            "paused": relay.paused,
            "paused_for_s": relay.paused_for.map(seconds),
        })
    });
    json!({
        "pending": stats.pending,
        "leased": stats.leased,
        "sent": stats.sent,
        "dead": stats.dead,
        "in_doubt": stats.in_doubt,
        "cancelled": stats.cancelled,
        "dismissed": stats.dismissed,
        "due": stats.due,
        "scheduled": stats.scheduled,
        "retrying": stats.retrying,
        "oldest_waiting_s": stats.oldest_waiting.map(seconds),
        "oldest_undeferred_s": stats.oldest_undeferred.map(seconds),
        "oldest_due_s": stats.oldest_due.map(seconds),
        "relays": relays.collect::<Vec<_>>(),
    })
}

fn pause_json(pause: &Pause) -> Value {
    json!({
        "kind": pause.target.kind(),
        "name": pause.target.name(),
        "since": rfc3339(pause.since),
        "operator": pause.operator,
        "note": pause.note,
    })
}

fn hourly_json(count: &HourlyCount) -> Value {
    json!({
        "hour": rfc3339(count.hour),
        "event": count.event.as_str(),
        "transport": count.transport,
        "count": count.count,
    })
}

/// A duration in seconds, rounded to milliseconds.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000.0).round() / 1_000.0
}

fn whole_seconds(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs())
}
