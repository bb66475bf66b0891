//! Whose condition a failure is. A transport's table proposes, evidence decides, and nobody is charged for what was not his.
//!
//! Pure: times and chance are given. What is known is in memory: after a restart nothing is, and the worst of it is one more pause.
//!
//! | The transport says | Known | Then |
//! |---|---|---|
//! | message, sure | | as it says |
//! | message, unsure | the first time for this message | retried by the backoff, charged |
//! | | several different messages in a row were refused alike, and nothing was accepted in between | the transport's: paused, uncharged |
//! | | two different messages of this sender were, while other senders went through | the sender's: paused, uncharged |
//! | | again, and others were accepted since; two messages at most were ever refused in these words | believed: a permanent refusal is a dead letter |
//! | | the same, of more messages | retried by the backoff, charged, until its budget ends it: words that many hear may mean a quota that comes and goes |
//! | | again, and nothing was accepted since | retried by the backoff, uncharged |
//! | sender | this message failed so before, and others of this sender were accepted since | its own: retried by the backoff, charged |
//! | | else | the sender is paused, uncharged |
//! | transport | this message failed so before, and others were accepted since; none of its sender, of whom another failed too | the sender is paused, uncharged |
//! | | this message failed so before, and others were accepted since | its own: retried by the backoff, charged |
//! | | else | the transport is paused, uncharged |
//! | in doubt | | pauses as above, and is charged: only the budget bounds the copies |

mod senders;
mod streak;

use std::time::{Duration, Instant};

use postrider_transport::{Admit, Backoff, BreakerState, CallTime, DeliveryId, Failure, Receipt, Recipient, Scope};

use crate::decide::Judged;
use senders::Senders;
use streak::{Heard, Mail, Streak};

/// So many different messages that are refused alike, with nothing accepted in between, are not each to blame. Fewer happen by
/// chance where one message in ten is bad.
const IN_A_ROW: usize = 5;

/// The same where each is refused in other words.
const IN_A_ROW_UNLIKE: usize = 10;

/// Words that so many different messages heard are not one message's own.
const COMMON: usize = 3;

/// What is known of one transport and of the senders that failed there.
#[derive(Debug)]
pub(super) struct Evidence {
    transport: BreakerState,
    /// When the last call began that was accepted.
    accepted: Option<Instant>,
    refused_alike: Streak,
    refused: Streak,
    /// What the transport is paused for, where it is paused for such a row.
    row: Option<String>,
    heard: Heard,
    /// The message that paused the transport.
    culprit: Option<Mail>,
    senders: Senders,
}

/// One call of the transport, for one message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) id: DeliveryId,
    pub(super) sender: Option<&'a str>,
    pub(super) recipients: &'a [Recipient],
    pub(super) time: CallTime,
    pub(super) before: Option<Before>,
    pub(super) probe: Probing,
}

/// What this message's last attempt came to, in this cycle.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before {
    /// When it ended; `None` if that is too long ago for this process's clock.
    pub(super) ended: Option<Instant>,
    /// What the transport said then; `None` if the message was accepted for somebody.
    pub(super) scope: Option<Scope>,
    pub(super) sure: bool,
}

/// Whether a call is to find out if a paused transport works again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probing {
    No,
    /// It is, and others may be tried after it, so that its failure proves nothing yet.
    Candidate,
}

/// What a call came to, after evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Whose condition it is. Of an acceptance it says nothing.
    pub(super) scope: Scope,
    /// Whether the attempt counts against the message's budget.
    pub(super) charge: bool,
    /// Whether a permanent refusal is final: the message's, or that of a recipient that no rule knows.
    pub(super) believed: bool,
    /// How long the message waits at the least. `None`: as its own backoff says.
    pub(super) wait: Option<Duration>,
    /// Why, where the failure alone does not say.
    pub(super) note: Option<&'static str>,
    /// What changed for others.
    pub(super) changes: Vec<Change>,
}

/// A pause that began or ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    TransportPaused { reason: String, pause: Duration },
    TransportResumed,
    SenderPaused { sender: String, reason: String, pause: Duration },
    SenderResumed { sender: String },
}

/// What a message is told that asks to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    Pass,
    /// It finds out whether its sender, or its sender's domain, may send again. To be [given back](Evidence::give_back_sender).
    SenderProbe {
        of_domain: bool,
        number: u64,
    },
    /// Its sender is paused, for so long.
    Wait(Duration),
}

impl Evidence {
    pub(super) fn new(backoff: Backoff, now: Instant) -> Self {
        Self {
            transport: BreakerState::new(backoff, now),
            accepted: None,
            refused_alike: Streak::default(),
            refused: Streak::default(),
            row: None,
            heard: Heard::default(),
            culprit: None,
            senders: Senders::new(backoff),
        }
    }

    /// Asks how much may pass to the transport.
    pub(super) fn admit(&mut self, now: Instant) -> Admit {
        self.transport.admit(now)
    }

    /// The same, for a pass that would rather try than wait.
    pub(super) fn admit_early(&mut self) -> Admit {
        self.transport.admit_early()
    }

    /// Says that a probe of the transport came to nothing.
    pub(super) fn give_back(&mut self, number: u64) {
        self.transport.give_back(number);
    }

    /// Asks whether a sender's message may pass.
    pub(super) fn admit_sender(&mut self, sender: Option<&str>, now: Instant) -> Admission {
        sender.map_or(Admission::Pass, |sender| self.senders.admit(sender, now))
    }

    /// Says that a sender's probe came to nothing.
    pub(super) fn give_back_sender(&mut self, sender: &str, of_domain: bool, number: u64) {
        self.senders.give_back(sender, of_domain, number);
    }

    /// Why the transport is paused, if it is.
    pub(super) fn reason(&self) -> Option<&str> {
        self.transport.reason()
    }

    /// The senders that are paused, each with the reason.
    pub(super) fn paused_senders(&self) -> Vec<(String, String)> {
        self.senders.paused()
    }

    /// Whether a message is another one than that which paused the transport, so that it may find out more.
    pub(super) fn differs_from_culprit(&self, id: DeliveryId, recipients: &[Recipient]) -> bool {
        let mail = Mail::new(id, recipients);
        self.culprit.is_none_or(|culprit| culprit.differs(mail))
    }

    /// How long the pause would be if the present probe failed. What fails as a candidate waits so long.
    pub(super) fn next_pause(&self, random: f64) -> Duration {
        self.transport.next_pause(None, random)
    }

    /// Says that all candidates of a probe failed, the last one so, and how long the pause is.
    pub(super) fn probe_failed(&mut self, last: &Failure, pause: Option<Duration>, time: CallTime) -> Option<Change> {
        // The backoff has gone into the pause already.
        let reason = match &self.row {
            Some(_) => self.transport.reason().unwrap_or_default().to_owned(),
            None => last.to_string(),
        };
        let pause = self.transport.failed_for(reason.clone(), pause.unwrap_or_default(), time)?;
        Some(Change::TransportPaused { reason, pause })
    }

    /// How long is left of the pause; if there is none, how long a first one is.
    pub(super) fn remaining_or_first(&self, now: Instant, random: f64) -> Duration {
        self.transport.remaining(now).unwrap_or_else(|| self.transport.next_pause(None, random))
    }

    /// Takes note of what a call came to, and says what it means.
    pub(super) fn judge(&mut self, result: &Result<Receipt, Failure>, call: Call<'_>, random: f64) -> Verdict {
        match result {
            Ok(_) => self.accepted(call),
            Err(failure) if failure.in_doubt() => {
                let said = match failure.scope() {
                    Scope::Message => Verdict::own(false),
                    Scope::Sender => self.sender_failed(failure, call, random),
                    Scope::Transport => self.transport_failed(failure, call, random),
                };
                // Its own backoff bounds the copies as much as its budget does.
                Verdict { charge: true, believed: false, ..said }
            }
            Err(failure) => match failure.scope() {
                Scope::Message if failure.is_sure() => Verdict::own(true),
                Scope::Message => self.refused_unsurely(failure, call, random),
                Scope::Sender => self.sender_failed(failure, call, random),
                Scope::Transport => self.transport_failed(failure, call, random),
            },
        }
    }

    fn accepted(&mut self, call: Call<'_>) -> Verdict {
        let others = self.others_accepted_since(call.before);
        self.accepted = self.accepted.max(Some(call.time.began));
        self.refused_alike.clear();
        self.refused.clear();
        let mut changes = Vec::new();
        if self.transport.worked(call.time) {
            self.culprit = None;
            self.row = None;
            changes.push(Change::TransportResumed);
        }
        if let Some(sender) = call.sender {
            let resumed = self.senders.accepted(sender, call.time).into_iter();
            changes.extend(resumed.map(|sender| Change::SenderResumed { sender }));
        }
        // A recipient who is refused a second time, by words that no rule knows, while others are not.
        let again = call.before.is_some_and(|before| !before.sure && (before.scope.is_none() || others));
        Verdict { changes, believed: again, ..Verdict::own(true) }
    }

    /// Whether another message was accepted since this one failed. Its own call of now does not count.
    fn others_accepted_since(&self, before: Option<Before>) -> bool {
        before.is_some_and(|before| {
            self.accepted.is_some_and(|accepted| before.ended.is_none_or(|ended| accepted > ended))
        })
    }

    fn transport_failed(&mut self, failure: &Failure, call: Call<'_>, random: f64) -> Verdict {
        let failed_before =
            call.before.is_some_and(|before| matches!(before.scope, Some(Scope::Sender | Scope::Transport)));
        let blamed = call.sender.map(|sender| self.senders.blame(sender, "", call)).unwrap_or_default();
        if failed_before && self.others_accepted_since(call.before) {
            if blamed > 1 && !self.senders.accepted_since(call) {
                return self.pause_sender(failure, call, random, Some(OTHER_SENDERS_WENT_THROUGH));
            }
            return Verdict { believed: false, note: Some(OTHERS_WENT_THROUGH), ..Verdict::own(true) };
        }
        self.pause_transport(failure.to_string(), failure.retry_after(), call, random, None)
    }

    fn pause_transport(
        &mut self,
        reason: String,
        asked: Option<Duration>,
        call: Call<'_>,
        random: f64,
        note: Option<&'static str>,
    ) -> Verdict {
        let mut changes = Vec::new();
        let next = self.transport.next_pause(asked, random);
        if call.probe != Probing::Candidate
            && let Some(pause) = self.transport.failed(reason.clone(), asked, random, call.time)
        {
            self.culprit = Some(Mail::new(call.id, call.recipients));
            changes.push(Change::TransportPaused { reason, pause });
        }
        let remaining = self.transport.remaining(call.time.ended).unwrap_or_default();
        let wait = if call.probe == Probing::Candidate { next } else { remaining };
        Verdict { scope: Scope::Transport, charge: false, believed: false, wait: Some(wait), note, changes }
    }

    fn sender_failed(&mut self, failure: &Failure, call: Call<'_>, random: f64) -> Verdict {
        let failed_before =
            call.before.is_some_and(|before| matches!(before.scope, Some(Scope::Sender | Scope::Transport)));
        if failed_before && self.senders.accepted_since(call) {
            return Verdict { believed: false, note: Some(OTHERS_OF_THE_SENDER_WENT_THROUGH), ..Verdict::own(true) };
        }
        if let Some(sender) = call.sender {
            self.senders.blame(sender, "", call);
        }
        self.pause_sender(failure, call, random, None)
    }

    fn pause_sender(&mut self, failure: &Failure, call: Call<'_>, random: f64, note: Option<&'static str>) -> Verdict {
        let mut verdict =
            Verdict { scope: Scope::Sender, charge: false, believed: false, wait: None, note, changes: Vec::new() };
        let Some(sender) = call.sender else {
            // Nobody knows which other messages it concerns.
            return verdict;
        };
        let reason = failure.to_string();
        let (begun, remaining) = self.senders.pause(sender, &reason, failure.retry_after(), random, call.time);
        verdict.wait = Some(remaining);
        let begun = begun.into_iter();
        verdict.changes.extend(begun.map(|(sender, pause)| Change::SenderPaused {
            sender,
            reason: reason.clone(),
            pause,
        }));
        verdict
    }

    fn refused_unsurely(&mut self, failure: &Failure, call: Call<'_>, random: f64) -> Verdict {
        let pattern = failure.pattern();
        let mail = Mail::new(call.id, call.recipients);
        let in_a_row =
            self.refused_alike.add(&pattern, mail) >= IN_A_ROW || self.refused.add("", mail) >= IN_A_ROW_UNLIKE;
        let common = self.heard.add(&pattern, mail) >= COMMON;
        let of_sender = call.sender.map(|sender| self.senders.blame(sender, &pattern, call)).unwrap_or_default();
        if in_a_row || self.row.as_ref() == Some(&pattern) {
            let reason = format!("several different messages in a row were refused: {failure}");
            let verdict = self.pause_transport(reason, failure.retry_after(), call, random, Some(IN_A_ROW_NOTE));
            self.row.get_or_insert(pattern);
            return verdict;
        }
        let others = self.others_accepted_since(call.before);
        let again = call.before.is_some_and(|before| before.scope == Some(Scope::Message) && !before.sure);
        // What came before counts too: the first of a sender is put off, and by the second nothing of the sender went through.
        if of_sender > 1 && self.senders.others_accepted_since_blame(call, self.accepted) {
            return self.pause_sender(failure, call, random, Some(OTHER_SENDERS_WENT_THROUGH));
        }
        match (again, others) {
            (true, true) if common => Verdict { believed: false, note: Some(COMMON_WORDS), ..Verdict::own(true) },
            (true, true) => Verdict { note: Some(REFUSED_AGAIN), ..Verdict::own(true) },
            (true, false) => Verdict { believed: false, charge: false, note: Some(UNPROVEN), ..Verdict::own(false) },
            (false, _) => Verdict { believed: false, note: Some(UNKNOWN), ..Verdict::own(true) },
        }
    }
}

impl From<&Verdict> for Judged {
    fn from(verdict: &Verdict) -> Self {
        let Verdict { scope, charge, believed, wait, .. } = *verdict;
        Self { scope, charge, believed, wait }
    }
}

impl Verdict {
    /// The message's own condition.
    fn own(charge: bool) -> Self {
        Self { scope: Scope::Message, charge, believed: true, wait: None, note: None, changes: Vec::new() }
    }
}

const OTHERS_WENT_THROUGH: &str = "taken for the message's own: it failed so before, and others were accepted since";
const OTHERS_OF_THE_SENDER_WENT_THROUGH: &str =
    "taken for the message's own: it failed so before, and others of its sender were accepted since";
const OTHER_SENDERS_WENT_THROUGH: &str = "taken for the sender's: other senders were accepted, and nothing of this one";
const IN_A_ROW_NOTE: &str = "taken for the transport's: several different messages in a row were refused";
const REFUSED_AGAIN: &str = "believed: refused twice by words that no rule knows, while others were accepted";
const COMMON_WORDS: &str = "not believed: other messages were refused in the same words, which no rule knows";
const UNPROVEN: &str = "not charged: refused again by words that no rule knows, and nothing else was accepted since";
const UNKNOWN: &str = "not believed yet: no rule knows these words";

#[cfg(test)]
mod tests;
