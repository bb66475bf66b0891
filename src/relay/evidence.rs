//! Decides whose condition a failure is: the message's, the sender's or the transport's.
//!
//! The transport reports a scope. The results of other messages, the evidence, confirm or overrule it. No message is charged for the
//! condition of another.
//!
//! This code does no I/O, and gets the time and random numbers as arguments. The evidence is in memory. After a restart it is empty, which
//! costs a few more attempts and at most one more pause.
//!
//! | Reported scope | Evidence | Result |
//! |---|---|---|
//! | message, sure | | as reported |
//! | message, unsure | | weighed |
//! | sender | this message failed with the scope of the sender or the transport before, and others of the sender were accepted since | weighed |
//! | | otherwise | the sender is paused, uncharged |
//! | transport | this message failed with the scope of the sender or the transport before, and others were accepted since | weighed |
//! | | two different messages of the sender failed, others were accepted since, and none of this sender | weighed |
//! | | otherwise | the transport is paused, uncharged |
//! | any, in doubt | | as above, and charged: only the budget limits the copies |
//!
//! A weighed failure gets the first result that applies. Two replies are the same if they have the same [pattern](Failure::pattern).
//!
//! | Evidence | Result |
//! |---|---|
//! | several different messages in a row failed with the same reply, or twice as many with any replies, and nothing was accepted in between | the transport is paused, uncharged |
//! | two different messages of this sender failed, others were accepted, and none of this sender | the sender is paused, uncharged |
//! | this message got the same reply before, others of its sender were accepted since, and at most two messages ever got this reply | the message's own condition: a permanent refusal is final, any other failure is charged and retried by the backoff |
//! | otherwise | retried by the backoff, uncharged, until the age limit |
//!
//! Evidence has a limit. A quota, for example, may come and go. If it refuses the same one or two messages each time, and other messages of
//! their sender are accepted in between, it looks like the messages' own condition.

mod notes;
mod senders;
mod streak;

use std::time::{Duration, Instant};

use postrider_transport::{Admit, Backoff, BreakerState, CallTime, DeliveryId, Failure, Receipt, Recipient, Scope};

use super::decide::Judged;
use senders::Senders;
use streak::{Mail, PatternCount, PatternHistory, Streak};

/// This many different messages in a row with the same refusal, and no acceptance in between, are a condition of the transport. If one
/// message in ten is bad, shorter streaks happen by chance.
const STREAK: usize = 5;

/// The same limit for messages in a row with any refusals.
const MIXED_STREAK: usize = 10;

/// A reply that this many different messages got is not the condition of one message.
const COMMON_PATTERN: usize = 3;

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
    /// The pattern of the streak that paused the transport. `None` if no streak has paused it.
    streak_pattern: Option<String>,
    patterns: PatternHistory,
    /// The message that paused the transport.
    paused_by: Option<Mail>,
    senders: Senders,
}

/// One call of the transport, for one message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) id: DeliveryId,
    pub(super) sender: Option<&'a str>,
    pub(super) recipients: &'a [Recipient],
    pub(super) time: CallTime,
    pub(super) previous: Option<PreviousAttempt>,
    pub(super) probe: Probing,
}

impl PreviousAttempt {
    /// Whether the transport reported the scope of the sender or the transport.
    fn blamed_others(self) -> bool {
        matches!(self.scope, Some(Scope::Sender | Scope::Transport))
    }
}

/// The last attempt of this message in this cycle.
#[derive(Debug, Clone, Copy)]
pub(super) struct PreviousAttempt {
    /// When it ended. `None` if this process's clock cannot represent that time.
    pub(super) ended: Option<Instant>,
    /// The scope that the transport reported. `None` if a recipient was accepted.
    pub(super) scope: Option<Scope>,
}

/// Whether a call probes a paused transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probing {
    No,
    /// The call is one of several in a round of probes. Its failure alone does not prolong the pause.
    Candidate,
}

/// The meaning of a result after evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Whose condition a failure is. It has no meaning for an acceptance.
    pub(super) scope: Scope,
    /// Whether the attempt counts against the message's budget.
    pub(super) charge: bool,
    /// Whether a permanent refusal without a rule is final. It may refuse the message or a recipient.
    pub(super) unsure_is_final: bool,
    /// The shortest wait. `None` leaves it to the message's own backoff.
    pub(super) wait: Option<Duration>,
    /// The reason, if the failure alone does not give it.
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
    /// The message probes its sender or the sender's domain. A probe without a result ends with
    /// [`release_sender_probe`](Evidence::release_sender_probe).
    SenderProbe {
        of_domain: bool,
        number: u64,
    },
    /// The sender is paused for this long.
    Wait(Duration),
}

impl Evidence {
    pub(super) fn new(backoff: Backoff, now: Instant) -> Self {
        Self {
            transport: BreakerState::new(backoff, now),
            accepted: None,
            refused_alike: Streak::default(),
            refused: Streak::default(),
            streak_pattern: None,
            patterns: PatternHistory::default(),
            paused_by: None,
            senders: Senders::new(backoff),
        }
    }

    /// Returns how many messages may be sent now.
    pub(super) fn admit(&mut self, now: Instant) -> Admit {
        self.transport.admit(now)
    }

    /// Returns a probe before the pause ends, for a pass, which does not wait.
    pub(super) fn admit_early(&mut self) -> Admit {
        self.transport.admit_early()
    }

    /// Ends a probe of the transport that has no result. The next message may probe.
    pub(super) fn release_probe(&mut self, number: u64) {
        self.transport.release_probe(number);
    }

    /// Returns whether a message may be sent, by the pauses of its sender and the sender's domain. `early` allows probes before a pause
    /// ends, for a pass, which does not wait.
    pub(super) fn admit_sender(
        &mut self,
        sender: Option<&str>,
        id: DeliveryId,
        early: bool,
        now: Instant,
    ) -> Admission {
        sender.map_or(Admission::Pass, |sender| self.senders.admit(sender, id, early, now))
    }

    /// Ends a probe of a sender that has no result. The next message may probe.
    pub(super) fn release_sender_probe(&mut self, sender: &str, of_domain: bool, number: u64) {
        self.senders.release_probe(sender, of_domain, number);
    }

    /// Why the transport is paused, if it is.
    pub(super) fn reason(&self) -> Option<&str> {
        self.transport.reason()
    }

    /// The senders that are paused, each with the reason.
    pub(super) fn paused_senders(&self) -> Vec<(String, String)> {
        self.senders.paused()
    }

    /// Whether a message differs from the one that paused the transport. Only such a message can show that the transport works.
    pub(super) fn differs_from_pausing_message(&self, id: DeliveryId, recipients: &[Recipient]) -> bool {
        let mail = Mail::new(id, recipients);
        self.paused_by.is_none_or(|other| other.differs(mail))
    }

    /// The next pause if the current probe fails. A failed candidate waits this long.
    pub(super) fn next_pause(&self, random: f64) -> Duration {
        self.transport.next_pause(None, random)
    }

    /// Records that all candidates of a probe failed, and how the last one did.
    pub(super) fn probe_failed(&mut self, last: &Failure, random: f64, time: CallTime) -> Option<Change> {
        let reason = match &self.streak_pattern {
            Some(_) => self.transport.reason().unwrap_or_default().to_owned(),
            None => last.to_string(),
        };
        let pause = self.transport.record_failure(reason.clone(), last.retry_after(), random, time)?;
        Some(Change::TransportPaused { reason, pause })
    }

    /// The wait of a message that failed as a probe: until the pause ends, or as long as a first pause if the transport is not paused.
    pub(super) fn wait_of_probe(&self, now: Instant, random: f64) -> Duration {
        self.transport.remaining(now).unwrap_or_else(|| self.transport.next_pause(None, random)) + YIELD
    }

    /// Records the result of a call, and judges it.
    pub(super) fn judge(&mut self, result: &Result<Receipt, Failure>, call: Call<'_>, random: f64) -> Verdict {
        let failure = match result {
            Ok(_) => return self.accepted(call),
            Err(failure) => failure,
        };
        let verdict = self.failed(failure, call, random);
        if let Some(sender) = call.sender {
            self.senders.failed(sender, call.id);
        }
        // Only the budget limits the number of copies.
        let charge = verdict.charge || failure.in_doubt();
        Verdict { charge, ..verdict }
    }

    fn failed(&mut self, failure: &Failure, call: Call<'_>, random: f64) -> Verdict {
        if failure.scope() == Scope::Message && failure.is_sure() {
            return Verdict::own(true);
        }
        let pattern = failure.pattern();
        let seen = (pattern.as_str(), self.patterns.add(&pattern, Mail::new(call.id, call.recipients)));
        match failure.scope() {
            Scope::Sender
                if !(call.previous.is_some_and(PreviousAttempt::blamed_others)
                    && self.senders.accepted_since(call)) =>
            {
                self.is_of_sender("", call);
                self.pause_sender(failure, call, random, None)
            }
            Scope::Message | Scope::Sender => self.weigh(failure, seen, call, random),
            Scope::Transport => self.transport_failed(failure, seen, call, random),
        }
    }

    fn accepted(&mut self, call: Call<'_>) -> Verdict {
        self.accepted = self.accepted.max(Some(call.time.began));
        self.refused_alike.clear();
        self.refused.clear();
        let mut changes = Vec::new();
        if self.transport.record_success(call.time) {
            self.paused_by = None;
            self.streak_pattern = None;
            changes.push(Change::TransportResumed);
        }
        if let Some(sender) = call.sender {
            let resumed = self.senders.accepted(sender, call.time).into_iter();
            changes.extend(resumed.map(|sender| Change::SenderResumed { sender }));
        }
        // Some recipients were accepted, and others may have got a refusal that no rule knows. The cause may be a limit for one call.
        Verdict { changes, unsure_is_final: false, ..Verdict::own(true) }
    }

    /// Whether any message was accepted since this one failed.
    fn others_accepted_since(&self, previous: Option<PreviousAttempt>) -> bool {
        previous.is_some_and(|previous| {
            self.accepted.is_some_and(|accepted| previous.ended.is_none_or(|ended| accepted > ended))
        })
    }

    fn transport_failed(
        &mut self,
        failure: &Failure,
        seen: (&str, PatternCount),
        call: Call<'_>,
        random: f64,
    ) -> Verdict {
        let again =
            call.previous.is_some_and(PreviousAttempt::blamed_others) && self.others_accepted_since(call.previous);
        if again || self.is_of_sender("", call) {
            return self.weigh(failure, seen, call, random);
        }
        self.pause_transport(failure.to_string(), failure.retry_after(), call, random, None)
    }

    /// Records a failure that may be the sender's condition, and returns whether it is. It is if different messages of the sender failed
    /// with the same pattern, while messages of other senders were accepted and none of this one.
    fn is_of_sender(&mut self, pattern: &str, call: Call<'_>) -> bool {
        // Failures before those acceptances count as well, because no message of this sender was accepted since its first failure.
        call.sender.is_some_and(|sender| self.senders.blame(sender, pattern, call) > 1)
            && self.senders.others_accepted_since_blame(call, self.accepted)
    }

    /// Weighs a failure that no rule knows, or whose reported scope other results contradict.
    fn weigh(
        &mut self,
        failure: &Failure,
        (pattern, seen): (&str, PatternCount),
        call: Call<'_>,
        random: f64,
    ) -> Verdict {
        let mail = Mail::new(call.id, call.recipients);
        let is_streak = self.refused_alike.add(pattern, mail) >= STREAK || self.refused.add("", mail) >= MIXED_STREAK;
        if is_streak || self.streak_pattern.as_deref() == Some(pattern) {
            let reason = format!("several different messages in a row were refused: {failure}");
            let verdict = self.pause_transport(reason, failure.retry_after(), call, random, Some(notes::STREAK));
            self.streak_pattern.get_or_insert_with(|| pattern.to_owned());
            return verdict;
        }
        let key = if failure.scope() == Scope::Message { pattern } else { "" };
        if failure.scope() != Scope::Sender && self.is_of_sender(key, call) {
            return self.pause_sender(failure, call, random, Some(notes::OTHER_SENDERS_ACCEPTED));
        }
        let others = match call.sender {
            Some(_) => self.senders.accepted_since(call),
            None => self.others_accepted_since(call.previous),
        };
        let blames_message = failure.scope() == Scope::Message;
        let (own, note) = match (seen.before && others, blames_message) {
            _ if seen.messages >= COMMON_PATTERN => (false, notes::COMMON_PATTERN),
            (true, true) => (true, notes::REFUSED_AGAIN),
            (true, false) => (true, notes::OTHERS_ACCEPTED),
            (false, true) => (false, notes::UNKNOWN),
            (false, false) => (false, notes::UNPROVEN),
        };
        // A refusal is final only if the transport reported the scope of the message.
        Verdict { unsure_is_final: own && blames_message, note: Some(note), ..Verdict::own(own) }
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
            self.paused_by = Some(Mail::new(call.id, call.recipients));
            changes.push(Change::TransportPaused { reason, pause });
        }
        let remaining = self.transport.remaining(call.time.ended).unwrap_or_default();
        let wait = if call.probe == Probing::Candidate { next } else { remaining + YIELD };
        Verdict { scope: Scope::Transport, charge: false, unsure_is_final: false, wait: Some(wait), note, changes }
    }

    fn pause_sender(&mut self, failure: &Failure, call: Call<'_>, random: f64, note: Option<&'static str>) -> Verdict {
        let mut verdict = Verdict {
            scope: Scope::Sender,
            charge: false,
            unsure_is_final: false,
            wait: None,
            note,
            changes: Vec::new(),
        };
        let Some(sender) = call.sender else {
            // Without a sender, the messages to pause are unknown.
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
        let Verdict { scope, charge, unsure_is_final, wait, .. } = *verdict;
        Self { scope, charge, unsure_is_final, wait }
    }
}

impl Verdict {
    /// The message's own condition.
    fn own(charge: bool) -> Self {
        Self { scope: Scope::Message, charge, unsure_is_final: true, wait: None, note: None, changes: Vec::new() }
    }
}

#[cfg(test)]
mod tests;
