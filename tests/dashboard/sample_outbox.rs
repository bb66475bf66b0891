//! An outbox with deliveries in every state, for the screenshots and the accessibility checks.

use std::time::Duration;

use postrider::store::{RelayId, RelayReport};
use postrider::testkit::ScriptedTransport;
use postrider::transport::{Attachment, Class, Receipt, Refusal};
use postrider::{Change, DeliveryId, Email, Failure, NewDelivery, Outbox, PauseTarget, Scope, Store};

use crate::site::Site;

/// Enqueues and sends mail until each state has a delivery.
pub(crate) async fn build(site: &Site) -> (DeliveryId, DeliveryId) {
    let subjects =
        ["Your order 1815 is on its way", "Reset your password", "Invoice for November", "Welcome to the shop"];
    let templates = ["shipped", "password", "invoice", "welcome"];
    let people =
        ["ada@example.com", "grace@example.org", "alan@example.net", "edsger@example.com", "barbara@example.org"];
    let numbered = |number: usize| {
        let (kind, to) = (number % subjects.len(), people[number % people.len()]);
        Email::builder()
            .from("Shop <shop@example.com>")
            .to(to)
            .subject(subjects[kind])
            .text("Hello")
            .template_id(templates[kind])
    };
    for number in 0..40 {
        site.enqueue(numbered(number).build().unwrap()).await;
    }
    site.drain(Vec::new()).await;
    for number in 0..7 {
        let to = people[number % people.len()];
        let reply = match number {
            0..4 => format!("550 5.1.1 <{to}>: Recipient address rejected: User unknown in virtual mailbox table"),
            4..6 => "552 5.2.2 The mailbox is full".to_owned(),
            _ => "554 5.7.1 The message looks like spam".to_owned(),
        };
        site.dead(numbered(number).build().unwrap(), &reply).await;
    }
    site.held(numbered(1).build().unwrap()).await;
    let logo = "<svg xmlns='http://www.w3.org/2000/svg' width='48' height='48'><circle cx='24' cy='24' r='22' fill='#3b7d5b'/></svg>";
    let logo = Attachment::inline("logo", "logo.svg", "image/svg+xml", logo.as_bytes().to_vec()).unwrap();
    let html = "<div style='font-family:sans-serif;max-width:30em'><img src='cid:logo' alt=''><h1>It is on its way</h1>\
                <p>Dear Ada, we sent your order <b>1815</b> today. <a href='https://shop.example/1815'>Follow it</a>.</p></div>";
    let invoice = Attachment::new("invoice.pdf", "application/pdf", vec![1; 48_000]).unwrap();
    let order = numbered(0)
        .cc("Grace <grace@example.org>")
        .reply_to("help@example.com")
        .html(html)
        .attach(logo)
        .attach(invoice);
    let retried = site.enqueue(order.build().unwrap()).await;
    site.drain(vec![
        Failure::transient(Scope::Message, "451 4.7.1 Greylisted, try again in 5 minutes")
            .with_reply("451 4.7.1 Greylisted, try again in 5 minutes"),
    ])
    .await;
    for number in 0..3 {
        let later = NewDelivery::new(numbered(number).build().unwrap()).send_in(Duration::from_secs(7_200));
        site.enqueue(later).await;
    }
    let refusal = Refusal::new("grace@example.org", Class::Permanent, "550 5.1.1 User unknown");
    let transport = ScriptedTransport::<Email>::new().then(Ok(Receipt::new().with_refused(vec![refusal])));
    site.enqueue(numbered(3).cc("grace@example.org").cc("alan@example.net").build().unwrap()).await;
    Outbox::new(site.outbox.store().clone(), transport).relay().drain().await.unwrap();
    let cancelled = site.enqueue(numbered(2).build().unwrap()).await;
    let _ = site.outbox.cancel(cancelled).await.unwrap();
    let report = RelayReport::new(RelayId::new(), 2, None);
    site.outbox.store().report(&report).await.unwrap();
    let operator = site.outbox.operator("ada").note("the domain is unblocked");
    let resent = site.dead(numbered(4).build().unwrap(), "554 5.7.1 The domain is blocked").await;
    let _ = operator.change(Change::Resend, resent).await.unwrap();
    site.drain(vec![Failure::permanent(Scope::Message, "550 5.1.1 User unknown").with_reply("550 5.1.1 User unknown")])
        .await;
    for target in [PauseTarget::Template("invoice".to_owned()), PauseTarget::Sender("news@shop.example".to_owned())] {
        site.outbox.operator("grace").note("wrong price").pause(target).await.unwrap();
    }
    let reason = Some("smtp: 535 5.7.8 authentication failed".to_owned());
    let report = RelayReport::new(RelayId::new(), 0, reason);
    site.outbox.store().report(&report).await.unwrap();
    (resent, retried)
}
