//! What must hold, by one who knows the truth.
//!
//! 1. No mail ends for a condition that is not its own.
//! 2. None waits for another's longer than [`Plan::bound`].
//! 3. One with a condition of its own ends, and its history says why.
//! 4. A next hop that refuses everybody is called no more often than the backoff says.
//! 5. None is lost, stuck, or sent by two calls at the same time; each call is one attempt of the history; copies come of doubt.
//! 6. Each decision is explained by the history.
//! 7. Nobody is charged for what is not its own, nor for a call that was not made.

use std::collections::HashSet;
use std::time::Duration;

use postrider::{Attempt, Delivery, Outcome, RecipientState, Scope, State};

use crate::bounds::TRIED;
use crate::fleet::Ended;
use crate::next_hop::{Answer, Call};
use crate::plan::{Condition, FOR_EVER, Manner, Plan, When, Whose, Words};

pub(crate) fn judge(ended: &Ended) -> Vec<String> {
    let mut faults = Vec::new();
    for number in 0..ended.deliveries.len() {
        let case = Case::new(ended, number);
        let checks = [
            ("end", case.ends_for_its_own_reason()),
            ("time", case.leaves_in_time()),
            ("finish", case.is_finished()),
            ("calls", case.each_call_is_an_attempt()),
            ("copies", case.copies_come_of_doubt()),
            ("explained", case.is_explained()),
            ("charged", case.is_charged_for_its_own()),
        ];
        for (name, check) in checks {
            faults.extend(check.map(|fault| format!("{name}: mail {number} {fault}")));
        }
    }
    faults.extend(at_the_same_time(ended));
    faults.extend(calls_in_vain(ended));
    faults
}

struct Case<'a> {
    ended: &'a Ended,
    plan: &'a Plan,
    number: usize,
    delivery: &'a Delivery,
    own: Option<&'a Condition>,
}

impl<'a> Case<'a> {
    fn new(ended: &'a Ended, number: usize) -> Self {
        let plan = &ended.world.plan;
        Self { ended, plan, number, delivery: &ended.deliveries[number], own: plan.own(number) }
    }

    /// Its own condition can be its end.
    fn is_bad(&self) -> bool {
        self.own.is_some_and(|own| !matches!(own.when, When::BeyondACalls(_)))
    }

    /// Whether it must have been sent, and by when.
    fn by(&self) -> Option<Duration> {
        let by = self.plan.well_from(self.number)? + self.plan.bound(self.number);
        (by < self.plan.deadline(self.number)).then_some(by)
    }

    fn in_doubt(&self) -> usize {
        let doubt = |attempt: &&Attempt| matches!(attempt.outcome, Outcome::InDoubt | Outcome::Lost);
        self.delivery.attempts.iter().filter(doubt).count()
    }

    fn gave_up(&self, reason: &str) -> Option<String> {
        if self.is_bad() {
            return None;
        }
        if reason.starts_with("expired") {
            return self.by().map(|by| format!("expired, and should have been sent by {by:?}: {reason}"));
        }
        if self.in_doubt() > 0 && reason.starts_with("budget") {
            return None;
        }
        (!self.nobody_can_know()).then(|| format!("ended for a condition that is not its own: {reason}"))
    }

    fn ends_for_its_own_reason(&self) -> Option<String> {
        let reason = self.delivery.reason.as_deref().unwrap_or_default();
        match self.delivery.state {
            State::Dead => self.gave_up(reason),
            State::InDoubt if self.in_doubt() == 0 => Some(format!("is held without doubt: {reason}")),
            State::Sent => self.delivery.recipients.iter().find_map(|recipient| {
                let dead = match self.own {
                    Some(Condition { when: When::ForRecipients(count), .. }) => {
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
                        .gave_up(recipient.reply.as_deref().unwrap_or("no reason"))
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
        if !self.ended.is_finished(self.number) {
            return None;
        }
        let calls = self.ended.world.state().calls.iter().filter(|call| call.letter == self.number).count();
        let lost = self.delivery.attempts.iter().filter(|attempt| attempt.outcome == Outcome::Lost).count();
        let made = self.delivery.attempts.len() - lost;
        let fits = made <= calls && calls <= made + lost;
        if !fits {
            return Some(format!("{calls} calls, {made} attempts and {lost} lost"));
        }
        let quiet = self.plan.happenings.is_empty() && self.plan.faults.is_empty();
        (quiet && lost > 0).then(|| format!("{lost} attempts were lost in a quiet world"))
    }

    fn copies_come_of_doubt(&self) -> Option<String> {
        let most = self.plan.mails[self.number].to.iter().map(|to| self.copies(to)).max().unwrap_or_default();
        if most > 1 + self.in_doubt() {
            return Some(format!("{most} copies, {} attempts in doubt", self.in_doubt()));
        }
        (most > 1 && self.plan.mails[self.number].hold).then(|| format!("{most} copies of a mail to be held in doubt"))
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

    /// What no relay can know: a condition that comes and goes, and has met two mails at the most since the relay started, looks like
    /// those mails' own.
    fn nobody_can_know(&self) -> bool {
        let state = self.ended.world.state();
        let of_others = |call: &&Call| match call.answer {
            Answer::Refused(met) => !matches!(self.plan.conditions[met].whose, Whose::Letter(_)),
            _ => false,
        };
        let calls = || state.calls.iter().filter(of_others);
        calls().filter(|call| call.letter == self.number).any(|last| {
            let same = |call: &&Call| call.life == last.life && call.answer == last.answer && call.ended <= last.ended;
            let met = calls().filter(same);
            let mails: HashSet<_> = met.clone().map(|call| call.letter).collect();
            mails.len() < 3 && met.filter(|call| call.letter == self.number).count() > 1
        })
    }

    fn is_charged_for_its_own(&self) -> Option<String> {
        if self.is_bad() {
            return None;
        }
        let innocent =
            |attempt: &&Attempt| attempt.charged && matches!(attempt.outcome, Outcome::Permanent | Outcome::Transient);
        let charged = self.delivery.attempts.iter().find(innocent).filter(|_| !self.nobody_can_know())?;
        Some(format!("was charged for a condition that is not its own: {charged:?} {:?}", charged.note))
    }
}

/// While leases are honoured, a mail is in one call; and a relay never sends its own twice.
fn at_the_same_time(ended: &Ended) -> Vec<String> {
    let plan = &ended.world.plan;
    let honoured = plan.happenings.is_empty() && plan.faults.is_empty();
    let state = ended.world.state();
    let twice = |call: &&Call| call.beside.iter().any(|life| honoured || *life == call.life);
    state.calls.iter().filter(twice).map(|call| format!("at the same time: {call:?}")).collect()
}

/// How often a backoff fits into a time, at the most.
fn fits((base, cap): (Duration, Duration), time: Duration) -> u64 {
    let (mut spent, mut wait, mut count) = (Duration::ZERO, base, 0);
    while spent <= time {
        // A fifth less by chance, but never less than the base.
        spent += wait.mul_f64(0.8).max(base);
        wait = (wait * 2).min(cap.max(base));
        count += 1;
    }
    count
}

/// Calls of one relay while everybody is refused.
fn calls_in_vain(ended: &Ended) -> Vec<String> {
    let plan = &ended.world.plan;
    let state = ended.world.state();
    let mut faults = Vec::new();
    let all = plan.conditions.iter().enumerate().filter(|(_, condition)| {
        condition.whose == Whose::Everybody && condition.when == When::Always && condition.until != FOR_EVER
    });
    let lives = state.calls.iter().map(|call| call.life).max().unwrap_or_default();
    for (place, condition) in all.filter(|_| plan.passes.is_none()) {
        // Calls that began before may be under way for a while.
        let from = condition.from + plan.longest_call();
        let time = condition.until.saturating_sub(from);
        let says = condition.says;
        let mails = plan.mails.len() as u64;
        let each = match (says.manner, says.scope, says.sure) {
            // So many alike in a row, or so many in all, and it is taken for what it is; fewer go by their own backoff.
            (Manner::Refuses, Scope::Message, _) if says.words == Words::Random => {
                9 * fits(plan.settings.backoff, time)
            }
            (Manner::Refuses, Scope::Message, _) => 4 * fits(plan.settings.backoff, time),
            (Manner::Refuses, Scope::Sender, _) => 6 * fits(plan.settings.pause, time),
            _ => 0,
        };
        let most = TRIED * fits(plan.settings.pause, time) + each + plan.settings.concurrency as u64 + mails + 10;
        for life in 1..=lives {
            let during = |call: &&Call| call.life == life && call.began >= from && call.began < condition.until;
            let refused = |call: &&Call| call.answer == Answer::Refused(place);
            let calls = state.calls.iter().filter(during).filter(refused).count() as u64;
            if calls > most {
                faults.push(format!("in vain: {calls} calls, at most {most} in {time:?}"));
            }
        }
    }
    faults
}
