use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Evidence with pauses of 1 s, 2 s, 4 s …, and a clock that only moves forward.
struct World {
    evidence: Evidence,
    now: Instant,
}

/// A message and its last attempt.
#[derive(Clone)]
struct Mail {
    id: DeliveryId,
    sender: &'static str,
    recipients: Vec<Recipient>,
    previous: Option<PreviousAttempt>,
}

fn mail(sender: &'static str, to: &str) -> Mail {
    Mail { id: DeliveryId::new(), sender, recipients: vec![Recipient::new(to)], previous: None }
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let mut backoff = Backoff::new(SECOND, SECOND * 64);
        backoff.jitter = 0.0;
        Self { evidence: Evidence::new(backoff, now), now }
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    /// Judges a call that takes a millisecond, and records it as the last attempt of the message.
    fn call(&mut self, mail: &mut Mail, result: Result<Receipt, Failure>) -> Verdict {
        let began = self.now;
        self.wait(Duration::from_millis(1));
        let call = Call {
            id: mail.id,
            sender: Some(mail.sender),
            recipients: &mail.recipients,
            time: CallTime { began, ended: self.now },
            previous: mail.previous,
            probe: Probing::No,
        };
        let verdict = self.evidence.judge(&result, call, 0.0);
        let scope = result.as_ref().err().map(Failure::scope);
        mail.previous = Some(PreviousAttempt { ended: Some(self.now), scope });
        self.wait(Duration::from_millis(1));
        verdict
    }

    fn accept(&mut self, sender: &'static str) -> Verdict {
        self.call(&mut mail(sender, "good@example.com"), Ok(Receipt::new()))
    }
}

fn unknown() -> Result<Receipt, Failure> {
    Err(Failure::permanent(Scope::Message, "550 frobnicated").unsure())
}

fn transport() -> Result<Receipt, Failure> {
    Err(Failure::transient(Scope::Transport, "421 closing"))
}

fn sender() -> Result<Receipt, Failure> {
    Err(Failure::permanent(Scope::Sender, "550 not verified"))
}

#[test]
fn a_sure_failure_of_the_message_is_not_weighed() {
    let mut world = World::new();
    for n in 0..20 {
        let refused = Err(Failure::permanent(Scope::Message, "550 5.1.1 unknown"));
        let verdict = world.call(&mut mail("a@example.com", &format!("r{n}@example.org")), refused);
        assert_eq!((verdict.scope, verdict.charge, verdict.unsure_is_final), (Scope::Message, true, true));
        assert_eq!(verdict.changes, []);
    }
    assert_eq!(world.evidence.reason(), None);
}

#[test]
fn an_unknown_refusal_is_final_the_second_time_if_other_mail_of_the_sender_is_accepted() {
    let mut world = World::new();
    let mut poison = mail("a@example.com", "p@example.org");
    let first = world.call(&mut poison, unknown());
    assert_eq!((first.scope, first.charge, first.unsure_is_final), (Scope::Message, false, false));
    let alone = world.call(&mut poison, unknown());
    assert_eq!((alone.scope, alone.charge, alone.unsure_is_final), (Scope::Message, false, false), "nothing is proven");
    world.accept("b@example.com");
    let sender = world.call(&mut poison, unknown());
    assert_eq!((sender.charge, sender.unsure_is_final), (false, false), "it may be the sender's");
    world.accept("a@example.com");
    let again = world.call(&mut poison, unknown());
    assert_eq!((again.scope, again.charge, again.unsure_is_final), (Scope::Message, true, true));
}

#[test]
fn an_acceptance_that_began_before_the_refusal_proves_nothing() {
    let mut world = World::new();
    let mut poison = mail("a@example.com", "p@example.org");
    let began = world.now;
    world.call(&mut poison, unknown());
    let other = mail("a@example.com", "good@example.com");
    let call = Call {
        id: other.id,
        sender: Some(other.sender),
        recipients: &other.recipients,
        time: CallTime { began, ended: world.now },
        previous: None,
        probe: Probing::No,
    };
    world.evidence.judge(&Ok(Receipt::new()), call, 0.0);
    assert!(!world.call(&mut poison, unknown()).unsure_is_final, "a quota may have been used up just then");
}

#[test]
fn a_streak_of_the_same_refusal_pauses_the_transport() {
    let mut world = World::new();
    let mut mails: Vec<_> = (0..10).map(|n| mail("a@example.com", &format!("r{n}@example.org"))).collect();
    let verdicts: Vec<_> = mails.iter_mut().map(|mail| world.call(mail, unknown()).scope).collect();
    let (first, rest) = verdicts.split_at(STREAK - 1);
    assert!(first.iter().all(|scope| *scope == Scope::Message) && rest.iter().all(|scope| *scope == Scope::Transport));
    assert!(world.evidence.reason().unwrap().contains("in a row were refused: 550 frobnicated"));
    // No repetition makes the refusal final while nothing is accepted.
    for _ in 0..50 {
        world.wait(SECOND * 100);
        for mail in &mut mails {
            let verdict = world.call(mail, unknown());
            assert!(!verdict.unsure_is_final && !verdict.charge, "{verdict:?}");
        }
    }
    world.wait(SECOND * 100);
    let resumed = world.accept("a@example.com");
    assert_eq!(resumed.changes, [Change::TransportResumed]);
    // Other mail was accepted since, but many messages get the same reply, as from a quota that comes and goes.
    for mail in &mut mails[..STREAK - 1] {
        let verdict = world.call(mail, unknown());
        assert!(!verdict.unsure_is_final, "a common reply was final: {verdict:?}");
    }
}

#[test]
fn the_same_message_or_recipient_counts_once_in_a_streak() {
    let mut world = World::new();
    let mut poison = mail("a@example.com", "p@example.org");
    for _ in 0..20 {
        assert_eq!(world.call(&mut poison, unknown()).scope, Scope::Message);
        assert_eq!(world.call(&mut mail("a@example.com", "p@example.org"), unknown()).scope, Scope::Message);
    }
    assert_eq!(world.evidence.reason(), None);
}

#[test]
fn a_longer_streak_of_different_refusals_pauses_the_transport() {
    let mut world = World::new();
    let last = (0..MIXED_STREAK).map(|n| {
        let words = ["one", "two", "three", "four"][n % 4].repeat(n + 1);
        let refused = Err(Failure::permanent(Scope::Message, format!("550 {words}")).unsure());
        world.call(&mut mail("a@example.com", &format!("r{n}@example.org")), refused).scope
    });
    assert_eq!(last.last(), Some(Scope::Transport));
}

#[test]
fn a_failure_of_the_transport_is_the_messages_own_if_other_mail_is_accepted() {
    let mut world = World::new();
    let mut poison = mail("a@example.com", "p@example.org");
    let first = world.call(&mut poison, transport());
    assert_eq!((first.scope, first.charge, first.wait), (Scope::Transport, false, Some(SECOND + YIELD)));
    assert!(matches!(first.changes[..], [Change::TransportPaused { pause: SECOND, .. }]));
    world.wait(SECOND);
    let Admit::Probe(_) = world.evidence.admit(world.now) else { panic!("no probe") };
    assert_eq!(world.accept("a@example.com").changes, [Change::TransportResumed]);
    let second = world.call(&mut poison, transport());
    assert_eq!((second.scope, second.charge, second.unsure_is_final), (Scope::Message, true, false));
    assert_eq!((second.changes.len(), world.evidence.reason()), (0, None), "it paused other mail again");
}

#[test]
fn a_failure_without_any_acceptance_is_not_charged() {
    let mut world = World::new();
    let mut one = mail("a@example.com", "p@example.org");
    for _ in 0..100 {
        world.wait(SECOND * 100);
        world.evidence.admit(world.now);
        let verdict = world.call(&mut one, transport());
        assert_eq!((verdict.scope, verdict.charge), (Scope::Transport, false));
    }
}

#[test]
fn a_refused_sender_is_paused_and_others_are_not() {
    let mut world = World::new();
    let mut bad = mail("bad@example.com", "x@example.org");
    let verdict = world.call(&mut bad, sender());
    assert_eq!((verdict.scope, verdict.charge, verdict.wait), (Scope::Sender, false, Some(SECOND)));
    assert_eq!(world.evidence.paused_senders().len(), 1);
    assert_eq!(world.evidence.admit(world.now), Admit::All);
    let admit =
        |world: &mut World, sender| world.evidence.admit_sender(Some(sender), DeliveryId::new(), false, world.now);
    assert!(matches!(admit(&mut world, "bad@example.com"), Admission::Wait(wait) if wait <= SECOND));
    assert_eq!(admit(&mut world, "good@example.com"), Admission::Pass);
    world.wait(SECOND);
    let Admission::SenderProbe { of_domain, number } = admit(&mut world, "bad@example.com") else { panic!("no probe") };
    assert_eq!(admit(&mut world, "bad@example.com"), Admission::Wait(SECOND));
    world.evidence.release_sender_probe("bad@example.com", of_domain, number);
    assert!(matches!(admit(&mut world, "bad@example.com"), Admission::SenderProbe { .. }));
    let verdict = world.call(&mut bad, sender());
    assert_eq!(verdict.wait, Some(SECOND * 2));
    world.wait(SECOND * 2);
    assert!(matches!(admit(&mut world, "bad@example.com"), Admission::SenderProbe { .. }));
    let resumed = world.call(&mut bad, Ok(Receipt::new()));
    assert_eq!(resumed.changes, [Change::SenderResumed { sender: "bad@example.com".to_owned() }]);
    assert_eq!(admit(&mut world, "bad@example.com"), Admission::Pass);
}

#[test]
fn two_refused_addresses_pause_their_domain_until_one_is_accepted() {
    let mut world = World::new();
    let admit =
        |world: &mut World, sender| world.evidence.admit_sender(Some(sender), DeliveryId::new(), false, world.now);
    world.call(&mut mail("a@example.com", "x@example.org"), sender());
    assert_eq!(admit(&mut world, "b@example.com"), Admission::Pass);
    world.call(&mut mail("b@example.com", "x@example.org"), sender());
    assert_eq!(world.evidence.paused_senders(), [("@example.com".to_owned(), "550 not verified".to_owned())]);
    assert!(matches!(admit(&mut world, "c@example.com"), Admission::Wait(_)));
    assert_eq!(admit(&mut world, "a@other.example.com"), Admission::Pass);
    world.wait(SECOND);
    assert!(matches!(admit(&mut world, "c@example.com"), Admission::SenderProbe { of_domain: true, .. }));
    assert_eq!(admit(&mut world, "a@example.com"), Admission::Wait(SECOND), "one probe for the domain");
    let resumed = world.call(&mut mail("c@example.com", "x@example.org"), Ok(Receipt::new()));
    assert_eq!(resumed.changes, [Change::SenderResumed { sender: "@example.com".to_owned() }]);
    assert_eq!(admit(&mut world, "d@example.com"), Admission::Pass);
    assert!(
        matches!(admit(&mut world, "a@example.com"), Admission::SenderProbe { of_domain: false, .. }),
        "its own pause"
    );
}

#[test]
fn a_failure_of_the_sender_is_the_messages_own_if_other_mail_of_the_sender_is_accepted() {
    let mut world = World::new();
    let mut poison = mail("a@example.com", "x@example.org");
    world.call(&mut poison, sender());
    world.wait(SECOND);
    world.accept("other@example.com");
    assert_eq!(world.call(&mut poison, sender()).scope, Scope::Sender, "another sender says nothing about this one");
    world.wait(SECOND * 2);
    assert!(matches!(
        world.evidence.admit_sender(Some("a@example.com"), DeliveryId::new(), false, world.now),
        Admission::SenderProbe { .. }
    ));
    world.accept("a@example.com");
    let verdict = world.call(&mut poison, sender());
    assert_eq!((verdict.scope, verdict.charge, verdict.unsure_is_final), (Scope::Message, true, false));
    assert_eq!(world.evidence.paused_senders(), []);
}

#[test]
fn an_unknown_refusal_of_a_sender_is_not_blamed_on_its_messages() {
    for say in [unknown, transport] {
        let mut world = World::new();
        let mut mails: Vec<_> = (0..20).map(|n| mail("bad@example.com", &format!("r{n}@example.org"))).collect();
        for round in 0..30 {
            for mail in &mut mails {
                world.wait(SECOND * 100);
                world.evidence.admit(world.now);
                world.evidence.admit_sender(Some("bad@example.com"), DeliveryId::new(), false, world.now);
                let verdict = world.call(mail, say());
                assert!(!verdict.unsure_is_final, "round {round}: {verdict:?}");
                assert!(!verdict.charge || round == 0, "round {round}: {verdict:?}");
                world.accept("good@example.com");
            }
        }
        assert_eq!(world.evidence.paused_senders().len(), 1);
    }
}

#[test]
fn doubt_is_always_charged_and_pauses_the_transport() {
    let mut world = World::new();
    let verdict = world.call(&mut mail("a@example.com", "x@example.org"), Err(Failure::maybe_accepted("no answer")));
    assert_eq!((verdict.scope, verdict.charge), (Scope::Transport, true));
    assert_eq!(world.evidence.reason(), Some("no answer"));
}

#[test]
fn an_unknown_refusal_of_a_recipient_is_not_final_if_others_are_accepted() {
    let mut world = World::new();
    let mut two = mail("a@example.com", "x@example.org");
    let partly = || {
        let refusal =
            postrider_transport::Refusal::new("y@example.org", postrider_transport::Class::Permanent, "550 what");
        Ok(Receipt::new().with_refused(vec![refusal.unsure()]))
    };
    for _ in 0..5 {
        assert!(!world.call(&mut two, partly()).unsure_is_final, "they may be too many for one call");
        world.accept("a@example.com");
    }
}

#[test]
fn after_a_restart_an_unknown_refusal_is_not_final() {
    let mut world = World::new();
    let mut poison = mail("a@example.com", "p@example.org");
    world.call(&mut poison, unknown());
    let now = world.now;
    world = World { now, ..World::new() };
    world.accept("a@example.com");
    assert!(!world.call(&mut poison, unknown()).unsure_is_final, "a quota may have been used up twice");
}

#[test]
fn refusals_that_always_differ_are_not_the_messages_own() {
    let mut world = World::new();
    let mut victim = mail("a@example.com", "p@example.org");
    for words in ["one", "two", "three", "four"] {
        let refused = Err(Failure::permanent(Scope::Message, format!("550 {words}")).unsure());
        let verdict = world.call(&mut victim, refused);
        assert!(!verdict.unsure_is_final && !verdict.charge, "{verdict:?}");
        world.accept("a@example.com");
    }
}

#[test]
fn a_failed_message_leaves_the_probe_to_others_of_its_sender() {
    let mut world = World::new();
    let mut urgent = mail("a@example.com", "p@example.org");
    let other = DeliveryId::new();
    let admit = |world: &mut World, id| world.evidence.admit_sender(Some("a@example.com"), id, false, world.now);
    for _ in 0..5 {
        world.call(&mut urgent, sender());
        let Admission::Wait(pause) = admit(&mut world, other) else { panic!("no pause") };
        world.wait(pause);
        assert!(matches!(admit(&mut world, urgent.id), Admission::Wait(_)), "it is probed first each time");
        let Admission::SenderProbe { of_domain, number } = admit(&mut world, other) else { panic!("no probe") };
        world.evidence.release_sender_probe("a@example.com", of_domain, number);
        world.wait(pause + SECOND);
        assert!(matches!(admit(&mut world, urgent.id), Admission::SenderProbe { .. }), "it is never probed");
    }
}

#[test]
fn the_memory_of_evidence_is_bounded() {
    let mut world = World::new();
    let names: Vec<String> = (0..5_000).map(|n| format!("s{n}@example.com")).collect();
    for name in &names {
        let name: &'static str = Box::leak(name.clone().into_boxed_str());
        world.call(&mut mail(name, "x@example.org"), sender());
        let words = name.replace(|c: char| c.is_ascii_digit(), "z");
        let refused = Err(Failure::permanent(Scope::Message, format!("550 {}", words.repeat(name.len()))).unsure());
        world.call(&mut mail(name, &format!("{name}.org")), refused);
        world.accept("good@example.com");
    }
    assert!(world.evidence.paused_senders().len() <= 1024);
}
