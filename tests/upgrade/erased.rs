//! What an erasure leaves, read by the servers' own tools. It is in this suite because the dumps are.

use std::time::Duration;

use postrider::store::{Claim, Next};
use postrider::transport::Recipient;
use postrider::{Email, NewDelivery, Outcome, Store};

use crate::added::Upgrade;
use crate::support::database::Harness;
use crate::support::fixture::settlement;

/// The name in the other forms in which a dump may have it: reversed for the search of domains, and as hexadecimal digits.
fn forms(name: &str) -> [String; 3] {
    let hex = |name: &str| name.bytes().map(|octet| format!("{octet:02x}")).collect::<String>();
    [name.to_owned(), name.chars().rev().collect(), hex(name)]
}

/// Whether a dump of the whole outbox contains this form of a name, in upper or lower case.
fn is_dumped<D: Upgrade>(harness: &Harness<D>, form: &str) -> bool {
    harness.database.dump().expect("this server has a tool for dumps").to_lowercase().contains(form)
}

/// Everything about a delivery may name its recipient: subject, text, key, error, reply and note.
pub(crate) async fn a_dump_after_an_erasure_does_not_name_the_person<D: Upgrade>(database: D) {
    const NAME: &str = "zaphod";
    let harness = Harness::new(database).await;
    let mail = |others: &[&str]| {
        let mail = Email::builder().from("shop@example.com").to("Zaphod@Example.com").subject("For Zaphod");
        others
            .iter()
            .fold(mail, |mail, other| mail.cc(*other))
            .text("Dear Zaphod")
            .html("<p>Zaphod</p>")
            .build()
            .unwrap()
    };
    harness.outbox.enqueue(NewDelivery::new(mail(&[])).key("welcome zaphod@example.com")).await.unwrap();
    harness.outbox.enqueue(mail(&["bob@example.com"])).await.unwrap();
    for lease in harness.store().claim(Claim::new(10, Duration::from_secs(60))).await.unwrap() {
        let mut settlement = settlement(&lease, Outcome::Permanent, Next::Dead { reason: "no Zaphod here".to_owned() });
        let attempt = settlement.attempt.as_mut().unwrap();
        for text in [&mut attempt.error, &mut attempt.reply, &mut attempt.note] {
            *text = Some("550 <Zaphod@Example.com> is unknown".to_owned());
        }
        harness.store().settle(&[settlement]).await.unwrap();
    }
    assert!(is_dumped(&harness, NAME), "the dump shows nothing");
    let erased = harness.outbox.erase(&Recipient::new("zaphod@example.com")).await.unwrap();
    assert_eq!((erased.deliveries, erased.unfinished), (2, 0));
    for form in forms(NAME) {
        assert!(!is_dumped(&harness, &form), "{form} is still there: {}", harness.database.dump().unwrap());
    }
    assert!(is_dumped(&harness, "bob@example.com"), "another recipient was erased");
}
