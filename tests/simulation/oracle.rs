//! The checks of a world's result, by the true conditions of the plan. Invariants 2, 3, 4, 5.
//!
//! 1. No mail ends because of a condition that is not its own.
//! 2. No mail waits for the conditions of others longer than [`Plan::bound`].
//! 3. A mail with a condition of its own ends, and its history has the reason.
//! 4. A next hop that refuses everyone is called no more often than the backoff allows.
//! 5. No mail is lost, stuck, or sent by two calls at one time. Each call is one attempt of the history. Copies have an attempt in doubt.
//! 6. The history explains each decision.
//! 7. No mail is charged for a condition that is not its own, nor for a call that was not made.

use std::collections::HashSet;
use std::time::Duration;

use postrider::{Attempt, Delivery, Outcome, RecipientState, Scope, State};

use crate::bounds::PROBE_CANDIDATES;
use crate::fleet::RunResult;
use crate::next_hop::{Answer, Call};
use crate::plan::{Affected, Behavior, Condition, FOREVER, Plan, When, Wording};

pub(crate) fn judge(ended: &RunResult) -> Vec<String> {
    let mut violations = Vec::new();
    for number in 0..ended.deliveries.len() {
        let case = MailCheck::new(ended, number);
        let checks = [
            ("end", case.ends_for_its_own_reason()),
            ("time", case.leaves_in_time()),
            ("finish", case.is_finished()),
            ("calls", case.each_call_is_an_attempt()),
            ("copies", case.each_copy_has_an_attempt_in_doubt()),
            ("explained", case.is_explained()),
            ("charged", case.is_charged_for_its_own()),
        ];
        for (name, check) in checks {
            violations.extend(check.map(|violation| format!("{name}: mail {number} {violation}")));
        }
    }
    violations.extend(overlapping_calls(ended));
    violations.extend(excess_calls(ended));
    violations
}

struct MailCheck<'a> {
    ended: &'a RunResult,
    plan: &'a Plan,
    number: usize,
    delivery: &'a Delivery,
    own: Option<&'a Condition>,
}

impl<'a> MailCheck<'a> {
    fn new(ended: &'a RunResult, number: usize) -> Self {
        let plan = &ended.world.plan;
        Self { ended, plan, number, delivery: &ended.deliveries[number], own: plan.own(number) }
    }

    /// Whether its own condition can end it.
    fn is_bad(&self) -> bool {
        self.own.is_some_and(|own| !matches!(own.when, When::BeyondPerCall(_)))
    }

    /// When it must have been sent; `None` if it need not be.
    fn by(&self) -> Option<Duration> {
        let by = self.plan.healthy_from(self.number)? + self.plan.bound(self.number);
        (by < self.plan.deadline(self.number)).then_some(by)
    }

    fn in_doubt(&self) -> usize {
        let doubt = |attempt: &&Attempt| matches!(attempt.outcome, Outcome::InDoubt | Outcome::Lost);
        self.delivery.attempts.iter().filter(doubt).count()
    }

    fn given_up(&self, reason: &str) -> Option<String> {
        if self.is_bad() {
            return None;
        }
        if reason.starts_with("expired") {
            return self.by().map(|by| format!("expired, and should have been sent by {by:?}: {reason}"));
        }
        if self.in_doubt() > 0 && reason.starts_with("budget") {
            return None;
        }
        (!self.is_unknowable()).then(|| format!("ended for a condition that is not its own: {reason}"))
    }

    fn ends_for_its_own_reason(&self) -> Option<String> {
        let reason = self.delivery.reason.as_deref().unwrap_or_default();
        match self.delivery.state {
            State::Dead => self.given_up(reason),
            State::InDoubt if self.in_doubt() == 0 => Some(format!("is held without doubt: {reason}")),
            State::Sent => self.delivery.recipients.iter().find_map(|recipient| {
                let dead = match self.own {
                    Some(Condition { when: When::FirstRecipients(count), .. }) => {
                        self.plan.mails[self.number].to.iter().take(*count).any(|to| to == recipient.recipient.as_str())
                    }
                    _ => false,
                };
                match recipient.state {
                    RecipientState::Sent if self.copies(recipient.recipient.as_str()) == 0 => {
                        Some("was never accepted for a recipient".to_owned())
                    }
                    RecipientState::Sent => None,
                    _ if dead => None,
                    _ => self
                        .given_up(recipient.reply.as_deref().unwrap_or("no reason"))
                        .map(|why| format!("for a recipient: {why}")),
                }
            }),
            _ => None,
        }
    }

    fn copies(&self, recipient: &str) -> usize {
        self.ended.world.state().accepted.get(&(self.number, recipient.to_owned())).map_or(0, Vec::len)
    }

    fn leaves_in_time(&self) -> Option<String> {
        let by = self.by().filter(|_| !self.is_bad())?;
        let state = self.ended.world.state();
        for recipient in &self.plan.mails[self.number].to {
            let first = state.accepted.get(&(self.number, recipient.clone())).and_then(|copies| copies.first());
            match first {
                Some(first) if *first <= by => {}
                Some(first) => return Some(format!("left at {first:?}, and should have by {by:?}")),
                None if self.delivery.state == State::InDoubt => {}
                None if self.in_doubt() > 0 => {}
                None => return Some(format!("did not leave, and should have by {by:?}")),
            }
        }
        None
    }

    fn is_finished(&self) -> Option<String> {
        if self.ended.is_finished(self.number) {
            return None;
        }
        Some(format!("is {} at the end, due at {:?}", self.delivery.state, self.delivery.due_at))
    }

    fn each_call_is_an_attempt(&self) -> Option<String> {
        let overlap = self.delivery.attempts.windows(2).any(|pair| pair[0].finished_at > pair[1].started_at);
        if overlap {
            return Some(format!("its attempts overlap: {:?}", self.delivery.attempts));
        }
        if !self.ended.is_finished(self.number) {
            return None;
        }
        let calls = self.ended.world.state().calls.iter().filter(|call| call.mail == self.number).count();
        let lost = self.delivery.attempts.iter().filter(|attempt| attempt.outcome == Outcome::Lost).count();
        let made = self.delivery.attempts.len() - lost;
        let fits = made <= calls && calls <= made + lost;
        if !fits {
            return Some(format!("{calls} calls, {made} attempts and {lost} lost"));
        }
        let quiet = self.plan.incidents.is_empty() && self.plan.faults.is_empty();
        (quiet && lost > 0).then(|| format!("{lost} attempts were lost in a quiet world"))
    }

    fn each_copy_has_an_attempt_in_doubt(&self) -> Option<String> {
        let most = self.plan.mails[self.number].to.iter().map(|to| self.copies(to)).max().unwrap_or_default();
        if most > 1 + self.in_doubt() {
            return Some(format!("{most} copies, {} attempts in doubt", self.in_doubt()));
        }
        (most > 1 && self.plan.mails[self.number].hold_in_doubt)
            .then(|| format!("{most} copies of a mail to be held in doubt"))
    }

    fn is_explained(&self) -> Option<String> {
        self.delivery.attempts.iter().find_map(|attempt| {
            let noted = attempt.note.is_some();
            let explained = match (attempt.outcome, attempt.scope) {
                (Outcome::Sent | Outcome::Lost, scope) => scope.is_none() && attempt.charged,
                (_, None) => false,
                (Outcome::InDoubt, _) => attempt.charged,
                (_, Some(Scope::Message)) if attempt.sure => attempt.charged && !noted,
                (_, Some(Scope::Message)) => noted,
                (_, Some(_)) => !attempt.charged || noted,
            };
            (!explained).then(|| format!("has an attempt that nothing explains: {attempt:?} {:?}", attempt.note))
        })
    }

    /// Whether no relay can know the cause. If a condition comes and goes and has affected at most two mails since the relay started, it
    /// looks like the mails' own.
    fn is_unknowable(&self) -> bool {
        let state = self.ended.world.state();
        let of_others = |call: &&Call| match call.answer {
            Answer::Refused(matched) => !matches!(self.plan.conditions[matched].affected, Affected::Mail(_)),
            _ => false,
        };
        let calls = || state.calls.iter().filter(of_others);
        calls().filter(|call| call.mail == self.number).any(|last| {
            let same = |call: &&Call| {
                call.incarnation == last.incarnation && call.answer == last.answer && call.ended <= last.ended
            };
            let matched = calls().filter(same);
            let mails: HashSet<_> = matched.clone().map(|call| call.mail).collect();
            mails.len() < 3 && matched.filter(|call| call.mail == self.number).count() > 1
        })
    }

    fn is_charged_for_its_own(&self) -> Option<String> {
        if self.is_bad() {
            return None;
        }
        let innocent =
            |attempt: &&Attempt| attempt.charged && matches!(attempt.outcome, Outcome::Permanent | Outcome::Transient);
        let charged = self.delivery.attempts.iter().find(innocent).filter(|_| !self.is_unknowable())?;
        Some(format!("was charged for a condition that is not its own: {charged:?} {:?}", charged.note))
    }
}

/// Finds concurrent calls for one mail. They are allowed only if leases can expire, and never within one incarnation of a relay.
fn overlapping_calls(ended: &RunResult) -> Vec<String> {
    let plan = &ended.world.plan;
    let honoured = plan.incidents.is_empty() && plan.faults.is_empty();
    let state = ended.world.state();
    let twice = |call: &&Call| call.concurrent.iter().any(|incarnation| honoured || *incarnation == call.incarnation);
    state.calls.iter().filter(twice).map(|call| format!("at the same time: {call:?}")).collect()
}

/// The most waits of a backoff within a time.
fn waits_within((base, cap): (Duration, Duration), time: Duration) -> u64 {
    let (mut spent, mut wait, mut count) = (Duration::ZERO, base, 0);
    while spent <= time {
        // Jitter shortens a wait by up to a fifth, but never below the base.
        spent += wait.mul_f64(0.8).max(base);
        wait = (wait * 2).min(cap.max(base));
        count += 1;
    }
    count
}

/// Calls beyond the backoff by one relay, while the next hop refuses everyone.
fn excess_calls(ended: &RunResult) -> Vec<String> {
    let plan = &ended.world.plan;
    let state = ended.world.state();
    let mut violations = Vec::new();
    let all = plan.conditions.iter().enumerate().filter(|(_, condition)| {
        condition.affected == Affected::Everyone && condition.when == When::Always && condition.until != FOREVER
    });
    let incarnations = state.calls.iter().map(|call| call.incarnation).max().unwrap_or_default();
    for (place, condition) in all.filter(|_| plan.drains_every.is_none()) {
        // Calls that began before the condition may still be under way.
        let from = condition.from + plan.longest_call();
        let time = condition.until.saturating_sub(from);
        let reply = condition.reply;
        let mails = plan.mails.len() as u64;
        let each = match (reply.behavior, reply.scope, reply.sure) {
            // A few equal refusals, or a few more different ones, pause the transport. Fewer have their own backoff.
            (Behavior::Refuses, Scope::Message, _) if reply.wording == Wording::Random => {
                9 * waits_within(plan.settings.backoff, time)
            }
            (Behavior::Refuses, Scope::Message, _) => 4 * waits_within(plan.settings.backoff, time),
            (Behavior::Refuses, Scope::Sender, _) => 6 * waits_within(plan.settings.pause, time),
            _ => 0,
        };
        let most = PROBE_CANDIDATES * waits_within(plan.settings.pause, time)
            + each
            + plan.settings.concurrency as u64
            + mails
            + 10;
        for incarnation in 1..=incarnations {
            let during =
                |call: &&Call| call.incarnation == incarnation && call.began >= from && call.began < condition.until;
            let refused = |call: &&Call| call.answer == Answer::Refused(place);
            let calls = state.calls.iter().filter(during).filter(refused).count() as u64;
            if calls > most {
                violations.push(format!("excess calls: {calls}, at most {most} in {time:?}"));
            }
        }
    }
    violations
}
