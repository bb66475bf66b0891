//! The timeline of a delivery: its attempts, what operators did to it, and what happens next.

use std::iter::Peekable;
use std::time::{Duration, SystemTime};

use postrider_transport::{Scope, mask_addresses};

use super::deliveries::cut;
use super::format::{self, Moment};
use crate::{Action, Attempt, AuditEntry, Delivery, Outcome, Pause, PauseTarget, State as DeliveryState};

/// How many attempts are shown, the last ones.
pub(super) const SHOWN: usize = 200;

/// The longest text of a server that is shown, in characters.
pub(super) const LONGEST: usize = 4_000;

/// Times that differ by at most this count as the same. A database may give the statements of one transaction different times, and a relay
/// measures the time since a claim by its own clock.
const SAME_TIME: Duration = Duration::from_secs(1);

/// An entry of the timeline.
#[derive(Default)]
pub(super) struct Event {
    /// The kind, for the style: `plain`, `ok`, `bad`, `doubt` or `next`.
    pub(super) kind: &'static str,
    pub(super) title: String,
    pub(super) time: Option<Moment>,
    /// Short facts, such as the duration.
    pub(super) facts: Vec<String>,
    /// Longer texts with their names.
    pub(super) texts: Vec<(&'static str, String)>,
}

/// The timeline, the oldest event first. `entries` are the actions of operators, in any order.
///
/// An action ends a cycle or begins one, so actions stand between cycles. The clock of a relay can differ from that of the database by a
/// moment, so the attempts keep the order of their numbers, and the time of an action only decides between which cycles it stands.
pub(super) fn events(delivery: &Delivery, entries: &[AuditEntry], pauses: &[Pause], now: SystemTime) -> Vec<Event> {
    let end = ended_by(delivery, entries);
    let skipped = delivery.attempts.len().saturating_sub(SHOWN);
    let mut before = skipped.checked_sub(1).and_then(|last| delivery.attempts.get(last));
    let is_shown = |entry: &&AuditEntry| {
        let is_end = end.is_some_and(|end| end.number == entry.number);
        !is_end && before.is_none_or(|before| entry.at >= before.started_at)
    };
    let mut entries: Vec<_> = entries.iter().filter(is_shown).collect();
    entries.sort_by_key(|entry| entry.number);
    let mut gap = Gap { entries: entries.into_iter().peekable(), now };

    let mut events = vec![Event {
        kind: "plain",
        title: "Enqueued".to_owned(),
        time: Some(Moment::new(delivery.created_at, now)),
        facts: delivery.traceparent.map(|parent| format!("trace {parent}")).into_iter().collect(),
        ..Event::default()
    }];
    for attempt in delivery.attempts.iter().skip(skipped) {
        let began = attempt.cycle.saturating_sub(before.map_or(1, |before| before.cycle));
        gap.add_events(began, Some(attempt.started_at), &mut events);
        events.push(attempted(attempt, before, now));
        before = Some(attempt);
    }
    gap.add_events(delivery.cycle.saturating_sub(before.map_or(1, |before| before.cycle)), None, &mut events);
    events.extend(ended(delivery, end, now));
    events.push(next(delivery, pauses, now));
    events
}

/// Adds what operators did between attempts.
struct Gap<'a, I: Iterator<Item = &'a AuditEntry>> {
    /// The actions that are not in the timeline yet, the oldest first.
    entries: Peekable<I>,
    now: SystemTime,
}

impl<'a, I: Iterator<Item = &'a AuditEntry>> Gap<'a, I> {
    /// Adds the actions up to an attempt, or all that are left. `began` is how many cycles began in this gap, each by a resend.
    fn add_events(&mut self, began: u32, until: Option<SystemTime>, events: &mut Vec<Event>) {
        let mut unrecorded = began;
        let is_in_time = |entry: &AuditEntry| until.is_none_or(|until| entry.at <= until + SAME_TIME);
        // Before an attempt, the last resend is the last action.
        while let Some(entry) = self.entries.next_if(|entry| until.is_none() || (unrecorded > 0 && is_in_time(entry))) {
            if entry.action == Action::Resend {
                unrecorded = unrecorded.saturating_sub(1);
            }
            events.extend(acted(entry, self.now));
        }
        if unrecorded > 0 {
            events.push(unrecorded_resend());
        }
    }
}

/// A resend that no operator made by name. Its time is not known.
fn unrecorded_resend() -> Event {
    Event {
        kind: "plain",
        title: "Resent, with a new budget".to_owned(),
        facts: vec!["the audit trail has no record of it".to_owned()],
        ..Event::default()
    }
}

/// An action of an operator. `None` for one that does not change a delivery.
fn acted(entry: &AuditEntry, now: SystemTime) -> Option<Event> {
    let title = match entry.action {
        Action::Resend => "Resent, with a new budget",
        Action::Cancel => "Cancelled",
        Action::Dismiss => "Dismissed",
        Action::Pause | Action::Resume | Action::Probe | Action::Erase | Action::Prune => return None,
    };
    Some(Event {
        kind: "plain",
        title: title.to_owned(),
        time: Some(Moment::new(entry.at, now)),
        facts: vec![by(entry)],
        texts: why(entry),
    })
}

fn by(entry: &AuditEntry) -> String {
    format!("by {}", cut(&entry.operator, 255))
}

fn why(entry: &AuditEntry) -> Vec<(&'static str, String)> {
    let texts = [("Why", &entry.note), ("With all that matched", &entry.target)];
    texts.into_iter().filter_map(|(name, text)| Some((name, cut(text.as_deref()?, LONGEST)))).collect()
}

/// The action that ended the delivery.
fn ended_by<'a>(delivery: &Delivery, entries: &'a [AuditEntry]) -> Option<&'a AuditEntry> {
    let action = match delivery.state {
        DeliveryState::Cancelled => Action::Cancel,
        DeliveryState::Dismissed => Action::Dismiss,
        _ => return None,
    };
    let end = delivery.finished_at?;
    let is_at_end = |entry: &&AuditEntry| {
        let distance = end.duration_since(entry.at).unwrap_or_else(|ahead| ahead.duration());
        entry.action == action && distance <= SAME_TIME
    };
    entries.iter().filter(is_at_end).max_by_key(|entry| entry.number)
}

fn attempted(attempt: &Attempt, before: Option<&Attempt>, now: SystemTime) -> Event {
    let (kind, outcome) = match attempt.outcome {
        Outcome::Sent => ("ok", "accepted by the next hop"),
        Outcome::Transient => ("bad", "failed, a later attempt may succeed"),
        Outcome::Permanent => ("bad", "refused for good"),
        Outcome::InDoubt => ("doubt", "in doubt, the next hop may have accepted it"),
        Outcome::Lost => ("doubt", "lost with its relay, the next hop may have accepted it"),
    };
    let took = attempt.finished_at.duration_since(attempt.started_at).unwrap_or_default();
    let mut facts = vec![format!("took {}", format::duration(took))];
    if let Some(waited) = before.and_then(|before| attempt.started_at.duration_since(before.finished_at).ok()) {
        facts.push(format!("{} after the attempt before", format::duration(waited)));
    }
    if let Some(transport) = &attempt.transport {
        facts.push(format!("by {}", cut(transport, 200)));
    }
    facts.extend(attempt.scope.map(|scope| match scope {
        Scope::Message => "concerns this message".to_owned(),
        Scope::Sender => "concerns all mail of the sender".to_owned(),
        Scope::Transport => "concerns all mail of the transport".to_owned(),
    }));
    if !attempt.sure {
        facts.push("a guess: no rule knows the reply".to_owned());
    }
    if !attempt.charged {
        facts.push("not charged".to_owned());
    }
    // The error is often the reply, with masked addresses.
    let masked = attempt.reply.as_deref().map(mask_addresses);
    let error = if attempt.error.as_deref() == masked.as_deref() { &None } else { &attempt.error };
    let texts = [
        ("Reply", &attempt.reply),
        ("Error", error),
        ("Decision", &attempt.note),
        ("Id at the next hop", &attempt.provider_id),
    ];
    let texts = texts.into_iter().filter_map(|(name, text)| Some((name, cut(text.as_deref()?, LONGEST))));
    Event {
        kind,
        title: format!("Attempt {}: {outcome}", attempt.number),
        time: Some(Moment::new(attempt.started_at, now)),
        facts,
        texts: texts.collect(),
    }
}

fn ended(delivery: &Delivery, entry: Option<&AuditEntry>, now: SystemTime) -> Option<Event> {
    let (kind, title) = match delivery.state {
        DeliveryState::Pending | DeliveryState::Leased => return None,
        DeliveryState::Sent => ("ok", "Sent"),
        DeliveryState::Dead => ("bad", "Given up"),
        DeliveryState::InDoubt => ("doubt", "Held"),
        DeliveryState::Cancelled => ("plain", "Cancelled"),
        DeliveryState::Dismissed => ("plain", "Dismissed"),
    };
    let reason = delivery.reason.as_deref().map(|reason| ("Reason", cut(reason, LONGEST)));
    Some(Event {
        kind,
        title: title.to_owned(),
        time: delivery.finished_at.map(|time| Moment::new(time, now)),
        facts: entry.map(by).into_iter().collect(),
        texts: reason.into_iter().chain(entry.map(why).unwrap_or_default()).collect(),
    })
}

/// What happens next, and when.
fn next(delivery: &Delivery, pauses: &[Pause], now: SystemTime) -> Event {
    let due = delivery.due_at;
    let is_due = due.is_none_or(|due| due <= now);
    let pause = pauses.iter().find(|pause| match &pause.target {
        PauseTarget::Outbox => true,
        PauseTarget::Template(name) => delivery.template_id.as_ref() == Some(name),
        // Which transport will take it, and what its envelope says, is not known here.
        _ => false,
    });
    if let Some(pause) = pause.filter(|_| delivery.state == DeliveryState::Pending) {
        return Event {
            kind: "next",
            title: "Next: it waits until an operator ends a pause".to_owned(),
            time: Some(Moment::new(pause.since, now)),
            facts: vec![cut(&pause.to_string(), LONGEST)],
            texts: Vec::new(),
        };
    }
    let title = match delivery.state {
        DeliveryState::Pending if is_due => "Next: a relay takes it as soon as one is free",
        DeliveryState::Pending if delivery.attempts.is_empty() => "Next: scheduled for later",
        DeliveryState::Pending => "Next: another attempt",
        DeliveryState::Leased if is_due => "Next: its relay is gone, and another one takes it over",
        DeliveryState::Leased => "Now: a relay is sending it. If the relay dies, another one takes it over",
        DeliveryState::Sent => "Nothing more happens. A recipient need not have read it",
        DeliveryState::Dead => "Nothing more happens by itself. Resend it when the cause is gone, or dismiss it",
        DeliveryState::InDoubt => {
            "Nothing more happens by itself. Ask the recipient or the next hop, then resend it or dismiss it"
        }
        DeliveryState::Cancelled | DeliveryState::Dismissed => "Nothing more happens. It can be resent",
    };
    let expires = delivery.expires_at.map(|time| Moment::new(time, now));
    let facts = expires.map(|time| format!("expires {} ({})", time.text, time.relative));
    Event {
        kind: "next",
        title: title.to_owned(),
        time: due.map(|due| Moment::new(due, now)),
        facts: facts.into_iter().collect(),
        texts: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use postrider_transport::DeliveryId;

    use super::*;
    use crate::{Priority, WhenInDoubt};

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn attempt(number: u32, cycle: u32, start: u64) -> Attempt {
        Attempt::new(number, cycle, at(start), at(start + 1), Outcome::Permanent)
    }

    fn entry(number: i64, time: u64, action: Action, operator: &str) -> AuditEntry {
        AuditEntry::new(number, at(time), operator.to_owned(), action)
    }

    fn delivery(state: DeliveryState, cycle: u32, finished: Option<u64>, attempts: Vec<Attempt>) -> Delivery {
        Delivery {
            id: DeliveryId::new(),
            state,
            subject: None,
            template_id: None,
            tags: Vec::new(),
            key: None,
            traceparent: None,
            priority: Priority::NORMAL,
            when_in_doubt: WhenInDoubt::Resend,
            created_at: at(0),
            due_at: None,
            finished_at: finished.map(at),
            expires_at: None,
            cycle,
            reason: None,
            recipients: Vec::new(),
            attempts,
            malformed: None,
        }
    }

    #[test]
    fn a_paused_mail_waits_for_an_operator() {
        let pause = |target| Pause::new(target, at(5), "nina".to_owned(), Some("wrong price".to_owned()));
        let news =
            Delivery { template_id: Some("news".to_owned()), ..delivery(DeliveryState::Pending, 1, None, Vec::new()) };
        let template = |name: &str| PauseTarget::Template(name.to_owned());
        for (target, waits) in [
            (PauseTarget::Outbox, true),
            (template("news"), true),
            (template("receipt"), false),
            (PauseTarget::Transport("smtp".to_owned()), false),
        ] {
            let events = events(&news, &[], &[pause(target.clone())], at(10));
            let next = events.last().unwrap();
            assert_eq!(next.title == "Next: it waits until an operator ends a pause", waits, "{target:?}");
            assert_eq!(next.facts.iter().any(|fact| fact.contains("paused by nina: wrong price")), waits, "{target:?}");
        }
    }

    /// The titles up to the first colon, with who did it, and without what happens next.
    fn titles(delivery: &Delivery, entries: &[AuditEntry]) -> Vec<String> {
        let mut events = events(delivery, entries, &[], at(1_000));
        events.pop();
        let short = |event: Event| {
            let title = event.title.split([':', ',']).next().unwrap_or_default().to_owned();
            let by = event.facts.into_iter().find(|fact| fact.starts_with("by ") || fact.contains("no record"));
            by.map_or(title.clone(), |by| format!("{title} {by}"))
        };
        events.into_iter().map(short).collect()
    }

    #[test]
    fn actions_stand_between_the_attempts_by_their_time() {
        let attempts = vec![attempt(1, 1, 10), attempt(2, 2, 30), attempt(3, 3, 50)];
        // The trail has the newest first.
        let entries = [
            entry(9, 60, Action::Dismiss, "cleo"),
            entry(4, 50, Action::Resend, "bob"),
            entry(3, 20, Action::Resend, "ada"),
        ];
        let dismissed = delivery(DeliveryState::Dismissed, 3, Some(60), attempts);
        let expected =
            ["Enqueued", "Attempt 1", "Resent by ada", "Attempt 2", "Resent by bob", "Attempt 3", "Dismissed by cleo"];
        assert_eq!(titles(&dismissed, &entries), expected);
    }

    /// As when everything happens within a millisecond.
    #[test]
    fn clocks_that_differ_by_a_moment_change_no_order() {
        let at = |millis| UNIX_EPOCH + Duration::from_millis(millis);
        let attempt = |number, cycle, start| Attempt::new(number, cycle, at(start), at(start), Outcome::Permanent);
        let resent = |number, time| AuditEntry::new(number, at(time), format!("ada{number}"), Action::Resend);
        let attempts = vec![attempt(1, 1, 7), attempt(2, 2, 9), attempt(3, 2, 8), attempt(4, 3, 8)];
        let dead = delivery(DeliveryState::Dead, 3, Some(0), attempts);
        let expected = [
            "Enqueued",
            "Attempt 1",
            "Resent by ada1",
            "Attempt 2",
            "Attempt 3",
            "Resent by ada2",
            "Attempt 4",
            "Given up",
        ];
        for (first, second) in [(7, 9), (5, 6), (9, 9)] {
            assert_eq!(titles(&dead, &[resent(2, second), resent(1, first)]), expected);
        }
    }

    #[test]
    fn resends_without_a_record_are_shown_once_for_each_gap() {
        let attempts = vec![attempt(1, 1, 10), attempt(2, 2, 30), attempt(3, 4, 50)];
        let entries = [entry(3, 40, Action::Resend, "ada")];
        let unknown = "Resent the audit trail has no record of it";
        let pending = delivery(DeliveryState::Pending, 5, None, attempts);
        let expected = ["Enqueued", "Attempt 1", unknown, "Attempt 2", "Resent by ada", unknown, "Attempt 3", unknown];
        assert_eq!(titles(&pending, &entries), expected);
        // The first attempts were deleted.
        let pruned = delivery(DeliveryState::Dead, 3, Some(51), vec![attempt(3, 3, 50)]);
        let entries = [entry(5, 20, Action::Resend, "ada"), entry(6, 40, Action::Resend, "ada")];
        assert_eq!(titles(&pruned, &entries), ["Enqueued", "Resent by ada", "Resent by ada", "Attempt 3", "Given up"]);
        assert_eq!(titles(&pruned, &entries[..1]), ["Enqueued", "Resent by ada", unknown, "Attempt 3", "Given up"]);
    }

    #[test]
    fn an_earlier_action_of_the_same_kind_is_not_the_end() {
        let entries = [entry(1, 10, Action::Cancel, "ada"), entry(2, 20, Action::Resend, "bob")];
        // A program cancelled it again.
        let cancelled = delivery(DeliveryState::Cancelled, 2, Some(30), Vec::new());
        assert_eq!(titles(&cancelled, &entries), ["Enqueued", "Cancelled by ada", "Resent by bob", "Cancelled"]);
        let twice = delivery(DeliveryState::Cancelled, 2, Some(10), Vec::new());
        assert_eq!(titles(&twice, &entries[..1]).last().map(String::as_str), Some("Cancelled by ada"));
    }
}
