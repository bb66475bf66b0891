//! The next hop: it has conditions, and says what it says.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use postrider::transport::{Class, Outgoing, Receipt, Refusal};
use postrider::{Failure, Scope, Transport};
use tokio::time::Instant;

use crate::dice::Dice;
use crate::letter::Letter;
use crate::plan::{Condition, Manner, Plan, Says, When, Whose, Words};

/// One call, as the next hop saw it.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) letter: usize,
    pub(crate) relay: usize,
    /// Which start of a relay it was.
    pub(crate) life: usize,
    pub(crate) began: Duration,
    pub(crate) ended: Option<Duration>,
    /// Other calls for the same mail that were under way when this one began: their relays' lives.
    pub(crate) beside: Vec<usize>,
    pub(crate) answer: Answer,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Dropped before it came.
    None,
    Accepted,
    /// By which of the plan's conditions.
    Refused(usize),
}

/// What the next hop remembers, and the whole story.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) plan: Plan,
    began: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) calls: Vec<Call>,
    /// The places of those that are under way.
    open: Vec<usize>,
    /// When each copy was accepted, by letter and recipient.
    pub(crate) accepted: HashMap<(usize, String), Vec<Duration>>,
    /// Acceptances, with the sender of each.
    acceptances: Vec<(Duration, usize)>,
    pub(crate) first_try: HashMap<usize, Duration>,
}

impl World {
    pub(crate) fn new(plan: Plan) -> Arc<Self> {
        Arc::new(Self { plan, began: Instant::now(), state: Mutex::default() })
    }

    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn begin(&self, letter: usize, relay: usize, life: usize) -> usize {
        let now = self.now();
        let mut state = self.state();
        state.first_try.entry(letter).or_insert(now);
        let open = state.open.iter().map(|place| &state.calls[*place]);
        let beside = open.filter(|call| call.letter == letter).map(|call| call.life).collect();
        state.calls.push(Call { letter, relay, life, began: now, ended: None, beside, answer: Answer::None });
        let place = state.calls.len() - 1;
        state.open.push(place);
        place
    }

    fn accept(&self, letter: usize, to: &[String]) {
        let now = self.now();
        let mut state = self.state();
        for recipient in to {
            state.accepted.entry((letter, recipient.clone())).or_default().push(now);
        }
        state.acceptances.push((now, self.plan.mails[letter].sender));
    }

    /// The condition that meets a call now.
    fn meets(&self, letter: usize) -> Option<usize> {
        let now = self.now();
        let state = self.state();
        let sender = self.plan.mails[letter].sender;
        self.plan.conditions.iter().position(|condition| {
            let concerns = match condition.whose {
                Whose::Everybody => true,
                Whose::Sender(whose) => whose == sender,
                Whose::Letter(whose) => whose == letter,
            };
            let holds = match condition.when {
                When::Always => true,
                When::BeyondAMinutes(most) => {
                    let minute = now.as_secs() / 60;
                    let of = |(at, of): &&(Duration, usize)| {
                        at.as_secs() / 60 == minute && (condition.whose == Whose::Everybody || *of == sender)
                    };
                    state.acceptances.iter().filter(of).count() as u64 >= most
                }
                When::SinceTheFirstTry(wait) => state.first_try.get(&letter).is_none_or(|first| now < *first + wait),
                When::BeyondACalls(_) | When::ForRecipients(_) => false,
            };
            concerns && holds && condition.from <= now && now < condition.until
        })
    }

    /// Who of the recipients is refused, and what is said.
    fn refuses(&self, letter: usize, to: &[String]) -> (Vec<String>, Option<Says>) {
        let now = self.now();
        match self.plan.own(letter) {
            Some(Condition { when: When::BeyondACalls(most), says, until, .. }) if now < *until => {
                (to.iter().skip(*most).cloned().collect(), Some(*says))
            }
            Some(Condition { when: When::ForRecipients(most), says, until, .. }) if now < *until => {
                let dead: Vec<_> = self.plan.mails[letter].to.iter().take(*most).collect();
                (to.iter().filter(|recipient| dead.contains(recipient)).cloned().collect(), Some(*says))
            }
            _ => (Vec::new(), None),
        }
    }
}

pub(crate) struct NextHop {
    pub(crate) world: Arc<World>,
    pub(crate) relay: usize,
    pub(crate) life: usize,
}

/// Notes the end of a call, be it dropped.
struct UnderWay<'a> {
    world: &'a World,
    place: usize,
    answer: Answer,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let now = self.world.now();
        let mut state = self.world.state();
        state.open.retain(|place| *place != self.place);
        let call = &mut state.calls[self.place];
        (call.ended, call.answer) = (Some(now), self.answer.clone());
    }
}

fn text(says: Says, whose: Whose, dice: &mut Dice) -> String {
    let code = if says.class == Class::Permanent { 550 } else { 451 };
    let kind = match whose {
        Whose::Everybody => "this service is not for you at present",
        Whose::Sender(_) => "that origin is not for us",
        Whose::Letter(_) => "such things are not for us",
    };
    match says.words {
        Words::Same => format!("{code} {kind}"),
        Words::WithIds => {
            format!("{code} {kind} ref-{:x} <x{}@example.com>", dice.between(0, u64::MAX), dice.between(0, 99))
        }
        Words::Random => {
            let words: Vec<_> = (0..dice.between(2, 6)).map(|_| dice.word()).collect();
            format!("{code} {}", words.join(" "))
        }
    }
}

fn failure(says: Says, text: &str) -> Failure {
    let class = if says.class == Class::Permanent { Failure::permanent } else { Failure::transient };
    let failure = class(says.scope, text.to_owned()).with_reply(text);
    let failure = if says.sure { failure } else { failure.unsure() };
    says.retry_after.into_iter().fold(failure, Failure::with_retry_after)
}

impl Transport for NextHop {
    type Message = Letter;

    fn name(&self) -> &str {
        "next-hop"
    }

    async fn send(&self, outgoing: &Outgoing<Letter>) -> Result<Receipt, Failure> {
        let (world, letter) = (&*self.world, outgoing.message().number);
        let place = world.begin(letter, self.relay, self.life);
        let mut call = UnderWay { world, place, answer: Answer::None };
        let mut dice =
            Dice::new(world.plan.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (place as u64) << 20 ^ letter as u64);
        let to: Vec<_> = outgoing.recipients().iter().map(|recipient| recipient.as_str().to_owned()).collect();
        let (low, high) = world.plan.latency;
        let takes = dice.millis(low.as_millis() as u64, high.as_millis() as u64);
        let Some(met) = world.meets(letter) else {
            let (refused, said) = world.refuses(letter, &to);
            let taken: Vec<_> = to.iter().filter(|recipient| !refused.contains(recipient)).cloned().collect();
            // It is accepted some time before the answer comes.
            let before = takes.mul_f64(dice.between(0, 100) as f64 / 100.0);
            tokio::time::sleep(before).await;
            if !taken.is_empty() {
                world.accept(letter, &taken);
            }
            tokio::time::sleep(takes - before).await;
            let Some(says) = said.filter(|_| !refused.is_empty()) else {
                call.answer = Answer::Accepted;
                return Ok(Receipt::new());
            };
            let refusal = |recipient: &String| {
                let refusal = Refusal::new(
                    recipient.clone(),
                    says.class,
                    text(says, Whose::Letter(letter), &mut Dice::new(place as u64)),
                );
                if says.sure { refusal } else { refusal.unsure() }
            };
            let refusals: Vec<_> = refused.iter().map(refusal).collect();
            if taken.is_empty() {
                let own = world.plan.conditions.iter().position(|own| own.whose == Whose::Letter(letter));
                call.answer = own.map_or(Answer::None, Answer::Refused);
                let said = Says { scope: Scope::Message, ..says };
                return Err(failure(said, &text(said, Whose::Letter(letter), &mut dice)).with_refused(refusals));
            }
            call.answer = Answer::Accepted;
            return Ok(Receipt::new().with_refused(refusals));
        };
        let Condition { whose, says, .. } = world.plan.conditions[met];
        let text = text(says, whose, &mut dice);
        tokio::time::sleep(takes + says.takes).await;
        match says.manner {
            Manner::Refuses => {
                call.answer = Answer::Refused(met);
                Err(failure(says, &text))
            }
            Manner::Doubt { accepted } => {
                if accepted {
                    world.accept(letter, &to);
                }
                call.answer = Answer::Refused(met);
                Err(Failure::maybe_accepted(text))
            }
            Manner::Panics => {
                call.answer = Answer::Refused(met);
                drop(call);
                // A panic, but one that nobody needs to read of.
                std::panic::resume_unwind(Box::new("such things are not for us"));
            }
            Manner::Hangs => std::future::pending().await,
        }
    }

    fn max_batch(&self) -> usize {
        self.world.plan.settings.batch
    }
}
