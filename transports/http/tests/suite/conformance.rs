//! The conformance suite of all transports, and helpers for the providers' side of it.

use std::marker::PhantomData;
use std::time::Duration;

use postrider_http::{Http, Timeouts};
use postrider_transport::Email;
use postrider_transport::testkit::{Accepted, Answer, HttpReply, ScriptedHttp, TransportUnderTest};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::faults::TestProvider;
use crate::support::KEY;

/// Adapts a provider to the suite.
pub(crate) struct Conformance<C>(PhantomData<C>);

impl<C> Conformance<C> {
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<C: TestProvider> TransportUnderTest for Conformance<C> {
    type Transport = Http<C::Provider>;
    type Peer = ScriptedHttp;

    async fn start(&self, limit: Duration) -> (Http<C::Provider>, ScriptedHttp) {
        let peer = ScriptedHttp::start(C::default()).await;
        let mut timeouts = Timeouts::default();
        (timeouts.connect, timeouts.request, timeouts.response) = (limit, limit, limit);
        let http = Http::builder(C::provider()).base_url(peer.url()).timeouts(timeouts).build().expect("a transport");
        (http, peer)
    }

    async fn unreachable(&self) -> Http<C::Provider> {
        // The listener is closed at once, so the port is free.
        let port = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("it is bound").port();
        let base = format!("http://127.0.0.1:{port}");
        Http::builder(C::provider()).base_url(base).build().expect("a transport")
    }

    fn secrets(&self) -> Vec<String> {
        // The last two are the decoded credentials of `Basic` authentication.
        vec![KEY.to_owned(), format!("api:{KEY}"), format!("public:{KEY}")]
    }

    fn unsupported(&self) -> Option<Email> {
        Some(C::mail().null_envelope_from().build().expect("a mail"))
    }
}

/// Defines the suite for a provider.
macro_rules! conformance_tests {
    ($case:ident $(, without $name:ident = $reason:literal)*) => {
        mod conformance {
            postrider_transport::transport_tests!(
                crate::conformance::Conformance::<super::$case>::new()
                $(, without $name = $reason)*
            );
        }
    };
}
pub(crate) use conformance_tests;

/// An error text that repeats addresses and the key.
pub(crate) fn leaky_text() -> String {
    format!("no, ada.lovelace@example.com, not for bob.builder@example.org, and not with {KEY}")
}

/// The status that most providers use for an answer.
pub(crate) fn status(answer: Answer) -> u16 {
    match answer {
        Answer::RefuseMessage => 400,
        Answer::Busy => 500,
        Answer::RefuseCredentials => 401,
        Answer::RateLimit(_) => 429,
        Answer::Unavailable => 503,
        other => panic!("no refusal: {other:?}"),
    }
}

/// A refusal in JSON. For a rate limit, `header` has the seconds to wait.
pub(crate) fn refusal(status: u16, body: impl AsRef<[u8]>, answer: Answer, header: &str) -> HttpReply {
    match answer {
        Answer::RateLimit(wait) => HttpReply::answer(status, &[(header, &wait.as_secs().to_string())], body),
        _ => HttpReply::answer(status, &[("content-type", "application/json")], body),
    }
}

/// Parses a message in JSON with its recipients in these fields.
pub(crate) fn message(message: &Value, fields: [&str; 3]) -> Accepted {
    let recipients = fields.iter().flat_map(|field| addresses(&message[*field])).collect();
    Accepted::new(recipients, None, message.to_string())
}

/// Collects addresses from a string, an array, or an object with an `email`.
fn addresses(value: &Value) -> Vec<String> {
    match value {
        Value::Null => Vec::new(),
        Value::String(text) => text.split(", ").map(str::to_owned).collect(),
        Value::Array(values) => values.iter().flat_map(addresses).collect(),
        value => {
            let email = value.get("email").or_else(|| value.get("Email"));
            vec![email.and_then(Value::as_str).expect("an address").to_owned()]
        }
    }
}
