//! Showing the credentials (RFC 4954).

use std::time::Duration;

use lettre::transport::smtp::authentication::{Credentials as SaslCredentials, Mechanism};
use lettre::transport::smtp::commands::Auth;
use lettre::transport::smtp::response::{Category, Code, Detail, Response, Severity};

use crate::error::{Fault, SmtpError, Stage};
use crate::session::{Offers, expect};
use crate::stream::Wire;
use crate::{AuthMechanism, Credentials};

/// What LOGIN asks, in the wording that the draft gives. Servers differ in theirs, never in the order.
const LOGIN_QUESTIONS: [&str; 2] = ["VXNlcm5hbWU6", "UGFzc3dvcmQ6"];

pub(crate) async fn authenticate(
    wire: &mut Wire,
    offers: &Offers,
    credentials: &Credentials,
    asked: Option<AuthMechanism>,
    limit: Duration,
) -> Result<(), SmtpError> {
    let mechanism = choose(offers, asked)?;
    let sasl = SaslCredentials::new(credentials.username.clone(), credentials.secret.clone());
    let malformed = |_| SmtpError::new(Stage::Auth, Fault::Malformed("a challenge that cannot be met"));

    let first = Auth::new(mechanism, sasl.clone(), None).map_err(malformed)?.to_string();
    let mut steps = vec![first];
    if mechanism == Mechanism::Login {
        for question in LOGIN_QUESTIONS {
            let question = Response::new(CHALLENGE, vec![question.to_owned()]);
            steps.push(Auth::new_from_response(mechanism, sasl.clone(), &question).map_err(malformed)?.to_string());
        }
    }
    // What must not come back in a reply that is kept, in the clear or as it was sent.
    let mut secrets: Vec<String> =
        steps.iter().filter_map(|step| step.split_whitespace().last()).map(str::to_owned).collect();
    secrets.retain(|secret| secret.len() > 8);
    secrets.push(credentials.secret.clone());

    let last = steps.len() - 1;
    for (index, step) in steps.iter().enumerate() {
        let mut reply = exchange(wire, step, limit).await?.without(&secrets);
        if reply.code() == 334 && index < last {
            continue;
        }
        if reply.code() == 334 && mechanism == Mechanism::Xoauth2 {
            // The challenge holds the reason; an empty answer makes the server refuse in the usual form.
            reply = exchange(wire, "\r\n", limit).await?.without(&secrets);
        }
        return expect(Stage::Auth, reply);
    }
    Ok(())
}

const CHALLENGE: Code =
    Code { severity: Severity::PositiveIntermediate, category: Category::Unspecified3, detail: Detail::Four };

async fn exchange(wire: &mut Wire, line: &str, limit: Duration) -> Result<crate::reply::Reply, SmtpError> {
    let at = |fault| SmtpError::new(Stage::Auth, fault);
    wire.command(line, limit).await.map_err(at)?;
    wire.reply(limit).await.map_err(at)
}

fn choose(offers: &Offers, asked: Option<AuthMechanism>) -> Result<Mechanism, SmtpError> {
    let wanted: &[AuthMechanism] = match &asked {
        Some(one) => std::slice::from_ref(one),
        None => &[AuthMechanism::Plain, AuthMechanism::Login],
    };
    let mut known = wanted.iter().map(|mechanism| match mechanism {
        AuthMechanism::Plain => Mechanism::Plain,
        AuthMechanism::Login => Mechanism::Login,
        AuthMechanism::XOAuth2 => Mechanism::Xoauth2,
    });
    known.find(|mechanism| offers.auth.contains(&mechanism.to_string())).ok_or_else(|| {
        let what = match asked {
            Some(_) => "the server does not offer the AUTH mechanism that is asked for",
            None => "the server offers neither AUTH PLAIN nor AUTH LOGIN",
        };
        SmtpError::new(Stage::Auth, Fault::Misconfigured(what))
    })
}
