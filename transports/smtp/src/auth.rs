//! Showing the credentials (RFC 4954).

use std::time::Duration;

use lettre::transport::smtp::authentication::{Credentials as SaslCredentials, Mechanism};
use lettre::transport::smtp::commands::Auth;
use lettre::transport::smtp::response::{Category, Code, Detail, Response, Severity};
use tracing::debug;

use crate::error::{Fault, SmtpError, Stage};
use crate::reply::Reply;
use crate::session::{Offers, Session};
use crate::{AuthMechanism, Credentials};

/// What LOGIN asks, in the wording that the draft gives. Servers differ in theirs, never in the order.
const LOGIN_QUESTIONS: [&str; 2] = ["VXNlcm5hbWU6", "UGFzc3dvcmQ6"];

/// A command line's length with its end (RFC 5321 section 4.5.3.1.4). RFC 4954 section 4 forbids an initial response that would
/// exceed it.
const MAX_COMMAND: usize = 512;

/// The length of a line with a response, with its end (RFC 4954 section 4).
const MAX_RESPONSE: usize = 12_288;

/// What a mechanism adds to the user name and the secret, at most: `user=…^Aauth=Bearer …^A^A`.
const AROUND: usize = 24;

/// Whether the credentials fit into a line of AUTH, by any mechanism.
pub(crate) fn fits(username: &str, secret: &str) -> bool {
    (username.len() + secret.len() + AROUND).div_ceil(3) * 4 + 2 <= MAX_RESPONSE
}

impl Session {
    /// Tries the mechanisms that are wanted and offered, in their order. One that the server does not take after all (504, RFC 4954
    /// section 4) leaves the next to be tried; any other refusal is about the credentials, which are not shown again.
    pub(crate) async fn authenticate(
        &mut self,
        credentials: &Credentials,
        asked: Option<AuthMechanism>,
        limit: Duration,
    ) -> Result<(), SmtpError> {
        let mut mechanisms = choose(&self.offers, asked)?.into_iter().peekable();
        while let Some(mechanism) = mechanisms.next() {
            let reply = self.try_mechanism(mechanism, credentials, limit).await?;
            if reply.code() == 504 && mechanisms.peek().is_some() {
                debug!(%mechanism, "the server does not take what it offers; trying the next");
                continue;
            }
            return self.expect(Stage::Auth, reply);
        }
        Ok(())
    }

    /// The answer to the last step of a mechanism, or to the first one that is refused.
    async fn try_mechanism(
        &mut self,
        mechanism: Mechanism,
        credentials: &Credentials,
        limit: Duration,
    ) -> Result<Reply, SmtpError> {
        let steps = steps(mechanism, credentials)?;
        // What must not come back in a reply that is kept, in the clear or as it was sent.
        let mut secrets: Vec<String> =
            steps.iter().filter_map(|step| step.split_whitespace().last()).map(str::to_owned).collect();
        secrets.retain(|secret| secret.len() > 8);
        secrets.push(credentials.secret.clone());

        let (last, before) = steps.split_last().ok_or_else(malformed)?;
        for step in before {
            let reply = self.exchange(Stage::Auth, step, limit).await?.without(&secrets);
            if reply.code() != 334 {
                return Ok(reply);
            }
        }
        let reply = self.exchange(Stage::Auth, last, limit).await?.without(&secrets);
        if reply.code() == 334 && mechanism == Mechanism::Xoauth2 {
            // The challenge holds the reason; an empty answer makes the server refuse in the usual form.
            return Ok(self.exchange(Stage::Auth, "\r\n", limit).await?.without(&secrets));
        }
        Ok(reply)
    }
}

/// What the client says, line by line, each after a 334 for the one before.
fn steps(mechanism: Mechanism, credentials: &Credentials) -> Result<Vec<String>, SmtpError> {
    let sasl = SaslCredentials::new(credentials.username.clone(), credentials.secret.clone());
    let first = Auth::new(mechanism, sasl.clone(), None).map_err(|_| malformed())?.to_string();
    let mut steps = match first.rsplit_once(' ') {
        Some((command, response)) if mechanism != Mechanism::Login && first.len() > MAX_COMMAND => {
            vec![format!("{command}\r\n"), response.to_owned()]
        }
        _ => vec![first],
    };
    if mechanism == Mechanism::Login {
        for question in LOGIN_QUESTIONS {
            let question = Response::new(CHALLENGE, vec![question.to_owned()]);
            let step = Auth::new_from_response(mechanism, sasl.clone(), &question).map_err(|_| malformed())?;
            steps.push(step.to_string());
        }
    }
    Ok(steps)
}

const CHALLENGE: Code =
    Code { severity: Severity::PositiveIntermediate, category: Category::Unspecified3, detail: Detail::Four };

fn malformed() -> SmtpError {
    SmtpError::unasked(Stage::Auth, Fault::Malformed("a challenge that cannot be met"))
}

/// The mechanisms to try, of which there is at least one.
fn choose(offers: &Offers, asked: Option<AuthMechanism>) -> Result<Vec<Mechanism>, SmtpError> {
    let wanted: &[AuthMechanism] = match &asked {
        Some(one) => std::slice::from_ref(one),
        None => &[AuthMechanism::Plain, AuthMechanism::Login],
    };
    let known = wanted.iter().map(|mechanism| match mechanism {
        AuthMechanism::Plain => Mechanism::Plain,
        AuthMechanism::Login => Mechanism::Login,
        AuthMechanism::XOAuth2 => Mechanism::Xoauth2,
    });
    let found: Vec<_> = known.filter(|mechanism| offers.auth.contains(&mechanism.to_string())).collect();
    if found.is_empty() {
        let what = match asked {
            Some(_) => "the server does not offer the AUTH mechanism that is asked for",
            None => "the server offers neither AUTH PLAIN nor AUTH LOGIN",
        };
        return Err(SmtpError::unasked(Stage::Auth, Fault::Misconfigured(what)));
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
                let steps = steps(mechanism, &credentials(secret)).unwrap();
                assert!(steps.iter().all(|step| step.ends_with("\r\n") && step.matches("\r\n").count() == 1));
                assert!(steps[0].len() <= MAX_COMMAND, "{mechanism}: {}", steps[0].len());
                assert_eq!(steps.len(), if secret < 300 { 1 } else { steps.len() });
            }
            assert_eq!(steps(mechanism, &credentials(1_000)).unwrap()[0], format!("AUTH {mechanism}\r\n"));
        }
    }

    #[test]
    fn what_fits_is_never_longer_than_a_response_may_be() {
        for secret in 9_000..9_400 {
            let credentials = credentials(secret);
            let longest = [Mechanism::Plain, Mechanism::Xoauth2, Mechanism::Login]
                .into_iter()
                .flat_map(|mechanism| steps(mechanism, &credentials).unwrap())
                .map(|step| step.len())
                .max();
            assert!(!fits("ada", &credentials.secret) || longest <= Some(MAX_RESPONSE));
        }
        assert!(fits("ada", &"x".repeat(9_000)) && !fits("ada", &"x".repeat(10_000)));
    }
}
