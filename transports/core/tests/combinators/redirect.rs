use std::time::SystemTime;

use postrider_transport::{
    Class, DeliveryId, Email, Failure, Outgoing, Receipt, Recipient, Redirect, Scope, Transport,
};

use crate::support::*;

const STAGING: &str = "staging@example.net";

fn redirect(fake: &Fake) -> Redirect<Fake> {
    Redirect::new(fake.clone(), STAGING.parse().unwrap())
}

/// A mail with one recipient each in To, Cc and Bcc.
fn outgoing() -> Outgoing<Email> {
    let builder = Email::builder().from("ada@example.com").reply_to("reply@example.com").subject("Hello").text("Hi!");
    let email = builder.to("Bob <bob@example.org>").cc("eve@example.org").bcc("пошта@example.org").build().unwrap();
    Outgoing::new(DeliveryId::new(), SystemTime::now(), email)
}

#[tokio::test]
async fn only_the_given_address_gets_mail() {
    let fake = Fake::new("smtp").with_max_batch(2);
    let transport = redirect(&fake);
    transport.send(&outgoing()).await.unwrap();
    transport.send_batch(&[outgoing(), outgoing()]).await;
    assert_eq!(fake.mails().len(), 3);
    for mail in fake.mails() {
        assert_eq!(mail.recipients(), [Recipient::new(STAGING)]);
        assert!(!mail.is_partial());
        let email = mail.message();
        assert_eq!(email.recipient_addresses().len(), 1);
        assert_eq!(email.to()[0].address().as_str(), STAGING);
        assert!(email.cc().is_empty() && email.bcc().is_empty());
        assert_eq!(email.reply_to()[0].address().as_str(), "reply@example.com");
        let header: Vec<_> =
            email.headers().iter().filter(|header| header.name() == "X-Postrider-Original-To").collect();
        assert_eq!(header.len(), 1);
        assert_eq!(header[0].value(), "bob@example.org, eve@example.org, пошта@example.org");
    }
}

#[tokio::test]
async fn a_second_redirect_keeps_the_first_header() {
    let fake = Fake::new("smtp");
    let transport = Redirect::new(redirect(&fake), "team@example.net".parse().unwrap());
    transport.send(&outgoing()).await.unwrap();
    let mails = fake.mails();
    assert_eq!(mails[0].recipients(), [Recipient::new(STAGING)]);
    let headers: Vec<_> = mails[0].message().headers().iter().map(|header| (header.name(), header.value())).collect();
    assert_eq!(headers, [("X-Postrider-Original-To", "bob@example.org, eve@example.org, пошта@example.org")]);
}

#[tokio::test]
async fn a_retry_for_some_recipients_sends_the_same_mail() {
    let fake = Fake::new("smtp");
    let transport = redirect(&fake);
    let whole = outgoing();
    transport.send(&whole).await.unwrap();
    transport.send(&whole.clone().with_recipients(vec![Recipient::new("eve@example.org")])).await.unwrap();
    let mails = fake.mails();
    assert_eq!(mails[0].message(), mails[1].message());
    assert_eq!(mails[0].idempotency_key(), mails[1].idempotency_key());
    assert_eq!(mails[0].recipients(), mails[1].recipients());
}

#[tokio::test]
async fn a_refusal_is_reported_for_each_original_recipient() {
    let everyone = ["bob@example.org", "eve@example.org", "пошта@example.org"];
    let failure = Failure::permanent(Scope::Message, "550 unknown").with_refused(vec![refusal(STAGING)]);
    let fake = Fake::new("smtp").then(Err(failure)).then(Ok(Receipt::new().with_refused(vec![refusal(STAGING)])));
    let transport = redirect(&fake.clone().then(Err(Failure::transient(Scope::Transport, "421"))));
    let failure = transport.send(&outgoing()).await.unwrap_err();
    assert_eq!(failure.refused(), everyone.map(refusal));
    let some = outgoing().with_recipients(vec![Recipient::new("eve@example.org")]);
    assert_eq!(transport.send(&some).await.unwrap().refused, [refusal("eve@example.org")]);
    let failure = transport.send(&outgoing()).await.unwrap_err();
    assert_eq!((failure.class(), failure.scope(), failure.refused().len()), (Class::Transient, Scope::Transport, 0));
}

#[test]
fn check_sees_the_redirected_mail() {
    let fake = Fake::new("smtp").without_support_for("Odd");
    let transport = redirect(&fake);
    assert_eq!(transport.name(), "smtp");
    assert!(transport.check(mail_about("Odd").message()).unwrap_err().is_unsupported());
    transport.check(outgoing().message()).unwrap();
}

#[tokio::test]
async fn many_long_addresses_fit_into_the_header() {
    let mut builder = Email::builder().from("ada@example.com").subject("Hello").text("Hi!");
    for index in 0..1_000 {
        builder = builder.bcc(format!("{index}{}@{}.example.org", "x".repeat(60), "y".repeat(60)));
    }
    let email = builder.build().unwrap();
    let fake = Fake::new("smtp");
    let transport = redirect(&fake);
    transport.check(&email).unwrap();
    transport.send(&Outgoing::new(DeliveryId::new(), SystemTime::now(), email)).await.unwrap();
    let mails = fake.mails();
    let header = mails[0].message().headers().iter().find(|header| header.name() == Redirect::<Fake>::HEADER);
    assert_eq!(header.unwrap().value().split(", ").count(), 1_000);
    #[cfg(feature = "mime")]
    postrider_transport::Mime::new().render(&mails[0]).unwrap();
}
