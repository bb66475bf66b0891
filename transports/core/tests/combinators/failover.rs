use std::time::Duration;

use postrider_transport::{
    AllFailed, Backoff, Class, Failover, Failure, Receipt, Recipient, Scope, Transport, Unsupported,
};

use crate::support::*;

#[tokio::test]
async fn moves_on_when_the_transport_is_to_blame_and_passes_it_over_from_then_on() {
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
async fn never_moves_on_with_what_may_have_been_sent_or_is_the_messages_own_fault() {
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
    // Neither does a message that some recipients got.
    let partly = Receipt::new().with_refused(vec![refusal("eve@example.org")]);
    let second = Fake::new("ses");
    let failover = Failover::new(Fake::new("smtp").then(Ok(partly))).or(second.clone());
    assert_eq!(failover.send(&mail()).await.unwrap().refused, [refusal("eve@example.org")]);
    assert_eq!(second.calls().len(), 0);
}

#[tokio::test]
async fn what_is_in_doubt_by_the_transports_fault_pauses_it() {
    let (first, second) = (Fake::new("smtp").always(in_doubt), Fake::new("ses"));
    let failover = Failover::new(first.clone()).or(second.clone()).pause(long());
    assert!(failover.send(&mail()).await.unwrap_err().in_doubt());
    assert_eq!(via(&failover.send(&mail()).await), Some("ses"));
    assert_eq!(first.calls().len(), 1);
}

#[tokio::test]
async fn what_cannot_be_expressed_is_for_the_next_and_pauses_nobody() {
    // Refused by the check, and again only once the server has been asked.
    for first in [Fake::new("http").cannot_express("Odd"), Fake::new("http").then(Err(Unsupported::new("it").into()))] {
        let second = Fake::new("smtp");
        let failover = Failover::new(first.clone()).or(second).pause(long());
        let odd = mail_about("Odd");
        failover.check(odd.message()).unwrap();
        assert_eq!(via(&failover.send(&odd).await), Some("smtp"));
        assert_eq!(via(&failover.send(&mail()).await), Some("http"), "it was paused for what it never sent");
    }
}

#[tokio::test]
async fn what_nobody_can_express_is_refused_for_good() {
    let (first, second) = (Fake::new("a").cannot_express("Odd"), Fake::new("b").cannot_express("Odd"));
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
async fn says_what_each_said_and_how_long_to_wait() {
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
    assert!(wait <= Duration::from_secs(60) && wait > Duration::ZERO, "not the soonest: {wait:?}");
    let each: Vec<_> = failure.downcast_ref::<AllFailed>().unwrap().failures().map(|(name, _)| name).collect();
    assert_eq!(each, ["smtp", "ses"]);

    // From then on nobody is called, and the reasons are still known.
    let failure = failover.send(&mail()).await.unwrap_err();
    assert_eq!(failure.to_string(), "smtp: paused: 421 closing <a***@example.com>; ses: paused: throttled");
    assert_eq!((failure.class(), failure.scope(), failure.via()), (Class::Transient, Scope::Transport, None));
    assert!(failure.retry_after().unwrap() <= Duration::from_secs(60));
    assert_eq!((first.calls().len(), second.calls().len()), (1, 1));
}

#[tokio::test]
async fn an_end_after_others_keeps_its_own_meaning_and_says_what_they_said() {
    let second = Fake::new("ses").then(rejected());
    let failover = Failover::new(Fake::new("smtp").then(down())).or(second).pause(long());
    let failure = failover.send(&mail()).await.unwrap_err();
    assert_eq!((failure.class(), failure.scope()), (Class::Permanent, Scope::Message));
    assert_eq!(failure.to_string(), "smtp: 421 closing <a***@example.com>; ses: 550 spam");
    assert_eq!(failure.reply(), Some("550 spam"));
}

#[tokio::test]
async fn a_message_that_only_a_paused_transport_can_express_waits_without_stopping_the_others() {
    let first = Fake::new("http").cannot_express("Odd");
    let failover = Failover::new(Fake::new("smtp").always(down)).or(first).pause(long());
    let failure = failover.send(&mail_about("Odd")).await.unwrap_err();
    assert_eq!((failure.class(), failure.scope()), (Class::Transient, Scope::Transport));
    assert_eq!(failure.retry_after(), None, "the others would wait for an hour as well");
    assert_eq!(via(&failover.send(&mail()).await), Some("http"));
}

#[tokio::test]
async fn a_paused_transport_is_tried_with_one_message_at_a_time() {
    let (first, second) = (Fake::new("smtp").always(down_for_nothing), Fake::new("ses"));
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
    // While one finds out, the others do not wait for it.
    for _ in 0..3 {
        assert_eq!(via(&failover.send(&mail()).await), Some("ses"));
    }
    assert_eq!(first.calls().len(), 2);
    // It is dropped: another one is to find out.
    probe.abort();
    assert!(probe.await.unwrap_err().is_cancelled());
    first.hang(false);
    first.mend();
    assert_eq!(via(&failover.send(&mail()).await), Some("smtp"), "a dropped probe is waited for");
    assert_eq!(via(&failover.send(&mail()).await), Some("smtp"));
}

#[tokio::test]
async fn while_all_are_paused_and_one_is_tried_nobody_is_told_to_come_back_at_once() {
    let first = Fake::new("smtp").always(down_for_nothing);
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
async fn a_batch_moves_on_in_part_and_keeps_its_order() {
    let first = Fake::new("ses").batches_of(3).cannot_express("Odd");
    let first = first.then(Ok(Receipt::new().with_provider_id("1"))).then(rejected()).then(busy());
    // The second chunk meets an outage in its midst.
    let first = first.then(Ok(Receipt::new().with_provider_id("2"))).then(down()).then(in_doubt());
    let second = Fake::new("smtp").batches_of(2);
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
    let went: Vec<_> = second.mails().iter().map(postrider_transport::Outgoing::id).collect();
    for index in [3, 5] {
        assert!(went.contains(&batch[index].id()));
    }
}

#[tokio::test]
async fn a_batch_probes_with_one_message() {
    let first = Fake::new("ses").batches_of(10).then(down_for_nothing());
    let failover = Failover::new(first.clone()).or(Fake::new("smtp").batches_of(10)).pause(no_pause());
    failover.send(&mail()).await.unwrap();
    let results = failover.send_batch(&mails(8)).await;
    assert!(results.iter().all(|result| via(result) == Some("ses")), "{results:?}");
    assert_eq!(first.calls(), [1, 1, 7]);
}

/// One that takes them singly makes a batch of the next one's size no slower than single messages are.
#[tokio::test]
async fn the_parts_of_a_batch_are_under_way_together() {
    for (size, parts) in [(1, 10), (4, 3)] {
        let first = Fake::new("smtp").batches_of(size);
        let failover = std::sync::Arc::new(Failover::new(first.clone()).or(Fake::new("ses").batches_of(50)));
        first.hang(true);
        let call = tokio::spawn({
            let failover = std::sync::Arc::clone(&failover);
            async move { failover.send_batch(&mails(10)).await }
        });
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(first.calls().len(), parts, "calls under way at once");
        // Dropped, it leaves all as it was.
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
        first.hang(false);
        assert_eq!(via(&failover.send(&mail()).await), Some("smtp"));
    }
}

/// Of parts that meet an outage together, each moves on, and the transport is paused once.
#[tokio::test]
async fn all_parts_that_meet_an_outage_move_on() {
    let (first, second) = (Fake::new("smtp").always(down), Fake::new("ses").batches_of(50));
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
async fn who_was_refused_by_name_is_not_asked_of_the_next() {
    let failure = Failure::transient(Scope::Transport, "closed");
    let first = Fake::new("smtp").then(Err(failure.with_refused(vec![refusal("bob@example.org")])));
    let second = Fake::new("ses");
    let failover = Failover::new(first).or(second.clone()).pause(long());
    let receipt = failover.send(&mail()).await.unwrap();
    assert_eq!(receipt.refused, [refusal("bob@example.org")], "a refusal was lost");
    let next = &second.mails()[0];
    assert_eq!(next.recipients(), [Recipient::new("eve@example.org")]);
    assert!(next.is_partial());

    // If nobody is left, that is the end.
    let failure = Failure::permanent(Scope::Transport, "closed");
    let both = vec![refusal("bob@example.org"), refusal("eve@example.org")];
    let second = Fake::new("ses");
    let failover = Failover::new(Fake::new("smtp").then(Err(failure.with_refused(both.clone())))).or(second.clone());
    assert_eq!(failover.send(&mail()).await.unwrap_err().refused(), both);
    assert_eq!(second.calls().len(), 0);
}

#[tokio::test]
async fn transports_of_one_name_are_told_apart() {
    let failover = Failover::new(Fake::new("smtp").always(down)).or(Fake::new("smtp")).pause(long());
    assert_eq!(via(&failover.send(&mail()).await), Some("smtp#2"));
    assert!(!format!("{failover:?}").contains("ada@"), "{failover:?}");
}

/// One that breaks the contract must not make a message count as sent, or as never sent.
#[tokio::test]
async fn a_transport_that_swallows_results_leaves_doubt() {
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

/// A sender that one provider has not verified may be verified at the next; other senders go on at the first.
#[tokio::test]
async fn moves_on_where_the_sender_is_refused_and_pauses_nothing() {
    let unverified = || Err(Failure::permanent(Scope::Sender, "the domain is not verified"));
    let (first, second) = (Fake::new("ses").then(unverified()), Fake::new("smtp"));
    let failover = Failover::new(first.clone()).or(second.clone()).pause(long());
    assert_eq!(via(&failover.send(&mail()).await), Some("smtp"));
    assert_eq!(failover.paused(), []);
    assert_eq!(via(&failover.send(&mail()).await), Some("ses"));
}

/// Where the one that is up refuses the sender, it is the sender's condition: others go through there.
#[tokio::test]
async fn says_that_it_is_the_senders_condition_where_one_is_up_for_others() {
    let unverified = || Err(Failure::permanent(Scope::Sender, "the domain is not verified"));
    for (first, second) in [(down(), unverified()), (unverified(), down())] {
        let failover = Failover::new(Fake::new("a").then(first)).or(Fake::new("b").then(second)).pause(long());
        let failure = failover.send(&mail()).await.unwrap_err();
        assert_eq!((failure.class(), failure.scope(), failure.in_doubt()), (Class::Transient, Scope::Sender, false));
    }
}
