//! TLS: when a connection is encrypted, and which certificates it accepts.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error as TlsError, SignatureScheme};
use rustls_platform_verifier::Verifier;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config_error::SmtpConfigError;

/// When the connection is encrypted.
///
/// A certificate must be valid for the configured host. It is verified against the roots of the platform and those that
/// [`root_certificate`](crate::SmtpBuilder::root_certificate) adds. There is no option to turn verification off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Tls {
    /// TLS from the first octet on (RFC 8314 section 3.3), usually at port 465.
    Implicit,
    /// TLS from `STARTTLS` on (RFC 3207). Nothing is sent to a server that does not offer it.
    Required,
    /// TLS if the server offers `STARTTLS`, else no TLS.
    ///
    /// With credentials or an extra root, the certificate is verified. Without, any certificate is accepted: an attacker who
    /// presents a false one could as well remove the offer, and unverified encryption is better than none (RFC 7435). With
    /// credentials, nothing is sent to a server that does not offer `STARTTLS`.
    Opportunistic,
    /// No TLS. Messages **and credentials** are sent in cleartext.
    None,
}

/// Makes TLS connections to one host.
#[derive(Clone)]
pub(crate) struct TlsClient {
    connector: TlsConnector,
    host: ServerName<'static>,
}

impl TlsClient {
    /// `verify` says whether the certificate must be valid.
    pub(crate) fn new(host: &str, roots: &[Vec<u8>], verify: bool) -> Result<Self, SmtpConfigError> {
        let host = ServerName::try_from(host.to_owned()).map_err(|_| SmtpConfigError::Host)?;
        let provider = Arc::new(ring::default_provider());
        let extra = parse_roots(roots)?;
        let verifier: Arc<dyn ServerCertVerifier> = if verify {
            let verifier = Verifier::new_with_extra_roots(extra, provider.clone());
            Arc::new(verifier.map_err(|error| SmtpConfigError::RootCertificates(error.to_string()))?)
        } else {
            Arc::new(AnyCertificate(provider.clone()))
        };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| SmtpConfigError::RootCertificates(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), host })
    }

    pub(crate) async fn connect(&self, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.connector.connect(self.host.clone(), tcp).await
    }
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsClient(..)")
    }
}

/// Reads the certificates. A PEM text without one is an error here; otherwise the mistake would show as a failed handshake later.
fn parse_roots(pems: &[Vec<u8>]) -> Result<Vec<CertificateDer<'static>>, SmtpConfigError> {
    let mut roots = Vec::new();
    for pem in pems {
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            roots.push(certificate.map_err(|_| SmtpConfigError::RootCertificate)?);
        }
        if roots.len() == before {
            return Err(SmtpConfigError::RootCertificate);
        }
    }
    Ok(roots)
}

/// Accepts any certificate, for [`Tls::Opportunistic`] without credentials.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
