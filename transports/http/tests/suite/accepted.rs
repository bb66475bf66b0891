//! What counts as accepted: whatever is valid by a provider's schema, and nothing that is somebody else's.

use postrider_http::Provider;
use postrider_transport::testkit::HttpReply;

use crate::faults::Case;
use crate::support::ask;

/// For each body, which is answered under the status of an acceptance, the id that comes of it.
async fn assert_accepted<C: Case>(status: u16, bodies: &[(&str, Option<&str>)]) {
    for (body, id) in bodies {
        let receipt = ask(C::provider(), C::mail(), HttpReply::json(status, body)).await;
        let receipt = receipt.unwrap_or_else(|failure| panic!("{}, {body}: {failure}", C::Provider::NAME));
        assert_eq!(receipt.provider_id.as_deref(), *id, "{body}");
    }
    for body in ["<html>Welcome to the lounge</html>", "[]", "7", "\"ok\"", "null", "{"] {
        let failure = ask(C::provider(), C::mail(), HttpReply::json(status, body)).await.expect_err("somebody else's");
        assert!(failure.in_doubt(), "{}, {body}: {failure}", C::Provider::NAME);
    }
}

/// <https://github.com/resend/resend-openapi/blob/main/resend.yaml>, `SendEmailResponse`: no field must be there.
#[cfg(feature = "resend")]
#[tokio::test]
async fn resend() {
    let bodies =
        [(r#"{"id":"a"}"#, Some("a")), ("{}", None), (r#"{"id":null}"#, None), (r#"{"id":7,"x":{}}"#, Some("7"))];
    assert_accepted::<crate::resend::Re>(200, &bodies).await;
}

/// <https://github.com/mailtrap/mailtrap-openapi/blob/main/specs/email-sending-transactional.openapi.yml>, `SentResponse`: the same.
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
    assert_accepted::<crate::mailtrap::Trap>(200, &bodies).await;
}

/// <https://postmarkapp.com/developer/api/email-api>; the code is missing where the mail is delayed
/// (<https://github.com/anymail/django-anymail/issues/392>), `To` where there is none.
#[cfg(feature = "postmark")]
#[tokio::test]
async fn postmark() {
    let bodies = [
        (r#"{"ErrorCode":0,"Message":"OK","MessageID":"a","To":"x@example.org"}"#, Some("a")),
        (r#"{"Message":"Message accepted, but delivery may be delayed.","MessageID":"a"}"#, Some("a")),
        (r#"{"ErrorCode":"0","Message":null,"MessageID":"a","SubmittedAt":null}"#, Some("a")),
        (r#"{"ErrorCode":0}"#, None),
    ];
    assert_accepted::<crate::postmark::Pm>(200, &bodies).await;
}

/// <https://developers.brevo.com/reference/send-transac-email>: one of two fields, neither of which must be there.
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

/// <https://dev.mailjet.com/email/guides/send-api-v31/>: ids are numbers there, and texts in places.
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
    assert_accepted::<crate::mailjet::Case31>(200, &bodies).await;
}

/// <https://developers.sparkpost.com/api/transmissions/>: counts and ids are texts in its older examples.
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

/// <https://github.com/twilio/sendgrid-oai/blob/main/spec/json/tsg_mail_v3.json>: an acceptance has no body, and no header must be there.
#[cfg(feature = "sendgrid")]
#[tokio::test]
async fn sendgrid() {
    let provider = <crate::sendgrid::Sendgrid as Case>::provider;
    let mail = <crate::sendgrid::Sendgrid as Case>::mail;
    let receipt = ask(provider(), mail(), HttpReply::answer(202, &[], "")).await.expect("it is accepted");
    assert_eq!(receipt.provider_id, None);
    for status in [200, 202] {
        let page = HttpReply::answer(status, &[("content-type", "text/html")], "<html>Welcome to the lounge</html>");
        let failure = ask(provider(), mail(), page).await.expect_err("somebody else's");
        assert!(failure.in_doubt(), "{failure}");
    }
}
