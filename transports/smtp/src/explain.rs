//! Explains what a reply means, without a server.

use std::fmt;
use std::time::Duration;

use postrider_transport::{Class, Scope};

use crate::meaning::{self, Meaning};
use crate::reply::Reply;
use crate::reply_parser::ReplyParser;
use crate::rules::{self, Rule, RuleInput};
use crate::stage::Stage;

/// What a refusal means at a stage, and why: the result of [`explain`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explanation {
    /// Whether the same mail may be accepted later.
    pub class: Class,
    /// What the failure affects.
    pub scope: Scope,
    /// Whether a rule gave the class and the scope. If not, a relay retries a permanent refusal until evidence shows that
    /// the message is at fault.
    pub sure: bool,
    /// Whether the message may have been accepted.
    pub in_doubt: bool,
    /// How long to wait, by the reply or by the rule. `None` if neither has a wait.
    pub retry_after: Option<Duration>,
    /// The rule that decided, in short. If the reply is malformed or does not fit the stage, this says so.
    pub rule: String,
    /// Where the rule is documented.
    pub source: String,
}

/// The reply is not a refusal at this stage, so there is nothing to explain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRefusal {
    code: u16,
    stage: Stage,
}

impl fmt::Display for NoRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} is not a refusal", self.code, self.stage)
    }
}

impl std::error::Error for NoRefusal {}

/// Explains what a reply means at a stage, by the rules of this crate.
///
/// Lines end with a line feed, with or without a carriage return. Text that is not an SMTP reply counts as no reply, as for
/// the transport. [`Smtp::explain`](crate::Smtp::explain) applies the rules of a transport as well.
///
/// ```
/// use postrider_smtp::{Stage, explain};
/// use postrider_transport::{Class, Scope};
///
/// let means = explain(Stage::Mail, "550 5.4.5 Daily SMTP relay limit exceeded for user.").unwrap();
/// assert_eq!((means.class, means.scope, means.sure), (Class::Transient, Scope::Transport, true));
/// let means = explain(Stage::Accept, "lost").unwrap();
/// assert!(means.in_doubt);
/// assert!(explain(Stage::Mail, "250 2.1.0 Ok").is_err());
/// ```
///
/// # Errors
/// The reply is not a refusal.
pub fn explain(stage: Stage, reply: &str) -> Result<Explanation, NoRefusal> {
    with_rules(&[], stage, reply)
}

pub(crate) fn with_rules(user_rules: &[Rule], stage: Stage, text: &str) -> Result<Explanation, NoRefusal> {
    match parse(text) {
        Ok(reply) if reply.is_negative() => {
            let found = rules::classify(user_rules, stage, RuleInput::new(&reply));
            let unknown = if reply.code() < 500 { "no rule knows this 4yz" } else { "no rule knows this 5yz" };
            Ok(Explanation {
                class: found.class,
                scope: found.scope,
                sure: found.rule.is_some(),
                in_doubt: false,
                retry_after: found.retry_after,
                rule: found.describe().unwrap_or_else(|| unknown.to_owned()),
                source: found.rule.map_or("RFC 5321 section 4.2.1", Rule::source_text).to_owned(),
            })
        }
        Ok(reply) if is_expected(stage, &reply) => Err(NoRefusal { code: reply.code(), stage }),
        Ok(reply) => Ok(no_reply(stage, &format!("{} does not fit this stage", reply.code()))),
        Err(what) => Ok(no_reply(stage, &format!("{what} is not an SMTP reply"))),
    }
}

/// Whether a reply that is not a refusal is the one that the stage expects.
fn is_expected(stage: Stage, reply: &Reply) -> bool {
    if stage == Stage::Data {
        reply.code() == 354
    } else {
        reply.is_positive() || (stage == Stage::Auth && reply.code() == 334)
    }
}

fn no_reply(stage: Stage, rule: &str) -> Explanation {
    let Meaning { class, scope, in_doubt, sure, .. } = meaning::no_reply(stage == Stage::Accept);
    let source = "RFC 5321 sections 4.2 and 4.5.3.2: an invalid reply counts as no reply, and the connection is closed";
    Explanation { class, scope, sure, in_doubt, retry_after: None, rule: rule.to_owned(), source: source.to_owned() }
}

fn parse(text: &str) -> Result<Reply, &'static str> {
    let mut parser = ReplyParser::new();
    for line in text.lines() {
        parser.buffer().extend_from_slice(line.as_bytes());
        parser.buffer().extend_from_slice(b"\r\n");
    }
    match parser.next_reply()? {
        Some(reply) => Ok(reply),
        None => Err("an incomplete reply"),
    }
}
