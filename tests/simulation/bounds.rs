//! What the oracle derives from the plan alone: the mails that a condition affects, when a mail is healthy, and how long it may then wait.

use std::time::Duration;

use postrider::Scope;

use crate::plan::{Affected, Behavior, Condition, FOREVER, Incident, Plan, Settings, When};

/// The candidates that one probe of a paused transport calls.
pub(crate) const PROBE_CANDIDATES: u64 = 4;
const DAY: Duration = Duration::from_secs(86_400);

impl Condition {
    /// Whether the reply can pause a sender or the transport.
    pub(crate) fn pauses(&self) -> bool {
        self.reply.behavior != Behavior::Refuses || self.reply.scope != Scope::Message || !self.reply.sure
    }

    pub(crate) fn concerns(&self, plan: &Plan, number: usize) -> bool {
        match self.affected {
            Affected::Everyone => true,
            Affected::Sender(sender) => plan.mails[number].sender == sender,
            Affected::Mail(mail) => mail == number,
        }
    }
}

impl Plan {
    /// When a mail is first due.
    pub(crate) fn due(&self, number: usize) -> Duration {
        self.mails[number].enqueued + self.mails[number].delay
    }

    fn frozen(&self) -> Duration {
        let frozen = |(_, what): &(Duration, Incident)| match what {
            Incident::Freeze(time) => Some(*time),
            _ => None,
        };
        self.incidents.iter().filter_map(frozen).sum()
    }

    /// The earliest time at which a mail can expire. A clock that jumps makes it earlier.
    pub(crate) fn deadline(&self, number: usize) -> Duration {
        let mail = &self.mails[number];
        let expires = mail.expires.map_or(FOREVER, |expires| mail.enqueued + expires);
        (self.due(number) + self.settings.max_age).min(expires).saturating_sub(self.frozen())
    }

    /// The condition of the mail itself, or of its recipients.
    pub(crate) fn own(&self, number: usize) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.affected == Affected::Mail(number))
    }

    /// When the last condition of a mail, fault of the store and incident of the relays is over. `None`: never.
    pub(crate) fn healthy_from(&self, number: usize) -> Option<Duration> {
        let mut well = self.due(number);
        for condition in self.conditions.iter().filter(|condition| condition.concerns(self, number)) {
            match condition.when {
                When::BeyondPerCall(_) => {}
                When::Greylisted(wait) => well += wait + self.bound(number),
                When::Always | When::BeyondPerMinute(_) | When::FirstRecipients(_) if condition.until == FOREVER => {
                    return None;
                }
                _ => well = well.max(condition.until),
            }
        }
        Some(well.max(self.quiet_from()))
    }

    /// When the faults of the store and the incidents of the relays are over, with their consequences.
    pub(crate) fn quiet_from(&self) -> Duration {
        // A call that a relay gave up may still be executed, twice in a row, and its lease must run out.
        let late = Duration::from_secs(120) + self.settings.lease;
        let faults = self.faults.iter().map(|fault| fault.until + late).max().unwrap_or_default();
        let incidents = self.incidents.last().map(|(at, _)| *at + self.settings.lease + self.settings.grace);
        faults.max(incidents.unwrap_or_default())
    }

    /// The longest time of one call.
    pub(crate) fn longest_call(&self) -> Duration {
        let longest = self.conditions.iter().map(|condition| match condition.reply.behavior {
            Behavior::Hangs => self.settings.send_timeout,
            _ => condition.reply.takes,
        });
        longest.max().unwrap_or_default() + self.latency.1
    }

    /// The longest wait that the next hop sets.
    fn asked(&self) -> Duration {
        self.conditions.iter().filter_map(|condition| condition.reply.retry_after).max().unwrap_or_default().min(DAY)
    }

    /// The longest wait of a healthy mail, which is the sum of these:
    ///
    /// - its retry wait, if it can have failed: the longest of the policy, or the one that the next hop set;
    /// - the pauses of its sender and of the transport, and one more for each probe whose candidates can all be bad. No pause if no reply can
    ///   cause one;
    /// - the wait for a permit: the calls of all mails, divided by the concurrency;
    /// - the time between two drains, after each of these.
    pub(crate) fn bound(&self, number: usize) -> Duration {
        let Settings { concurrency, pause, backoff, .. } = self.settings;
        let call = self.longest_call();
        let fails = self.conditions.iter().any(|condition| condition.concerns(self, number));
        let own = if fails { backoff.1.max(self.asked()) } else { Duration::ZERO };
        let pausing: Vec<_> = self.conditions.iter().filter(|condition| condition.pauses()).collect();
        let is_bad = |number: &usize| {
            pausing
                .iter()
                .any(|condition| condition.affected != Affected::Everyone && condition.concerns(self, *number))
        };
        let bad = (0..self.mails.len()).filter(is_bad).count() as u64;
        let rounds = if pausing.is_empty() { 0 } else { 2 + bad.div_ceil(PROBE_CANDIDATES) };
        let between = self.drains_every.unwrap_or_default();
        let pause = pause.1.max(self.asked()) + call * u32::try_from(PROBE_CANDIDATES).unwrap() + between;
        let permits = call * u32::try_from(self.mails.len() * self.settings.batch / concurrency + 1).unwrap();
        let slack = Duration::from_secs(2);
        own + pause * u32::try_from(rounds).unwrap() + permits + between * 2 + slack
    }

    /// When all deliveries should have ended.
    pub(crate) fn horizon(&self) -> Duration {
        let ends = (0..self.mails.len()).map(|number| self.due(number) + self.settings.max_age + self.bound(number));
        ends.max().unwrap_or_default() + Duration::from_secs(60)
    }
}
