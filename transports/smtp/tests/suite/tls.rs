//! Encryption, and that nothing secret travels without it.

use std::sync::Arc;

use postrider_smtp::{Credentials, Smtp, SmtpBuilder, SmtpConfigError, SmtpError, Stage, Tls};
use postrider_transport::Class::{Permanent, Transient};
use postrider_transport::{Scope, Transport};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::TlsAcceptor;

use crate::support::{Act, At, Peer, PeerBuilder, assert_carried, mail, patient};

/// A root that only the tests trust.
#[derive(Clone)]
pub(crate) struct Authority {
    pem: String,
    issuer: Arc<Issuer<'static, KeyPair>>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Arc::new(Issuer::new(params, key)) }
    }

    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// Speaks TLS in the name of `host`.
    pub(crate) fn acceptor(&self, host: &str) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, self.issuer.as_ref()).unwrap();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

fn peer() -> PeerBuilder {
    Peer::builder().offer("PIPELINING").offer("AUTH PLAIN LOGIN").password("hunter2")
}

fn to(peer: &Peer, tls: Tls) -> SmtpBuilder {
    Smtp::builder("localhost").port(peer.port()).tls(tls).timeouts(patient())
}

fn credentials() -> Credentials {
    Credentials::new("ada", "hunter2")
}

/// No line that was heard in clear holds the password, in whatever way it was written.
fn assert_nothing_secret_in_clear(peer: &Peer) {
    for heard in peer.heard().iter().filter(|heard| !heard.encrypted) {
        assert!(!heard.line.starts_with("AUTH") && !heard.line.contains("hunter2"), "{heard:?}");
    }
}

#[tokio::test]
async fn encrypted_from_the_first_octet_or_from_starttls_on() {
    let authority = Authority::new();
    for (tls, clear) in [(Tls::Implicit, 0), (Tls::Required, 2), (Tls::Opportunistic, 2)] {
        let acceptor = authority.acceptor("localhost");
        let peer = if tls == Tls::Implicit { peer().implicit_tls(acceptor) } else { peer().starttls(acceptor) };
        let peer = peer.start().await;
        let smtp = to(&peer, tls).root_certificate(authority.pem()).credentials(credentials()).build().unwrap();
        for _ in 0..2 {
            let mail = mail();
            let receipt = smtp.send(&mail).await.unwrap();
            assert_carried(&peer, &mail, &receipt, &["bob@example.org"]);
        }
        let in_clear: Vec<_> = peer.heard().into_iter().filter(|heard| !heard.encrypted).collect();
        assert_eq!(in_clear.len(), clear, "{tls:?}: {in_clear:?}");
        assert_nothing_secret_in_clear(&peer);
        assert_eq!(peer.connections(), 1, "{tls:?}: a connection in TLS was not used again");
        smtp.check_connection().await.unwrap();
    }
}

#[tokio::test]
async fn a_certificate_must_be_trusted_and_be_for_the_host() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    for (case, trusted, host) in [("another host", &ours, "mx.example.com"), ("another root", &theirs, "localhost")] {
        for tls in [Tls::Implicit, Tls::Required, Tls::Opportunistic] {
            let acceptor = ours.acceptor(host);
            let peer = if tls == Tls::Implicit { peer().implicit_tls(acceptor) } else { peer().starttls(acceptor) };
            let peer = peer.start().await;
            let smtp = to(&peer, tls).root_certificate(trusted.pem()).credentials(credentials()).build().unwrap();
            let failure = smtp.send(&mail()).await.unwrap_err();
            assert_eq!(
                (failure.class(), failure.scope(), failure.in_doubt()),
                (Transient, Scope::Transport, false),
                "{case} {tls:?}: {failure:?}"
            );
            assert_eq!(failure.downcast_ref::<SmtpError>().unwrap().stage(), Stage::StartTls);
            assert!(failure.to_string().contains("certificate"), "{failure}");
            assert_nothing_secret_in_clear(&peer);
            assert!(!peer.heard_any("AUTH") && !peer.heard_any("MAIL"), "{case} {tls:?}");
        }
    }
}

/// Without any setting, the roots are those of the platform, which do not know the tests' own. A machine that has none at all
/// says so when the transport is built.
#[tokio::test]
async fn an_unknown_root_is_not_trusted_by_default() {
    for (tls, with_credentials) in [(Tls::Implicit, false), (Tls::Required, false), (Tls::Opportunistic, true)] {
        let acceptor = Authority::new().acceptor("localhost");
        let peer = if tls == Tls::Implicit { peer().implicit_tls(acceptor) } else { peer().starttls(acceptor) };
        let peer = peer.start().await;
        let mut builder = to(&peer, tls);
        if with_credentials {
            builder = builder.credentials(credentials());
        }
        match builder.build() {
            Ok(smtp) => {
                let failure = smtp.send(&mail()).await.unwrap_err();
                assert!(failure.to_string().contains("certificate"), "{failure}");
            }
            Err(error) => assert!(matches!(error, SmtpConfigError::Trust(_)), "{error}"),
        }
        assert!(!peer.heard_any("AUTH") && !peer.heard_any("MAIL"), "{tls:?}");
    }
}

#[tokio::test]
async fn without_an_offer_nothing_is_sent_that_needs_one() {
    for (tls, with_credentials) in [(Tls::Required, false), (Tls::Required, true), (Tls::Opportunistic, true)] {
        let authority = Authority::new();
        let peer = peer().start().await;
        let mut builder = to(&peer, tls).root_certificate(authority.pem());
        if with_credentials {
            builder = builder.credentials(credentials());
        }
        let failure = builder.build().unwrap().send(&mail()).await.unwrap_err();
        assert_eq!((failure.class(), failure.scope()), (Permanent, Scope::Transport), "{failure:?}");
        let heard = peer.heard();
        assert_eq!(heard.len(), 2, "{heard:?}");
        assert!(heard[0].line.starts_with("EHLO") && heard[1].line == "QUIT", "{heard:?}");
    }
}

/// The same where the offer is there and is taken back.
#[tokio::test]
async fn a_refused_starttls_lets_only_what_is_not_secret_through() {
    let authority = Authority::new();
    let peer = peer().starttls(authority.acceptor("localhost")).start().await;
    peer.times(2, At::StartTls, Act::Say("454 4.7.0 no TLS now"));
    let builder = to(&peer, Tls::Opportunistic);
    let guarded = builder.clone().root_certificate(authority.pem()).credentials(credentials()).build().unwrap();
    let failure = guarded.send(&mail()).await.unwrap_err();
    assert_eq!((failure.class(), failure.scope()), (Transient, Scope::Transport));
    assert!(!peer.heard_any("MAIL"));
    let mail = mail();
    let receipt = builder.build().unwrap().send(&mail).await.unwrap();
    assert_carried(&peer, &mail, &receipt, &["bob@example.org"]);
    assert_nothing_secret_in_clear(&peer);
}

/// This very machine, a certificate that nobody signed, no credentials: encrypted all the same, without any setting.
#[tokio::test]
async fn opportunistic_takes_any_certificate_when_nothing_is_secret() {
    let peer = peer().starttls(Authority::new().acceptor("another.example")).start().await;
    let smtp = Smtp::from_url(&format!("smtp://localhost:{}", peer.port())).unwrap();
    let mail = mail();
    let receipt = smtp.send(&mail).await.unwrap();
    assert_carried(&peer, &mail, &receipt, &["bob@example.org"]);
    assert!(peer.heard().iter().all(|heard| heard.encrypted || !heard.line.starts_with("MAIL")));
}

#[tokio::test]
async fn in_clear_only_when_told_so() {
    let peer = peer().start().await;
    let url = format!("smtp://ada:hunter2@localhost:{}", peer.port());
    let root = scratch_root();
    let guarded = Smtp::from_url(&format!("{url}?tls=opportunistic&ca={root}")).unwrap();
    std::fs::remove_file(root).unwrap();
    let failure = guarded.send(&mail()).await.unwrap_err();
    assert_eq!((failure.class(), failure.scope()), (Permanent, Scope::Transport));
    assert!(!peer.heard_any("AUTH"));
    let mail = mail();
    let receipt = Smtp::from_url(&format!("{url}?tls=none")).unwrap().send(&mail).await.unwrap();
    assert_carried(&peer, &mail, &receipt, &["bob@example.org"]);
    assert!(peer.heard_any("AUTH PLAIN"));
}

/// A root in a file, as `ca` wants it.
fn scratch_root() -> String {
    let path = std::env::temp_dir().join(format!("postrider-smtp-{}.pem", std::process::id()));
    std::fs::write(&path, Authority::new().pem()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Words that somebody slips in behind the answer to STARTTLS would be read as if they had come encrypted.
#[tokio::test]
async fn words_slipped_in_before_the_encryption_are_refused() {
    let authority = Authority::new();
    let peer = peer().starttls(authority.acceptor("localhost")).start().await;
    let smtp = to(&peer, Tls::Required).root_certificate(authority.pem()).credentials(credentials()).build().unwrap();
    peer.once(At::StartTls, Act::AlsoSay("250-evil.example\r\n250 AUTH PLAIN"));
    let failure = smtp.send(&mail()).await.unwrap_err();
    assert_eq!((failure.class(), failure.scope()), (Transient, Scope::Transport));
    assert!(failure.to_string().contains("input before the TLS handshake"), "{failure}");
    assert!(!peer.heard_any("AUTH"));
    let next = mail();
    let receipt = smtp.send(&next).await.unwrap();
    assert_carried(&peer, &next, &receipt, &["bob@example.org"]);
}

/// RFC 3207 section 4.2: what was offered in clear does not count.
#[tokio::test]
async fn offers_are_learnt_anew_once_encrypted() {
    let authority = Authority::new();
    let peer = Peer::builder()
        .offer("AUTH XOAUTH2")
        .offer("SIZE 1")
        .offer("PIPELINING")
        .starttls(authority.acceptor("localhost"))
        .offer_in_tls(vec!["AUTH PLAIN"])
        .password("hunter2")
        .start()
        .await;
    let smtp = to(&peer, Tls::Required).root_certificate(authority.pem()).credentials(credentials()).build().unwrap();
    smtp.send(&mail()).await.unwrap();
    assert!(peer.heard().iter().all(|heard| !heard.with_more), "pipelining was offered in clear only");
}

#[test]
fn a_root_that_is_none_is_told_at_once() {
    for bad in ["", "hunter2", "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n"] {
        for tls in [Tls::Implicit, Tls::Required, Tls::Opportunistic] {
            let built = Smtp::builder("localhost").tls(tls).root_certificate(bad).build();
            assert_eq!(built.map(|_| ()), Err(SmtpConfigError::RootCertificate), "{bad:?} {tls:?}");
        }
    }
}
