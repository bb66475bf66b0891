//! Private keys.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::{Error as PemError, PemObject};

use super::{DkimError, sha256};
use crate::MimeError;

pub(super) enum Key {
    Rsa(RsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Key {
    pub(super) fn read(text: &str) -> Result<Self, DkimError> {
        let text = text.trim();
        if !text.contains("-----BEGIN") {
            let seed = STANDARD.decode(text).ok().filter(|seed| seed.len() == 32);
            let seed =
                seed.ok_or(DkimError("the private key is neither PEM nor the 32 octets of an Ed25519 key in base64"))?;
            let pair = Ed25519KeyPair::from_seed_unchecked(&seed);
            return pair.map(Self::Ed25519).map_err(|_| DkimError("the Ed25519 key cannot be used"));
        }
        if text.contains("ENCRYPTED") {
            return Err(DkimError("the private key is encrypted: remove its passphrase"));
        }
        let der = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| match error {
            PemError::NoItemsFound => DkimError("the PEM has no private key"),
            _ => DkimError("the private key's PEM cannot be read"),
        })?;
        match der {
            PrivateKeyDer::Pkcs1(der) => {
                RsaKeyPair::from_der(der.secret_pkcs1_der()).map(Self::Rsa).map_err(|error| rsa_error(&error))
            }
            PrivateKeyDer::Pkcs8(der) => {
                let der = der.secret_pkcs8_der();
                // "Maybe unchecked": the public key, which allows a check, is optional (RFC 5958 section 2).
                match Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
                    Ok(pair) => Ok(Self::Ed25519(pair)),
                    Err(_) => RsaKeyPair::from_pkcs8(der).map(Self::Rsa).map_err(|error| rsa_error(&error)),
                }
            }
            _ => Err(DkimError("the private key is neither an RSA nor an Ed25519 key")),
        }
    }

    /// The value of the tag `a=`.
    pub(super) fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "rsa-sha256",
            Self::Ed25519(_) => "ed25519-sha256",
        }
    }

    pub(super) fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, MimeError> {
        match self {
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                let signed = pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), bytes, &mut signature);
                signed.map(|()| signature).map_err(|_| MimeError::new("it cannot be signed with the DKIM key"))
            }
            // RFC 8463 section 3: the hash is signed.
            Self::Ed25519(pair) => Ok(pair.sign(sha256(bytes).as_ref()).as_ref().to_vec()),
        }
    }
}

fn rsa_error(error: &ring::error::KeyRejected) -> DkimError {
    DkimError(match error.to_string().as_str() {
        "TooSmall" => "the RSA key has fewer than 2048 bits, the minimum that RFC 8301 recommends for signers",
        "TooLarge" => "the RSA key has more than 4096 bits",
        "WrongAlgorithm" | "InvalidEncoding" => "the private key is neither an RSA nor an Ed25519 key that can be read",
        _ => "the RSA key is not consistent",
    })
}
