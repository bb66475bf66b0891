//! The commands `resend`, `cancel`, `dismiss`, `pause`, `resume`, `probe` and `audit`. The JSON keys are a stable interface.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use postrider::{
    AdminStore, AuditEntry, AuditFilter, Change, DeliveryId, Filter, Operator, Outbox, PauseTarget, State,
    StoreErrorKind, UpdateOutcome,
};
use serde_json::{Value, json};

use crate::args::{ByArgs, ChangeArgs, PauseArgs, TargetArgs};
use crate::error::{CliError, warn};
use crate::list;
use crate::output::{Output, printable, rfc3339, seconds};
use crate::signals::Signals;

/// The operator's name in the environment. `None` if it has none.
pub(crate) fn user() -> Option<String> {
    let value = |name| std::env::var(name).ok().filter(|name| !name.is_empty());
    value("POSTRIDER_OPERATOR").or_else(|| value("USER"))
}

/// The operator with the given name, or that of the user.
pub(crate) fn operator<S: AdminStore>(by: &ByArgs, store: &S) -> Operator<S> {
    let name = by.by.clone().or_else(user).unwrap_or_else(|| "unknown".to_owned());
    let operator = Outbox::enqueue_only(store.clone()).operator(name);
    match &by.note {
        Some(note) => operator.note(note),
        None => operator,
    }
}

pub(crate) async fn change<S: AdminStore>(
    change: Change,
    args: &ChangeArgs,
    store: &S,
    signals: &Signals,
    out: &mut Output,
) -> Result<(), CliError> {
    let operator = operator(&args.by, store);
    if args.ids.is_empty() {
        return change_found(change, args, &operator, store, signals, out).await;
    }
    if args.preview {
        return preview(change, &args.ids, store, out).await;
    }
    let mut unchanged = 0;
    for id in &args.ids {
        let outcome = operator.change(change, *id).await?;
        unchanged += usize::from(outcome != UpdateOutcome::Updated);
        print(change, *id, outcome, out)?;
    }
    out.flush()?;
    match unchanged {
        0 => Ok(()),
        count => Err(CliError::runtime(format!("{count} of {} deliveries not found or unchanged", args.ids.len()))),
    }
}

/// Prints what a change of these deliveries would do.
async fn preview<S: AdminStore>(
    change: Change,
    ids: &[DeliveryId],
    store: &S,
    out: &mut Output,
) -> Result<(), CliError> {
    for id in ids {
        match store.get(*id).await? {
            None => print(change, *id, UpdateOutcome::NotFound, out)?,
            Some(found) if !change.applies_to(found.state) => {
                print(change, *id, UpdateOutcome::Unchanged(found.state), out)?;
            }
            Some(_) if change == Change::Resend && store.message(*id).await?.is_none() => {
                print(change, *id, UpdateOutcome::MessageDeleted, out)?;
            }
            Some(_) => out.line(format_args!("{id} would be {}", word(change)))?,
        }
    }
    Ok(())
}

/// Changes all deliveries that the filter finds, step by step.
async fn change_found<S: AdminStore>(
    change: Change,
    args: &ChangeArgs,
    operator: &Operator<S>,
    store: &S,
    signals: &Signals,
    out: &mut Output,
) -> Result<(), CliError> {
    if !args.filter.state.is_some_and(|state| change.applies_to(state)) {
        let states = State::ALL.into_iter().filter(|state| change.applies_to(*state)).map(State::as_str);
        let states = states.collect::<Vec<_>>().join(", ");
        return Err(CliError::usage(format!("{} takes ids, or --state with one of {states}", change.action())));
    }
    let mut filter = list::filter(&args.filter).limit(Operator::<S>::STEP);
    filter.after = args.after;
    let mut left = args.limit.unwrap_or(u32::MAX);
    if args.preview {
        return out.line(format_args!("{} would be {}", store.count(&filter.limit(left)).await?, word(change)));
    }
    let (mut updated, mut unchanged) = (0, 0);
    let stop = signals.stop_on_signal();
    loop {
        let start = Instant::now();
        filter.limit = left.min(Operator::<S>::STEP);
        match operator.change_step(change, &filter).await {
            Ok(step) => {
                updated += step.updated;
                unchanged += step.unchanged;
                left = left.saturating_sub(u32::try_from(step.updated + step.unchanged).unwrap_or(u32::MAX));
                match step.last {
                    Some(last) if left > 0 => filter.after = Some(last),
                    _ => break,
                }
                // As in `Operator::change_all`.
                _ = tokio::time::timeout(start.elapsed(), stop.cancelled()).await;
                if stop.is_cancelled() {
                    out.line(format_args!("{updated} {}", word(change)))?;
                    out.flush()?;
                    let rest = filter.after.map(|last| format!("; to continue, add --after {last}"));
                    return Err(CliError::runtime(format!("stopped by a signal{}", rest.unwrap_or_default())));
                }
            }
            Err(error) if error.kind() == StoreErrorKind::Rejected => return Err(error.into()),
            Err(error) => {
                out.line(format_args!("{updated} {}", word(change)))?;
                out.flush()?;
                let rest = filter.after.map(|last| format!("; to continue, add --after {last}"));
                return Err(CliError::runtime(format!("{error}{}", rest.unwrap_or_default())));
            }
        }
    }
    out.line(format_args!("{updated} {}", word(change)))?;
    if unchanged > 0 {
        out.line(format_args!("{unchanged} unchanged"))?;
    }
    Ok(())
}

/// The word for a changed delivery.
fn word(change: Change) -> &'static str {
    match change {
        Change::Resend => "pending again",
        Change::Cancel => "cancelled",
        Change::Dismiss => "dismissed",
    }
}

fn print(change: Change, id: DeliveryId, outcome: UpdateOutcome, out: &mut Output) -> Result<(), CliError> {
    match outcome {
        UpdateOutcome::Updated => out.line(format_args!("{id} {}", word(change))),
        UpdateOutcome::Unchanged(state) => out.line(format_args!("{id} unchanged: {state}")),
        UpdateOutcome::MessageDeleted => out.line(format_args!("{id} unchanged: its message is deleted")),
        UpdateOutcome::NotFound => out.line(format_args!("{id} not found")),
    }
}

pub(crate) async fn pause<S: AdminStore>(args: PauseArgs, store: &S, out: &mut Output) -> Result<(), CliError> {
    let target = target(args.target);
    let text = printable(&target.to_string()).into_owned();
    let paused = operator(&args.by, store).pause(target.clone()).await?;
    out.line(format_args!("{text} {}", if paused { "paused" } else { "was paused already" }))?;
    out.flush()?;
    warn_of_unknown(&target, store).await
}

/// How far back the transports' names are looked for.
const RECENT: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Warns of a name that may be misspelt: a pause of it is stored, and stops nothing until mail has this name.
async fn warn_of_unknown<S: AdminStore>(target: &PauseTarget, store: &S) -> Result<(), CliError> {
    let outbox = Outbox::enqueue_only(store.clone());
    match target {
        PauseTarget::Transport(name) => {
            let since = store.now().await?.checked_sub(RECENT).unwrap_or(SystemTime::UNIX_EPOCH);
            let recent = outbox.hourly(since).await?.into_iter().filter_map(|count| count.transport);
            let names: BTreeSet<_> = recent.filter_map(|path| path.split('/').next().map(str::to_owned)).collect();
            if !names.contains(name) {
                let known = if names.is_empty() {
                    String::new()
                } else {
                    format!(", but by {}", Vec::from_iter(names).join(", "))
                };
                warn(&format!("no mail was sent by a transport of this name in the last 7 days{known}"));
            }
        }
        PauseTarget::Template(name) => {
            let filter = Filter::new().template_id(name.as_str()).newest_first().limit(1);
            let page = outbox.search(&filter, Duration::from_secs(1)).await?;
            if page.deliveries.is_empty() {
                let searched = if page.next.is_some() { "recent delivery" } else { "delivery" };
                warn(&format!("no {searched} has this template"));
            }
        }
        _ => {}
    }
    Ok(())
}

pub(crate) async fn resume<S: AdminStore>(args: PauseArgs, store: &S, out: &mut Output) -> Result<(), CliError> {
    let target = target(args.target);
    let text = printable(&target.to_string()).into_owned();
    let resumed = operator(&args.by, store).resume(target).await?;
    out.line(format_args!("{text} {}", if resumed { "resumed" } else { "was not paused" }))
}

fn target(args: TargetArgs) -> PauseTarget {
    let TargetArgs { transport, sender, template_id, .. } = args;
    let transport = transport.map(PauseTarget::Transport);
    let named = transport.or(sender.map(PauseTarget::Sender)).or(template_id.map(PauseTarget::Template));
    named.unwrap_or(PauseTarget::Outbox)
}

pub(crate) async fn probe<S: AdminStore>(by: &ByArgs, store: &S, out: &mut Output) -> Result<(), CliError> {
    operator(by, store).probe().await?;
    out.line("relays will probe a paused transport within two seconds")
}

pub(crate) async fn audit<S: AdminStore>(
    filter: &AuditFilter,
    json: bool,
    store: &S,
    out: &mut Output,
) -> Result<(), CliError> {
    if json {
        for entry in &store.audit(filter).await? {
            out.line(entry_json(entry))?;
        }
        return Ok(());
    }
    out.line("TIME                  WHO               WHAT     DELIVERY                              MORE")?;
    let mut lines = 0;
    let mut last: Option<(AuditEntry, u64)> = None;
    let mut page_filter = filter.clone().limit(AUDIT_PAGE);
    loop {
        let page = store.audit(&page_filter).await?;
        let is_last_page = page.len() < usize::try_from(AUDIT_PAGE).unwrap_or(usize::MAX);
        for entry in page {
            page_filter.before = Some(entry.number);
            match &mut last {
                Some((newest, count)) if is_one_action(newest, &entry) => *count += 1,
                _ => {
                    if let Some((entry, count)) = last.replace((entry, 1)) {
                        out.line(entry_line(&entry, count))?;
                        lines += 1;
                    }
                    if lines == filter.limit {
                        return Ok(());
                    }
                }
            }
        }
        if is_last_page || out.closed() {
            break;
        }
    }
    match last {
        Some((entry, count)) => out.line(entry_line(&entry, count)),
        None => Ok(()),
    }
}

/// How many entries are read at once.
const AUDIT_PAGE: u32 = 500;

/// Whether two entries are of one bulk action, which has an entry for each delivery. Its target is its filter.
fn is_one_action(a: &AuditEntry, b: &AuditEntry) -> bool {
    let action = |entry: &AuditEntry| (entry.operator.clone(), entry.action, entry.target.clone(), entry.note.clone());
    a.delivery.is_some() && b.delivery.is_some() && a.target.is_some() && action(a) == action(b)
}

/// One line for an action on `count` deliveries.
fn entry_line(entry: &AuditEntry, count: u64) -> String {
    let more: Vec<_> = entry.target.iter().chain(&entry.note).map(|text| printable(text)).collect();
    let delivery = match entry.delivery {
        Some(_) if count > 1 => format!("{count} deliveries"),
        Some(id) => id.to_string(),
        None => "-".to_owned(),
    };
    let (at, operator) = (seconds(entry.at), printable(&entry.operator));
    let line = format!("{at}  {operator:16}  {:7}  {delivery:36}  {}", entry.action, more.join("; "));
    line.trim_end().to_owned()
}

fn entry_json(entry: &AuditEntry) -> Value {
    json!({
        "number": entry.number,
        "at": rfc3339(entry.at),
        "operator": entry.operator,
        "action": entry.action.as_str(),
        "delivery": entry.delivery.map(|id| id.to_string()),
        "target": entry.target,
        "note": entry.note,
    })
}
