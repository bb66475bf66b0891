//! What the oracle knows of a world before anything has happened: whom a condition concerns, from when on a mail is well, and how long it
//! may wait then.

use std::time::Duration;

use postrider::Scope;

use crate::plan::{Condition, FOR_EVER, Happening, Manner, Plan, Settings, When, Whose};

/// How many mails of a paused transport are tried in one round.
pub(crate) const TRIED: u64 = 4;
const DAY: Duration = Duration::from_secs(86_400);

impl Condition {
    /// Whether what it says can pause anything.
    pub(crate) fn pauses(&self) -> bool {
        self.says.manner != Manner::Refuses || self.says.scope != Scope::Message || !self.says.sure
    }

    pub(crate) fn concerns(&self, plan: &Plan, number: usize) -> bool {
        match self.whose {
            Whose::Everybody => true,
            Whose::Sender(sender) => plan.mails[number].sender == sender,
            Whose::Letter(letter) => letter == number,
        }
    }
}

/// What the oracle knows before anything has happened.
impl Plan {
    /// When a mail is first due.
    pub(crate) fn due(&self, number: usize) -> Duration {
        self.mails[number].enqueued + self.mails[number].delay
    }

    fn frozen(&self) -> Duration {
        let frozen = |(_, what): &(Duration, Happening)| match what {
            Happening::Freeze(time) => Some(*time),
            _ => None,
        };
        self.happenings.iter().filter_map(frozen).sum()
    }

    /// When a mail's time is over at the earliest: a clock that jumps makes it sooner.
    pub(crate) fn deadline(&self, number: usize) -> Duration {
        let mail = &self.mails[number];
        let expires = mail.expires.map_or(FOR_EVER, |expires| mail.enqueued + expires);
        (self.due(number) + self.settings.max_age).min(expires).saturating_sub(self.frozen())
    }

    /// The condition of the mail itself, or of its recipients.
    pub(crate) fn own(&self, number: usize) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.whose == Whose::Letter(number))
    }

    /// From when on nothing but the past stands in the way of a mail, and the relays and their store are well; `None` is never.
    pub(crate) fn well_from(&self, number: usize) -> Option<Duration> {
        let mut well = self.due(number);
        for condition in self.conditions.iter().filter(|condition| condition.concerns(self, number)) {
            match condition.when {
                When::BeyondACalls(_) => {}
                When::SinceTheFirstTry(wait) => well += wait + self.bound(number),
                When::Always | When::BeyondAMinutes(_) | When::ForRecipients(_) if condition.until == FOR_EVER => {
                    return None;
                }
                _ => well = well.max(condition.until),
            }
        }
        Some(well.max(self.quiet_from()))
    }

    /// From when on nothing befalls the relays and their store, and what did is over.
    pub(crate) fn quiet_from(&self) -> Duration {
        // What a relay has given up may happen all the same, twice in a row, and what it leased then must run out.
        let late = Duration::from_secs(120) + self.settings.lease;
        let faults = self.faults.iter().map(|fault| fault.until + late).max().unwrap_or_default();
        let happenings = self.happenings.last().map(|(at, _)| *at + self.settings.lease + self.settings.grace);
        faults.max(happenings.unwrap_or_default())
    }

    /// How long one call takes at the most.
    pub(crate) fn longest_call(&self) -> Duration {
        let longest = self.conditions.iter().map(|condition| match condition.says.manner {
            Manner::Hangs => self.settings.send_timeout,
            _ => condition.says.takes,
        });
        longest.max().unwrap_or_default() + self.latency.1
    }

    /// The longest wait that the next hop asks for and is given.
    fn asked(&self) -> Duration {
        self.conditions.iter().filter_map(|condition| condition.says.retry_after).max().unwrap_or_default().min(DAY)
    }

    /// How long a mail waits at the most, once nothing is wrong with it any more, for others' conditions and for what it has been through:
    ///
    /// - its own wait, if it can have failed: the retry policy's longest, or what the next hop asked for;
    /// - the pause that holds when it becomes well, its sender's and the transport's, and one more for each round of probes in which all
    ///   candidates were bad; none where nothing is said that can pause anything;
    /// - room: as many calls as there are mails, divided among the places;
    /// - a pass, where it must wait for one, after each of these.
    pub(crate) fn bound(&self, number: usize) -> Duration {
        let Settings { concurrency, pause, backoff, .. } = self.settings;
        let call = self.longest_call();
        let fails = self.conditions.iter().any(|condition| condition.concerns(self, number));
        let own = if fails { backoff.1.max(self.asked()) } else { Duration::ZERO };
        let pausing: Vec<_> = self.conditions.iter().filter(|condition| condition.pauses()).collect();
        let is_bad = |number: &usize| {
            pausing.iter().any(|condition| condition.whose != Whose::Everybody && condition.concerns(self, *number))
        };
        let bad = (0..self.mails.len()).filter(is_bad).count() as u64;
        let rounds = if pausing.is_empty() { 0 } else { 2 + bad.div_ceil(TRIED) };
        let between = self.passes.unwrap_or_default();
        let pause = pause.1.max(self.asked()) + call * u32::try_from(TRIED).unwrap() + between;
        let room = call * u32::try_from(self.mails.len() * self.settings.batch / concurrency + 1).unwrap();
        let moment = Duration::from_secs(2);
        own + pause * u32::try_from(rounds).unwrap() + room + between * 2 + moment
    }

    /// When everything should be over.
    pub(crate) fn horizon(&self) -> Duration {
        let ends = (0..self.mails.len()).map(|number| self.due(number) + self.settings.max_age + self.bound(number));
        ends.max().unwrap_or_default() + Duration::from_secs(60)
    }
}
