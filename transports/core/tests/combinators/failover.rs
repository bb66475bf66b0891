use std::time::Duration;

use postrider_transport::{
    AllFailed, Backoff, Class, Failover, Failure, Receipt, Recipient, Scope, Transport, Unsupported,
};

use crate::support::*;

#[tokio::test]
async fn a_failed_transport_is_paused_and_the_next_one_is_tried() {
    let (first, second) = (Fake::new("smtp").always(down), Fake::new("ses"));
    let failover = Failover::new(first.clone()).or(second.clone()).pause(long());
    for sent in 1..=5 {
        let result = failover.send(&mail()).await;
        assert!(result.is_ok(), "{result:?}");
        assert_eq!(via(&result), Some("ses"));
        assert_eq!((first.calls().len(), second.calls().len()), (1, sent));
    }
}

#[tokio::test]
async fn doubt_and_message_failures_are_final() {
    for (answer, doubt) in [(in_doubt(), true), (rejected(), false), (busy(), false)] {
        let (first, second) = (Fake::new("smtp").then(answer), Fake::new("ses"));
        let failover = Failover::new(first).or(second.clone()).pause(long());
        let result = failover.send(&mail()).await;
        assert_eq!(via(&result), Some("smtp"));
        let failure = result.unwrap_err();
        assert_eq!(failure.in_doubt(), doubt);
        assert_eq!(failure.scope(), if doubt { Scope::Transport } else { Scope::Message });
        assert_eq!(second.calls().len(), 0, "{failure}");
    }
    // An acceptance with refused recipients is final too.
    let partly = Receipt::new().with_refused(vec![refusal("eve@example.org")]);
    let second = Fake::new("ses");
    let failover = Failover::new(Fake::new("smtp").then(Ok(partly))).or(second.clone());
    assert_eq!(failover.send(&mail()).await.unwrap().refused, [refusal("eve@example.org")]);
    assert_eq!(second.calls().len(), 0);
}

#[tokio::test]
async fn a_failure_in_doubt_pauses_the_transport() {
    let (first, second) = (Fake::new("smtp").always(in_doubt), Fake::new("ses"));
    let failover = Failover::new(first.clone()).or(second.clone()).pause(long());
    assert!(failover.send(&mail()).await.unwrap_err().in_doubt());
    assert_eq!(via(&failover.send(&mail()).await), Some("ses"));
    assert_eq!(first.calls().len(), 1);
}

#[tokio::test]
async fn an_unsupported_message_goes_to_the_next_without_a_pause() {
    // Refused by the check, then by the next hop.
    for first in
        [Fake::new("http").without_support_for("Odd"), Fake::new("http").then(Err(Unsupported::new("it").into()))]
    {
        let second = Fake::new("smtp");
        let failover = Failover::new(first.clone()).or(second).pause(long());
        let odd = mail_about("Odd");
        failover.check(odd.message()).unwrap();
        assert_eq!(via(&failover.send(&odd).await), Some("smtp"));
        assert_eq!(via(&failover.send(&mail()).await), Some("http"), "an unsupported message paused the transport");
    }
}

#[tokio::test]
async fn a_message_that_no_transport_supports_is_permanent() {
    let (first, second) = (Fake::new("a").without_support_for("Odd"), Fake::new("b").without_support_for("Odd"));
    let failover = Failover::new(first.clone()).or(second.clone());
    let odd = mail_about("Odd");
    for failure in [failover.check(odd.message()).unwrap_err(), failover.send(&odd).await.unwrap_err()] {
        assert_eq!((failure.class(), failure.scope(), failure.in_doubt()), (Class::Permanent, Scope::Message, false));
        assert!(failure.is_unsupported());
        let text =
            "a: this transport does not support such a subject; b: this transport does not support such a subject";
        assert_eq!(failure.to_string(), text);
    }
    assert_eq!((first.calls().len(), second.calls().len()), (0, 0));
}

#[tokio::test]
async fn the_failure_of_all_has_each_reason_and_the_shortest_wait() {
    let quota = || Failure::transient(Scope::Transport, "throttled").with_retry_after(Duration::from_secs(90));
    let first = Fake::new("smtp").then(down());
    let second = Fake::new("ses").then(Err(quota()));
    let failover = Failover::new(first.clone())
        .or(second.clone())
        .pause(Backoff::new(Duration::from_secs(60), Duration::from_secs(60)));
    let failure = failover.send(&mail()).await.unwrap_err();
    assert_eq!(failure.to_string(), "smtp: 421 closing <a***@example.com>; ses: throttled");
    assert_eq!((failure.class(), failure.scope(), failure.in_doubt()), (Class::Transient, Scope::Transport, false));
    assert_eq!(failure.via(), Some("smtp, ses"));
    assert_eq!(failure.reply(), Some("smtp: 421 closing"));
    let wait = failure.retry_after().unwrap();
    assert!(wait <= Duration::from_secs(60) && wait > Duration::ZERO, "not the shortest wait: {wait:?}");
    let each: Vec<_> = failure.downcast_ref::<AllFailed>().unwrap().failures().map(|(name, _)| name).collect();
    assert_eq!(each, ["smtp", "ses"]);

    // Now all are paused: none is called, and the reasons are still known.
    let failure = failover.send(&mail()).await.unwrap_err();
    assert_eq!(failure.to_string(), "smtp: paused: 421 closing <a***@example.com>; ses: paused: throttled");
    assert_eq!((failure.class(), failure.scope(), failure.via()), (Class::Transient, Scope::Transport, None));
    assert!(failure.retry_after().unwrap() <= Duration::from_secs(60));
    assert_eq!((first.calls().len(), second.calls().len()), (1, 1));
}

#[tokio::test]
async fn a_final_failure_keeps_its_class_and_lists_earlier_ones() {
    let second = Fake::new("ses").then(rejected());
    let failover = Failover::new(Fake::new("smtp").then(down())).or(second).pause(long());
    let failure = failover.send(&mail()).await.unwrap_err();
    assert_eq!((failure.class(), failure.scope()), (Class::Permanent, Scope::Message));
    assert_eq!(failure.to_string(), "smtp: 421 closing <a***@example.com>; ses: 550 spam");
    assert_eq!(failure.reply(), Some("550 spam"));
}

#[tokio::test]
async fn a_message_that_waits_for_a_paused_transport_does_not_stop_others() {
    let first = Fake::new("http").without_support_for("Odd");
    let failover = Failover::new(Fake::new("smtp").always(down)).or(first).pause(long());
    let failure = failover.send(&mail_about("Odd")).await.unwrap_err();
    assert_eq!((failure.class(), failure.scope()), (Class::Transient, Scope::Transport));
    assert_eq!(failure.retry_after(), None, "other messages would wait for an hour too");
    assert_eq!(via(&failover.send(&mail()).await), Some("http"));
}

#[tokio::test]
async fn a_paused_transport_gets_one_probe_at_a_time() {
    let (first, second) = (Fake::new("smtp").always(down_for_good), Fake::new("ses"));
    let failover = std::sync::Arc::new(Failover::new(first.clone()).or(second.clone()).pause(no_pause()));
    failover.send(&mail()).await.unwrap();
    first.hang(true);
    let probe = tokio::spawn({
        let failover = std::sync::Arc::clone(&failover);
        async move { failover.send(&mail()).await }
    });
    while first.calls().len() < 2 {
        tokio::task::yield_now().await;
    }
    // Other messages do not wait for the probe.
    for _ in 0..3 {
        assert_eq!(via(&failover.send(&mail()).await), Some("ses"));
    }
    assert_eq!(first.calls().len(), 2);
    // After a dropped probe, the next message is the probe.
    probe.abort();
    assert!(probe.await.unwrap_err().is_cancelled());
    first.hang(false);
    first.repair();
    assert_eq!(via(&failover.send(&mail()).await), Some("smtp"), "a dropped probe still counts as running");
    assert_eq!(via(&failover.send(&mail()).await), Some("smtp"));
}

#[tokio::test]
async fn there_is_no_wait_while_a_probe_runs() {
    let first = Fake::new("smtp").always(down_for_good);
    let failover = std::sync::Arc::new(Failover::new(first.clone()).pause(no_pause()));
    assert_eq!(failover.send(&mail()).await.unwrap_err().retry_after(), None);
    first.hang(true);
    let probe = tokio::spawn({
        let failover = std::sync::Arc::clone(&failover);
        async move { failover.send(&mail()).await }
    });
    while first.calls().len() < 2 {
        tokio::task::yield_now().await;
    }
    let failure = failover.send(&mail()).await.unwrap_err();
    assert_eq!((failure.scope(), failure.retry_after()), (Scope::Transport, None));
    assert_eq!(first.calls().len(), 2);
    probe.abort();
}

#[tokio::test]
async fn a_batch_keeps_its_order_when_a_part_is_tried_again() {
    let first = Fake::new("ses").with_max_batch(3).without_support_for("Odd");
    let first = first.then(Ok(Receipt::new().with_provider_id("1"))).then(rejected()).then(busy());
    // The second call has an outage in its middle.
    let first = first.then(Ok(Receipt::new().with_provider_id("2"))).then(down()).then(in_doubt());
    let second = Fake::new("smtp").with_max_batch(2);
    let failover = Failover::new(first.clone()).or(second.clone()).pause(long());
    assert_eq!(failover.max_batch(), 3);
    let mut batch = mails(9);
    batch[3] = mail_about("Odd");
    let results = failover.send_batch(&batch).await;
    let shown: Vec<_> = results
        .iter()
        .map(|result| match result {
            Ok(receipt) => format!("{} {:?}", receipt.via.as_deref().unwrap(), receipt.provider_id),
            Err(failure) => format!("{} {failure}", failure.via().unwrap()),
        })
        .collect();
    assert_eq!(
        shown,
        [
            "ses Some(\"1\")",
            "ses 550 spam",
            "ses 450 greylisted",
            "smtp None",
            "ses Some(\"2\")",
            "smtp None",
            "ses no answer",
            "ses None",
            "ses None",
        ]
    );
    assert_eq!(first.calls(), [3, 3, 2]);
    assert_eq!(second.calls(), [1, 1]);
    let sent: Vec<_> = second.mails().iter().map(postrider_transport::Outgoing::id).collect();
    for index in [3, 5] {
        assert!(sent.contains(&batch[index].id()));
    }
}

#[tokio::test]
async fn a_batch_probes_with_one_message() {
    let first = Fake::new("ses").with_max_batch(10).then(down_for_good());
    let failover = Failover::new(first.clone()).or(Fake::new("smtp").with_max_batch(10)).pause(no_pause());
    failover.send(&mail()).await.unwrap();
    let results = failover.send_batch(&mails(8)).await;
    assert!(results.iter().all(|result| via(result) == Some("ses")), "{results:?}");
    assert_eq!(first.calls(), [1, 1, 7]);
}

/// A transport without batches must not send a large batch one by one.
#[tokio::test]
async fn the_parts_of_a_batch_are_sent_concurrently() {
    for (size, parts) in [(1, 10), (4, 3)] {
        let first = Fake::new("smtp").with_max_batch(size);
        let failover = std::sync::Arc::new(Failover::new(first.clone()).or(Fake::new("ses").with_max_batch(50)));
        first.hang(true);
        let call = tokio::spawn({
            let failover = std::sync::Arc::clone(&failover);
            async move { failover.send_batch(&mails(10)).await }
        });
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(first.calls().len(), parts, "concurrent calls");
        // The dropped batch pauses nothing.
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
        first.hang(false);
        assert_eq!(via(&failover.send(&mail()).await), Some("smtp"));
    }
}

/// Concurrent parts that fail are all tried again, and the transport is paused once.
#[tokio::test]
async fn all_failed_parts_are_tried_again() {
    let (first, second) = (Fake::new("smtp").always(down), Fake::new("ses").with_max_batch(50));
    let failover = Failover::new(first.clone()).or(second.clone()).pause(long());
    let batch = mails(10);
    let results = failover.send_batch(&batch).await;
    assert!(results.iter().all(|result| via(result) == Some("ses")), "{results:?}");
    assert_eq!(first.calls(), [1; 10]);
    assert_eq!(second.calls(), [10]);
    let ids = |mails: &[postrider_transport::Outgoing<_>]| mails.iter().map(|mail| mail.id()).collect::<Vec<_>>();
    assert_eq!(ids(&second.mails()), ids(&batch));
    assert_eq!(via(&failover.send(&mail()).await), Some("ses"));
    assert_eq!(first.calls().len(), 10);
}

#[tokio::test]
async fn individually_refused_recipients_are_not_tried_again() {
    let failure = Failure::transient(Scope::Transport, "closed");
    let first = Fake::new("smtp").then(Err(failure.with_refused(vec![refusal("bob@example.org")])));
    let second = Fake::new("ses");
    let failover = Failover::new(first).or(second.clone()).pause(long());
    let receipt = failover.send(&mail()).await.unwrap();
    assert_eq!(receipt.refused, [refusal("bob@example.org")], "a refusal was lost");
    let next = &second.mails()[0];
    assert_eq!(next.recipients(), [Recipient::new("eve@example.org")]);
    assert!(next.is_partial());

    // The failure is final if no recipient is left.
    let failure = Failure::permanent(Scope::Transport, "closed");
    let both = vec![refusal("bob@example.org"), refusal("eve@example.org")];
    let second = Fake::new("ses");
    let failover = Failover::new(Fake::new("smtp").then(Err(failure.with_refused(both.clone())))).or(second.clone());
    assert_eq!(failover.send(&mail()).await.unwrap_err().refused(), both);
    assert_eq!(second.calls().len(), 0);
}

#[tokio::test]
async fn transports_with_the_same_name_are_numbered() {
    let failover = Failover::new(Fake::new("smtp").always(down)).or(Fake::new("smtp")).pause(long());
    assert_eq!(via(&failover.send(&mail()).await), Some("smtp#2"));
    assert!(!format!("{failover:?}").contains("ada@"), "{failover:?}");
}

/// A message without a result may have been sent.
#[tokio::test]
async fn missing_results_are_in_doubt() {
    struct Lazy;
    impl Transport for Lazy {
        type Message = postrider_transport::Email;
        fn name(&self) -> &str {
            "lazy"
        }
        async fn send(&self, _: &postrider_transport::Outgoing<Self::Message>) -> Result<Receipt, Failure> {
            Ok(Receipt::new())
        }
        fn max_batch(&self) -> usize {
            4
        }
        async fn send_batch(
            &self,
            _: &[postrider_transport::Outgoing<Self::Message>],
        ) -> Vec<Result<Receipt, Failure>> {
            vec![Ok(Receipt::new())]
        }
    }
    let second = Fake::new("smtp");
    let results = Failover::new(Lazy).or(second.clone()).send_batch(&mails(3)).await;
    assert!(results[0].is_ok());
    for result in &results[1..] {
        assert!(result.as_ref().unwrap_err().in_doubt());
    }
    assert_eq!(second.calls().len(), 0);
}

/// A sender that is not verified at one provider may be verified at the next. Other senders still use the first.
#[tokio::test]
async fn a_refused_sender_goes_to_the_next_without_a_pause() {
    let unverified = || Err(Failure::permanent(Scope::Sender, "the domain is not verified"));
    let (first, second) = (Fake::new("ses").then(unverified()), Fake::new("smtp"));
    let failover = Failover::new(first.clone()).or(second.clone()).pause(long());
    assert_eq!(via(&failover.send(&mail()).await), Some("smtp"));
    assert_eq!(failover.paused(), []);
    assert_eq!(via(&failover.send(&mail()).await), Some("ses"));
}

/// If the only working transport refuses the sender, other senders can still send.
#[tokio::test]
async fn the_failure_has_the_scope_of_the_sender_if_one_transport_works() {
    let unverified = || Err(Failure::permanent(Scope::Sender, "the domain is not verified"));
    for (first, second) in [(down(), unverified()), (unverified(), down())] {
        let failover = Failover::new(Fake::new("a").then(first)).or(Fake::new("b").then(second)).pause(long());
        let failure = failover.send(&mail()).await.unwrap_err();
        assert_eq!((failure.class(), failure.scope(), failure.in_doubt()), (Class::Transient, Scope::Sender, false));
    }
}
