//! The next hop, which replies by the conditions of the plan.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use postrider::transport::{Class, Outgoing, Receipt, Refusal};
use postrider::{Failure, Scope, Transport};
use tokio::time::Instant;

use crate::message::TestMessage;
use crate::plan::{Affected, Behavior, Condition, Plan, Reply, When, Wording};
use crate::random::Random;

/// One call of the transport.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) mail: usize,
    pub(crate) relay: usize,
    /// The number of the relay's start, over all relays.
    pub(crate) incarnation: usize,
    pub(crate) began: Duration,
    pub(crate) ended: Option<Duration>,
    /// The incarnations of the relays whose calls for the same mail were under way when this one began.
    pub(crate) concurrent: Vec<usize>,
    pub(crate) answer: Answer,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The call was dropped before the reply.
    None,
    Accepted,
    /// By this condition of the plan.
    Refused(usize),
}

/// The plan, and what has happened so far.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) plan: Plan,
    began: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) calls: Vec<Call>,
    /// The indices of the calls that are under way.
    open: Vec<usize>,
    /// The times of acceptance, by mail and recipient.
    pub(crate) accepted: HashMap<(usize, String), Vec<Duration>>,
    /// The time and the sender of each acceptance.
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

    fn begin(&self, mail: usize, relay: usize, incarnation: usize) -> usize {
        let now = self.now();
        let mut state = self.state();
        state.first_try.entry(mail).or_insert(now);
        let open = state.open.iter().map(|place| &state.calls[*place]);
        let concurrent = open.filter(|call| call.mail == mail).map(|call| call.incarnation).collect();
        state.calls.push(Call { mail, relay, incarnation, began: now, ended: None, concurrent, answer: Answer::None });
        let place = state.calls.len() - 1;
        state.open.push(place);
        place
    }

    fn accept(&self, mail: usize, to: &[String]) {
        let now = self.now();
        let mut state = self.state();
        for recipient in to {
            state.accepted.entry((mail, recipient.clone())).or_default().push(now);
        }
        state.acceptances.push((now, self.plan.mails[mail].sender));
    }

    /// The condition that a call for this mail matches now.
    fn matching_condition(&self, mail: usize) -> Option<usize> {
        let now = self.now();
        let state = self.state();
        let sender = self.plan.mails[mail].sender;
        self.plan.conditions.iter().position(|condition| {
            let concerns = match condition.affected {
                Affected::Everyone => true,
                Affected::Sender(affected) => affected == sender,
                Affected::Mail(affected) => affected == mail,
            };
            let holds = match condition.when {
                When::Always => true,
                When::BeyondPerMinute(most) => {
                    let minute = now.as_secs() / 60;
                    let of = |(at, of): &&(Duration, usize)| {
                        at.as_secs() / 60 == minute && (condition.affected == Affected::Everyone || *of == sender)
                    };
                    state.acceptances.iter().filter(of).count() as u64 >= most
                }
                When::Greylisted(wait) => state.first_try.get(&mail).is_none_or(|first| now < *first + wait),
                When::BeyondPerCall(_) | When::FirstRecipients(_) => false,
            };
            concerns && holds && condition.from <= now && now < condition.until
        })
    }

    /// The recipients that are refused, and the reply.
    fn refuses(&self, mail: usize, to: &[String]) -> (Vec<String>, Option<Reply>) {
        let now = self.now();
        match self.plan.own(mail) {
            Some(Condition { when: When::BeyondPerCall(most), reply, until, .. }) if now < *until => {
                (to.iter().skip(*most).cloned().collect(), Some(*reply))
            }
            Some(Condition { when: When::FirstRecipients(most), reply, until, .. }) if now < *until => {
                let dead: Vec<_> = self.plan.mails[mail].to.iter().take(*most).collect();
                (to.iter().filter(|recipient| dead.contains(recipient)).cloned().collect(), Some(*reply))
            }
            _ => (Vec::new(), None),
        }
    }
}

pub(crate) struct NextHop {
    pub(crate) world: Arc<World>,
    pub(crate) relay: usize,
    pub(crate) incarnation: usize,
}

/// A call that is under way. Drop records its end.
struct OpenCall<'a> {
    world: &'a World,
    place: usize,
    answer: Answer,
}

impl Drop for OpenCall<'_> {
    fn drop(&mut self) {
        let now = self.world.now();
        let mut state = self.world.state();
        state.open.retain(|place| *place != self.place);
        let call = &mut state.calls[self.place];
        (call.ended, call.answer) = (Some(now), self.answer.clone());
    }
}

fn text(reply: Reply, affected: Affected, random: &mut Random) -> String {
    let code = if reply.class == Class::Permanent { 550 } else { 451 };
    let kind = match affected {
        Affected::Everyone => "the service is not available to you",
        Affected::Sender(_) => "this sender is not allowed",
        Affected::Mail(_) => "this mail is not allowed",
    };
    match reply.wording {
        Wording::Same => format!("{code} {kind}"),
        Wording::WithIds => {
            format!("{code} {kind} ref-{:x} <x{}@example.com>", random.between(0, u64::MAX), random.between(0, 99))
        }
        Wording::Random => {
            let wording: Vec<_> = (0..random.between(2, 6)).map(|_| random.word()).collect();
            format!("{code} {}", wording.join(" "))
        }
    }
}

fn failure(reply: Reply, text: &str) -> Failure {
    let class = if reply.class == Class::Permanent { Failure::permanent } else { Failure::transient };
    let failure = class(reply.scope, text.to_owned()).with_reply(text);
    let failure = if reply.sure { failure } else { failure.unsure() };
    reply.retry_after.into_iter().fold(failure, Failure::with_retry_after)
}

impl Transport for NextHop {
    type Message = TestMessage;

    fn name(&self) -> &str {
        "next-hop"
    }

    async fn send(&self, outgoing: &Outgoing<TestMessage>) -> Result<Receipt, Failure> {
        let (world, mail) = (&*self.world, outgoing.message().number);
        let place = world.begin(mail, self.relay, self.incarnation);
        let mut call = OpenCall { world, place, answer: Answer::None };
        let mut random =
            Random::new(world.plan.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (place as u64) << 20 ^ mail as u64);
        let to: Vec<_> = outgoing.recipients().iter().map(|recipient| recipient.as_str().to_owned()).collect();
        let (low, high) = world.plan.latency;
        let takes = random.millis(low.as_millis() as u64, high.as_millis() as u64);
        let Some(matched) = world.matching_condition(mail) else {
            let (refused, refusal_reply) = world.refuses(mail, &to);
            let taken: Vec<_> = to.iter().filter(|recipient| !refused.contains(recipient)).cloned().collect();
            // The acceptance precedes the reply.
            let before = takes.mul_f64(random.between(0, 100) as f64 / 100.0);
            tokio::time::sleep(before).await;
            if !taken.is_empty() {
                world.accept(mail, &taken);
            }
            tokio::time::sleep(takes - before).await;
            let Some(reply) = refusal_reply.filter(|_| !refused.is_empty()) else {
                call.answer = Answer::Accepted;
                return Ok(Receipt::new());
            };
            let refusal = |recipient: &String| {
                let refusal = Refusal::new(
                    recipient.clone(),
                    reply.class,
                    text(reply, Affected::Mail(mail), &mut Random::new(place as u64)),
                );
                if reply.sure { refusal } else { refusal.unsure() }
            };
            let refusals: Vec<_> = refused.iter().map(refusal).collect();
            if taken.is_empty() {
                let own = world.plan.conditions.iter().position(|own| own.affected == Affected::Mail(mail));
                call.answer = own.map_or(Answer::None, Answer::Refused);
                let reply = Reply { scope: Scope::Message, ..reply };
                return Err(failure(reply, &text(reply, Affected::Mail(mail), &mut random)).with_refused(refusals));
            }
            call.answer = Answer::Accepted;
            return Ok(Receipt::new().with_refused(refusals));
        };
        let Condition { affected, reply, .. } = world.plan.conditions[matched];
        let text = text(reply, affected, &mut random);
        tokio::time::sleep(takes + reply.takes).await;
        match reply.behavior {
            Behavior::Refuses => {
                call.answer = Answer::Refused(matched);
                Err(failure(reply, &text))
            }
            Behavior::Doubt { accepted } => {
                if accepted {
                    world.accept(mail, &to);
                }
                call.answer = Answer::Refused(matched);
                Err(Failure::maybe_accepted(text))
            }
            Behavior::Panics => {
                call.answer = Answer::Refused(matched);
                drop(call);
                // Unlike `panic!`, this prints nothing.
                std::panic::resume_unwind(Box::new("the transport panics"));
            }
            Behavior::Hangs => std::future::pending().await,
        }
    }

    fn max_batch(&self) -> usize {
        self.world.plan.settings.batch
    }
}
