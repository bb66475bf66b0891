//! DKIM signatures (RFC 6376).

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};

use super::MimeError;

mod canonical;
mod key;

use key::Key;

/// The DKIM signing key of a domain (RFC 6376). `Debug` hides the key.
///
/// The public key is in DNS, in the TXT record of `SELECTOR._domainkey.DOMAIN`.
///
/// ```no_run
/// use postrider_transport::Dkim;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let dkim = Dkim::new("example.com", "mail2026", &std::fs::read_to_string("dkim.pem")?)?;
/// # Ok(()) }
/// ```
///
/// # What is signed
/// The body, and the header fields of RFC 6376 section 5.4.1 that the mail has: From, Sender, Reply-To, Subject, Date, Message-ID, To,
/// Cc, In-Reply-To, References, the List fields (RFC 8058 section 4 requires those for unsubscribing), MIME-Version and the Content
/// fields.
///
/// `h=` names each of them once more than it occurs. If somebody adds a second From or Subject, the signature breaks (sections 5.4.2 and
/// 8.15). `h=` does not name fields that the mail lacks, because mailing lists add them in good faith.
///
/// White space may change in transit (`c=relaxed/relaxed`). The signature is the same for each attempt at a delivery: `t=` is the Date.
#[derive(Clone)]
pub struct Dkim {
    domain: Arc<str>,
    selector: Arc<str>,
    key: Arc<Key>,
    /// Whether Date and Message-ID stay unsigned.
    without_replaced: bool,
}

/// The fields that are signed if they occur. Each may occur only once (RFC 5322 section 3.6, RFC 2045 section 3, RFC 2369 section 2,
/// RFC 8058 section 3.1).
const SIGNED: [&str; 21] = [
    "from",
    "sender",
    "reply-to",
    "subject",
    "date",
    "message-id",
    "to",
    "cc",
    "in-reply-to",
    "references",
    "list-id",
    "list-help",
    "list-unsubscribe",
    "list-unsubscribe-post",
    "list-subscribe",
    "list-post",
    "list-owner",
    "list-archive",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
];

/// The fields that a next hop may replace.
const REPLACED: [&str; 2] = ["date", "message-id"];

impl Dkim {
    /// Creates a signer from an RSA or Ed25519 private key:
    ///
    /// - RSA of 2048 to 4096 bits, as PEM: PKCS #8 (`BEGIN PRIVATE KEY`, RFC 5958) or PKCS #1 (`BEGIN RSA PRIVATE KEY`, RFC 8017). RFC
    ///   8301 section 3.2 recommends at least 2048 bits for signers.
    /// - Ed25519 (RFC 8463), as PEM: PKCS #8, or its 32 octets in base64. Not all receivers support it.
    ///
    /// An internationalised domain is converted to ASCII.
    ///
    /// # Errors
    /// If the key cannot be read, or if the domain or the selector is not a DNS name.
    pub fn new(domain: &str, selector: &str, private_key: &str) -> Result<Self, DkimError> {
        Self::with_key(domain, selector, Key::read(private_key)?)
    }

    /// As [`new`](Self::new), for RSA keys only.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn rsa(domain: &str, selector: &str, private_key: &str) -> Result<Self, DkimError> {
        match Key::read(private_key)? {
            key @ Key::Rsa(_) => Self::with_key(domain, selector, key),
            Key::Ed25519(_) => Err(DkimError("the private key is an Ed25519 key; an RSA key is required")),
        }
    }

    /// As [`new`](Self::new), for Ed25519 keys only.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn ed25519(domain: &str, selector: &str, private_key: &str) -> Result<Self, DkimError> {
        match Key::read(private_key)? {
            key @ Key::Ed25519(_) => Self::with_key(domain, selector, key),
            Key::Rsa(_) => Err(DkimError("the private key is an RSA key; an Ed25519 key is required")),
        }
    }

    fn with_key(domain: &str, selector: &str, key: Key) -> Result<Self, DkimError> {
        let domain = dns_name(domain).ok_or(DkimError("the domain is not a DNS name"))?;
        let selector = dns_name(selector).ok_or(DkimError("the selector is not a DNS name"))?;
        Ok(Self { domain, selector, key: Arc::new(key), without_replaced: false })
    }

    /// Leaves Date and Message-ID unsigned, for a next hop that replaces them, such as Amazon SES. Otherwise the signature would break.
    #[must_use]
    pub fn without_date_and_message_id(self) -> Self {
        Self { without_replaced: true, ..self }
    }

    /// The header `DKIM-Signature` for a header and a body with CRLF line ends. `seconds` is the time since the Unix epoch.
    pub(super) fn sign(&self, header: &str, body: &[u8], seconds: u64) -> Result<String, MimeError> {
        let fields = canonical::fields(header);
        let (mut names, mut signed) = (Vec::new(), String::new());
        for name in SIGNED {
            if self.without_replaced && REPLACED.contains(&name) {
                continue;
            }
            // Section 5.4.2: from the last to the first.
            let mut occurs = 0;
            for (_, field) in fields.iter().rev().filter(|(own, _)| own.eq_ignore_ascii_case(name)) {
                canonical::field(field, &mut signed);
                signed.push_str("\r\n");
                names.push(name);
                occurs += 1;
            }
            if occurs > 0 {
                // A field that does not occur counts as the empty string.
                names.push(name);
            }
        }
        let hash = STANDARD.encode(canonical::body_hash(body));
        let Self { domain, selector, .. } = self;
        let mut own = format!(
            "DKIM-Signature: v=1; a={}; c=relaxed/relaxed; d={domain};\r\n s={selector}; t={seconds};\r\n bh={hash};\r\n h=",
            self.key.algorithm()
        );
        let mut column = " h=".len();
        for (index, name) in names.iter().enumerate() {
            // RFC 6376 section 3.5 allows white space around the colons.
            if index > 0 {
                own.push(':');
                column += 1;
                if column + name.len() + 1 > super::header_text::LINE {
                    own.push_str("\r\n ");
                    column = 1;
                }
            }
            own.push_str(name);
            column += name.len();
        }
        own.push_str(";\r\n b=");
        // Section 3.7: the signature's own header is last, with an empty `b=` and without CRLF.
        canonical::field(&own, &mut signed);
        let signature = self.key.sign(signed.as_bytes())?;
        for (index, line) in STANDARD.encode(signature).as_bytes().chunks(70).enumerate() {
            if index > 0 {
                own.push_str("\r\n  ");
            }
            own.extend(line.iter().copied().map(char::from));
        }
        own.push_str("\r\n");
        Ok(own)
    }
}

/// Converts a name to ASCII, and checks the lengths of its labels (RFC 1035 section 2.3.4). A selector may have several (RFC 6376
/// section 3.1).
fn dns_name(text: &str) -> Option<Arc<str>> {
    let name = idna::domain_to_ascii(text).ok()?;
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    (name.len() <= 253 && name.split('.').all(label)).then(|| name.into())
}

impl fmt::Debug for Dkim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dkim").field("domain", &self.domain).field("selector", &self.selector).finish_non_exhaustive()
    }
}

/// A DKIM key, domain or selector cannot be used. The error shows nothing of the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DkimError(&'static str);

impl fmt::Display for DkimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for DkimError {}

/// SHA-256.
fn sha256(bytes: &[u8]) -> ring::digest::Digest {
    digest(&SHA256, bytes)
}
