//! Recipients, as they follow from a delivery's state and the few outcomes that differ from it.

use std::collections::{HashMap, HashSet};

use postrider_transport::Recipient;

use crate::delivery::RecipientStatus;
use crate::state::{RecipientState, State};
use crate::store::{Lease, RecipientOutcome};

/// Everyone once: a message of somebody else's making may name one twice, and the outcomes are kept by recipient.
pub(super) fn distinct(mut recipients: Vec<Recipient>) -> Vec<Recipient> {
    let mut seen = HashSet::new();
    if recipients.len() > 1 {
        recipients.retain(|recipient| seen.insert(recipient.clone()));
    }
    recipients
}

/// The outcomes by recipient: mails to tens of thousands are looked up in it. The first of a recipient counts.
fn by_recipient(recorded: &[RecipientOutcome]) -> HashMap<&Recipient, &RecipientOutcome> {
    recorded.iter().rev().map(|outcome| (&outcome.recipient, outcome)).collect()
}

/// How it stands with each recipient. `recorded` are the outcomes that were written down; `reply` is the next hop's answer to
/// the last attempt.
pub(super) fn statuses(
    state: State,
    recipients: Vec<Recipient>,
    recorded: &[RecipientOutcome],
    reply: Option<&str>,
) -> Vec<RecipientStatus> {
    let common = match state {
        State::Pending | State::Leased => RecipientState::Pending,
        State::Sent => RecipientState::Sent,
        State::Dead => RecipientState::Dead,
        State::InDoubt => RecipientState::InDoubt,
        State::Cancelled => RecipientState::Cancelled,
    };
    let recorded = by_recipient(recorded);
    recipients
        .into_iter()
        .map(|recipient| match recorded.get(&recipient) {
            Some(outcome) => RecipientStatus { recipient, state: outcome.state, reply: outcome.reply.clone() },
            // Who is still to be mailed was not the one to whom the last answer went.
            None => {
                let reply = reply.filter(|_| common != RecipientState::Pending).map(str::to_owned);
                RecipientStatus { recipient, state: common, reply }
            }
        })
        .collect()
}

/// Takes those who are through out of a lease for everyone. Where it cannot be read who everyone is, it stays as it is.
pub(super) fn remove_completed(lease: &mut Lease, recorded: &[RecipientOutcome]) {
    if lease.recipients.is_empty() {
        return;
    }
    let everyone = lease.recipients.len();
    let through: HashSet<_> = recorded.iter().map(|outcome| &outcome.recipient).collect();
    lease.recipients.retain(|recipient| !through.contains(recipient));
    lease.has_completed_recipients = lease.recipients.len() != everyone;
    lease.any_accepted = recorded.iter().any(|outcome| outcome.state == RecipientState::Sent);
}

/// The outcomes that stay recorded when a delivery in `state` is resent: those who have the mail, unless everybody has it,
/// when all are mailed anew.
pub(super) fn kept_on_resend(
    state: State,
    recipients: &[Recipient],
    recorded: &[RecipientOutcome],
) -> Vec<RecipientOutcome> {
    let recorded = by_recipient(recorded);
    let has_it = |recipient: &&Recipient| match recorded.get(*recipient) {
        Some(outcome) => outcome.state == RecipientState::Sent,
        None => state == State::Sent,
    };
    let having: Vec<_> = recipients.iter().filter(has_it).collect();
    if having.len() == recipients.len() {
        return Vec::new();
    }
    having
        .into_iter()
        .map(|recipient| RecipientOutcome {
            recipient: recipient.clone(),
            state: RecipientState::Sent,
            reply: recorded.get(recipient).and_then(|outcome| outcome.reply.clone()),
        })
        .collect()
}
