//! The message type of the simulation.

use postrider::Message;
use postrider::transport::{CodecError, Encoded, Recipient};

/// A mail of the plan: its number, sender and recipients.
#[derive(Debug, Clone)]
pub(crate) struct TestMessage {
    pub(crate) number: usize,
    pub(crate) sender: String,
    pub(crate) to: Vec<String>,
}

impl Message for TestMessage {
    fn encode(&self) -> Result<Encoded, CodecError> {
        let body = format!("{}\n{}\n{}", self.number, self.sender, self.to.join("\n"));
        Ok(Encoded::new("test/1", body))
    }

    fn decode(encoded: &Encoded) -> Result<Self, CodecError> {
        let mut lines = encoded.body.lines().map(str::to_owned);
        let number = lines.next().and_then(|line| line.parse().ok()).ok_or_else(|| CodecError::new("no number"))?;
        let sender = lines.next().ok_or_else(|| CodecError::new("no sender"))?;
        Ok(Self { number, sender, to: lines.collect() })
    }

    fn recipients(&self) -> Vec<Recipient> {
        self.to.iter().map(Recipient::new).collect()
    }

    fn sender(&self) -> Option<&str> {
        Some(&self.sender)
    }
}
