//! What every provider makes of the same mails: all of it is in the request, or the mail is refused before anything is sent, with the reason.

use mail_parser::MessageParser;
use postrider_transport::testkit::{HttpPeer, HttpRequest};
use postrider_transport::{Attachment, Email, EmailBuilder, Transport, Unsupported};
use serde_json::Value;

use crate::faults::Case;
use crate::support::{connect, outgoing};

/// The request for a mail, or the reason why there is none.
async fn asked<C: Case>(mail: EmailBuilder) -> Result<HttpRequest, String> {
    let peer = HttpPeer::start([C::accepted()]).await;
    let transport = connect(C::provider(), &peer);
    let checked = transport.check(&mail.clone().build().expect("a mail"));
    match (transport.send(&outgoing(mail)).await, checked) {
        (Ok(_), Ok(())) => Ok(peer.seen().remove(0)),
        (Err(failure), Err(_)) => {
            assert!(failure.downcast_ref::<Unsupported>().is_some(), "{failure}");
            assert_eq!(peer.seen().len(), 0, "nothing is sent");
            Err(failure.to_string())
        }
        (sent, checked) => panic!("checked {checked:?}, and sent {sent:?}"),
    }
}

/// All texts in a request, names included; a whole message is one text.
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

/// The message itself, where the API takes one.
fn message(request: &HttpRequest) -> String {
    texts(request).into_iter().max_by_key(String::len).expect("a message")
}

/// As another's parser reads it.
fn header(value: &str) -> String {
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

pub(crate) async fn an_empty_body_beside_another_changes_nothing<C: Case>() {
    let html = asked::<C>(mail().html("<p>Hi</p>")).await.expect("it is sent");
    let beside = asked::<C>(mail().text("").html("<p>Hi</p>")).await.expect("it is sent");
    assert_eq!(beside.body, html.body);
    assert_eq!(count(&html, "<p>Hi</p>"), 1);
    let text = asked::<C>(mail().text("Hi")).await;
    let beside = asked::<C>(mail().text("Hi").html("")).await;
    assert_eq!(beside.map(|request| request.body), text.map(|request| request.body));
}

pub(crate) async fn an_empty_body_alone_is_carried_or_refused<C: Case>() {
    for mail in [mail().text(""), mail().html(""), mail().text("").html("")] {
        let asked = asked::<C>(mail).await;
        assert_eq!(asked.is_ok(), C::WHOLE, "{asked:?}");
    }
}

pub(crate) async fn an_empty_attachment_is_carried_or_refused<C: Case>() {
    let empty = Attachment::new("empty.txt", "text/plain", *b"").expect("an attachment");
    let asked = asked::<C>(C::mail().attach(empty)).await;
    assert_eq!(asked.is_ok(), C::WHOLE, "{asked:?}");
    if let Ok(request) = asked {
        assert!(message(&request).contains("empty.txt"));
    }
}

pub(crate) async fn a_tag_that_comes_twice_comes_once<C: Case>() {
    let once = asked::<C>(C::mail().tag("welcome")).await.expect("it is sent");
    let twice = asked::<C>(C::mail().tag("welcome").tag("welcome")).await.expect("it is sent");
    assert_eq!(once.body, twice.body);
}

pub(crate) async fn an_address_for_answers_that_comes_twice_comes_once<C: Case>() {
    let mail = C::mail().reply_to("Help <help@example.com>").reply_to("Help@example.com").reply_to("help@example.com");
    let request = asked::<C>(mail).await.expect("it is sent");
    if !C::WHOLE {
        assert_eq!(texts(&request).join("\n").to_lowercase().matches("help@example.com").count(), 1);
    }
}

pub(crate) async fn several_addresses_for_answers_are_all_there<C: Case>() {
    let mail = C::mail().reply_to("\"L, Zoë\" <one@example.com>").reply_to("two@example.com");
    if let Ok(request) = asked::<C>(mail).await {
        assert_eq!((count(&request, "one@example.com"), count(&request, "two@example.com")), (1, 1));
    } else {
        assert!(!C::WHOLE, "a message has room for them");
    }
}

pub(crate) async fn who_has_a_copy_only_is_there<C: Case>() {
    for mail in
        [mail().cc("cc@example.org"), mail().bcc("bcc@example.org"), mail().bcc("b1@example.org").bcc("b2@example.org")]
    {
        let mail = mail.text("Hi").html("<p>Hi</p>");
        let copies: Vec<_> = mail.clone().build().expect("a mail").recipient_addresses().into_iter().cloned().collect();
        let request = asked::<C>(mail).await.expect("it is sent");
        assert!(copies.iter().all(|copy| count(&request, copy.as_str()) > 0));
    }
    let none = || Email::builder().from("Shop <shop@example.com>").subject("Hello").text("Hi").html("<p>Hi</p>");
    let hidden = none().bcc("b1@example.org").bcc("b2@example.org");
    for (mail, wanted, shown) in [(none().cc("b1@example.org"), 1, true), (hidden, 2, false)] {
        if let Ok(request) = asked::<C>(mail).await {
            let all = ["b1@example.org", "b2@example.org"];
            assert_eq!(all.iter().filter(|one| count(&request, one) > 0).count(), wanted);
            if C::WHOLE && !shown {
                assert!(!message(&request).contains("b1@example.org"), "a hidden recipient shows");
            }
            if !C::WHOLE && !shown {
                let hidden = request.json();
                let hidden = hidden.get("bcc").or_else(|| hidden.get("Bcc")).expect("a field for them");
                assert_eq!(hidden.to_string().matches("@example.org").count(), 2);
            }
        }
    }
}

pub(crate) async fn a_header_beyond_ascii_is_encoded<C: Case>() {
    for value in ["Größe", "=?utf-8?q?as_it_is?=", "long ".repeat(40).trim_end(), "é".repeat(120).as_str()] {
        let Ok(request) = asked::<C>(C::mail().header("X-Size", value)).await else {
            // Brevo, which would decode it and send it as it is.
            assert!(!value.is_ascii() || value.contains("=?"), "{value}");
            continue;
        };
        if C::WHOLE {
            let read = message(&request);
            let message = MessageParser::default().parse(read.as_bytes()).expect("a message");
            let (_, raw) = message.headers_raw().find(|(name, _)| *name == "X-Size").expect("the header");
            assert_eq!(header(raw.trim()), value);
        } else {
            let texts = texts(&request);
            assert!(texts.iter().any(|text| text.is_ascii() && header(text) == value), "{value} is not in {texts:?}");
        }
    }
}

/// Stamps the tests on a provider.
macro_rules! alike_tests {
    ($case:ident: $($name:ident),* $(,)?) => {
        mod alike {
            $(
                #[tokio::test]
                async fn $name() {
                    crate::alike::$name::<super::$case>().await;
                }
            )*
        }
    };
    ($case:ident) => {
        crate::alike::alike_tests!(
            $case: an_empty_body_beside_another_changes_nothing,
            an_empty_body_alone_is_carried_or_refused,
            an_empty_attachment_is_carried_or_refused,
            a_tag_that_comes_twice_comes_once,
            an_address_for_answers_that_comes_twice_comes_once,
            several_addresses_for_answers_are_all_there,
            who_has_a_copy_only_is_there,
            a_header_beyond_ascii_is_encoded,
        );
    };
}
pub(crate) use alike_tests;
