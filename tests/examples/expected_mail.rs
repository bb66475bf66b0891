//! Checks that a request has all parts of an example's mail.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mail_parser::{MessageParser, MimeHeaders};
use serde_json::Value;

use crate::{FROM, TO};

/// The expected parts of the mail.
pub(crate) struct ExpectedMail {
    from: usize,
    to: usize,
    inline: bool,
    metadata: bool,
}

impl ExpectedMail {
    /// `from` and `to` are how often the addresses of the sender and of the recipient occur, including Reply-To.
    pub(crate) fn new(from: usize, to: usize) -> Self {
        Self { from, to, inline: true, metadata: true }
    }

    pub(crate) fn without_inline_parts(mut self) -> Self {
        self.inline = false;
        self
    }

    pub(crate) fn without_metadata(mut self) -> Self {
        self.metadata = false;
        self
    }

    pub(crate) fn assert_in(&self, texts: &[String]) {
        let count = |wanted: &str| texts.iter().map(|text| text.matches(wanted).count()).sum::<usize>();
        assert_eq!((count(FROM), count(TO)), (self.from, self.to), "sender and recipient, in {texts:#?}");
        let attached = STANDARD.encode("Nothing is ever lost.\n");
        let mut wanted = vec![
            "ada+cc@example.org",
            "ada+bcc@example.org",
            "Your order 42",
            "It is on its way. The terms are attached.",
            "<p>It is <b>on its way</b>.",
            "terms.txt",
            &attached,
            "X-Order",
            "order",
        ];
        if self.inline {
            // The beginning of a GIF.
            wanted.extend(["cid:pixel", "pixel.gif", "R0lGODlh"]);
        }
        if self.metadata {
            wanted.push("order_id");
        }
        for wanted in wanted {
            assert!(count(wanted) > 0, "{wanted} is not in {texts:#?}");
        }
    }
}

/// All texts in a value, names included.
pub(crate) fn texts_of_json(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(values) => values.iter().flat_map(texts_of_json).collect(),
        Value::Object(fields) => {
            fields.iter().flat_map(|(name, value)| [vec![name.clone()], texts_of_json(value)].concat()).collect()
        }
        _ => Vec::new(),
    }
}

/// The headers of a message, its bodies, and the names and contents of its attachments, these in base64.
pub(crate) fn texts_of_mime(message: &[u8]) -> Vec<String> {
    let message = MessageParser::default().parse(message).expect("it is a message");
    assert!(message.bcc().is_none(), "the message has a Bcc header");
    let mut texts: Vec<_> = message.headers_raw().map(|(name, value)| format!("{name}: {}", value.trim())).collect();
    texts.extend([message.body_text(0), message.body_html(0)].into_iter().flatten().map(|text| text.into_owned()));
    for part in message.parts.iter().filter(|part| part.attachment_name().is_some()) {
        texts.extend([part.attachment_name().unwrap_or_default().to_owned(), STANDARD.encode(part.contents())]);
    }
    texts
}
