//! The same mails for every provider: the request contains the whole mail, or the mail is refused before it is sent.

use mail_parser::MessageParser;
use postrider_transport::testkit::{HttpPeer, HttpRequest};
use postrider_transport::{Attachment, Email, EmailBuilder, Transport, Unsupported};
use serde_json::Value;

use crate::faults::TestProvider;
use crate::support::{connect, outgoing};

/// Sends a mail and returns the request, or the text of the refusal.
async fn try_request<C: TestProvider>(mail: EmailBuilder) -> Result<HttpRequest, String> {
    let peer = HttpPeer::start([C::accepted()]).await;
    let transport = connect(C::provider(), &peer);
    let checked = transport.check(&mail.clone().build().expect("a mail"));
    match (transport.send(&outgoing(mail)).await, checked) {
        (Ok(_), Ok(())) => Ok(peer.seen().remove(0)),
        (Err(failure), Err(_)) => {
            assert!(failure.downcast_ref::<Unsupported>().is_some(), "{failure}");
            assert_eq!(peer.seen().len(), 0, "the mail is not sent");
            Err(failure.to_string())
        }
        (sent, checked) => panic!("checked {checked:?}, and sent {sent:?}"),
    }
}

/// Returns all strings in a request, including names. A MIME message is one string.
fn texts(request: &HttpRequest) -> Vec<String> {
    fn of(value: &Value) -> Vec<String> {
        match value {
            Value::String(text) => vec![text.clone()],
            Value::Array(values) => values.iter().flat_map(of).collect(),
            Value::Object(fields) => {
                fields.iter().flat_map(|(name, value)| [vec![name.clone()], of(value)].concat()).collect()
            }
            _ => Vec::new(),
        }
    }
    match request.header("content-type") {
        Some("application/json") => of(&request.json()),
        _ => request.form().into_iter().map(|(_, _, value)| String::from_utf8_lossy(&value).into_owned()).collect(),
    }
}

/// Returns the MIME message in a request.
fn message(request: &HttpRequest) -> String {
    texts(request).into_iter().max_by_key(String::len).expect("a message")
}

/// Decodes a header value with mail-parser.
fn decode_header(value: &str) -> String {
    let message = format!("Subject: {value}\r\n\r\n");
    MessageParser::default()
        .parse(message.as_bytes())
        .and_then(|it| it.subject().map(str::to_owned))
        .unwrap_or_default()
}

fn count(request: &HttpRequest, wanted: &str) -> usize {
    texts(request).iter().map(|text| text.matches(wanted).count()).sum()
}

fn mail() -> EmailBuilder {
    Email::builder().from("Shop <shop@example.com>").to("ada@example.org").subject("Hello")
}

pub(crate) async fn an_empty_body_is_ignored_beside_another<C: TestProvider>() {
    let html = try_request::<C>(mail().html("<p>Hi</p>")).await.expect("the mail is sent");
    let beside = try_request::<C>(mail().text("").html("<p>Hi</p>")).await.expect("the mail is sent");
    assert_eq!(beside.body, html.body);
    assert_eq!(count(&html, "<p>Hi</p>"), 1);
    let text = try_request::<C>(mail().text("Hi")).await;
    let beside = try_request::<C>(mail().text("Hi").html("")).await;
    assert_eq!(beside.map(|request| request.body), text.map(|request| request.body));
}

pub(crate) async fn a_mail_with_only_empty_bodies_is_sent_or_refused<C: TestProvider>() {
    for mail in [mail().text(""), mail().html(""), mail().text("").html("")] {
        let request = try_request::<C>(mail).await;
        assert_eq!(request.is_ok(), C::TAKES_MIME, "{request:?}");
    }
}

pub(crate) async fn an_empty_attachment_is_sent_or_refused<C: TestProvider>() {
    let empty = Attachment::new("empty.txt", "text/plain", *b"").expect("an attachment");
    let request = try_request::<C>(C::mail().attach(empty)).await;
    assert_eq!(request.is_ok(), C::TAKES_MIME, "{request:?}");
    if let Ok(request) = request {
        assert!(message(&request).contains("empty.txt"));
    }
}

pub(crate) async fn a_repeated_tag_is_sent_once<C: TestProvider>() {
    let once = try_request::<C>(C::mail().tag("welcome")).await.expect("the mail is sent");
    let twice = try_request::<C>(C::mail().tag("welcome").tag("welcome")).await.expect("the mail is sent");
    assert_eq!(once.body, twice.body);
}

pub(crate) async fn a_repeated_reply_to_is_sent_once<C: TestProvider>() {
    let mail = C::mail().reply_to("Help <help@example.com>").reply_to("Help@example.com").reply_to("help@example.com");
    let request = try_request::<C>(mail).await.expect("the mail is sent");
    if !C::TAKES_MIME {
        assert_eq!(texts(&request).join("\n").to_lowercase().matches("help@example.com").count(), 1);
    }
}

pub(crate) async fn several_reply_to_addresses_are_sent_or_refused<C: TestProvider>() {
    let mail = C::mail().reply_to("\"L, Zoë\" <one@example.com>").reply_to("two@example.com");
    if let Ok(request) = try_request::<C>(mail).await {
        assert_eq!((count(&request, "one@example.com"), count(&request, "two@example.com")), (1, 1));
    } else {
        assert!(!C::TAKES_MIME, "a MIME message can have several");
    }
}

pub(crate) async fn cc_and_bcc_recipients_get_the_mail<C: TestProvider>() {
    for mail in
        [mail().cc("cc@example.org"), mail().bcc("bcc@example.org"), mail().bcc("b1@example.org").bcc("b2@example.org")]
    {
        let mail = mail.text("Hi").html("<p>Hi</p>");
        let copies: Vec<_> = mail.clone().build().expect("a mail").recipient_addresses().into_iter().cloned().collect();
        let request = try_request::<C>(mail).await.expect("the mail is sent");
        assert!(copies.iter().all(|copy| count(&request, copy.as_str()) > 0));
    }
    let none = || Email::builder().from("Shop <shop@example.com>").subject("Hello").text("Hi").html("<p>Hi</p>");
    let hidden = none().bcc("b1@example.org").bcc("b2@example.org");
    for (mail, wanted, shown) in [(none().cc("b1@example.org"), 1, true), (hidden, 2, false)] {
        if let Ok(request) = try_request::<C>(mail).await {
            let all = ["b1@example.org", "b2@example.org"];
            assert_eq!(all.iter().filter(|one| count(&request, one) > 0).count(), wanted);
            if C::TAKES_MIME && !shown {
                assert!(!message(&request).contains("b1@example.org"), "a bcc recipient is visible");
            }
            if !C::TAKES_MIME && !shown {
                let hidden = request.json();
                let hidden = hidden.get("bcc").or_else(|| hidden.get("Bcc")).expect("a field for them");
                assert_eq!(hidden.to_string().matches("@example.org").count(), 2);
            }
        }
    }
}

pub(crate) async fn a_header_outside_ascii_is_encoded<C: TestProvider>() {
    for value in ["Größe", "=?utf-8?q?as_it_is?=", "long ".repeat(40).trim_end(), "é".repeat(120).as_str()] {
        let Ok(request) = try_request::<C>(C::mail().header("X-Size", value)).await else {
            // Brevo refuses it, since it would decode the value and send it unencoded.
            assert!(!value.is_ascii() || value.contains("=?"), "{value}");
            continue;
        };
        if C::TAKES_MIME {
            let read = message(&request);
            let message = MessageParser::default().parse(read.as_bytes()).expect("a message");
            let (_, raw) = message.headers_raw().find(|(name, _)| *name == "X-Size").expect("the header");
            assert_eq!(decode_header(raw.trim()), value);
        } else {
            let texts = texts(&request);
            assert!(
                texts.iter().any(|text| text.is_ascii() && decode_header(text) == value),
                "{value} is not in {texts:?}"
            );
        }
    }
}

/// Defines the tests for a provider.
macro_rules! mail_tests {
    ($case:ident: $($name:ident),* $(,)?) => {
        mod mails {
            $(
                #[tokio::test]
                async fn $name() {
                    crate::mails::$name::<super::$case>().await;
                }
            )*
        }
    };
    ($case:ident) => {
        crate::mails::mail_tests!(
            $case: an_empty_body_is_ignored_beside_another,
            a_mail_with_only_empty_bodies_is_sent_or_refused,
            an_empty_attachment_is_sent_or_refused,
            a_repeated_tag_is_sent_once,
            a_repeated_reply_to_is_sent_once,
            several_reply_to_addresses_are_sent_or_refused,
            cc_and_bcc_recipients_get_the_mail,
            a_header_outside_ascii_is_encoded,
        );
    };
}
pub(crate) use mail_tests;
