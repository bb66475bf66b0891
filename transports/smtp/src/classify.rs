//! What an answer, or the lack of one, means. Pure: the whole table is in this file.

use postrider_transport::{Class, Scope};

use crate::error::Stage;
use crate::reply::Reply;

/// What a failure means to the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meaning {
    pub(crate) class: Class,
    pub(crate) scope: Scope,
    pub(crate) in_doubt: bool,
}

const fn meaning(class: Class, scope: Scope) -> Meaning {
    Meaning { class, scope, in_doubt: false }
}

/// The server, or the way to it, is out of order for now.
pub(crate) const OUT_OF_ORDER: Meaning = meaning(Class::Transient, Scope::Transport);
/// What is configured here does not fit the server.
pub(crate) const MISCONFIGURED: Meaning = meaning(Class::Permanent, Scope::Transport);
/// Not this message, not now.
pub(crate) const LATER: Meaning = meaning(Class::Transient, Scope::Message);
/// Not this message, ever.
pub(crate) const NEVER: Meaning = meaning(Class::Permanent, Scope::Message);
/// The end of the message went out and no answer that can be read came back.
pub(crate) const IN_DOUBT: Meaning = Meaning { class: Class::Transient, scope: Scope::Transport, in_doubt: true };

/// What a reply means that refuses, or that does not fit the command.
pub(crate) fn of_reply(stage: Stage, reply: &Reply) -> Meaning {
    let transient = reply.code() < 500;
    match (reply.code(), reply.enhanced()) {
        // RFC 5321 section 3.8: the service shuts down, or wants to be left alone for a while.
        (421, _) => OUT_OF_ORDER,
        // RFC 5321 section 3.1 has 554 for "no service here"; whoever is overloaded says it too.
        _ if matches!(stage, Stage::Connect | Stage::Greeting) => OUT_OF_ORDER,
        // RFC 4954 section 6: authentication required, too weak, wrong, or wanting encryption. Every message would fare so.
        (530 | 534 | 535 | 538, _) => MISCONFIGURED,
        // RFC 4954 section 6 and RFC 3207 section 4: not for the moment. Amazon SES has 454 for its sending rate.
        (432 | 454, _) => OUT_OF_ORDER,
        // Out of step: a new connection sets it right.
        (503, _) if stage.is_setup() => OUT_OF_ORDER,
        (503, _) => LATER,
        _ if stage.is_setup() => {
            if transient {
                OUT_OF_ORDER
            } else {
                MISCONFIGURED
            }
        }
        // RFC 3463: a full mailbox or a message that is too large stays so.
        (552, Some((5, 2, 2 | 3) | (5, 3, 4))) => NEVER,
        // RFC 5321 section 4.5.3.1.10: at RCPT, "too many recipients", to be read as 452.
        (552, _) if stage == Stage::Recipient => LATER,
        // Microsoft's limits on the sender's rate.
        (554, Some((5, 2, 121 | 122))) => LATER,
        // Google's limit on the receiver's rate, by the code that RFC 3463 has for a mailbox that is switched off.
        (550, Some((5, 2, 1))) if !says(reply, "disabled") && !says(reply, "inactive") => LATER,
        _ if transient => LATER,
        _ => NEVER,
    }
}

/// What it means that no answer came, or none that can be read.
pub(crate) fn of_silence(message_ended: bool) -> Meaning {
    if message_ended { IN_DOUBT } else { OUT_OF_ORDER }
}

/// Whether the connection is of no more use after a refusal with this code: the server closes it, or is out of step.
pub(crate) fn ends_connection(code: u16) -> bool {
    matches!(code, 421 | 503)
}

fn says(reply: &Reply, word: &str) -> bool {
    reply.lines().any(|line| line.to_ascii_lowercase().contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::reply;

    #[test]
    fn every_row_of_the_table() {
        use Stage::{Auth, Data, Greeting, Hello, Mail, Recipient, StartTls};
        let accept = Stage::Accept;
        for (stage, text, expected, source) in [
            (Greeting, "554 5.7.1 go away", OUT_OF_ORDER, "before the dialogue, nothing is the message's fault"),
            (Greeting, "450 later", OUT_OF_ORDER, "before the dialogue"),
            (Hello, "550 what a name", MISCONFIGURED, "RFC 5321 section 4.1.4"),
            (Hello, "451 later", OUT_OF_ORDER, "RFC 5321 section 4.2.1"),
            (StartTls, "454 4.7.0 no TLS now", OUT_OF_ORDER, "RFC 3207 section 4"),
            (StartTls, "501 what", MISCONFIGURED, "RFC 3207 section 4"),
            (Auth, "535 5.7.8 wrong", MISCONFIGURED, "RFC 4954 section 6"),
            (Auth, "454 4.7.0 no directory", OUT_OF_ORDER, "RFC 4954 section 6"),
            (Auth, "432 4.7.12 change it", OUT_OF_ORDER, "RFC 4954 section 6"),
            (Auth, "504 5.5.4 not this mechanism", MISCONFIGURED, "RFC 4954 section 4"),
            (Auth, "503 already", OUT_OF_ORDER, "RFC 5321 section 4.3.2"),
            (Mail, "530 5.7.0 authenticate", MISCONFIGURED, "RFC 4954 section 6"),
            (Mail, "534 5.7.9 too weak", MISCONFIGURED, "RFC 4954 section 6"),
            (Mail, "538 5.7.11 encrypt", MISCONFIGURED, "RFC 4954 section 6"),
            (Mail, "550 5.7.60 not your address", NEVER, "RFC 5321 section 4.2.1"),
            (Mail, "451 4.7.1 later", LATER, "RFC 5321 section 4.2.1"),
            (Mail, "421 4.3.2 shutting down", OUT_OF_ORDER, "RFC 5321 section 3.8"),
            (Mail, "503 5.5.1 out of step", LATER, "RFC 5321 section 4.3.2"),
            (Mail, "552 5.3.4 too large", NEVER, "RFC 1870 section 6.1"),
            (Recipient, "450 4.2.0 greylisted", LATER, "RFC 6647"),
            (Recipient, "452 4.5.3 too many", LATER, "RFC 5321 section 4.5.3.1.10"),
            (Recipient, "552 too many", LATER, "RFC 5321 section 4.5.3.1.10"),
            (Recipient, "552 5.5.3 too many", LATER, "RFC 5321 section 4.5.3.1.10"),
            (Recipient, "452 4.2.2 full", LATER, "RFC 3463 section 3.3"),
            (Recipient, "552 5.2.2 full", NEVER, "RFC 3463 section 3.3"),
            (Recipient, "550 5.1.1 unknown", NEVER, "RFC 3463 section 3.2"),
            (Recipient, "450 5.1.1 contradiction", LATER, "RFC 2034 section 4"),
            (Recipient, "550 4.1.1 contradiction", NEVER, "RFC 2034 section 4"),
            (Recipient, "550 5.2.1 is receiving mail at a rate", LATER, "Google's SMTP error list"),
            (Recipient, "550 5.2.1 the account is disabled", NEVER, "RFC 3463 section 3.3"),
            (Recipient, "421 4.7.0 slow down", OUT_OF_ORDER, "RFC 5321 section 3.8"),
            (Data, "554 5.5.1 no valid recipients", NEVER, "RFC 5321 section 4.2.1"),
            (Data, "451 4.3.0 later", LATER, "RFC 5321 section 4.2.1"),
            (accept, "554 5.2.121 too many from you", LATER, "Microsoft's non-delivery report codes"),
            (accept, "554 5.2.122 too many from you", LATER, "Microsoft's non-delivery report codes"),
            (accept, "550 5.2.121 another code's detail", NEVER, "RFC 5321 section 4.2.1"),
            (accept, "550 5.7.1 spam", NEVER, "RFC 3463 section 3.8"),
            (accept, "552 too large", NEVER, "RFC 1870 section 6.1"),
            (accept, "554 5.3.4 too large", NEVER, "RFC 3463 section 3.4"),
            (accept, "454 Throttling failure", OUT_OF_ORDER, "Amazon SES, SMTP response codes"),
            (accept, "421 4.4.2 time-out", OUT_OF_ORDER, "RFC 5321 section 3.8"),
            (accept, "452 4.3.1 disk full", LATER, "RFC 5321 section 4.2.1"),
        ] {
            assert_eq!(of_reply(stage, &reply(text)), expected, "{stage:?}: {text} ({source})");
        }
    }

    #[test]
    fn silence_is_doubt_only_once_the_message_has_ended() {
        assert_eq!(of_silence(false), OUT_OF_ORDER);
        assert_eq!(of_silence(true), IN_DOUBT);
    }
}
