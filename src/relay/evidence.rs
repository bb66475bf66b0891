//! Whose condition a failure is. A transport's table proposes, evidence decides, and nobody is charged for what was not his.
//!
//! No I/O, no clock, no randomness of its own. What is known is in memory. After a restart nothing is known, and at worst there is one more
//! pause.
//!
//! | The transport says | Known | Then |
//! |---|---|---|
//! | message, sure | | as it says |
//! | message, unsure | | weighed |
//! | sender | this message failed so before, and others of this sender were accepted since | weighed |
//! | | else | the sender is paused, uncharged |
//! | transport | this message failed so before, and others were accepted since | weighed |
//! | | two different messages of its sender failed so, and others were accepted since, but none of this sender | weighed |
//! | | else | the transport is paused, uncharged |
//! | in doubt | | as above, and charged: only the budget bounds the copies |
//!
//! What is weighed is one of these, the first that fits:
//!
//! | Known | Then |
//! |---|---|
//! | several different messages in a row failed alike, and nothing was accepted in between | the transport is paused, uncharged |
//! | two different messages of this sender did, while others were accepted, but none of this sender | the sender is paused, uncharged |
//! | this message has heard these words before, others of its sender were accepted since, and two messages at most ever heard them | its own: a permanent refusal is believed, anything else is charged, and retried by the backoff |
//! | else | retried by the backoff, uncharged, until its time is over |
//!
//! A limit: a condition of others that comes and goes, and each time meets the same message and hardly any other, while others of the same
//! sender are accepted in between, looks like that message's own.

mod senders;
mod streak;

use std::time::{Duration, Instant};

use postrider_transport::{Admit, Backoff, BreakerState, CallTime, DeliveryId, Failure, Receipt, Recipient, Scope};

use super::decide::Judged;
use senders::Senders;
use streak::{Heard, Mail, Streak, Words};

/// This many different messages that fail alike, with nothing accepted in between, are not each at fault. Shorter rows happen by chance
/// when one message in ten is bad.
const IN_A_ROW: usize = 5;

/// The same, where each is refused in different words.
const IN_A_ROW_UNLIKE: usize = 10;

/// A refusal that this many different messages heard is not one message's own.
const COMMON: usize = 3;

/// A message that fails during a pause waits this much longer than the pause, so that other due messages are tried first, whatever their
/// priority.
const YIELD: Duration = Duration::from_millis(100);

/// The evidence of one transport, and of its senders that failed.
#[derive(Debug)]
pub(super) struct Evidence {
    transport: BreakerState,
    /// When the last accepted call began.
    accepted: Option<Instant>,
    refused_alike: Streak,
    refused: Streak,
    /// The words of the row that paused the transport; `None` if it is not paused for a row.
    row: Option<String>,
    heard: Words,
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

impl Before {
    /// Whether the transport said that it failed for the sender's condition, or for the transport's.
    fn is_of_others(self) -> bool {
        matches!(self.scope, Some(Scope::Sender | Scope::Transport))
    }
}

/// The last attempt of this message in this cycle.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before {
    /// When it ended; `None` if that is before this process's clock begins.
    pub(super) ended: Option<Instant>,
    /// The scope that the transport gave; `None` if somebody accepted the message.
    pub(super) scope: Option<Scope>,
}

/// Whether a call probes a paused transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probing {
    No,
    /// It does. Others may be tried after it, so its failure proves nothing yet.
    Candidate,
}

/// The result of a call, after evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Whose condition a failure is. It has no meaning for an acceptance.
    pub(super) scope: Scope,
    /// Whether the attempt counts against the message's budget.
    pub(super) charge: bool,
    /// Whether a permanent refusal without a rule is final, of the message or of a recipient.
    pub(super) believed: bool,
    /// The shortest wait; `None` leaves it to the message's own backoff.
    pub(super) wait: Option<Duration>,
    /// The reason, where the failure alone does not say it.
    pub(super) note: Option<&'static str>,
    /// The pauses that begin or end.
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

/// Whether a message may be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    Pass,
    /// It probes its sender, or its sender's domain. Return it with [`give_back_sender`](Evidence::give_back_sender).
    SenderProbe {
        of_domain: bool,
        number: u64,
    },
    /// Its sender is paused, for this long.
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
            heard: Words::default(),
            culprit: None,
            senders: Senders::new(backoff),
        }
    }

    /// How much may pass to the transport.
    pub(super) fn admit(&mut self, now: Instant) -> Admit {
        self.transport.admit(now)
    }

    /// The same for a pass, which tries instead of waiting.
    pub(super) fn admit_early(&mut self) -> Admit {
        self.transport.admit_early()
    }

    /// Returns a probe of the transport without a result.
    pub(super) fn give_back(&mut self, number: u64) {
        self.transport.release_probe(number);
    }

    /// Whether a sender's message may pass. `early` is for a pass, which tries instead of waiting.
    pub(super) fn admit_sender(
        &mut self,
        sender: Option<&str>,
        id: DeliveryId,
        early: bool,
        now: Instant,
    ) -> Admission {
        sender.map_or(Admission::Pass, |sender| self.senders.admit(sender, id, early, now))
    }

    /// Returns a sender's probe without a result.
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

    /// Whether a message differs from the one that paused the transport, so that trying it can prove something.
    pub(super) fn differs_from_culprit(&self, id: DeliveryId, recipients: &[Recipient]) -> bool {
        let mail = Mail::new(id, recipients);
        self.culprit.is_none_or(|culprit| culprit.differs(mail))
    }

    /// The next pause, if the present probe fails. A candidate that fails waits this long.
    pub(super) fn next_pause(&self, random: f64) -> Duration {
        self.transport.next_pause(None, random)
    }

    /// Records that all candidates of a probe failed, and how the last one did.
    pub(super) fn probe_failed(&mut self, last: &Failure, random: f64, time: CallTime) -> Option<Change> {
        let reason = match &self.row {
            Some(_) => self.transport.reason().unwrap_or_default().to_owned(),
            None => last.to_string(),
        };
        let pause = self.transport.record_failure(reason.clone(), last.retry_after(), random, time)?;
        Some(Change::TransportPaused { reason, pause })
    }

    /// The wait of a message that failed as a probe: to the end of the pause, or the length of a first pause if there is none.
    pub(super) fn wait_of_probe(&self, now: Instant, random: f64) -> Duration {
        self.transport.remaining(now).unwrap_or_else(|| self.transport.next_pause(None, random)) + YIELD
    }

    /// Records the result of a call, and says what it means.
    pub(super) fn judge(&mut self, result: &Result<Receipt, Failure>, call: Call<'_>, random: f64) -> Verdict {
        let failure = match result {
            Ok(_) => return self.accepted(call),
            Err(failure) => failure,
        };
        let verdict = self.failed(failure, call, random);
        if let Some(sender) = call.sender {
            self.senders.failed(sender, call.id);
        }
        // Only the budget bounds the copies.
        let charge = verdict.charge || failure.in_doubt();
        Verdict { charge, ..verdict }
    }

    fn failed(&mut self, failure: &Failure, call: Call<'_>, random: f64) -> Verdict {
        if failure.scope() == Scope::Message && failure.is_sure() {
            return Verdict::own(true);
        }
        let pattern = failure.pattern();
        let words = (pattern.as_str(), self.heard.add(&pattern, Mail::new(call.id, call.recipients)));
        match failure.scope() {
            Scope::Sender if !(call.before.is_some_and(Before::is_of_others) && self.senders.accepted_since(call)) => {
                self.is_of_sender("", call);
                self.pause_sender(failure, call, random, None)
            }
            Scope::Message | Scope::Sender => self.weigh(failure, words, call, random),
            Scope::Transport => self.transport_failed(failure, words, call, random),
        }
    }

    fn accepted(&mut self, call: Call<'_>) -> Verdict {
        self.accepted = self.accepted.max(Some(call.time.began));
        self.refused_alike.clear();
        self.refused.clear();
        let mut changes = Vec::new();
        if self.transport.record_success(call.time) {
            self.culprit = None;
            self.row = None;
            changes.push(Change::TransportResumed);
        }
        if let Some(sender) = call.sender {
            let resumed = self.senders.accepted(sender, call.time).into_iter();
            changes.extend(resumed.map(|sender| Change::SenderResumed { sender }));
        }
        // Recipients that are refused in unknown words, while others are accepted, may be too many for one call.
        Verdict { changes, believed: false, ..Verdict::own(true) }
    }

    /// Whether another message was accepted since this one failed.
    fn others_accepted_since(&self, before: Option<Before>) -> bool {
        before.is_some_and(|before| {
            self.accepted.is_some_and(|accepted| before.ended.is_none_or(|ended| accepted > ended))
        })
    }

    fn transport_failed(&mut self, failure: &Failure, words: (&str, Heard), call: Call<'_>, random: f64) -> Verdict {
        let again = call.before.is_some_and(Before::is_of_others) && self.others_accepted_since(call.before);
        if again || self.is_of_sender("", call) {
            return self.weigh(failure, words, call, random);
        }
        self.pause_transport(failure.to_string(), failure.retry_after(), call, random, None)
    }

    /// Records a failure that may be the sender's condition. Returns whether it is: different messages of this sender failed alike, and
    /// others were accepted meanwhile, but none of this sender.
    fn is_of_sender(&mut self, pattern: &str, call: Call<'_>) -> bool {
        // Earlier failures count too: nothing of this sender went through between its first failure and its second.
        call.sender.is_some_and(|sender| self.senders.blame(sender, pattern, call) > 1)
            && self.senders.others_accepted_since_blame(call, self.accepted)
    }

    /// Weighs a failure that no rule knows, or that other messages contradict.
    fn weigh(&mut self, failure: &Failure, (pattern, heard): (&str, Heard), call: Call<'_>, random: f64) -> Verdict {
        let mail = Mail::new(call.id, call.recipients);
        let in_a_row =
            self.refused_alike.add(pattern, mail) >= IN_A_ROW || self.refused.add("", mail) >= IN_A_ROW_UNLIKE;
        if in_a_row || self.row.as_deref() == Some(pattern) {
            let reason = format!("several different messages in a row were refused: {failure}");
            let verdict = self.pause_transport(reason, failure.retry_after(), call, random, Some(IN_A_ROW_NOTE));
            self.row.get_or_insert_with(|| pattern.to_owned());
            return verdict;
        }
        let key = if failure.scope() == Scope::Message { pattern } else { "" };
        if failure.scope() != Scope::Sender && self.is_of_sender(key, call) {
            return self.pause_sender(failure, call, random, Some(OTHER_SENDERS_WENT_THROUGH));
        }
        let others = match call.sender {
            Some(_) => self.senders.accepted_since(call),
            None => self.others_accepted_since(call.before),
        };
        let said = failure.scope() == Scope::Message;
        let (own, note) = match (heard.before && others, said) {
            _ if heard.by >= COMMON => (false, COMMON_WORDS),
            (true, true) => (true, REFUSED_AGAIN),
            (true, false) => (true, OTHERS_WENT_THROUGH),
            (false, true) => (false, UNKNOWN),
            (false, false) => (false, UNPROVEN),
        };
        // A refusal that was not said of the message is not final.
        Verdict { believed: own && said, note: Some(note), ..Verdict::own(own) }
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
            && let Some(pause) = self.transport.record_failure(reason.clone(), asked, random, call.time)
        {
            self.culprit = Some(Mail::new(call.id, call.recipients));
            changes.push(Change::TransportPaused { reason, pause });
        }
        let remaining = self.transport.remaining(call.time.ended).unwrap_or_default();
        let wait = if call.probe == Probing::Candidate { next } else { remaining + YIELD };
        Verdict { scope: Scope::Transport, charge: false, believed: false, wait: Some(wait), note, changes }
    }

    fn pause_sender(&mut self, failure: &Failure, call: Call<'_>, random: f64, note: Option<&'static str>) -> Verdict {
        let mut verdict =
            Verdict { scope: Scope::Sender, charge: false, believed: false, wait: None, note, changes: Vec::new() };
        let Some(sender) = call.sender else {
            // It is not known which other messages it concerns.
            return verdict;
        };
        let reason = failure.to_string();
        let (begun, remaining) = self.senders.pause(sender, &reason, failure.retry_after(), random, call);
        verdict.wait = Some(remaining);
        let begun = begun.into_iter();
        verdict.changes.extend(begun.map(|(sender, pause)| Change::SenderPaused {
            sender,
            reason: reason.clone(),
            pause,
        }));
        verdict
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

const IN_A_ROW_NOTE: &str = "taken for the transport's: several different messages in a row were refused";
const OTHER_SENDERS_WENT_THROUGH: &str = "taken for the sender's: other senders were accepted, and nothing of this one";
const REFUSED_AGAIN: &str = "believed: refused in these words before, and others of its sender were accepted since";
const OTHERS_WENT_THROUGH: &str =
    "taken for the message's own: it failed so before, and others of its sender were accepted since";
const COMMON_WORDS: &str = "not taken for the message's own: others were refused in the same words";
const UNPROVEN: &str = "nobody is paused, since others were accepted; nothing proves that it is the message's own";
const UNKNOWN: &str = "not believed: no rule knows these words, and nothing proves that it is the message's own";

#[cfg(test)]
mod tests;
