//! What a reply means, without a server.

use std::fmt;
use std::time::Duration;

use postrider_transport::{Class, Scope};

use crate::classify::{self, Meaning};
use crate::error::Stage;
use crate::inbound::Inbound;
use crate::reply::Reply;
use crate::rules::{self, Gist, Rule};

/// What a reply that refuses means at a stage, and why: see [`explain`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explanation {
    /// Whether the same mail may be taken later.
    pub class: Class,
    /// Whose condition it is.
    pub scope: Scope,
    /// Whether a rule stands behind it. Where none does, a relay puts the mail off once more before it believes a permanent
    /// refusal.
    pub sure: bool,
    /// Whether the message may have been accepted all the same.
    pub in_doubt: bool,
    /// How long the reply, or the rule, asks to wait.
    pub retry_after: Option<Duration>,
    /// The rule that decided, in short; what happened, where it is no reply.
    pub rule: String,
    /// Where that is documented.
    pub source: String,
}

/// There is nothing to explain: the reply does not refuse at this stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRefusal {
    code: u16,
    stage: Stage,
}

impl fmt::Display for NoRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} is no refusal", self.code, self.stage)
    }
}

impl std::error::Error for NoRefusal {}

/// Says what a reply means at a stage, by the rules of this crate. The lines of the reply are parted by a line feed, with or
/// without a carriage return before it. [`Smtp::explain`](crate::Smtp::explain) asks a transport's own rules first.
///
/// What is no SMTP reply is explained as well: by what the transport does with it.
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
/// The reply accepts.
pub fn explain(stage: Stage, reply: &str) -> Result<Explanation, NoRefusal> {
    with_rules(&[], stage, reply)
}

pub(crate) fn with_rules(own: &[Rule], stage: Stage, text: &str) -> Result<Explanation, NoRefusal> {
    match read(text) {
        Ok(reply) if reply.is_negative() => {
            let found = rules::find(own, stage, Gist::of(&reply));
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
        Ok(reply) if fits(stage, &reply) => Err(NoRefusal { code: reply.code(), stage }),
        Ok(reply) => Ok(silence(stage, &format!("{} does not fit this stage", reply.code()))),
        Err(what) => Ok(silence(stage, &format!("{what} is no SMTP reply"))),
    }
}

/// Whether a reply that is no refusal is what the stage waits for.
fn fits(stage: Stage, reply: &Reply) -> bool {
    if stage == Stage::Data {
        reply.code() == 354
    } else {
        reply.is_positive() || (stage == Stage::Auth && reply.code() == 334)
    }
}

fn silence(stage: Stage, rule: &str) -> Explanation {
    let Meaning { class, scope, in_doubt, sure, .. } = classify::of_silence(stage == Stage::Accept);
    let source = "RFC 5321 sections 4.2 and 4.5.3.2: what is no reply is as good as none; the connection is closed";
    Explanation { class, scope, sure, in_doubt, retry_after: None, rule: rule.to_owned(), source: source.to_owned() }
}

fn read(text: &str) -> Result<Reply, &'static str> {
    let mut inbound = Inbound::new();
    for line in text.lines() {
        inbound.buffer().extend_from_slice(line.as_bytes());
        inbound.buffer().extend_from_slice(b"\r\n");
    }
    match inbound.reply()? {
        Some(reply) => Ok(reply),
        None => Err("half a reply"),
    }
}
