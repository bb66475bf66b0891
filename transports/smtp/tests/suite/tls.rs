//! Encryption, and that no secret is sent in cleartext.

use std::sync::Arc;

use postrider_smtp::{Credentials, Smtp, SmtpBuilder, SmtpConfigError, SmtpError, Stage, Tls};
use postrider_transport::Class::{Permanent, Transient};
use postrider_transport::{Scope, Transport};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::TlsAcceptor;

use crate::support::{Action, At, TestServer, TestServerBuilder, assert_delivered, long_timeouts, mail};

/// A certificate authority that only the tests trust.
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

    /// Accepts TLS with a certificate for `host`.
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

fn server() -> TestServerBuilder {
    TestServer::builder().offer("PIPELINING").offer("AUTH PLAIN LOGIN").password("hunter2")
}

fn to(server: &TestServer, tls: Tls) -> SmtpBuilder {
    Smtp::builder("localhost").port(server.port()).tls(tls).timeouts(long_timeouts())
}

fn credentials() -> Credentials {
    Credentials::new("ada", "hunter2")
}

/// Asserts that no cleartext line holds AUTH or the password.
fn assert_nothing_secret_in_cleartext(server: &TestServer) {
    for received in server.received().iter().filter(|received| !received.encrypted) {
        assert!(!received.line.starts_with("AUTH") && !received.line.contains("hunter2"), "{received:?}");
    }
}

#[tokio::test]
async fn tls_starts_at_once_or_at_starttls() {
    let authority = Authority::new();
    for (tls, clear) in [(Tls::Implicit, 0), (Tls::Required, 2), (Tls::Opportunistic, 2)] {
        let acceptor = authority.acceptor("localhost");
        let server = if tls == Tls::Implicit { server().implicit_tls(acceptor) } else { server().starttls(acceptor) };
        let server = server.start().await;
        let smtp = to(&server, tls).root_certificate(authority.pem()).credentials(credentials()).build().unwrap();
        for _ in 0..2 {
            let mail = mail();
            let receipt = smtp.send(&mail).await.unwrap();
            assert_delivered(&server, &mail, &receipt, &["bob@example.org"]);
        }
        let cleartext: Vec<_> = server.received().into_iter().filter(|received| !received.encrypted).collect();
        assert_eq!(cleartext.len(), clear, "{tls:?}: {cleartext:?}");
        assert_nothing_secret_in_cleartext(&server);
        assert_eq!(server.connections(), 1, "{tls:?}: a connection in TLS was not used again");
        smtp.check_connection().await.unwrap();
    }
}

#[tokio::test]
async fn a_certificate_must_be_trusted_and_match_the_host() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    for (case, trusted, host) in [("another host", &ours, "mx.example.com"), ("another root", &theirs, "localhost")] {
        for tls in [Tls::Implicit, Tls::Required, Tls::Opportunistic] {
            let acceptor = ours.acceptor(host);
            let server =
                if tls == Tls::Implicit { server().implicit_tls(acceptor) } else { server().starttls(acceptor) };
            let server = server.start().await;
            let smtp = to(&server, tls).root_certificate(trusted.pem()).credentials(credentials()).build().unwrap();
            let failure = smtp.send(&mail()).await.unwrap_err();
            assert_eq!(
                (failure.class(), failure.scope(), failure.in_doubt()),
                (Transient, Scope::Transport, false),
                "{case} {tls:?}: {failure:?}"
            );
            assert_eq!(failure.downcast_ref::<SmtpError>().unwrap().stage(), Stage::StartTls);
            assert!(failure.to_string().contains("certificate"), "{failure}");
            assert_nothing_secret_in_cleartext(&server);
            assert!(!server.received_any("AUTH") && !server.received_any("MAIL"), "{case} {tls:?}");
        }
    }
}

/// The default roots are those of the platform. On a machine without any, building fails.
#[tokio::test]
async fn an_unknown_root_is_not_trusted_by_default() {
    for (tls, with_credentials) in [(Tls::Implicit, false), (Tls::Required, false), (Tls::Opportunistic, true)] {
        let acceptor = Authority::new().acceptor("localhost");
        let server = if tls == Tls::Implicit { server().implicit_tls(acceptor) } else { server().starttls(acceptor) };
        let server = server.start().await;
        let mut builder = to(&server, tls);
        if with_credentials {
            builder = builder.credentials(credentials());
        }
        match builder.build() {
            Ok(smtp) => {
                let failure = smtp.send(&mail()).await.unwrap_err();
                assert!(failure.to_string().contains("certificate"), "{failure}");
            }
            Err(error) => assert!(matches!(error, SmtpConfigError::RootCertificates(_)), "{error}"),
        }
        assert!(!server.received_any("AUTH") && !server.received_any("MAIL"), "{tls:?}");
    }
}

#[tokio::test]
async fn nothing_is_sent_if_starttls_is_needed_and_not_offered() {
    for (tls, with_credentials) in [(Tls::Required, false), (Tls::Required, true), (Tls::Opportunistic, true)] {
        let authority = Authority::new();
        let server = server().start().await;
        let mut builder = to(&server, tls).root_certificate(authority.pem());
        if with_credentials {
            builder = builder.credentials(credentials());
        }
        let failure = builder.build().unwrap().send(&mail()).await.unwrap_err();
        assert_eq!((failure.class(), failure.scope()), (Permanent, Scope::Transport), "{failure:?}");
        let received = server.received();
        assert_eq!(received.len(), 2, "{received:?}");
        assert!(received[0].line.starts_with("EHLO") && received[1].line == "QUIT", "{received:?}");
    }
}

#[tokio::test]
async fn after_a_refused_starttls_nothing_secret_is_sent() {
    let authority = Authority::new();
    let server = server().starttls(authority.acceptor("localhost")).start().await;
    server.times(2, At::StartTls, Action::Reply("454 4.7.0 no TLS now"));
    let builder = to(&server, Tls::Opportunistic);
    let guarded = builder.clone().root_certificate(authority.pem()).credentials(credentials()).build().unwrap();
    let failure = guarded.send(&mail()).await.unwrap_err();
    assert_eq!((failure.class(), failure.scope()), (Transient, Scope::Transport));
    assert!(!server.received_any("MAIL"));
    let mail = mail();
    let receipt = builder.build().unwrap().send(&mail).await.unwrap();
    assert_delivered(&server, &mail, &receipt, &["bob@example.org"]);
    assert_nothing_secret_in_cleartext(&server);
}

/// The default for this machine, against an untrusted certificate.
#[tokio::test]
async fn opportunistic_tls_accepts_any_certificate_without_credentials() {
    let server = server().starttls(Authority::new().acceptor("another.example")).start().await;
    let smtp = Smtp::from_url(&format!("smtp://localhost:{}", server.port())).unwrap();
    let mail = mail();
    let receipt = smtp.send(&mail).await.unwrap();
    assert_delivered(&server, &mail, &receipt, &["bob@example.org"]);
    assert!(server.received().iter().all(|received| received.encrypted || !received.line.starts_with("MAIL")));
}

#[tokio::test]
async fn credentials_are_sent_in_cleartext_only_with_tls_none() {
    let server = server().start().await;
    let url = format!("smtp://ada:hunter2@localhost:{}", server.port());
    let root = scratch_root();
    let guarded = Smtp::from_url(&format!("{url}?tls=opportunistic&ca={root}")).unwrap();
    std::fs::remove_file(root).unwrap();
    let failure = guarded.send(&mail()).await.unwrap_err();
    assert_eq!((failure.class(), failure.scope()), (Permanent, Scope::Transport));
    assert!(!server.received_any("AUTH"));
    let mail = mail();
    let receipt = Smtp::from_url(&format!("{url}?tls=none")).unwrap().send(&mail).await.unwrap();
    assert_delivered(&server, &mail, &receipt, &["bob@example.org"]);
    assert!(server.received_any("AUTH PLAIN"));
}

/// Writes a root certificate to a file for `ca`.
fn scratch_root() -> String {
    let path = std::env::temp_dir().join(format!("postrider-smtp-{}.pem", std::process::id()));
    std::fs::write(&path, Authority::new().pem()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Input after the reply to STARTTLS must not count as encrypted.
#[tokio::test]
async fn input_injected_before_the_handshake_is_an_error() {
    let authority = Authority::new();
    let server = server().starttls(authority.acceptor("localhost")).start().await;
    let smtp = to(&server, Tls::Required).root_certificate(authority.pem()).credentials(credentials()).build().unwrap();
    server.once(At::StartTls, Action::ExtraReply("250-evil.example\r\n250 AUTH PLAIN"));
    let failure = smtp.send(&mail()).await.unwrap_err();
    assert_eq!((failure.class(), failure.scope()), (Transient, Scope::Transport));
    assert!(failure.to_string().contains("input before the TLS handshake"), "{failure}");
    assert!(!server.received_any("AUTH"));
    let next = mail();
    let receipt = smtp.send(&next).await.unwrap();
    assert_delivered(&server, &next, &receipt, &["bob@example.org"]);
}

/// RFC 3207 section 4.2: capabilities that were sent without TLS do not count.
#[tokio::test]
async fn capabilities_are_read_again_after_starttls() {
    let authority = Authority::new();
    let server = TestServer::builder()
        .offer("AUTH XOAUTH2")
        .offer("SIZE 1")
        .offer("PIPELINING")
        .starttls(authority.acceptor("localhost"))
        .offer_in_tls(vec!["AUTH PLAIN"])
        .password("hunter2")
        .start()
        .await;
    let smtp = to(&server, Tls::Required).root_certificate(authority.pem()).credentials(credentials()).build().unwrap();
    smtp.send(&mail()).await.unwrap();
    assert!(server.received().iter().all(|received| !received.pipelined), "pipelining was offered only without TLS");
}

#[test]
fn an_invalid_root_fails_the_build() {
    for bad in ["", "hunter2", "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n"] {
        for tls in [Tls::Implicit, Tls::Required, Tls::Opportunistic] {
            let built = Smtp::builder("localhost").tls(tls).root_certificate(bad).build();
            assert_eq!(built.map(|_| ()), Err(SmtpConfigError::RootCertificate), "{bad:?} {tls:?}");
        }
    }
}
