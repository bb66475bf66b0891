//! The states of recipients, derived from the delivery's state and the recorded outcomes; and the erasure of a recipient.

use std::collections::{HashMap, HashSet};

use postrider_transport::Recipient;

use crate::delivery::RecipientStatus;
use crate::state::{RecipientState, State};
use crate::store::{Lease, RecipientOutcome};

/// Removes duplicates. A custom message may name a recipient twice, but outcomes are stored once for each recipient.
pub(super) fn deduplicate(mut recipients: Vec<Recipient>) -> Vec<Recipient> {
    let mut seen = HashSet::new();
    if recipients.len() > 1 {
        recipients.retain(|recipient| seen.insert(recipient.clone()));
    }
    recipients
}

/// Indexes the outcomes by recipient, since a mail may have 10,000 of them. The first outcome of a recipient counts.
fn index_by_recipient(recorded: &[RecipientOutcome]) -> HashMap<&Recipient, &RecipientOutcome> {
    recorded.iter().rev().map(|outcome| (&outcome.recipient, outcome)).collect()
}

/// The state of a recipient without a recorded outcome.
pub(super) fn common_state(state: State) -> RecipientState {
    match state {
        State::Pending | State::Leased => RecipientState::Pending,
        State::Sent => RecipientState::Sent,
        State::Dead => RecipientState::Dead,
        State::InDoubt => RecipientState::InDoubt,
        State::Cancelled => RecipientState::Cancelled,
        State::Dismissed => RecipientState::Dismissed,
    }
}

/// The status of each recipient. `reply` is the reply to the last attempt.
pub(super) fn recipient_statuses(
    state: State,
    recipients: Vec<Recipient>,
    recorded: &[RecipientOutcome],
    reply: Option<&str>,
) -> Vec<RecipientStatus> {
    let common = common_state(state);
    let recorded = index_by_recipient(recorded);
    recipients
        .into_iter()
        .map(|recipient| match recorded.get(&recipient) {
            Some(outcome) => RecipientStatus { recipient, state: outcome.state, reply: outcome.reply.clone() },
            // The last reply does not concern a recipient who is still pending.
            None => {
                let reply = reply.filter(|_| common != RecipientState::Pending).map(str::to_owned);
                RecipientStatus { recipient, state: common, reply }
            }
        })
        .collect()
}

/// Removes the recipients with a recorded outcome from a lease. It does nothing if the list of recipients could not be read.
pub(super) fn remove_completed(lease: &mut Lease, recorded: &[RecipientOutcome]) {
    if lease.recipients.is_empty() {
        return;
    }
    let all = lease.recipients.len();
    let completed: HashSet<_> = recorded.iter().map(|outcome| &outcome.recipient).collect();
    lease.recipients.retain(|recipient| !completed.contains(recipient));
    lease.has_completed_recipients = lease.recipients.len() != all;
    lease.any_accepted = recorded.iter().any(|outcome| outcome.state == RecipientState::Sent);
}

/// The outcomes to keep when a delivery in `state` is resent: those of recipients who have the mail. If all have it, none is kept, and the
/// resend goes to all.
pub(super) fn outcomes_kept_on_resend(
    state: State,
    recipients: &[Recipient],
    recorded: &[RecipientOutcome],
) -> Vec<RecipientOutcome> {
    let recorded = index_by_recipient(recorded);
    let has_mail = |recipient: &&Recipient| match recorded.get(*recipient) {
        Some(outcome) => outcome.state == RecipientState::Sent,
        None => state == State::Sent,
    };
    let with_mail: Vec<_> = recipients.iter().filter(has_mail).collect();
    if with_mail.len() == recipients.len() {
        return Vec::new();
    }
    with_mail
        .into_iter()
        .map(|recipient| RecipientOutcome {
            recipient: recipient.clone(),
            state: RecipientState::Sent,
            reply: recorded.get(recipient).and_then(|outcome| outcome.reply.clone()),
        })
        .collect()
}

/// The text that replaces an erased one.
pub(super) const ERASED: &str = "erased";

/// The recipients of a delivery from which one is removed.
pub(super) struct Erasure {
    /// All recipients after the erasure.
    pub(super) recipients: Vec<Recipient>,
    /// The erased recipients, each with its placeholder. There are several if the address is listed in several spellings.
    pub(super) replaced: Vec<(Recipient, Recipient)>,
}

impl Erasure {
    /// Replaces a recipient by a placeholder. `None` if the delivery does not have this recipient.
    pub(super) fn new(mut recipients: Vec<Recipient>, erased: &Recipient) -> Option<Self> {
        let mut replaced = Vec::new();
        for (index, recipient) in recipients.iter_mut().enumerate() {
            if recipient.as_str().eq_ignore_ascii_case(erased.as_str()) {
                let placeholder = Recipient::new(format!("erased-{}@erased.invalid", index + 1));
                replaced.push((std::mem::replace(recipient, placeholder.clone()), placeholder));
            }
        }
        (!replaced.is_empty()).then_some(Self { recipients, replaced })
    }

    /// The recipients as the databases store them.
    #[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
    pub(super) fn recipients_json(&self) -> String {
        let texts: Vec<&str> = self.recipients.iter().map(Recipient::as_str).collect();
        serde_json::Value::from(texts).to_string()
    }
}

/// Whether an idempotency key contains the recipient.
pub(super) fn key_contains(key: Option<&str>, recipient: &Recipient) -> bool {
    key.is_some_and(|key| key.to_ascii_lowercase().contains(&recipient.as_str().to_ascii_lowercase()))
}
