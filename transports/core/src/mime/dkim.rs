//! Signing (RFC 6376).

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};

use super::MimeError;

mod canonical;
mod key;

use key::Key;

/// A domain's signing key. `Debug` hides it.
///
/// The public half of the key stands in DNS, in the TXT record of `SELECTOR._domainkey.DOMAIN`.
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
/// The body, and of the header fields those that RFC 6376 section 5.4.1 names and a mail has: From, Sender, Reply-To, Subject, Date,
/// Message-ID, To, Cc, In-Reply-To, References, the List fields (RFC 8058 section 4 wants those for unsubscribing signed), MIME-Version
/// and what describes the body. Each of them is named in `h=` once more than it occurs: none may occur twice, and a mail to which
/// somebody added a second From or Subject, for a reader to show, no longer verifies (sections 5.4.2 and 8.15). What a mail does
/// not have is not named, since it may be added in good faith, as mailing lists do.
///
/// White space may change on the way (`c=relaxed/relaxed`). The signature is the same for each attempt at a delivery: `t=` is the
/// mail's Date.
#[derive(Clone)]
pub struct Dkim {
    domain: Arc<str>,
    selector: Arc<str>,
    key: Arc<Key>,
    /// Whether the next hop replaces Date and Message-ID.
    replaced: bool,
}

/// What is signed where it occurs. Each may occur only once (RFC 5322 section 3.6, RFC 2045 section 3, RFC 2369 section 2, RFC 8058
/// section 3.1).
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

/// What a next hop may replace.
const REPLACED: [&str; 2] = ["date", "message-id"];

impl Dkim {
    /// Signs with a private key of either kind:
    ///
    /// - RSA of 2048 to 4096 bits, as PEM: PKCS #8 (`BEGIN PRIVATE KEY`, RFC 5958) or PKCS #1 (`BEGIN RSA PRIVATE KEY`, RFC 8017). RFC
    ///   8301 section 3.2 asks signers for 2048 bits;
    /// - Ed25519 (RFC 8463), as PEM: PKCS #8; or its 32 octets alone, in base64. Not all receivers know it yet.
    ///
    /// A domain beyond ASCII is put into its ASCII form.
    ///
    /// # Errors
    /// When the key cannot be read, or the domain or the selector is no DNS name.
    pub fn new(domain: &str, selector: &str, private_key: &str) -> Result<Self, DkimError> {
        Self::with_key(domain, selector, Key::read(private_key)?)
    }

    /// As [`new`](Self::new), and the key must be an RSA key.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn rsa(domain: &str, selector: &str, private_key: &str) -> Result<Self, DkimError> {
        match Key::read(private_key)? {
            key @ Key::Rsa(_) => Self::with_key(domain, selector, key),
            Key::Ed25519(_) => Err(DkimError("the private key is an Ed25519 key, and an RSA key is wanted")),
        }
    }

    /// As [`new`](Self::new), and the key must be an Ed25519 key.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn ed25519(domain: &str, selector: &str, private_key: &str) -> Result<Self, DkimError> {
        match Key::read(private_key)? {
            key @ Key::Ed25519(_) => Self::with_key(domain, selector, key),
            Key::Rsa(_) => Err(DkimError("the private key is an RSA key, and an Ed25519 key is wanted")),
        }
    }

    fn with_key(domain: &str, selector: &str, key: Key) -> Result<Self, DkimError> {
        let domain = dns_name(domain).ok_or(DkimError("the domain is no DNS name"))?;
        let selector = dns_name(selector).ok_or(DkimError("the selector is no DNS name"))?;
        Ok(Self { domain, selector, key: Arc::new(key), replaced: false })
    }

    /// Leaves Date and Message-ID unsigned, for a next hop that replaces them, as Amazon SES does: a signature over them would
    /// not hold.
    #[must_use]
    pub fn without_date_and_message_id(self) -> Self {
        Self { replaced: true, ..self }
    }

    /// The header `DKIM-Signature` for a header and a body whose lines end with CRLF.
    pub(super) fn sign(&self, header: &str, body: &[u8], seconds: u64) -> Result<String, MimeError> {
        let fields = canonical::fields(header);
        let (mut names, mut signed) = (Vec::new(), String::new());
        for name in SIGNED {
            if self.replaced && REPLACED.contains(&name) {
                continue;
            }
            // Section 5.4.2: from the last on.
            let mut occurs = 0;
            for (_, field) in fields.iter().rev().filter(|(own, _)| own.eq_ignore_ascii_case(name)) {
                canonical::field(field, &mut signed);
                signed.push_str("\r\n");
                names.push(name);
                occurs += 1;
            }
            if occurs > 0 {
                // One that is not there is the empty string.
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
            // RFC 6376 section 3.5: white space may stand around the colons.
            if index > 0 {
                own.push(':');
                column += 1;
                if column + name.len() + 1 > super::words::LINE {
                    own.push_str("\r\n ");
                    column = 1;
                }
            }
            own.push_str(name);
            column += name.len();
        }
        own.push_str(";\r\n b=");
        // Section 3.7: last comes the signature's own header, with an empty `b=` and without a CRLF.
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

/// A name in ASCII, of labels that DNS can hold (RFC 1035 section 2.3.4). Selectors may have more than one (RFC 6376 section 3.1).
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

/// A signing key cannot be used. It repeats nothing of the key.
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
