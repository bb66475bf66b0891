//! The verifier mail-auth, and the public keys for both verifiers.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Instant;

use mail_auth::common::parse::TxtRecordParser;
use mail_auth::common::verify::DomainKey;
use mail_auth::hickory_resolver::config::{ResolverConfig, ResolverOpts};
use mail_auth::{AuthenticatedMessage, DkimResult, MessageAuthenticator, Parameters, ResolverCache, Txt};

/// The TXT records of the tests.
pub(crate) struct Dns(pub(crate) BTreeMap<String, String>);

impl Dns {
    /// The public keys for `keys/` at the selectors `rsa`, `rsa4096` and `ed25519` of `example.com`, and the key of RFC 8463 appendix A at
    /// `brisbane`.
    pub(crate) fn example() -> Self {
        let pem = |text: &str| text.lines().filter(|line| !line.starts_with('-')).collect::<String>();
        let rsa = pem(include_str!("../keys/rsa.pub.pem"));
        let rsa4096 = pem(include_str!("../keys/rsa-4096.pub.pem"));
        // RFC 8463 section 4: the record has only the octets of the key, which are the last ones in the PEM.
        let ed25519 = &pem(include_str!("../keys/ed25519.pub.pem"))[16..];
        let records = [
            ("rsa", format!("v=DKIM1; k=rsa; p={rsa}")),
            ("rsa4096", format!("v=DKIM1; k=rsa; p={rsa4096}")),
            ("ed25519", format!("v=DKIM1; k=ed25519; p={ed25519}")),
            ("brisbane", "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=".to_owned()),
        ];
        Self(records.into_iter().map(|(name, text)| (format!("{name}._domainkey.example.com"), text)).collect())
    }

    /// The result of mail-auth for each signature: `pass`, or the error.
    pub(crate) async fn verify(&self, mail: &[u8]) -> Vec<String> {
        let message = AuthenticatedMessage::parse(mail).expect("a message");
        let authenticator = MessageAuthenticator::new(ResolverConfig::default(), ResolverOpts::default()).unwrap();
        let parameters = Parameters::new(&message).with_txt_cache(self);
        let results = authenticator.verify_dkim(parameters).await;
        let told = |result: &DkimResult| match result {
            DkimResult::Pass => "pass".to_owned(),
            other => format!("{other:?}"),
        };
        results.iter().map(|output| told(output.result())).collect()
    }
}

impl ResolverCache<Box<str>, Txt> for Dns {
    fn get<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let found = self.0.iter().find(|(own, _)| {
            let own: Box<str> = format!("{own}.").into();
            Borrow::<Q>::borrow(&own) == name
        });
        let key = DomainKey::parse(found?.1.as_bytes()).expect("a key");
        Some(Txt::DomainKey(Arc::new(key)))
    }

    fn remove<Q>(&self, _: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        None
    }

    fn insert(&self, _: Box<str>, _: Txt, _: Instant) {}
}
