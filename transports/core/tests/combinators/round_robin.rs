use postrider_transport::{BoxTransport, RoundRobin, Scope, Transport};

use crate::support::*;

async fn send_many(transport: &impl Transport<Message = postrider_transport::Email>, messages: usize) -> Vec<String> {
    let mut sent = Vec::new();
    for _ in 0..messages {
        sent.push(via(&transport.send(&mail()).await).unwrap().to_owned());
    }
    sent
}

#[tokio::test]
async fn messages_are_distributed_smoothly_by_weight() {
    let transport = RoundRobin::new(Fake::new("a"), 5).and(Fake::new("b"), 1).and(Fake::new("c"), 1);
    assert_eq!(send_many(&transport, 7).await, ["a", "a", "b", "a", "c", "a", "a"]);
    let transport = RoundRobin::new(Fake::new("a"), 1).and(Fake::new("b"), 1);
    assert_eq!(send_many(&transport, 4).await, ["a", "b", "a", "b"]);
}

#[tokio::test]
async fn a_paused_transport_gets_no_share() {
    let a = Fake::new("a").always(down);
    let transport = RoundRobin::new(a.clone(), 2).and(Fake::new("b"), 1).and(Fake::new("c"), 1).pause(long());
    let sent = send_many(&transport, 40).await;
    assert_eq!(a.calls().len(), 1);
    let to = |name: &str| sent.iter().filter(|carrier| *carrier == name).count();
    assert_eq!(to("a"), 0);
    assert!(to("b").abs_diff(to("c")) <= 1, "{sent:?}");
}

#[tokio::test]
async fn a_resumed_transport_gets_its_usual_share() {
    let a = Fake::new("a").always(down_for_good);
    let transport = RoundRobin::new(a.clone(), 1).and(Fake::new("b"), 1).pause(no_pause());
    send_many(&transport, 20).await;
    a.repair();
    let sent = send_many(&transport, 40).await;
    let to_a = sent.iter().filter(|carrier| *carrier == "a").count();
    assert!((18..=22).contains(&to_a), "{to_a} of 40");
}

#[tokio::test]
async fn a_backup_is_used_only_if_no_other_can_send() {
    let (backup, main) = (Fake::new("backup"), Fake::new("main").without_support_for("Odd"));
    let transport = RoundRobin::new(backup.clone(), 0).and(main.clone(), 3).pause(long());
    assert_eq!(send_many(&transport, 10).await, vec!["main"; 10]);
    assert_eq!(via(&transport.send(&mail_about("Odd")).await), Some("backup"));
    let _main = main.always(down);
    assert_eq!(send_many(&transport, 2).await, ["backup", "backup"]);
    assert_eq!(backup.calls().len(), 3);
}

/// A transport beyond its share still precedes a backup.
#[tokio::test]
async fn a_backup_is_never_preferred() {
    let backup = Fake::new("backup");
    let transport = RoundRobin::new(backup.clone(), 0).and(Fake::new("a"), 1);
    let transport = transport.and(Fake::new("b").without_support_for("Odd"), 5);
    assert_eq!(send_many(&transport, 3).await, ["b", "b", "a"]);
    for _ in 0..5 {
        assert_eq!(via(&transport.send(&mail_about("Odd")).await), Some("a"));
    }
    assert_eq!(backup.calls().len(), 0);
}

#[tokio::test]
async fn a_message_failure_is_final() {
    let b = Fake::new("b");
    let transport = RoundRobin::new(Fake::new("a").then(rejected()), 1).and(b.clone(), 1);
    let failure = transport.send(&mail()).await.unwrap_err();
    assert_eq!((failure.scope(), failure.via()), (Scope::Message, Some("a")));
    assert_eq!(b.calls().len(), 0);
}

#[tokio::test]
async fn every_message_of_a_batch_counts() {
    let (a, b) = (Fake::new("a").with_max_batch(4), Fake::new("b"));
    let transport = RoundRobin::new(a.clone(), 1).and(b.clone(), 1);
    for _ in 0..20 {
        let results = transport.send_batch(&mails(4)).await;
        assert!(results.iter().all(Result::is_ok) && results.len() == 4);
    }
    let (to_a, to_b) = (a.mails().len(), b.mails().len());
    assert_eq!(to_a + to_b, 80);
    assert!(to_a.abs_diff(to_b) <= 8, "{to_a} and {to_b}");
}

/// Shares must be exact under concurrency.
#[tokio::test]
async fn concurrent_messages_keep_the_shares() {
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
