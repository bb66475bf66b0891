//! Authentication (RFC 4954).

use std::time::Duration;

use lettre::transport::smtp::authentication::{Credentials as SaslCredentials, Mechanism};
use lettre::transport::smtp::commands::Auth;
use lettre::transport::smtp::response::{Category, Code, Detail, Response, Severity};
use tracing::debug;

use crate::capabilities::Capabilities;
use crate::error::{Cause, SmtpError};
use crate::reply::Reply;
use crate::session::Session;
use crate::stage::Stage;
use crate::{AuthMechanism, Credentials};

/// The challenges of LOGIN as its draft words them. The wording of servers differs, the order does not.
const LOGIN_CHALLENGES: [&str; 2] = ["VXNlcm5hbWU6", "UGFzc3dvcmQ6"];

/// Octets of a command line with its end (RFC 5321 section 4.5.3.1.4). An initial response must not exceed it (RFC 4954 section 4).
const MAX_COMMAND: usize = 512;

/// Octets of a response line with its end (RFC 4954 section 4).
const MAX_RESPONSE: usize = 12_288;

/// The most octets that a mechanism adds to the user name and the secret: `user=…^Aauth=Bearer …^A^A`.
const MAX_OVERHEAD: usize = 24;

/// Whether the credentials fit into a response line of any mechanism.
pub(crate) fn fits_response(username: &str, secret: &str) -> bool {
    (username.len() + secret.len() + MAX_OVERHEAD).div_ceil(3) * 4 + 2 <= MAX_RESPONSE
}

impl Session {
    /// Tries the mechanisms one after the other. After 504 the server does not know the mechanism (RFC 4954 section 4), and the
    /// next one is tried. Any other refusal is about the credentials, which are not sent again.
    pub(crate) async fn authenticate(
        &mut self,
        credentials: &Credentials,
        configured: Option<AuthMechanism>,
        limit: Duration,
    ) -> Result<(), SmtpError> {
        let mut mechanisms = choose_mechanisms(&self.capabilities, configured)?.into_iter().peekable();
        while let Some(mechanism) = mechanisms.next() {
            let reply = self.try_mechanism(mechanism, credentials, limit).await?;
            if reply.code() == 504 && mechanisms.peek().is_some() {
                debug!(%mechanism, "the server does not know a mechanism that it offers; trying the next one");
                continue;
            }
            return self.expect_success(Stage::Auth, reply);
        }
        Ok(())
    }

    /// Returns the reply to the last step of the mechanism, or the first refusal.
    async fn try_mechanism(
        &mut self,
        mechanism: Mechanism,
        credentials: &Credentials,
        limit: Duration,
    ) -> Result<Reply, SmtpError> {
        let steps = auth_steps(mechanism, credentials)?;
        // Replies are kept. They must hold the secret neither in cleartext nor as it was sent.
        let mut secrets: Vec<String> =
            steps.iter().filter_map(|step| step.split_whitespace().last()).map(str::to_owned).collect();
        secrets.retain(|secret| secret.len() > 8);
        secrets.push(credentials.secret.clone());

        let (last, before) = steps.split_last().ok_or_else(invalid_challenge)?;
        for step in before {
            let reply = self.exchange(Stage::Auth, step, limit).await?.redact(&secrets);
            if reply.code() != 334 {
                return Ok(reply);
            }
        }
        let reply = self.exchange(Stage::Auth, last, limit).await?.redact(&secrets);
        if reply.code() == 334 && mechanism == Mechanism::Xoauth2 {
            // The challenge holds the reason. After an empty response the server sends its refusal.
            return Ok(self.exchange(Stage::Auth, "\r\n", limit).await?.redact(&secrets));
        }
        Ok(reply)
    }
}

/// Returns the lines that the client sends. The server replies 334 to each but the last.
fn auth_steps(mechanism: Mechanism, credentials: &Credentials) -> Result<Vec<String>, SmtpError> {
    let sasl = SaslCredentials::new(credentials.username.clone(), credentials.secret.clone());
    let first = Auth::new(mechanism, sasl.clone(), None).map_err(|_| invalid_challenge())?.to_string();
    let mut steps = match first.rsplit_once(' ') {
        Some((command, response)) if mechanism != Mechanism::Login && first.len() > MAX_COMMAND => {
            vec![format!("{command}\r\n"), response.to_owned()]
        }
        _ => vec![first],
    };
    if mechanism == Mechanism::Login {
        for challenge in LOGIN_CHALLENGES {
            let challenge = Response::new(CODE_334, vec![challenge.to_owned()]);
            let step = Auth::new_from_response(mechanism, sasl.clone(), &challenge).map_err(|_| invalid_challenge())?;
            steps.push(step.to_string());
        }
    }
    Ok(steps)
}

const CODE_334: Code =
    Code { severity: Severity::PositiveIntermediate, category: Category::Unspecified3, detail: Detail::Four };

fn invalid_challenge() -> SmtpError {
    SmtpError::local(Stage::Auth, Cause::InvalidReply("a challenge without a response"))
}

/// Returns the mechanisms to try: at least one.
fn choose_mechanisms(
    capabilities: &Capabilities,
    configured: Option<AuthMechanism>,
) -> Result<Vec<Mechanism>, SmtpError> {
    let mechanisms: &[AuthMechanism] = match &configured {
        Some(one) => std::slice::from_ref(one),
        None => &[AuthMechanism::Plain, AuthMechanism::Login],
    };
    let known = mechanisms.iter().map(|mechanism| match mechanism {
        AuthMechanism::Plain => Mechanism::Plain,
        AuthMechanism::Login => Mechanism::Login,
        AuthMechanism::XOAuth2 => Mechanism::Xoauth2,
    });
    let found: Vec<_> = known.filter(|mechanism| capabilities.auth.contains(&mechanism.to_string())).collect();
    if found.is_empty() {
        let reason = match configured {
            Some(_) => "the server does not offer the configured AUTH mechanism",
            None => "the server offers neither AUTH PLAIN nor AUTH LOGIN",
        };
        return Err(SmtpError::local(Stage::Auth, Cause::Misconfigured(reason)));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(secret: usize) -> Credentials {
        Credentials::new("ada", "x".repeat(secret))
    }

    #[test]
    fn an_initial_response_never_makes_the_command_too_long() {
        for mechanism in [Mechanism::Plain, Mechanism::Xoauth2] {
            for secret in 0..2_000 {
                let steps = auth_steps(mechanism, &credentials(secret)).unwrap();
                assert!(steps.iter().all(|step| step.ends_with("\r\n") && step.matches("\r\n").count() == 1));
                assert!(steps[0].len() <= MAX_COMMAND, "{mechanism}: {}", steps[0].len());
                assert_eq!(steps.len(), if secret < 300 { 1 } else { steps.len() });
            }
            assert_eq!(auth_steps(mechanism, &credentials(1_000)).unwrap()[0], format!("AUTH {mechanism}\r\n"));
        }
    }

    #[test]
    fn credentials_that_fit_never_make_a_response_too_long() {
        for secret in 9_000..9_400 {
            let credentials = credentials(secret);
            let longest = [Mechanism::Plain, Mechanism::Xoauth2, Mechanism::Login]
                .into_iter()
                .flat_map(|mechanism| auth_steps(mechanism, &credentials).unwrap())
                .map(|step| step.len())
                .max();
            assert!(!fits_response("ada", &credentials.secret) || longest <= Some(MAX_RESPONSE));
        }
        assert!(fits_response("ada", &"x".repeat(9_000)) && !fits_response("ada", &"x".repeat(10_000)));
    }
}
