//! The plan of a world, drawn from its seed.

use std::time::Duration;

use postrider::Scope;
use postrider::transport::Class;

use crate::random::Random;

pub(crate) const FOREVER: Duration = Duration::MAX;
const MINUTE: u64 = 60;
const HOUR: u64 = 3_600;

/// A condition of the next hop: which mails it affects, when, and the reply. Times count from the start of the world.
#[derive(Debug, Clone)]
pub(crate) struct Condition {
    pub(crate) affected: Affected,
    pub(crate) from: Duration,
    pub(crate) until: Duration,
    pub(crate) when: When,
    pub(crate) reply: Reply,
}

/// The mails that a condition affects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Affected {
    Everyone,
    Sender(usize),
    Mail(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Always,
    /// After this many acceptances within a minute.
    BeyondPerMinute(u64),
    /// Until this long after the first attempt.
    Greylisted(Duration),
    /// Never, but a call accepts at most this many recipients.
    BeyondPerCall(usize),
    /// For the first recipients of the mail, up to this number.
    FirstRecipients(usize),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Reply {
    pub(crate) behavior: Behavior,
    pub(crate) class: Class,
    pub(crate) scope: Scope,
    pub(crate) sure: bool,
    pub(crate) wording: Wording,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) takes: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behavior {
    Refuses,
    /// No reply comes, and the mail is accepted or not.
    Doubt {
        accepted: bool,
    },
    Panics,
    /// Longer than the send timeout.
    Hangs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wording {
    Same,
    WithIds,
    Random,
}

#[derive(Debug, Clone)]
pub(crate) struct Mail {
    pub(crate) sender: usize,
    pub(crate) to: Vec<String>,
    pub(crate) enqueued: Duration,
    pub(crate) delay: Duration,
    pub(crate) expires: Option<Duration>,
    pub(crate) priority: u8,
    pub(crate) hold_in_doubt: bool,
}

/// A fault of the store for one relay, or for all (`None`).
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) relay: Option<usize>,
    pub(crate) from: Duration,
    pub(crate) until: Duration,
    pub(crate) kind: FaultKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// Each call fails and does nothing.
    Down,
    /// Calls fail with this chance, in percent.
    Flaky(u32),
    /// Calls are executed and fail with this chance, in percent.
    AnswerLost(u32),
    /// Each call is executed after this delay.
    Late(Duration),
    /// Each call is executed after this delay, even if its caller has dropped it.
    LateEvenIfDropped(Duration),
    /// Each call hangs until the end of the fault, and fails.
    Silent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Incident {
    Stop(usize),
    Kill(usize),
    Start(usize),
    /// The database's clock advances by this time, as if the relays were suspended.
    Freeze(Duration),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) concurrency: usize,
    pub(crate) batch: usize,
    pub(crate) lease: Duration,
    pub(crate) poll: Duration,
    pub(crate) pause: (Duration, Duration),
    pub(crate) backoff: (Duration, Duration),
    pub(crate) attempts: u32,
    pub(crate) max_age: Duration,
    pub(crate) send_timeout: Duration,
    pub(crate) grace: Duration,
}

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) settings: Settings,
    /// The time between two drains of a relay. `None`: the relay runs.
    pub(crate) drains_every: Option<Duration>,
    pub(crate) relays: usize,
    /// How many senders share a domain.
    pub(crate) senders_per_domain: usize,
    pub(crate) latency: (Duration, Duration),
    pub(crate) mails: Vec<Mail>,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) incidents: Vec<(Duration, Incident)>,
}

impl Plan {
    pub(crate) fn draw(seed: u64) -> Self {
        let random = &mut Random::new(seed);
        let settings = settings(random);
        let relays = random.one_of(&[1, 1, 1, 1, 1, 1, 2, 2, 3, 4]);
        let senders = usize::try_from(random.between(1, 6)).unwrap();
        let span = if random.percent(40) { 1 } else { random.between(MINUTE, HOUR / 2) };
        let count = random.between(3, 30);
        let mut mails: Vec<_> = (0..count).map(|number| mail(random, number, senders, span)).collect();
        mails.sort_by_key(|mail| mail.enqueued);
        let slow = if random.percent(15) { random.between(1_000, 120_000) } else { random.between(1, 300) };
        let latency = (Duration::from_millis(1), Duration::from_millis(slow));
        let mut plan = Self {
            seed,
            settings,
            drains_every: random.percent(12).then(|| random.seconds(10, 120)),
            relays,
            senders_per_domain: random.one_of(&[1, 2, 6]),
            latency,
            mails,
            conditions: Vec::new(),
            faults: Vec::new(),
            incidents: Vec::new(),
        };
        plan.draw_conditions(random, senders, span);
        if random.percent(20) {
            plan.raise_bad_mails();
        }
        if random.percent(25) {
            plan.draw_faults(random, span);
        }
        if random.percent(30) {
            plan.draw_incidents(random, span);
        }
        plan
    }

    fn draw_conditions(&mut self, random: &mut Random, senders: usize, span: u64) {
        if random.percent(60) {
            for _ in 0..random.between(1, 3) {
                self.conditions.push(of_everyone(random, span));
            }
        }
        if random.percent(50) {
            for _ in 0..random.between(1, 2) {
                let sender = random.index(senders);
                self.conditions.push(of_a_sender(random, sender, span));
            }
        }
        if random.percent(60) {
            for _ in 0..random.between(1, 8) {
                let mail = random.index(self.mails.len());
                // One condition for each mail, so that its end has one reason.
                if !self.conditions.iter().any(|other| other.affected == Affected::Mail(mail)) {
                    let condition = of_a_mail(random, mail);
                    self.conditions.push(condition);
                }
            }
        }
    }

    /// Gives mails that have a condition, or whose sender has one, the highest priority.
    fn raise_bad_mails(&mut self) {
        for condition in &self.conditions {
            let bad = self.mails.iter_mut().enumerate().filter(|(number, mail)| match condition.affected {
                Affected::Everyone => false,
                Affected::Sender(sender) => mail.sender == sender,
                Affected::Mail(mail) => *number == mail,
            });
            bad.for_each(|(_, mail)| mail.priority = 9);
        }
    }

    fn draw_faults(&mut self, random: &mut Random, span: u64) {
        for _ in 0..random.between(1, 3) {
            let from = random.seconds(0, span.max(MINUTE));
            let length = if random.percent(50) { random.seconds(1, 20) } else { random.seconds(20, 200) };
            let kind = match random.between(0, 5) {
                0 => FaultKind::Down,
                1 => FaultKind::Flaky(u32::try_from(random.between(10, 90)).unwrap()),
                2 => FaultKind::AnswerLost(u32::try_from(random.between(10, 90)).unwrap()),
                3 => FaultKind::Late(random.seconds(0, 25)),
                4 => FaultKind::LateEvenIfDropped(random.seconds(5, 50)),
                _ => FaultKind::Silent,
            };
            let relay = random.percent(40).then(|| random.index(self.relays));
            self.faults.push(Fault { relay, from, until: from + length, kind });
        }
    }

    fn draw_incidents(&mut self, random: &mut Random, span: u64) {
        for _ in 0..random.between(1, 4) {
            let at = random.seconds(0, span.max(5 * MINUTE));
            let relay = random.index(self.relays);
            match random.between(0, 4) {
                0 => self.incidents.push((at, Incident::Freeze(random.seconds(1, 200)))),
                1 | 2 => self.incidents.push((at, Incident::Kill(relay))),
                _ => self.incidents.push((at, Incident::Stop(relay))),
            }
            self.incidents.push((at + random.seconds(0, 90), Incident::Start(relay)));
        }
        self.incidents.sort_by_key(|(at, _)| *at);
    }
}

fn settings(random: &mut Random) -> Settings {
    let oldest = if random.percent(20) { 3 * HOUR } else { HOUR };
    let pause = random.seconds(1, 5);
    let backoff = random.seconds(1, 20);
    Settings {
        concurrency: random.one_of(&[1, 2, 4, 8, 32]),
        batch: if random.percent(15) { 3 } else { 1 },
        lease: random.seconds(5, 90),
        poll: random.seconds(1, 120),
        pause: (pause, pause * u32::try_from(random.between(1, 60)).unwrap()),
        backoff: (backoff, backoff * u32::try_from(random.between(1, 60)).unwrap()),
        attempts: u32::try_from(random.between(2, 20)).unwrap(),
        max_age: random.seconds(HOUR / 4, oldest),
        send_timeout: random.seconds(130, 10 * MINUTE),
        grace: random.seconds(0, 30),
    }
}

fn mail(random: &mut Random, number: u64, senders: usize, span: u64) -> Mail {
    let many = if random.percent(15) { random.between(2, 12) } else { 1 };
    let domain = random.between(0, 3);
    Mail {
        sender: random.index(senders),
        to: (0..many).map(|place| format!("r{number}-{place}@d{domain}.example")).collect(),
        enqueued: random.seconds(0, span),
        delay: if random.percent(10) { random.seconds(1, 20 * MINUTE) } else { Duration::ZERO },
        expires: random.percent(8).then(|| random.seconds(10, HOUR)),
        priority: if random.percent(25) { u8::try_from(random.between(0, 9)).unwrap() } else { 5 },
        hold_in_doubt: random.percent(10),
    }
}

fn retry_after(random: &mut Random) -> Option<Duration> {
    match random.between(0, 99) {
        0..=14 => Some(Duration::ZERO),
        15..=29 => Some(random.seconds(1, 60)),
        30..=34 => Some(random.seconds(MINUTE, 20 * MINUTE)),
        35 => Some(random.one_of(&[Duration::MAX, Duration::from_secs(86_400 * 30)])),
        _ => None,
    }
}

fn class(random: &mut Random) -> Class {
    random.one_of(&[Class::Permanent, Class::Transient])
}

fn draw_reply(random: &mut Random, right: Scope) -> Reply {
    let takes = if random.percent(20) { random.seconds(1, 60) } else { Duration::ZERO };
    let known = Reply {
        behavior: Behavior::Refuses,
        class: class(random),
        scope: right,
        sure: true,
        wording: random.one_of(&[Wording::Same, Wording::WithIds]),
        retry_after: retry_after(random),
        takes,
    };
    if random.percent(50) {
        return known;
    }
    // Words that no rule knows, or that a rule reads as another scope than the message's.
    let wording = random.one_of(&[Wording::Same, Wording::WithIds, Wording::Random]);
    if random.percent(60) {
        return Reply { scope: Scope::Message, sure: false, wording, ..known };
    }
    Reply { scope: random.one_of(&[Scope::Sender, Scope::Transport]), wording, ..known }
}

fn of_everyone(random: &mut Random, span: u64) -> Condition {
    let from = random.seconds(0, span);
    let length = if random.percent(50) { random.seconds(1, 5 * MINUTE) } else { random.seconds(5 * MINUTE, HOUR / 2) };
    let mut reply = draw_reply(random, Scope::Transport);
    if random.percent(15) {
        reply.behavior = Behavior::Doubt { accepted: random.percent(50) };
    }
    let when = if random.percent(30) { When::BeyondPerMinute(random.between(1, 10)) } else { When::Always };
    Condition { affected: Affected::Everyone, from, until: from + length, when, reply }
}

fn of_a_sender(random: &mut Random, sender: usize, span: u64) -> Condition {
    let from = if random.percent(60) { Duration::ZERO } else { random.seconds(0, span) };
    let until = if random.percent(40) { FOREVER } else { from + random.seconds(1, HOUR / 2) };
    let when = if random.percent(25) { When::BeyondPerMinute(random.between(1, 5)) } else { When::Always };
    Condition { affected: Affected::Sender(sender), from, until, when, reply: draw_reply(random, Scope::Sender) }
}

fn of_a_mail(random: &mut Random, mail: usize) -> Condition {
    let mut reply = draw_reply(random, Scope::Message);
    let (mut when, mut until) = (When::Always, FOREVER);
    match random.between(0, 9) {
        0 => reply.behavior = Behavior::Panics,
        1 => reply.behavior = Behavior::Hangs,
        2 => {
            when = When::Greylisted(random.seconds(1, 10 * MINUTE));
            reply.class = Class::Transient;
        }
        3 => until = random.seconds(1, HOUR),
        4 | 5 => {
            when = When::BeyondPerCall(usize::try_from(random.between(1, 5)).unwrap());
            if reply.scope != Scope::Message || reply.sure {
                reply.class = Class::Transient;
            }
        }
        6 | 7 => when = When::FirstRecipients(usize::try_from(random.between(1, 3)).unwrap()),
        _ => {}
    }
    Condition { affected: Affected::Mail(mail), from: Duration::ZERO, until, when, reply }
}
