//! The commands `resend`, `cancel`, `dismiss`, `pause`, `resume`, `probe` and `audit`. The JSON keys are a stable interface.

use std::time::Instant;

use postrider::{
    AdminStore, AuditEntry, AuditFilter, Change, DeliveryId, Operator, Outbox, PauseTarget, State, StoreErrorKind,
    UpdateOutcome,
};
use serde_json::{Value, json};

use crate::args::{ByArgs, ChangeArgs, PauseArgs, TargetArgs};
use crate::error::CliError;
use crate::list;
use crate::output::{Output, printable, rfc3339, seconds};
use crate::signals::Signals;

/// The operator with the given name, or that of the user.
pub(crate) fn operator<S: AdminStore>(by: &ByArgs, store: &S) -> Operator<S> {
    let user = || std::env::var("USER").ok().filter(|name| !name.is_empty());
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
    if args.preview {
        return out.line(format_args!("{} would be {}", store.count(&filter.limit(u32::MAX)).await?, word(change)));
    }
    let (mut updated, mut unchanged) = (0, 0);
    let stop = signals.stop_on_signal();
    loop {
        let start = Instant::now();
        match operator.change_step(change, &filter).await {
            Ok(step) => {
                updated += step.updated;
                unchanged += step.unchanged;
                match step.last {
                    Some(last) => filter.after = Some(last),
                    None => break,
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
    let paused = operator(&args.by, store).pause(target).await?;
    out.line(format_args!("{text} {}", if paused { "paused" } else { "was paused already" }))
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
    let entries = store.audit(filter).await?;
    if !json {
        out.line("TIME                  WHO               WHAT     DELIVERY                              MORE")?;
    }
    for entry in &entries {
        if json { out.line(entry_json(entry))? } else { out.line(entry_line(entry))? }
    }
    Ok(())
}

fn entry_line(entry: &AuditEntry) -> String {
    let more: Vec<_> = entry.target.iter().chain(&entry.note).map(|text| printable(text)).collect();
    let delivery = entry.delivery.map_or_else(|| "-".to_owned(), |id| id.to_string());
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
