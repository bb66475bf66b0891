//! What a world is made of, drawn from its seed.

use std::time::Duration;

use postrider::Scope;
use postrider::transport::Class;

use crate::dice::Dice;

pub(crate) const FOR_EVER: Duration = Duration::MAX;
const MINUTE: u64 = 60;
const HOUR: u64 = 3_600;

/// A condition of the next hop: whom it refuses, when and how, and what it says. Times count from the beginning of the world.
#[derive(Debug, Clone)]
pub(crate) struct Condition {
    pub(crate) whose: Whose,
    pub(crate) from: Duration,
    pub(crate) until: Duration,
    pub(crate) when: When,
    pub(crate) says: Says,
}

/// Whose condition it is in truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    Everybody,
    Sender(usize),
    Letter(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Always,
    /// After so many acceptances within a minute.
    BeyondAMinutes(u64),
    /// Until so long after the first try: greylisting.
    SinceTheFirstTry(Duration),
    /// Not at all, but only so many recipients in one call are taken.
    BeyondACalls(usize),
    /// For these of the letter's recipients, by their places.
    ForRecipients(usize),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Says {
    pub(crate) manner: Manner,
    pub(crate) class: Class,
    pub(crate) scope: Scope,
    pub(crate) sure: bool,
    pub(crate) words: Words,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) takes: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Refuses,
    /// No answer comes; the mail is accepted all the same, or not.
    Doubt {
        accepted: bool,
    },
    Panics,
    /// For longer than any time limit.
    Hangs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Words {
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
    pub(crate) hold: bool,
}

/// What befalls a relay's line to the store, or all lines.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) relay: Option<usize>,
    pub(crate) from: Duration,
    pub(crate) until: Duration,
    pub(crate) kind: FaultKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// Each call fails, and nothing is done.
    Down,
    /// So often of a hundred times.
    Flaky(u32),
    /// So often of a hundred times, the call is done and the answer lost.
    AnswerLost(u32),
    /// Each call is done so late.
    Late(Duration),
    /// Each call is done so late, whether somebody still waits for it or not.
    LateAllTheSame(Duration),
    /// Nothing is heard until the end of the fault.
    Silent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Happening {
    Stop(usize),
    Kill(usize),
    Start(usize),
    /// The database's clock goes on while the relays stand still.
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
    /// How often each relay begins a pass; `None` runs on and on.
    pub(crate) passes: Option<Duration>,
    pub(crate) relays: usize,
    /// How many senders share a domain.
    pub(crate) of_a_domain: usize,
    pub(crate) latency: (Duration, Duration),
    pub(crate) mails: Vec<Mail>,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) happenings: Vec<(Duration, Happening)>,
}

impl Plan {
    pub(crate) fn draw(seed: u64) -> Self {
        let dice = &mut Dice::new(seed);
        let settings = settings(dice);
        let relays = dice.one_of(&[1, 1, 1, 1, 1, 1, 2, 2, 3, 4]);
        let senders = usize::try_from(dice.between(1, 6)).unwrap();
        let span = if dice.percent(40) { 1 } else { dice.between(MINUTE, HOUR / 2) };
        let count = dice.between(3, 30);
        let mut mails: Vec<_> = (0..count).map(|number| mail(dice, number, senders, span)).collect();
        mails.sort_by_key(|mail| mail.enqueued);
        let slow = if dice.percent(15) { dice.between(1_000, 120_000) } else { dice.between(1, 300) };
        let latency = (Duration::from_millis(1), Duration::from_millis(slow));
        let mut plan = Self {
            seed,
            settings,
            passes: dice.percent(12).then(|| dice.seconds(10, 120)),
            relays,
            of_a_domain: dice.one_of(&[1, 2, 6]),
            latency,
            mails,
            conditions: Vec::new(),
            faults: Vec::new(),
            happenings: Vec::new(),
        };
        plan.draw_conditions(dice, senders, span);
        if dice.percent(20) {
            plan.put_the_bad_first();
        }
        if dice.percent(25) {
            plan.draw_faults(dice, span);
        }
        if dice.percent(30) {
            plan.draw_happenings(dice, span);
        }
        plan
    }

    fn draw_conditions(&mut self, dice: &mut Dice, senders: usize, span: u64) {
        if dice.percent(60) {
            for _ in 0..dice.between(1, 3) {
                self.conditions.push(of_everybody(dice, span));
            }
        }
        if dice.percent(50) {
            for _ in 0..dice.between(1, 2) {
                let sender = dice.index(senders);
                self.conditions.push(of_a_sender(dice, sender, span));
            }
        }
        if dice.percent(60) {
            for _ in 0..dice.between(1, 8) {
                let letter = dice.index(self.mails.len());
                // One condition each, so that its end has one reason.
                if !self.conditions.iter().any(|other| other.whose == Whose::Letter(letter)) {
                    let condition = of_a_letter(dice, letter);
                    self.conditions.push(condition);
                }
            }
        }
    }

    /// Whoever has a condition of its own, or its sender's, is more urgent than the others.
    fn put_the_bad_first(&mut self) {
        for condition in &self.conditions {
            let bad = self.mails.iter_mut().enumerate().filter(|(number, mail)| match condition.whose {
                Whose::Everybody => false,
                Whose::Sender(sender) => mail.sender == sender,
                Whose::Letter(letter) => *number == letter,
            });
            bad.for_each(|(_, mail)| mail.priority = 9);
        }
    }

    fn draw_faults(&mut self, dice: &mut Dice, span: u64) {
        for _ in 0..dice.between(1, 3) {
            let from = dice.seconds(0, span.max(MINUTE));
            let length = if dice.percent(50) { dice.seconds(1, 20) } else { dice.seconds(20, 200) };
            let kind = match dice.between(0, 5) {
                0 => FaultKind::Down,
                1 => FaultKind::Flaky(u32::try_from(dice.between(10, 90)).unwrap()),
                2 => FaultKind::AnswerLost(u32::try_from(dice.between(10, 90)).unwrap()),
                3 => FaultKind::Late(dice.seconds(0, 25)),
                4 => FaultKind::LateAllTheSame(dice.seconds(5, 50)),
                _ => FaultKind::Silent,
            };
            let relay = dice.percent(40).then(|| dice.index(self.relays));
            self.faults.push(Fault { relay, from, until: from + length, kind });
        }
    }

    fn draw_happenings(&mut self, dice: &mut Dice, span: u64) {
        for _ in 0..dice.between(1, 4) {
            let at = dice.seconds(0, span.max(5 * MINUTE));
            let relay = dice.index(self.relays);
            match dice.between(0, 4) {
                0 => self.happenings.push((at, Happening::Freeze(dice.seconds(1, 200)))),
                1 | 2 => self.happenings.push((at, Happening::Kill(relay))),
                _ => self.happenings.push((at, Happening::Stop(relay))),
            }
            self.happenings.push((at + dice.seconds(0, 90), Happening::Start(relay)));
        }
        self.happenings.sort_by_key(|(at, _)| *at);
    }
}

fn settings(dice: &mut Dice) -> Settings {
    let oldest = if dice.percent(20) { 3 * HOUR } else { HOUR };
    let pause = dice.seconds(1, 5);
    let backoff = dice.seconds(1, 20);
    Settings {
        concurrency: dice.one_of(&[1, 2, 4, 8, 32]),
        batch: if dice.percent(15) { 3 } else { 1 },
        lease: dice.seconds(5, 90),
        poll: dice.seconds(1, 120),
        pause: (pause, pause * u32::try_from(dice.between(1, 60)).unwrap()),
        backoff: (backoff, backoff * u32::try_from(dice.between(1, 60)).unwrap()),
        attempts: u32::try_from(dice.between(2, 20)).unwrap(),
        max_age: dice.seconds(HOUR / 4, oldest),
        send_timeout: dice.seconds(130, 10 * MINUTE),
        grace: dice.seconds(0, 30),
    }
}

fn mail(dice: &mut Dice, number: u64, senders: usize, span: u64) -> Mail {
    let many = if dice.percent(15) { dice.between(2, 12) } else { 1 };
    let domain = dice.between(0, 3);
    Mail {
        sender: dice.index(senders),
        to: (0..many).map(|place| format!("r{number}-{place}@d{domain}.example")).collect(),
        enqueued: dice.seconds(0, span),
        delay: if dice.percent(10) { dice.seconds(1, 20 * MINUTE) } else { Duration::ZERO },
        expires: dice.percent(8).then(|| dice.seconds(10, HOUR)),
        priority: if dice.percent(25) { u8::try_from(dice.between(0, 9)).unwrap() } else { 5 },
        hold: dice.percent(10),
    }
}

fn retry_after(dice: &mut Dice) -> Option<Duration> {
    match dice.between(0, 99) {
        0..=14 => Some(Duration::ZERO),
        15..=29 => Some(dice.seconds(1, 60)),
        30..=34 => Some(dice.seconds(MINUTE, 20 * MINUTE)),
        35 => Some(dice.one_of(&[Duration::MAX, Duration::from_secs(86_400 * 30)])),
        _ => None,
    }
}

fn class(dice: &mut Dice) -> Class {
    dice.one_of(&[Class::Permanent, Class::Transient])
}

fn says(dice: &mut Dice, right: Scope) -> Says {
    let takes = if dice.percent(20) { dice.seconds(1, 60) } else { Duration::ZERO };
    let said = Says {
        manner: Manner::Refuses,
        class: class(dice),
        scope: right,
        sure: true,
        words: dice.one_of(&[Words::Same, Words::WithIds]),
        retry_after: retry_after(dice),
        takes,
    };
    if dice.percent(50) {
        return said;
    }
    // In words that no rule knows, or that a rule takes for something else. A rule does not take it for the message's.
    let words = dice.one_of(&[Words::Same, Words::WithIds, Words::Random]);
    if dice.percent(60) {
        return Says { scope: Scope::Message, sure: false, words, ..said };
    }
    Says { scope: dice.one_of(&[Scope::Sender, Scope::Transport]), words, ..said }
}

fn of_everybody(dice: &mut Dice, span: u64) -> Condition {
    let from = dice.seconds(0, span);
    let length = if dice.percent(50) { dice.seconds(1, 5 * MINUTE) } else { dice.seconds(5 * MINUTE, HOUR / 2) };
    let mut says = says(dice, Scope::Transport);
    if dice.percent(15) {
        says.manner = Manner::Doubt { accepted: dice.percent(50) };
    }
    let when = if dice.percent(30) { When::BeyondAMinutes(dice.between(1, 10)) } else { When::Always };
    Condition { whose: Whose::Everybody, from, until: from + length, when, says }
}

fn of_a_sender(dice: &mut Dice, sender: usize, span: u64) -> Condition {
    let from = if dice.percent(60) { Duration::ZERO } else { dice.seconds(0, span) };
    let until = if dice.percent(40) { FOR_EVER } else { from + dice.seconds(1, HOUR / 2) };
    let when = if dice.percent(25) { When::BeyondAMinutes(dice.between(1, 5)) } else { When::Always };
    Condition { whose: Whose::Sender(sender), from, until, when, says: says(dice, Scope::Sender) }
}

fn of_a_letter(dice: &mut Dice, letter: usize) -> Condition {
    let mut says = says(dice, Scope::Message);
    let (mut when, mut until) = (When::Always, FOR_EVER);
    match dice.between(0, 9) {
        0 => says.manner = Manner::Panics,
        1 => says.manner = Manner::Hangs,
        2 => {
            when = When::SinceTheFirstTry(dice.seconds(1, 10 * MINUTE));
            says.class = Class::Transient;
        }
        3 => until = dice.seconds(1, HOUR),
        4 | 5 => {
            when = When::BeyondACalls(usize::try_from(dice.between(1, 5)).unwrap());
            if says.scope != Scope::Message || says.sure {
                says.class = Class::Transient;
            }
        }
        6 | 7 => when = When::ForRecipients(usize::try_from(dice.between(1, 3)).unwrap()),
        _ => {}
    }
    Condition { whose: Whose::Letter(letter), from: Duration::ZERO, until, when, says }
}
