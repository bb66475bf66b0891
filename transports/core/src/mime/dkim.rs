//! Signing (RFC 6376).

use std::fmt;
use std::sync::Arc;

use lettre::address::Envelope;
use lettre::message::dkim::{
    DkimCanonicalization, DkimCanonicalizationType, DkimConfig, DkimSigningAlgorithm, DkimSigningKey,
};
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox as LettreMailbox, MessageBuilder};
use lettre::{Address, Message};

use super::{Body, MimeError};
use crate::Mailbox;

/// A domain's signing key. `Debug` hides the key.
///
/// Signed are From, To, Cc, Subject, Date, Reply-To, Message-ID, MIME-Version, Content-Type and the unsubscribe headers
/// (RFC 6376 section 5.4.1, RFC 8058 section 4), with relaxed canonicalisation, which survives the usual handling on the way.
#[derive(Clone)]
pub struct Dkim {
    config: Arc<DkimConfig>,
    /// The same without what some next hops replace.
    lasting: Arc<DkimConfig>,
}

/// What a next hop may replace.
const REPLACED: [&str; 2] = ["Date", "Message-ID"];

impl Dkim {
    /// Signs with an RSA key in PKCS #1 PEM form (`BEGIN RSA PRIVATE KEY`). The public half stands in DNS at
    /// `SELECTOR._domainkey.DOMAIN`.
    ///
    /// # Errors
    /// When the key cannot be read, or the domain or selector is no DNS name.
    pub fn rsa(domain: &str, selector: &str, private_key_pem: &str) -> Result<Self, DkimError> {
        Self::new(domain, selector, private_key_pem, DkimSigningAlgorithm::Rsa)
    }

    /// Signs with an Ed25519 key (RFC 8463): the 32 octets of the private key, in base64.
    ///
    /// # Errors
    /// As [`rsa`](Self::rsa).
    pub fn ed25519(domain: &str, selector: &str, private_key_base64: &str) -> Result<Self, DkimError> {
        Self::new(domain, selector, private_key_base64, DkimSigningAlgorithm::Ed25519)
    }

    /// Leaves Date and Message-ID unsigned, for a next hop that replaces them, as Amazon SES does: a signature over them would
    /// not hold.
    #[must_use]
    pub fn without_date_and_message_id(self) -> Self {
        Self { config: Arc::clone(&self.lasting), ..self }
    }

    fn new(domain: &str, selector: &str, key: &str, algorithm: DkimSigningAlgorithm) -> Result<Self, DkimError> {
        let dns_name = |text: &str| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
        };
        if !dns_name(domain) || !dns_name(selector) {
            return Err(DkimError("the domain and the selector must be DNS names".to_owned()));
        }
        // lettre's key cannot be cloned, nor taken back.
        let read = || {
            DkimSigningKey::new(key.trim(), algorithm)
                .map_err(|error| DkimError(format!("the private key cannot be read: {error}")))
        };
        let headers = [
            "From",
            "To",
            "Cc",
            "Subject",
            "Date",
            "Reply-To",
            "Message-ID",
            "MIME-Version",
            "Content-Type",
            "List-Unsubscribe",
            "List-Unsubscribe-Post",
        ];
        let relaxed =
            DkimCanonicalization { header: DkimCanonicalizationType::Relaxed, body: DkimCanonicalizationType::Relaxed };
        let config = |key, headers: &mut dyn Iterator<Item = &'static str>| {
            let headers = headers.map(HeaderName::new_from_ascii_str).collect();
            Arc::new(DkimConfig::new(selector.to_owned(), domain.to_owned(), key, headers, relaxed))
        };
        Ok(Self {
            config: config(read()?, &mut headers.into_iter()),
            lasting: config(read()?, &mut headers.into_iter().filter(|name| !REPLACED.contains(name))),
        })
    }

    /// The whole message, signed.
    pub(super) fn signed(
        &self,
        from: &Mailbox,
        beside_from: Vec<HeaderValue>,
        body: Body,
    ) -> Result<Vec<u8>, MimeError> {
        let address = from.address();
        let address = Address::new(address.local_part(), address.domain()).map_err(MimeError::because)?;
        // What lettre wants to build a message at all. The envelope is the transport's business.
        let envelope = Envelope::new(None, vec![address.clone()]).map_err(MimeError::because)?;
        let builder = Message::builder().from(LettreMailbox::new(from.name().map(str::to_owned), address));
        let builder = beside_from.into_iter().fold(builder, MessageBuilder::raw_header).envelope(envelope);
        let message = match body {
            Body::Single(part) => builder.singlepart(part),
            Body::Multi(part) => builder.multipart(part),
        };
        let mut message = message.map_err(MimeError::because)?;
        message.sign(&self.config);
        Ok(message.formatted())
    }
}

impl fmt::Debug for Dkim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dkim(..)")
    }
}

/// A signing key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DkimError(String);

impl fmt::Display for DkimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DkimError {}
