//! Nested combinators and `BoxTransport`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use postrider_transport::{
    BoxTransport, Class, Email, Failover, Outgoing, RateLimit, Receipt, Redirect, RoundRobin, Tap, Timeout, Transport,
};

use crate::support::*;

#[tokio::test]
async fn via_is_the_path_to_the_inner_transport() {
    let pool = RoundRobin::new(Fake::new("eu").always(down), 1).and(Fake::new("us"), 1).pause(long());
    let transport = Failover::new(Fake::new("main").always(down)).or(pool).pause(long());
    assert_eq!(via(&transport.send(&mail()).await), Some("round-robin/us"));
}

#[tokio::test]
async fn an_inner_transport_is_skipped_while_all_of_it_is_paused() {
    let (eu, us) = (Fake::new("eu").always(down), Fake::new("us").always(down));
    let pool = RoundRobin::new(eu.clone(), 1).and(us.clone(), 1).pause(long());
    let last = Fake::new("last");
    let transport = Failover::new(pool).or(last.clone()).pause(long());
    for _ in 0..5 {
        assert_eq!(via(&transport.send(&mail()).await), Some("last"));
    }
    assert_eq!((eu.calls().len(), us.calls().len(), last.calls().len()), (1, 1, 5));
    let _last = last.always(down);
    let failure = transport.send(&mail()).await.unwrap_err();
    let closing = "421 closing <a***@example.com>";
    assert_eq!(
        failure.to_string(),
        format!("last: {closing}; round-robin: paused: eu: {closing}; us: {closing}"),
        "{failure}"
    );
    assert!(failure.retry_after().is_some());
}

#[tokio::test]
async fn paused_transports_are_reported_through_every_combinator() {
    let us = Fake::new("us").always(down_for_good);
    let pool = RoundRobin::new(Fake::new("eu"), 1).and(us.clone(), 1).pause(no_pause());
    let main = Fake::new("main").always(down);
    let inner = Timeout::new(Failover::new(main.clone()).or(pool), Duration::from_secs(3600));
    let limited = RateLimit::new(Tap::new(inner, |_, _| ()), u32::MAX, Duration::from_secs(1));
    let all = Arc::new(BoxTransport::new(Redirect::new(limited, "staging@example.net".parse().unwrap())));
    assert_eq!(all.paused(), []);
    for _ in 0..2 {
        all.send(&mail()).await.unwrap();
    }
    let reason = "421 closing <a***@example.com>".to_owned();
    assert_eq!(all.paused(), [("main".into(), reason.clone()), ("round-robin/us".into(), "535 wrong".into())]);
    us.repair();
    for _ in 0..2 {
        all.send(&mail()).await.unwrap();
    }
    assert_eq!(all.paused(), [("main".into(), reason)]);
}

#[tokio::test]
async fn doubt_is_kept_by_every_combinator() {
    let last = Fake::new("last");
    let inner = Failover::new(Fake::new("a").always(down)).or(Fake::new("b").always(in_doubt)).pause(long());
    let transport = Failover::new(inner).or(last.clone()).pause(long());
    let failure = transport.send(&mail()).await.unwrap_err();
    assert!(failure.in_doubt());
    assert_eq!(failure.via(), Some("failover/a, b"));
    assert_eq!(last.calls().len(), 0, "a message in doubt was sent again");
}

#[tokio::test(start_paused = true)]
async fn a_timeout_around_each_transport_pauses_that_one() {
    let hung = Fake::new("hung");
    hung.hang(true);
    let transport = Failover::new(Timeout::new(hung, Duration::from_secs(1))).or(Fake::new("ses")).pause(long());
    assert!(transport.send(&mail()).await.unwrap_err().in_doubt(), "the first may have accepted it");
    assert_eq!(via(&transport.send(&mail()).await), Some("ses"));
}

#[tokio::test(start_paused = true)]
async fn all_combinators_work_together() {
    let fake = Fake::new("smtp").with_max_batch(3).without_support_for("Odd");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = Arc::clone(&seen);
    let limited = RateLimit::new(Timeout::new(fake.clone(), Duration::from_secs(9)), 1, Duration::from_secs(1));
    let staging = Redirect::new(limited, "staging@example.net".parse().unwrap());
    let tapped = Tap::new(staging, move |outgoing: &Outgoing<Email>, result: &Result<Receipt, _>| {
        note.lock().unwrap().push((outgoing.id(), result.is_ok()));
    });
    let transport = BoxTransport::new(Failover::new(BoxTransport::new(tapped)));
    assert_eq!((transport.name(), transport.max_batch()), ("failover", 3));

    let mut batch = mails(3);
    batch[1] = mail_about("Odd");
    let results = transport.send_batch(&batch).await;
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    let failure = results[1].as_ref().unwrap_err();
    assert_eq!((failure.class(), failure.is_unsupported()), (Class::Permanent, true));
    transport.check(batch[1].message()).unwrap_err();
    transport.send(&batch[0]).await.unwrap();
    // The check refused the second message, so the tap did not see it.
    assert_eq!(*seen.lock().unwrap(), [(batch[0].id(), true), (batch[2].id(), true), (batch[0].id(), true)]);
    assert_eq!(fake.calls(), [2, 1]);
    assert!(fake.mails().iter().all(|mail| mail.recipients()[0].as_str() == "staging@example.net"));
}

#[tokio::test]
async fn a_tap_sees_failures_and_changes_nothing() {
    let seen = Arc::new(Mutex::new(0));
    let count = Arc::clone(&seen);
    let transport = Tap::new(Fake::new("smtp").then(rejected()).then(in_doubt()), move |_, result| {
        assert!(result.is_err());
        *count.lock().unwrap() += 1;
    });
    assert_eq!(transport.name(), "smtp");
    assert_eq!(transport.send(&mail()).await.unwrap_err().to_string(), "550 spam");
    assert!(transport.send(&mail()).await.unwrap_err().in_doubt());
    assert_eq!(*seen.lock().unwrap(), 2);
}
