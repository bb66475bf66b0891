//! Network faults and foreign responses, for every provider.

use std::io::Read;
use std::time::Duration;

use flate2::Compression;
use flate2::read::{GzEncoder, ZlibEncoder};
use postrider_http::{HttpErrorKind, Provider};
use postrider_transport::{Attachment, EmailBuilder, Failure, Transport};

use crate::support::{
    KEY, assert_redacted, assert_table_for, connect, connect_with_timeouts, long_timeouts, new_delivery, outgoing,
    plain,
};
use postrider_transport::testkit::{HttpApi, HttpPeer, HttpReply};

/// A provider under test: how to create it, and how it accepts a message.
pub(crate) trait TestProvider: HttpApi + Default {
    type Provider: Provider;

    fn provider() -> Self::Provider;

    fn accepted() -> HttpReply;

    /// Whether the API accepts a MIME message, which can express any mail.
    const TAKES_MIME: bool = false;

    /// A minimal mail that the provider supports.
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

/// A proxy's page, a captive portal or a redirect is neither an acceptance nor a permanent failure of the message.
pub(crate) async fn responses_in_other_formats_are_classified_by_status<C: TestProvider>() {
    let page = "<html><body>nginx</body></html>";
    use HttpErrorKind::{Account, Message, NoResponse, RateLimit, Unavailable};
    // These statuses do not tell the cause, so the kind is not sure.
    let row = |status, kind| crate::support::Row {
        reply: http(status, "text/html", page),
        kind,
        retry_after: None,
        sure: !matches!(status, 301 | 307 | 400 | 404 | 422),
    };
    let mut table = vec![
        row(301, Account),
        row(307, Account),
        row(400, Account),
        row(401, Account),
        row(403, Account),
        row(404, Account),
        row(407, Account),
        row(413, Message),
        row(422, Account),
        row(429, RateLimit),
        row(500, NoResponse),
        row(502, NoResponse),
        row(503, Unavailable),
        row(504, NoResponse),
        row(520, NoResponse),
    ];
    let redirect = HttpReply::answer(302, &[("location", "https://elsewhere.example/")], "");
    table.push(crate::support::Row { reply: redirect, kind: Account, retry_after: None, sure: false });
    let busy = HttpReply::answer(503, &[("retry-after", "7")], page);
    table.push(crate::support::Row { reply: busy, kind: Unavailable, retry_after: Some(7), sure: true });
    assert_table_for(C::mail, C::provider, table).await;
}

/// An incomplete or invalid success is in doubt, unless the status is enough.
pub(crate) async fn an_unreadable_success_is_in_doubt<C: TestProvider>(status_is_enough: bool) {
    let HttpReply::Answer { status, headers, body } = C::accepted() else { panic!("the acceptance is a reply") };
    let mut fields: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    fields.push_str("\r\n");
    let cut = &body[..body.len() / 2];
    let broken = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{fields}", body.len() + 10);
    let long = vec![b' '; 2 * 1024 * 1024];
    let page = b"<html>Welcome to the lounge</html>".to_vec();
    let of = |body| HttpReply::Answer { status, headers: headers.clone(), body };
    let mut chunked = headers.clone();
    chunked.push(("transfer-encoding".to_owned(), "chunked".to_owned()));
    // The body never ends.
    let stalled = HttpReply::Answer { status, headers: chunked, body: Vec::new() };
    let cut_off = HttpReply::Raw([broken.as_bytes(), cut].concat());
    for reply in [cut_off, of(long), of(page), of(cut.to_vec()), stalled] {
        let peer = HttpPeer::start([reply]).await;
        let mut limits = long_timeouts();
        limits.response = Duration::from_secs(2);
        let transport = connect_with_timeouts(limits, C::provider(), &peer);
        match transport.send(&outgoing(C::mail())).await {
            Ok(_) => assert!(status_is_enough),
            Err(failure) => {
                assert!(!status_is_enough, "{failure}");
                assert_eq!(kind(&failure), HttpErrorKind::NoResponse, "{failure}");
                assert_redacted(&failure);
            }
        }
        assert_eq!(peer.seen().len(), 1, "one call sends one request");
        peer.then(C::accepted());
        transport.send(&new_delivery(C::mail())).await.expect("the next message is accepted");
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

/// The client requests no content coding, decodes gzip and deflate, and limits the decoded size.
///
/// A coding that it cannot decode leaves the message in doubt.
pub(crate) async fn compressed_responses_are_decoded<C: TestProvider>(status_is_enough: bool) {
    let HttpReply::Answer { status, headers, body } = C::accepted() else { panic!("the acceptance is a reply") };
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
            Ok(_) => assert!(status_is_enough),
            Err(failure) => {
                assert!(!status_is_enough, "{failure}");
                assert_eq!(kind(&failure), HttpErrorKind::NoResponse, "{failure}");
            }
        }
    }
}

/// The whole request was sent and no valid response arrived. (The conformance suite tests the timeout.)
pub(crate) async fn no_response_is_in_doubt<C: TestProvider>() {
    let start = b"HTTP/1.1 20".to_vec();
    for reply in [HttpReply::Close, HttpReply::Raw(start), HttpReply::Raw(b"220 smtp.example ESMTP\r\n".to_vec())] {
        let peer = HttpPeer::start([reply.clone()]).await;
        let transport = connect(C::provider(), &peer);
        let failure = transport.send(&outgoing(C::mail())).await.expect_err("no response arrived");
        assert_eq!(kind(&failure), HttpErrorKind::NoResponse, "{reply:?}: {failure}");
        assert_redacted(&failure);
        assert_eq!(peer.seen().len(), 1, "one call sends one request");
        peer.then(C::accepted());
        transport.send(&new_delivery(C::mail())).await.expect("the next message is accepted");
        assert_eq!(peer.seen().len(), 2);
    }
}

/// A request that was not written whole cannot have been accepted.
pub(crate) async fn a_request_that_was_not_written_is_not_in_doubt<C: TestProvider>() {
    let peer = HttpPeer::start([]).await;
    let transport = connect(C::provider(), &peer);
    let gone = {
        let peer = HttpPeer::start([]).await;
        connect(C::provider(), &peer)
    };
    let failure = gone.send(&outgoing(C::mail())).await.expect_err("the peer is gone");
    assert!(failure.to_string().starts_with("cannot connect: "), "the text must have the reason: {failure}");
    assert_eq!(kind(&failure), HttpErrorKind::Unavailable, "{failure}");
    assert_redacted(&failure);

    // This exceeds the socket buffers, so the fault occurs before the whole request is written.
    let large = vec![b'x'; 5 * 1024 * 1024];
    let large = Attachment::new("large.txt", "text/plain", large).expect("an attachment");
    for reply in [HttpReply::ResetUnread, HttpReply::ResetAfter(64 * 1024), HttpReply::HangUnread] {
        let mut limits = long_timeouts();
        if matches!(reply, HttpReply::HangUnread) {
            // The peer never reads, so the timeout may be short.
            limits.request = Duration::from_millis(300);
        }
        let transport = connect_with_timeouts(limits, C::provider(), &peer);
        peer.then(reply.clone());
        let failure =
            transport.send(&outgoing(C::mail().attach(large.clone()))).await.expect_err("the request was not read");
        assert_eq!(kind(&failure), HttpErrorKind::Unavailable, "{reply:?}: {failure}");
        assert_redacted(&failure);
        assert!(peer.seen().is_empty(), "{reply:?}");
    }
    peer.then(C::accepted());
    transport.send(&new_delivery(C::mail())).await.expect("the next message is accepted");
}

/// After a dropped call, the next message gets its own response.
pub(crate) async fn a_dropped_call_does_not_affect_the_next<C: TestProvider>() {
    let peer = HttpPeer::start([HttpReply::Hang]).await;
    let transport = connect(C::provider(), &peer);
    for millis in [0, 1, 5, 20, 100] {
        let mail = outgoing(C::mail());
        let call = transport.send(&mail);
        let _ = tokio::time::timeout(Duration::from_millis(millis), call).await;
    }
    let calls = peer.seen().len();
    peer.then(C::accepted());
    transport.send(&new_delivery(C::mail())).await.expect("the next message is accepted");
    assert!(peer.seen().len() > calls, "the message is sent again");
}

/// Two attempts of a delivery have equal requests, octet for octet. `Debug` shows no key.
pub(crate) async fn attempts_have_equal_requests_and_debug_hides_the_key<C: TestProvider>() {
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

/// Defines the tests for a provider.
macro_rules! fault_tests {
    ($case:ty, status_is_enough: $status:expr) => {
        #[tokio::test]
        async fn responses_in_other_formats_are_classified_by_status() {
            crate::faults::responses_in_other_formats_are_classified_by_status::<$case>().await;
        }

        #[tokio::test]
        async fn an_unreadable_success_is_in_doubt() {
            crate::faults::an_unreadable_success_is_in_doubt::<$case>($status).await;
        }

        #[tokio::test]
        async fn compressed_responses_are_decoded() {
            crate::faults::compressed_responses_are_decoded::<$case>($status).await;
        }

        #[tokio::test]
        async fn no_response_is_in_doubt() {
            crate::faults::no_response_is_in_doubt::<$case>().await;
        }

        #[tokio::test]
        async fn a_request_that_was_not_written_is_not_in_doubt() {
            crate::faults::a_request_that_was_not_written_is_not_in_doubt::<$case>().await;
        }

        #[tokio::test]
        async fn a_dropped_call_does_not_affect_the_next() {
            crate::faults::a_dropped_call_does_not_affect_the_next::<$case>().await;
        }

        #[tokio::test]
        async fn attempts_have_equal_requests_and_debug_hides_the_key() {
            crate::faults::attempts_have_equal_requests_and_debug_hides_the_key::<$case>().await;
        }
    };
}
pub(crate) use fault_tests;
