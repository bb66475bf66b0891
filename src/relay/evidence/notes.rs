//! The reasons for a verdict, which the history shows to operators.

pub(super) const STREAK: &str = "judged as the transport's condition: several different messages in a row were refused";
pub(super) const OTHER_SENDERS_ACCEPTED: &str =
    "judged as the sender's condition: mail of other senders was accepted, and none of this sender";
pub(super) const REFUSED_AGAIN: &str = "judged as the message's own condition: it got the same reply before, and other mail of its sender was accepted since";
pub(super) const OTHERS_ACCEPTED: &str =
    "judged as the message's own condition: it failed before, and other mail of its sender was accepted since";
pub(super) const COMMON_PATTERN: &str = "not judged as the message's own condition: other messages got the same reply";
pub(super) const UNPROVEN: &str =
    "no pause, because other mail was accepted; nothing proves that the failure is the message's own condition";
pub(super) const UNKNOWN: &str =
    "not final: no rule knows the reply, and nothing proves that the failure is the message's own condition";
