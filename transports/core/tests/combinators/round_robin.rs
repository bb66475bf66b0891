use postrider_transport::{BoxTransport, RoundRobin, Scope, Transport};

use crate::support::*;

async fn shares(transport: &impl Transport<Message = postrider_transport::Email>, messages: usize) -> Vec<String> {
    let mut went = Vec::new();
    for _ in 0..messages {
        went.push(via(&transport.send(&mail()).await).unwrap().to_owned());
    }
    went
}

#[tokio::test]
async fn divides_by_weight_and_evenly() {
    let transport = RoundRobin::new(Fake::new("a"), 5).and(Fake::new("b"), 1).and(Fake::new("c"), 1);
    assert_eq!(shares(&transport, 7).await, ["a", "a", "b", "a", "c", "a", "a"]);
    let transport = RoundRobin::new(Fake::new("a"), 1).and(Fake::new("b"), 1);
    assert_eq!(shares(&transport, 4).await, ["a", "b", "a", "b"]);
}

#[tokio::test]
async fn who_is_paused_has_no_share_and_the_others_go_on() {
    let a = Fake::new("a").always(down);
    let transport = RoundRobin::new(a.clone(), 2).and(Fake::new("b"), 1).and(Fake::new("c"), 1).pause(long());
    let went = shares(&transport, 40).await;
    assert_eq!(a.calls().len(), 1);
    let to = |name: &str| went.iter().filter(|went| *went == name).count();
    assert_eq!(to("a"), 0);
    assert!(to("b").abs_diff(to("c")) <= 1, "{went:?}");
}

#[tokio::test]
async fn who_comes_back_has_its_share_and_no_more() {
    let a = Fake::new("a").always(down_for_nothing);
    let transport = RoundRobin::new(a.clone(), 1).and(Fake::new("b"), 1).pause(no_pause());
    shares(&transport, 20).await;
    a.mend();
    let went = shares(&transport, 40).await;
    let to_a = went.iter().filter(|went| *went == "a").count();
    assert!((18..=22).contains(&to_a), "{to_a} of 40");
}

#[tokio::test]
async fn a_spare_is_asked_when_no_other_can() {
    let (spare, main) = (Fake::new("spare"), Fake::new("main").cannot_express("Odd"));
    let transport = RoundRobin::new(spare.clone(), 0).and(main.clone(), 3).pause(long());
    assert_eq!(shares(&transport, 10).await, vec!["main"; 10]);
    assert_eq!(via(&transport.send(&mail_about("Odd")).await), Some("spare"));
    let _main = main.always(down);
    assert_eq!(shares(&transport, 2).await, ["spare", "spare"]);
    assert_eq!(spare.calls().len(), 3);
}

/// Who has had more than its share lately goes before a spare all the same.
#[tokio::test]
async fn a_spare_stays_a_spare_whatever_was_before() {
    let spare = Fake::new("spare");
    let transport = RoundRobin::new(spare.clone(), 0).and(Fake::new("a"), 1);
    let transport = transport.and(Fake::new("b").cannot_express("Odd"), 5);
    assert_eq!(shares(&transport, 3).await, ["b", "b", "a"]);
    for _ in 0..5 {
        assert_eq!(via(&transport.send(&mail_about("Odd")).await), Some("a"));
    }
    assert_eq!(spare.calls().len(), 0);
}

#[tokio::test]
async fn a_failure_of_the_messages_own_stays_with_it() {
    let b = Fake::new("b");
    let transport = RoundRobin::new(Fake::new("a").then(rejected()), 1).and(b.clone(), 1);
    let failure = transport.send(&mail()).await.unwrap_err();
    assert_eq!((failure.scope(), failure.via()), (Scope::Message, Some("a")));
    assert_eq!(b.calls().len(), 0);
}

#[tokio::test]
async fn a_batch_counts_each_of_its_messages() {
    let (a, b) = (Fake::new("a").batches_of(4), Fake::new("b"));
    let transport = RoundRobin::new(a.clone(), 1).and(b.clone(), 1);
    for _ in 0..20 {
        let results = transport.send_batch(&mails(4)).await;
        assert!(results.iter().all(Result::is_ok) && results.len() == 4);
    }
    let (to_a, to_b) = (a.mails().len(), b.mails().len());
    assert_eq!(to_a + to_b, 80);
    assert!(to_a.abs_diff(to_b) <= 8, "{to_a} and {to_b}");
}

/// A share that is counted although the call never came to it would starve somebody.
#[tokio::test]
async fn many_at_once_get_their_shares() {
    let transport = RoundRobin::new(Fake::new("a"), 3).and(Fake::new("b"), 1);
    let transport = BoxTransport::new(transport);
    let calls: Vec<_> = (0..400)
        .map(|_| {
            let transport = transport.clone();
            tokio::spawn(async move { transport.send(&mail()).await.unwrap().via.unwrap() })
        })
        .collect();
    let mut to_a = 0;
    for call in calls {
        to_a += usize::from(call.await.unwrap() == "a");
    }
    assert_eq!(to_a, 300);
}
