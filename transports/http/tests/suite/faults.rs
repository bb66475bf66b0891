//! What can go wrong between here and a provider, for every provider.

use std::io::Read;
use std::time::Duration;

use flate2::Compression;
use flate2::read::{GzEncoder, ZlibEncoder};
use postrider_http::{HttpErrorKind, Provider};
use postrider_transport::{Attachment, EmailBuilder, Failure, Transport};

use crate::support::{
    KEY, another, assert_discreet, check_table_for, connect, connect_within, outgoing, patient, plain,
};
use postrider_transport::testkit::{HttpApi, HttpPeer, HttpReply};

/// A provider in these tests: how it is made, and how it accepts one message.
pub(crate) trait Case: HttpApi + Default {
    type Provider: Provider;

    fn provider() -> Self::Provider;

    fn accepted() -> HttpReply;

    /// It takes a whole message, which can hold whatever a mail can.
    const WHOLE: bool = false;

    /// A mail that says little, and that the provider can carry.
    fn mail() -> EmailBuilder {
        plain()
    }
}

fn http(status: u16, content_type: &str, body: &str) -> HttpReply {
    HttpReply::answer(status, &[("content-type", content_type)], body)
}

pub(crate) fn kind(failure: &Failure) -> HttpErrorKind {
    failure.downcast_ref::<postrider_http::HttpError>().expect("it is an HttpError").kind()
}

/// A proxy's pages, a captive portal, a redirect: none of them condemns a message, none is taken for an acceptance.
pub(crate) async fn what_is_not_the_providers_own<C: Case>() {
    let page = "<html><body>nginx</body></html>";
    use HttpErrorKind::{Account, Message, NoResponse, RateLimit, Unavailable};
    // What the status leaves open is a guess.
    let line = |status, kind| crate::support::Line {
        reply: http(status, "text/html", page),
        kind,
        retry_after: None,
        sure: !matches!(status, 301 | 307 | 400 | 404 | 422),
    };
    let mut table = vec![
        line(301, Account),
        line(307, Account),
        line(400, Account),
        line(401, Account),
        line(403, Account),
        line(404, Account),
        line(407, Account),
        line(413, Message),
        line(422, Account),
        line(429, RateLimit),
        line(500, NoResponse),
        line(502, NoResponse),
        line(503, Unavailable),
        line(504, NoResponse),
        line(520, NoResponse),
    ];
    let redirect = HttpReply::answer(302, &[("location", "https://elsewhere.example/")], "");
    table.push(crate::support::Line { reply: redirect, kind: Account, retry_after: None, sure: false });
    let busy = HttpReply::answer(503, &[("retry-after", "7")], page);
    table.push(crate::support::Line { reply: busy, kind: Unavailable, retry_after: Some(7), sure: true });
    check_table_for(C::mail, C::provider, table).await;
}

/// An acceptance that cannot be read to its end is in doubt, unless the status alone says all.
pub(crate) async fn a_success_that_cannot_be_read<C: Case>(status_says_all: bool) {
    let HttpReply::Answer { status, headers, body } = C::accepted() else { panic!("an acceptance is an answer") };
    let mut fields: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    fields.push_str("\r\n");
    let cut = &body[..body.len() / 2];
    let broken = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{fields}", body.len() + 10);
    let long = vec![b' '; 2 * 1024 * 1024];
    let page = b"<html>Welcome to the lounge</html>".to_vec();
    let of = |body| HttpReply::Answer { status, headers: headers.clone(), body };
    let mut chunked = headers.clone();
    chunked.push(("transfer-encoding".to_owned(), "chunked".to_owned()));
    // The end never comes.
    let stalled = HttpReply::Answer { status, headers: chunked, body: Vec::new() };
    let cut_off = HttpReply::Raw([broken.as_bytes(), cut].concat());
    for reply in [cut_off, of(long), of(page), of(cut.to_vec()), stalled] {
        let peer = HttpPeer::start([reply]).await;
        let mut limits = patient();
        limits.response = Duration::from_secs(2);
        let transport = connect_within(limits, C::provider(), &peer);
        match transport.send(&outgoing(C::mail())).await {
            Ok(_) => assert!(status_says_all),
            Err(failure) => {
                assert!(!status_says_all, "{failure}");
                assert_eq!(kind(&failure), HttpErrorKind::NoResponse, "{failure}");
                assert_discreet(&failure);
            }
        }
        assert_eq!(peer.seen().len(), 1, "one call is one request");
        peer.then(C::accepted());
        transport.send(&another(C::mail())).await.expect("the next message goes through");
    }
}

fn compressed(coding: &str, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let level = Compression::default();
    match coding {
        "gzip" => GzEncoder::new(body, level).read_to_end(&mut out),
        // A zlib stream (RFC 9110 section 8.4.1.2).
        _ => ZlibEncoder::new(body, level).read_to_end(&mut out),
    }
    .expect("it can be compressed");
    out
}

/// It asks for no content coding, reads those that gateways use all the same, and never takes what it cannot read for a refusal or for
/// more than it may hold.
pub(crate) async fn compressed_answers<C: Case>(status_says_all: bool) {
    let HttpReply::Answer { status, headers, body } = C::accepted() else { panic!("an acceptance is an answer") };
    let answer = |coding: &str, body: Vec<u8>| {
        let mut headers = headers.clone();
        headers.push(("content-encoding".to_owned(), coding.to_owned()));
        HttpReply::Answer { status, headers, body }
    };
    let peer = HttpPeer::start([C::accepted()]).await;
    let transport = connect(C::provider(), &peer);
    let plain = transport.send(&outgoing(C::mail())).await.expect("it is accepted");
    assert_eq!(peer.seen()[0].header("accept-encoding"), Some("identity"));
    for coding in ["gzip", "deflate"] {
        peer.then(answer(coding, compressed(coding, &body)));
        let receipt =
            transport.send(&outgoing(C::mail())).await.unwrap_or_else(|failure| panic!("{coding}: {failure}"));
        assert_eq!(receipt, plain, "{coding}");
    }
    let bomb = compressed("gzip", &vec![b' '; 4 * 1024 * 1024]);
    for reply in [answer("gzip", bomb), answer("br", b"\x0b\x02\x80{}\x03".to_vec())] {
        peer.then(reply);
        match transport.send(&outgoing(C::mail())).await {
            Ok(_) => assert!(status_says_all),
            Err(failure) => {
                assert!(!status_says_all, "{failure}");
                assert_eq!(kind(&failure), HttpErrorKind::NoResponse, "{failure}");
            }
        }
    }
}

/// The whole request went out, and no answer came. (That one does not come in time is in the suite of all transports.)
pub(crate) async fn no_answer_is_in_doubt<C: Case>() {
    let start = b"HTTP/1.1 20".to_vec();
    for reply in [HttpReply::Close, HttpReply::Raw(start), HttpReply::Raw(b"220 smtp.example ESMTP\r\n".to_vec())] {
        let peer = HttpPeer::start([reply.clone()]).await;
        let transport = connect(C::provider(), &peer);
        let failure = transport.send(&outgoing(C::mail())).await.expect_err("no answer came");
        assert_eq!(kind(&failure), HttpErrorKind::NoResponse, "{reply:?}: {failure}");
        assert_discreet(&failure);
        assert_eq!(peer.seen().len(), 1, "one call is one request, whatever becomes of it");
        peer.then(C::accepted());
        transport.send(&another(C::mail())).await.expect("the next message goes through");
        assert_eq!(peer.seen().len(), 2);
    }
}

/// Nobody can have accepted what was not written.
pub(crate) async fn what_was_not_written_is_not_in_doubt<C: Case>() {
    let peer = HttpPeer::start([]).await;
    let transport = connect(C::provider(), &peer);
    let gone = {
        let peer = HttpPeer::start([]).await;
        connect(C::provider(), &peer)
    };
    let failure = gone.send(&outgoing(C::mail())).await.expect_err("nobody is there");
    assert!(failure.to_string().starts_with("cannot connect: "), "an operator wants to know why: {failure}");
    assert_eq!(kind(&failure), HttpErrorKind::Unavailable, "{failure}");
    assert_discreet(&failure);

    // More than the sockets hold, so that the fault comes before the end is written.
    let large = vec![b'x'; 5 * 1024 * 1024];
    let large = Attachment::new("large.txt", "text/plain", large).expect("an attachment");
    for reply in [HttpReply::ResetUnread, HttpReply::ResetAfter(64 * 1024), HttpReply::HangUnread] {
        let mut limits = patient();
        if matches!(reply, HttpReply::HangUnread) {
            // What will never be read may be given up soon.
            limits.request = Duration::from_millis(300);
        }
        let transport = connect_within(limits, C::provider(), &peer);
        peer.then(reply.clone());
        let failure = transport.send(&outgoing(C::mail().attach(large.clone()))).await.expect_err("it was not read");
        assert_eq!(kind(&failure), HttpErrorKind::Unavailable, "{reply:?}: {failure}");
        assert_discreet(&failure);
        assert!(peer.seen().is_empty(), "{reply:?}");
    }
    peer.then(C::accepted());
    transport.send(&another(C::mail())).await.expect("the next message goes through");
}

/// A dropped call leaves nothing that is taken for another's answer.
pub(crate) async fn a_dropped_call_leaves_no_trace<C: Case>() {
    let peer = HttpPeer::start([HttpReply::Hang]).await;
    let transport = connect(C::provider(), &peer);
    for millis in [0, 1, 5, 20, 100] {
        let mail = outgoing(C::mail());
        let call = transport.send(&mail);
        let _ = tokio::time::timeout(Duration::from_millis(millis), call).await;
    }
    let calls = peer.seen().len();
    peer.then(C::accepted());
    transport.send(&another(C::mail())).await.expect("the next message goes through");
    assert!(peer.seen().len() > calls, "it was asked for anew");
}

/// The same delivery is the same request, octet for octet, and shows its key to the provider only.
pub(crate) async fn requests_are_repeatable_and_discreet<C: Case>() {
    let peer = HttpPeer::start([C::accepted()]).await;
    let transport = connect(C::provider(), &peer);
    for attempt in 1..=2 {
        transport.send(&outgoing(C::mail()).with_attempt(attempt, 1)).await.expect("it is accepted");
    }
    let seen = peer.seen();
    assert_eq!((&seen[0].path, &seen[0].body), (&seen[1].path, &seen[1].body));
    assert_eq!(seen[0].headers, seen[1].headers);
    assert_eq!(seen[0].method, "POST");
    let debug = format!("{transport:?} {:?}", transport.name());
    assert!(!debug.contains(KEY), "{debug}");
}

/// Stamps the tests on a provider.
macro_rules! fault_tests {
    ($case:ty, status_says_all: $status:expr) => {
        #[tokio::test]
        async fn what_is_not_the_providers_own() {
            crate::faults::what_is_not_the_providers_own::<$case>().await;
        }

        #[tokio::test]
        async fn a_success_that_cannot_be_read() {
            crate::faults::a_success_that_cannot_be_read::<$case>($status).await;
        }

        #[tokio::test]
        async fn compressed_answers() {
            crate::faults::compressed_answers::<$case>($status).await;
        }

        #[tokio::test]
        async fn no_answer_is_in_doubt() {
            crate::faults::no_answer_is_in_doubt::<$case>().await;
        }

        #[tokio::test]
        async fn what_was_not_written_is_not_in_doubt() {
            crate::faults::what_was_not_written_is_not_in_doubt::<$case>().await;
        }

        #[tokio::test]
        async fn a_dropped_call_leaves_no_trace() {
            crate::faults::a_dropped_call_leaves_no_trace::<$case>().await;
        }

        #[tokio::test]
        async fn requests_are_repeatable_and_discreet() {
            crate::faults::requests_are_repeatable_and_discreet::<$case>().await;
        }
    };
}
pub(crate) use fault_tests;
