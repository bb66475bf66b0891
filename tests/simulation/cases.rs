//! Worlds that are not drawn: each is a fault that was once there, or a promise in numbers.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postrider::store::TestClock;
use postrider::testkit::ScriptedTransport;
use postrider::transport::{Class, Outgoing, Receipt, Refusal};
use postrider::{
    AdminStore, Backoff, DeliveryId, Event, Failure, MemoryStore, NewDelivery, Observer, Outbox, Outcome, Priority,
    Relay, Scope, State, Transport,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::letter::Letter;
use crate::next_hop::World;
use crate::plan::{Fault, FaultKind, Plan};
use crate::store::Line;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

type Said = fn() -> Failure;

fn letter(number: usize, sender: &str) -> Letter {
    Letter { number, sender: format!("{sender}@{sender}.example"), to: vec![format!("r{number}@d{number}.example")] }
}

fn store() -> MemoryStore {
    MemoryStore::with_test_clock(TestClock::following_tokio())
}

/// Each call takes ten milliseconds.
fn scripted(mut answer: impl FnMut(&Letter) -> Result<Receipt, Failure> + Send + 'static) -> ScriptedTransport<Letter> {
    ScriptedTransport::new().answering(move |call| {
        let answer = answer(&call.message);
        async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            answer
        }
    })
}

fn sayings() -> [(&'static str, Said); 5] {
    [
        ("known, the sender's", || Failure::permanent(Scope::Sender, "550 5.7.1 sender is not verified")),
        ("unknown, for good", || Failure::permanent(Scope::Message, "550 frobnicated").unsure()),
        ("unknown, for now", || Failure::transient(Scope::Message, "451 frobnicated").unsure()),
        ("the transport's", || Failure::permanent(Scope::Transport, "550 not from here")),
        ("the transport's, for now", || Failure::transient(Scope::Transport, "421 not now")),
    ]
}

/// Runs a relay for some time.
async fn run_for<S: postrider::Store, T: Transport>(relay: Relay<S, T>, time: Duration) {
    let stop = CancellationToken::new();
    let worker = tokio::spawn(relay.seed(7).run(stop.clone().cancelled_owned()));
    tokio::time::sleep(time).await;
    stop.cancel();
    worker.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_drain_gets_past_two_hundred_mails_of_a_refused_sender() {
    for (said, failure) in sayings() {
        for concurrency in [1, 4, 32] {
            let transport =
                scripted(
                    move |letter| {
                        if letter.sender.starts_with("bad") { Err(failure()) } else { Ok(Receipt::new()) }
                    },
                );
            let outbox = Outbox::new(store(), transport.clone());
            outbox.enqueue_all((0..200).map(|n| letter(n, "bad"))).await.unwrap();
            let good = outbox.enqueue(letter(200, "good")).await.unwrap();
            let pass = outbox.relay().seed(1).concurrency(concurrency).drain().await.unwrap();
            assert_eq!((pass.sent, pass.dead), (1, 0), "{said}, concurrency {concurrency}");
            assert_eq!(outbox.get(good).await.unwrap().unwrap().state, State::Sent, "{said}");
            let calls = transport.calls().len();
            assert!(calls <= 3 * concurrency + 20, "{said}, concurrency {concurrency}: {calls} calls");
        }
    }
}

/// A quota that is used up for three hours, on a thousand mails of one sender; how many dead letters there are, and how many are sent
/// in the end.
async fn quota(failure: Said, open: impl Fn(Duration, usize) -> bool + Send + 'static, restarts: bool) -> (u64, u64) {
    let began = Instant::now();
    let accepted = Arc::new(AtomicUsize::new(0));
    let transport = scripted(move |_| {
        if open(began.elapsed(), accepted.load(Ordering::SeqCst)) {
            accepted.fetch_add(1, Ordering::SeqCst);
            return Ok(Receipt::new());
        }
        Err(failure())
    });
    let outbox = Outbox::new(store(), transport);
    outbox.enqueue_all((0..1_000).map(|n| letter(n, "hello"))).await.unwrap();
    let mut left = 48;
    while left > 0 && outbox.stats().await.unwrap().sent < 1_000 {
        let time = if restarts { 1 } else { 8 };
        run_for(outbox.relay().poll(MINUTE).concurrency(8), HOUR * time).await;
        left -= time;
    }
    let stats = outbox.stats().await.unwrap();
    (stats.dead, stats.sent)
}

#[tokio::test(start_paused = true)]
async fn a_quota_ends_no_mail_of_a_backlog_of_a_thousand() {
    for (said, failure) in sayings() {
        let after_hours = |time: Duration, _| time > HOUR * 3;
        assert_eq!(quota(failure, after_hours, false).await, (0, 1_000), "{said}");
        let five_hundred_first = |time: Duration, sent| sent < 500 || time > HOUR * 3;
        assert_eq!(quota(failure, five_hundred_first, true).await, (0, 1_000), "{said}, with restarts");
    }
}

#[tokio::test(start_paused = true)]
async fn a_quota_that_comes_and_goes_ends_no_mail_either() {
    for (said, failure) in sayings() {
        // Fifty in each half hour.
        let open = |time: Duration, sent: usize| sent as u64 / 50 <= time.as_secs() / 1_800;
        assert_eq!(quota(failure, open, true).await, (0, 1_000), "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn drains_by_the_clock_give_up_nobody_for_a_quota() {
    for (said, failure) in sayings() {
        let began = Instant::now();
        let accepted = Arc::new(AtomicUsize::new(0));
        let transport = scripted(move |_| {
            if accepted.load(Ordering::SeqCst) as u64 / 20 <= began.elapsed().as_secs() / 600 {
                accepted.fetch_add(1, Ordering::SeqCst);
                return Ok(Receipt::new());
            }
            Err(failure())
        });
        let outbox = Outbox::new(store(), transport);
        outbox.enqueue_all((0..200).map(|n| letter(n, "hello"))).await.unwrap();
        for minute in 0..2_000 {
            outbox.relay().seed(minute).drain().await.unwrap();
            tokio::time::sleep(MINUTE).await;
        }
        let stats = outbox.stats().await.unwrap();
        assert_eq!((stats.dead, stats.sent), (0, 200), "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn all_of_2_500_recipients_are_sent_to_by_hundreds_whatever_the_rest_is_told() {
    for (class, sure) in [(Class::Transient, true), (Class::Transient, false), (Class::Permanent, false)] {
        let transport = ScriptedTransport::new().answering(move |call| {
            let refusal = |to: &postrider::transport::Recipient| {
                let refusal = Refusal::new(to.as_str(), class, "552 too many recipients");
                if sure { refusal } else { refusal.unsure() }
            };
            let refused = call.recipients.iter().skip(100).map(refusal).collect();
            async move { Ok(Receipt::new().with_refused(refused)) }
        });
        let outbox = Outbox::new(store(), transport.clone());
        let to = (0..2_500).map(|n| format!("r{n}@example.org")).collect();
        let mail = Letter { number: 0, sender: "a@example.com".to_owned(), to };
        let id = outbox.enqueue(mail).await.unwrap();
        run_for(outbox.relay(), HOUR).await;
        let delivery = outbox.get(id).await.unwrap().unwrap();
        let sent = delivery.recipients.iter().filter(|to| to.state == postrider::RecipientState::Sent).count();
        assert_eq!((sent, transport.calls().len()), (2_500, 25), "{class:?}, sure {sure}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_next_hop_that_says_retry_after_0_is_called_as_the_backoff_says() {
    async fn calls(asked: Option<Duration>) -> usize {
        let transport = scripted(move |_| {
            let failure = Failure::transient(Scope::Transport, "429 slow down");
            Err(asked.into_iter().fold(failure, Failure::with_retry_after))
        });
        let outbox = Outbox::new(store(), transport.clone());
        outbox.enqueue_all((0..50).map(|n| letter(n, "hello"))).await.unwrap();
        run_for(outbox.relay().concurrency(1), MINUTE).await;
        transport.calls().len()
    }
    let without = calls(None).await;
    assert_eq!(calls(Some(Duration::ZERO)).await, without);
    // 1, 2, 4, 8, 16 and 32 s, with four candidates in each round.
    assert!((7..=1 + 4 * 7).contains(&without), "{without} calls");
}

/// Keeps the pauses of the transport.
#[derive(Clone, Default)]
struct Pauses(Arc<Mutex<Vec<Duration>>>);

impl Observer for Pauses {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::TransportPaused { pause, .. } = event {
            self.0.lock().unwrap().push(*pause);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_mail_that_probes_waits_no_longer_than_the_pause() {
    let at = Arc::new(Mutex::new(Vec::new()));
    let times = Arc::clone(&at);
    let transport = scripted(move |_| {
        times.lock().unwrap().push(Instant::now());
        Err(Failure::transient(Scope::Transport, "421 closing"))
    });
    let outbox = Outbox::new(store(), transport);
    outbox.enqueue(letter(0, "hello")).await.unwrap();
    let pauses = Pauses::default();
    run_for(outbox.relay().observer(pauses.clone()), HOUR).await;
    let (at, pauses) = (at.lock().unwrap(), pauses.0.lock().unwrap());
    assert!(at.len() > 10 && pauses.len() == at.len(), "{} calls, {} pauses", at.len(), pauses.len());
    for (calls, pause) in at.windows(2).zip(pauses.iter()) {
        let waited = calls[1] - calls[0];
        assert!(waited <= *pause + SECOND / 2, "{waited:?} where the pause was {pause:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn several_bad_ones_in_front_do_not_double_the_pause_for_the_good_one() {
    for concurrency in [1, 8] {
        let began = Instant::now();
        let transport = scripted(|letter| {
            if letter.sender.starts_with("bad") {
                Err(Failure::transient(Scope::Transport, "421"))
            } else {
                Ok(Receipt::new())
            }
        });
        let outbox = Outbox::new(store(), transport);
        for n in 0..3 {
            outbox.enqueue(NewDelivery::new(letter(n, &format!("bad{n}"))).priority(Priority::URGENT)).await.unwrap();
        }
        let good = outbox.enqueue(letter(3, "good")).await.unwrap();
        let backoff = Backoff::new(MINUTE, HOUR);
        run_for(outbox.relay().pause(backoff).concurrency(concurrency), MINUTE * 10).await;
        let attempts = outbox.get(good).await.unwrap().unwrap().attempts;
        let left = attempts[0].started_at.duration_since(TestClock::new().now()).unwrap();
        assert!(left < MINUTE * 2 && attempts[0].outcome == Outcome::Sent, "{left:?} after {:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_dozen_urgent_ones_that_the_transport_is_blamed_for_do_not_take_turns_for_ever() {
    let transport = scripted(|letter| {
        if letter.number < 12 { Err(Failure::transient(Scope::Transport, "421 no")) } else { Ok(Receipt::new()) }
    });
    let outbox = Outbox::new(store(), transport);
    for n in 0..12 {
        outbox.enqueue(NewDelivery::new(letter(n, &format!("bad{n}"))).priority(Priority::URGENT)).await.unwrap();
    }
    let later = async {
        tokio::time::sleep(SECOND * 90).await;
        outbox.enqueue(letter(12, "good")).await.unwrap()
    };
    let relay = outbox.relay().pause(Backoff::new(MINUTE, MINUTE));
    let (good, ()) = tokio::join!(later, run_for(relay, MINUTE * 5));
    assert_eq!(outbox.get(good).await.unwrap().unwrap().state, State::Sent);
}

#[tokio::test(start_paused = true)]
async fn urgent_mails_that_fail_for_themselves_let_others_of_their_sender_go() {
    for (scope, concurrency) in [(Scope::Sender, 1), (Scope::Sender, 8), (Scope::Transport, 1), (Scope::Transport, 8)] {
        let transport =
            scripted(
                move |letter| {
                    if letter.number < 2 { Err(Failure::transient(scope, "451 no")) } else { Ok(Receipt::new()) }
                },
            );
        let outbox = Outbox::new(store(), transport);
        for n in 0..2 {
            outbox.enqueue(NewDelivery::new(letter(n, "a")).priority(Priority::URGENT)).await.unwrap();
        }
        let backoff = Backoff::new(MINUTE, MINUTE * 5);
        let outbox = &outbox;
        let feed = async {
            // One that comes now and then, so that the pause has grown.
            let mut ids: Vec<DeliveryId> = Vec::new();
            for n in 2..6 {
                tokio::time::sleep(HOUR).await;
                ids.push(outbox.enqueue(letter(n, "a")).await.unwrap());
            }
            ids
        };
        let relay = outbox.relay().pause(backoff).concurrency(concurrency);
        let (ids, ()) = tokio::join!(feed, run_for(relay, HOUR * 5));
        for id in ids {
            let delivery = outbox.get(id).await.unwrap().unwrap();
            let sent = delivery.attempts.last().map(|attempt| attempt.started_at).expect("it was never tried");
            let waited = sent.duration_since(delivery.created_at).unwrap();
            assert!(delivery.state == State::Sent && waited <= MINUTE * 11, "{scope}, {concurrency}: {waited:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn in_drains_by_the_clock_too_they_let_others_of_their_sender_go() {
    for scope in [Scope::Sender, Scope::Transport] {
        for concurrency in [1, 8] {
            let transport =
                scripted(
                    move |letter| {
                        if letter.number < 2 { Err(Failure::transient(scope, "451 no")) } else { Ok(Receipt::new()) }
                    },
                );
            let outbox = Outbox::new(store(), transport);
            for n in 0..2 {
                outbox.enqueue(NewDelivery::new(letter(n, "a")).priority(Priority::URGENT)).await.unwrap();
            }
            outbox.enqueue_all((2..40).map(|n| letter(n, "a"))).await.unwrap();
            for minute in 0..10 {
                outbox.relay().seed(minute).concurrency(concurrency).drain().await.unwrap();
                tokio::time::sleep(MINUTE).await;
            }
            assert_eq!(outbox.stats().await.unwrap().sent, 38, "{scope}, concurrency {concurrency}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_poison_mail_in_unknown_words_ends_soon_with_its_reason_while_others_go_through() {
    for scope in [Scope::Message, Scope::Sender, Scope::Transport] {
        let transport = scripted(move |letter| {
            if letter.number == 0 {
                Err(Failure::permanent(scope, "550 frobnicated").unsure())
            } else {
                Ok(Receipt::new())
            }
        });
        let outbox = Outbox::new(store(), transport);
        let poison = outbox.enqueue(letter(0, "a")).await.unwrap();
        let fed = &outbox;
        let feed = async {
            for n in 1..500 {
                fed.enqueue(letter(n, "a")).await.unwrap();
                tokio::time::sleep(MINUTE * 10).await;
            }
        };
        tokio::join!(feed, run_for(outbox.relay().poll(MINUTE), HOUR * 84));
        let delivery = outbox.get(poison).await.unwrap().unwrap();
        let reason = delivery.reason.unwrap_or_default();
        assert!(
            delivery.state == State::Dead && reason.contains("550 frobnicated"),
            "{scope}: {} {reason}",
            delivery.state
        );
        assert!(scope != Scope::Message || delivery.attempts.len() <= 8, "{} attempts", delivery.attempts.len());
        assert_eq!(outbox.stats().await.unwrap().sent, 499, "{scope}");
    }
}

/// Waits for its turn for as long as it is told to.
struct Turns {
    turn: Duration,
    requests: Arc<AtomicU64>,
}

impl Transport for Turns {
    type Message = Letter;

    fn name(&self) -> &str {
        "turns"
    }

    async fn send(&self, outgoing: &Outgoing<Letter>) -> Result<Receipt, Failure> {
        let waiting = outgoing.waiting();
        tokio::time::sleep(self.turn).await;
        drop(waiting);
        self.requests.fetch_add(1, Ordering::SeqCst);
        Ok(Receipt::new())
    }
}

#[tokio::test(start_paused = true)]
async fn a_mail_that_waits_for_its_turn_when_the_relay_stops_is_given_back_uncharged() {
    let requests = Arc::new(AtomicU64::new(0));
    let outbox = Outbox::new(store(), Turns { turn: HOUR, requests: Arc::clone(&requests) });
    let id = outbox.enqueue(letter(0, "a")).await.unwrap();
    run_for(outbox.relay(), MINUTE).await;
    let delivery = outbox.get(id).await.unwrap().unwrap();
    assert_eq!((delivery.state, delivery.attempts.len(), requests.load(Ordering::SeqCst)), (State::Pending, 0, 0));
}

/// A line to a store that has one fault, for the relay 0.
fn line(store: &MemoryStore, kind: FaultKind, from: Duration, until: Duration) -> Line {
    let mut plan = Plan::draw(0);
    plan.faults = vec![Fault { relay: Some(0), from, until, kind }];
    Line { store: store.clone(), world: World::new(plan), relay: 0, calls: Arc::default() }
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_ends_a_call_that_only_waits() {
    let (store, requests) = (store(), Arc::new(AtomicU64::new(0)));
    // Cut for longer than the lease; meanwhile another relay sends the mail.
    let cut = line(&store, FaultKind::Down, SECOND * 5, SECOND * 95);
    let slow = Outbox::new(cut, Turns { turn: MINUTE * 5, requests: Arc::clone(&requests) });
    let quick = Outbox::new(store.clone(), Turns { turn: Duration::ZERO, requests: Arc::clone(&requests) });
    let id = quick.enqueue(letter(0, "a")).await.unwrap();
    let other = async {
        tokio::time::sleep(SECOND * 10).await;
        run_for(quick.relay(), MINUTE * 10).await;
    };
    tokio::join!(run_for(slow.relay(), MINUTE * 10), other);
    assert_eq!((store.get(id).await.unwrap().unwrap().state, requests.load(Ordering::SeqCst)), (State::Sent, 1));
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_a_little_longer_than_the_lease_a_relay_does_not_send_its_own_mail_twice() {
    for outage in [58, 61, 65, 75] {
        let store = store();
        let cut = line(&store, FaultKind::Down, SECOND * 5, SECOND * (5 + outage));
        let transport = ScriptedTransport::new().answering(|_| async {
            tokio::time::sleep(MINUTE * 4).await;
            Ok(Receipt::new())
        });
        let outbox = Outbox::new(cut, transport.clone());
        let ids = outbox.enqueue_all((0..3).map(|n| letter(n, "a"))).await.unwrap();
        run_for(outbox.relay().concurrency(8), MINUTE * 10).await;
        for id in ids {
            let attempts = store.get(id).await.unwrap().unwrap().attempts;
            let outcomes: Vec<_> = attempts.iter().map(|attempt| attempt.outcome).collect();
            assert_eq!(outcomes, [Outcome::Sent], "an outage of {outage} s: it charged its own mail a lost attempt");
        }
        let sent = Outbox::new(store, ScriptedTransport::<Letter>::new()).stats().await.unwrap().sent;
        assert_eq!((sent, transport.calls().len()), (3, 3), "an outage of {outage} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_answer_never_came_charges_nobody() {
    let late = |seconds| FaultKind::LateAllTheSame(Duration::from_secs(seconds));
    for (kind, lease) in [
        (FaultKind::AnswerLost(100), 60),
        (FaultKind::AnswerLost(100), 5),
        (late(29), 60),
        (late(35), 60),
        (late(35), 5),
    ] {
        let store = store();
        let cut = line(&store, kind, Duration::ZERO, SECOND);
        let transport = scripted(|_| Ok(Receipt::new()));
        let outbox = Outbox::new(cut, transport.clone());
        let id = outbox.enqueue(letter(0, "a")).await.unwrap();
        run_for(outbox.relay().lease(SECOND * lease), MINUTE * 10).await;
        let attempts = store.get(id).await.unwrap().unwrap().attempts;
        let outcomes: Vec<_> = attempts.iter().map(|attempt| attempt.outcome).collect();
        assert_eq!((outcomes, transport.calls().len()), (vec![Outcome::Sent], 1), "{kind:?}, a lease of {lease} s");
    }
}
