//! Acceptance: every response that is valid by the provider's schema, and no other.

use postrider_http::Provider;
use postrider_transport::testkit::HttpReply;

use crate::faults::TestProvider;
use crate::support::send_one;

/// Asserts the provider id for each body with a success status, and that other bodies are in doubt.
async fn assert_accepted<C: TestProvider>(status: u16, bodies: &[(&str, Option<&str>)]) {
    for (body, id) in bodies {
        let receipt = send_one(C::provider(), C::mail(), HttpReply::json(status, body)).await;
        let receipt = receipt.unwrap_or_else(|failure| panic!("{}, {body}: {failure}", C::Provider::NAME));
        assert_eq!(receipt.provider_id.as_deref(), *id, "{body}");
    }
    for body in ["<html>Welcome to the lounge</html>", "[]", "7", "\"ok\"", "null", "{"] {
        let failure = send_one(C::provider(), C::mail(), HttpReply::json(status, body))
            .await
            .expect_err("the body is not the provider's");
        assert!(failure.in_doubt(), "{}, {body}: {failure}", C::Provider::NAME);
    }
}

/// <https://github.com/resend/resend-openapi/blob/main/resend.yaml>, `SendEmailResponse`: all fields are optional.
#[cfg(feature = "resend")]
#[tokio::test]
async fn resend() {
    let bodies =
        [(r#"{"id":"a"}"#, Some("a")), ("{}", None), (r#"{"id":null}"#, None), (r#"{"id":7,"x":{}}"#, Some("7"))];
    assert_accepted::<crate::resend::ResendCase>(200, &bodies).await;
}

/// <https://github.com/mailtrap/mailtrap-openapi/blob/main/specs/email-sending-transactional.openapi.yml>, `SentResponse`: all fields are
/// optional.
#[cfg(feature = "mailtrap")]
#[tokio::test]
async fn mailtrap() {
    let bodies = [
        (r#"{"success":true,"message_ids":["a","b"]}"#, Some("a")),
        (r#"{"success":true,"message_ids":[7]}"#, Some("7")),
        (r#"{"success":true,"message_ids":[]}"#, None),
        (r#"{"success":true,"message_ids":null}"#, None),
        (r#"{"success":true}"#, None),
        (r#"{"message_ids":["a"]}"#, Some("a")),
        ("{}", None),
    ];
    assert_accepted::<crate::mailtrap::MailtrapCase>(200, &bodies).await;
}

/// <https://postmarkapp.com/developer/api/email-api>. The code is missing if the mail is delayed
/// (<https://github.com/anymail/django-anymail/issues/392>), and `To` if there is none.
#[cfg(feature = "postmark")]
#[tokio::test]
async fn postmark() {
    let bodies = [
        (r#"{"ErrorCode":0,"Message":"OK","MessageID":"a","To":"x@example.org"}"#, Some("a")),
        (r#"{"Message":"Message accepted, but delivery may be delayed.","MessageID":"a"}"#, Some("a")),
        (r#"{"ErrorCode":"0","Message":null,"MessageID":"a","SubmittedAt":null}"#, Some("a")),
        (r#"{"ErrorCode":0}"#, None),
    ];
    assert_accepted::<crate::postmark::PostmarkCase>(200, &bodies).await;
}

/// <https://developers.brevo.com/reference/send-transac-email>: one of two fields, both optional.
#[cfg(feature = "brevo")]
#[tokio::test]
async fn brevo() {
    let bodies = [
        (r#"{"messageId":"a"}"#, Some("a")),
        (r#"{"messageIds":["a","b"]}"#, Some("a")),
        (r#"{"messageId":null,"messageIds":null}"#, None),
        ("{}", None),
    ];
    assert_accepted::<crate::brevo::BrevoCase>(201, &bodies).await;
}

/// <https://dev.mailjet.com/email/guides/send-api-v31/>: ids are numbers, sometimes strings.
#[cfg(feature = "mailjet")]
#[tokio::test]
async fn mailjet() {
    let bodies = [
        (r#"{"Messages":[{"Status":"success","To":[{"MessageID":7}]}]}"#, Some("7")),
        (r#"{"Messages":[{"Status":"success","To":[{"MessageID":"7"}],"CustomID":null,"Errors":null}]}"#, Some("7")),
        (r#"{"Messages":[{"Status":"success","To":[{"MessageID":null}]}]}"#, None),
        (r#"{"Messages":[{"Status":"success","To":null}]}"#, None),
        (r#"{"Messages":[{"Status":"success"}]}"#, None),
    ];
    assert_accepted::<crate::mailjet::MailjetCase>(200, &bodies).await;
}

/// <https://developers.sparkpost.com/api/transmissions/>: counts and ids are strings in older examples.
#[cfg(feature = "sparkpost")]
#[tokio::test]
async fn sparkpost() {
    let bodies = [
        (r#"{"results":{"id":"a","total_accepted_recipients":1,"total_rejected_recipients":0}}"#, Some("a")),
        (r#"{"results":{"id":7,"total_accepted_recipients":"1","total_rejected_recipients":"0"}}"#, Some("7")),
        (r#"{"results":{"id":"a","total_accepted_recipients":null,"rcpt_to_errors":null}}"#, Some("a")),
        (r#"{"results":{}}"#, None),
    ];
    assert_accepted::<crate::sparkpost::SparkPostCase>(200, &bodies).await;
}

/// <https://documentation.mailgun.com/docs/mailgun/api-reference/send/mailgun/messages>.
#[cfg(feature = "mailgun")]
#[tokio::test]
async fn mailgun() {
    let bodies = [
        (r#"{"id":"<a@x>","message":"Queued. Thank you."}"#, Some("<a@x>")),
        (r#"{"message":"Queued. Thank you."}"#, None),
        (r#"{"id":null,"message":"Queued. Thank you."}"#, None),
    ];
    assert_accepted::<crate::mailgun::MailgunCase>(200, &bodies).await;
}

/// <https://github.com/twilio/sendgrid-oai/blob/main/spec/json/tsg_mail_v3.json>: an acceptance has no body, and all headers are optional.
#[cfg(feature = "sendgrid")]
#[tokio::test]
async fn sendgrid() {
    let provider = <crate::sendgrid::SendGridCase as TestProvider>::provider;
    let mail = <crate::sendgrid::SendGridCase as TestProvider>::mail;
    let receipt = send_one(provider(), mail(), HttpReply::answer(202, &[], "")).await.expect("it is accepted");
    assert_eq!(receipt.provider_id, None);
    for status in [200, 202] {
        let page = HttpReply::answer(status, &[("content-type", "text/html")], "<html>Welcome to the lounge</html>");
        let failure = send_one(provider(), mail(), page).await.expect_err("the body is not the provider's");
        assert!(failure.in_doubt(), "{failure}");
    }
}
