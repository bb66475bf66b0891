//! Runs a world.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use postrider::store::TestClock;
use postrider::{
    AdminStore, Backoff, Delivery, MemoryStore, NewDelivery, Outbox, Priority, RetryPolicy, State, WhenInDoubt,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::faulty_store::FaultyStore;
use crate::message::TestMessage;
use crate::next_hop::{NextHop, World};
use crate::plan::{Incident, Plan};

/// The result of a world.
pub(crate) struct RunResult {
    pub(crate) world: Arc<World>,
    /// In the order of the mails' numbers.
    pub(crate) deliveries: Vec<Delivery>,
    /// The database's time at the start.
    pub(crate) epoch: std::time::SystemTime,
    /// The duration of the world.
    pub(crate) at: Duration,
}

/// A relay that was started.
struct Started {
    worker: JoinHandle<()>,
    stop: CancellationToken,
}

struct Fleet {
    world: Arc<World>,
    store: MemoryStore,
    up: HashMap<usize, Started>,
    incarnations: usize,
}

pub(crate) fn run(plan: Plan) -> RunResult {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(live(plan))
}

async fn live(plan: Plan) -> RunResult {
    let clock = TestClock::following_tokio();
    let (store, epoch) = (MemoryStore::with_test_clock(clock.clone()), clock.now());
    let world = World::new(plan);
    let plan = &world.plan;
    let mut fleet = Fleet { world: Arc::clone(&world), store: store.clone(), up: HashMap::new(), incarnations: 0 };
    (0..plan.relays).for_each(|relay| fleet.start(relay));
    // Each time with what happens then: `Ok` is the number of a mail to enqueue, `Err` an incident.
    let mut schedule: Vec<_> = plan.incidents.iter().copied().map(|(at, what)| (at, Err(what))).collect();
    schedule.extend(plan.mails.iter().enumerate().map(|(number, mail)| (mail.enqueued, Ok(number))));
    schedule.sort_by_key(|(at, _)| *at);
    // This outbox only enqueues.
    let outbox = Outbox::new(store.clone(), NextHop { world: Arc::clone(&world), relay: usize::MAX, incarnation: 0 });
    let mut ids = Vec::new();
    for (at, what) in schedule {
        tokio::time::sleep(at.saturating_sub(world.now())).await;
        match what {
            Ok(number) => ids.push(enqueue(&outbox, plan, number).await),
            Err(Incident::Stop(relay)) => fleet.stop(relay),
            Err(Incident::Kill(relay)) => fleet.kill(relay),
            Err(Incident::Start(relay)) => fleet.start(relay),
            Err(Incident::Freeze(time)) => clock.advance(time),
        }
    }
    let end = plan.horizon();
    while world.now() < end && store.stats().await.unwrap().pending + store.stats().await.unwrap().leased > 0 {
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
    let at = world.now();
    (0..plan.relays).for_each(|relay| fleet.kill(relay));
    let mut deliveries = Vec::new();
    for id in ids {
        deliveries.push(store.get(id).await.unwrap().unwrap());
    }
    tokio::task::yield_now().await;
    RunResult { world: Arc::clone(&world), deliveries, epoch, at }
}

async fn enqueue(outbox: &Outbox<MemoryStore, NextHop>, plan: &Plan, number: usize) -> postrider::DeliveryId {
    let mail = &plan.mails[number];
    let message = TestMessage {
        number,
        sender: format!("s{}@d{}.example", mail.sender, mail.sender / plan.senders_per_domain),
        to: mail.to.clone(),
    };
    let mut new = NewDelivery::new(message).priority(Priority::new(mail.priority).unwrap()).send_in(mail.delay);
    if let Some(expires) = mail.expires {
        new = new.expires_in(expires);
    }
    if mail.hold_in_doubt {
        new = new.when_in_doubt(WhenInDoubt::Hold);
    }
    outbox.enqueue(new).await.unwrap()
}

impl Fleet {
    fn start(&mut self, relay: usize) {
        if self.up.get(&relay).is_some_and(|up| !up.worker.is_finished() && !up.stop.is_cancelled()) {
            return;
        }
        self.incarnations += 1;
        let (world, incarnation) = (Arc::clone(&self.world), self.incarnations);
        let store = FaultyStore { store: self.store.clone(), world: Arc::clone(&world), relay, calls: Arc::default() };
        let outbox = Outbox::new(store, NextHop { world: Arc::clone(&world), relay, incarnation });
        let stop = CancellationToken::new();
        let token = stop.clone();
        let worker = tokio::spawn(async move {
            let settings = world.plan.settings;
            let mut turn = 0;
            let relay = |turn: u64| {
                let backoff = |(base, cap)| Backoff::new(base, cap);
                let policy = RetryPolicy::default()
                    .backoff(settings.backoff.0, settings.backoff.1)
                    .attempts(settings.attempts)
                    .max_age(settings.max_age);
                outbox
                    .relay()
                    .seed(world.plan.seed ^ (incarnation as u64) << 32 ^ turn << 16)
                    .concurrency(settings.concurrency)
                    .lease(settings.lease)
                    .poll(settings.poll)
                    .pause(backoff(settings.pause))
                    .retry(policy)
                    .send_timeout(settings.send_timeout)
                    .grace(settings.grace)
            };
            match world.plan.drains_every {
                None => drop(relay(0).run(token.cancelled_owned()).await),
                Some(every) => {
                    while !token.is_cancelled() {
                        turn += 1;
                        // An unavailable database ends the drain, and the next one starts later.
                        drop(relay(turn).drain_until(token.clone().cancelled_owned()).await);
                        tokio::time::sleep(every).await;
                    }
                }
            }
        });
        // The last incarnation may still be in its grace period.
        self.up.insert(relay, Started { worker, stop });
    }

    fn stop(&self, relay: usize) {
        if let Some(up) = self.up.get(&relay) {
            up.stop.cancel();
        }
    }

    fn kill(&self, relay: usize) {
        if let Some(up) = self.up.get(&relay) {
            up.worker.abort();
        }
    }
}

impl RunResult {
    /// Seconds since the start of the world.
    fn seconds(&self, time: std::time::SystemTime) -> f64 {
        time.duration_since(self.epoch).unwrap_or_default().as_secs_f64()
    }

    pub(crate) fn log(&self) -> Vec<String> {
        let state = self.world.state();
        let mut log: Vec<_> = state
            .calls
            .iter()
            .map(|call| {
                let Some(ended) = call.ended else { return (call.began, format!("{call:?}")) };
                let (began, took) = (call.began.as_secs_f64(), (ended - call.began).as_secs_f64());
                let line = format!(
                    "{began:10.3} + {took:.3} mail {} by {}/{}: {:?}",
                    call.mail, call.relay, call.incarnation, call.answer
                );
                (call.began, line)
            })
            .collect();
        log.sort_by_key(|(at, _)| *at);
        let mut log: Vec<_> = log.into_iter().map(|(_, line)| line).collect();
        for (number, delivery) in self.deliveries.iter().enumerate() {
            log.push(format!("mail {number}: {} {:?}", delivery.state, delivery.reason));
            log.extend(delivery.attempts.iter().map(|attempt| {
                format!(
                    "    {:10.3} {} {} {:?} sure {} charged {} {:?} {:?}",
                    self.seconds(attempt.started_at),
                    attempt.number,
                    attempt.outcome,
                    attempt.scope,
                    attempt.sure,
                    attempt.charged,
                    attempt.error,
                    attempt.note,
                )
            }));
        }
        log.push(format!("{:.3} the end", self.at.as_secs_f64()));
        log
    }

    pub(crate) fn is_finished(&self, number: usize) -> bool {
        !matches!(self.deliveries[number].state, State::Pending | State::Leased)
    }
}
