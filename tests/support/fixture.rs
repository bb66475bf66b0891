//! Mails, rows and settlements that many tests use.

use std::time::Duration;

use postrider::store::{Lease, NewRow, Next, Settlement};
use postrider::transport::{Encoded, Recipient};
use postrider::{Attempt, DeliveryId, Email, Outcome};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// A mail to one recipient.
pub(crate) fn ada() -> Email {
    email(&["ada@example.com"])
}

/// A mail to these recipients.
pub(crate) fn email(to: &[&str]) -> Email {
    let builder = Email::builder().from("shop@example.com").subject("Hello").text("Hello there").template_id("hello");
    to.iter().fold(builder, |builder, to| builder.to(*to)).build().unwrap()
}

/// A row for one recipient, of a message that no email parser reads.
pub(crate) fn row() -> NewRow {
    row_for(vec![Recipient::new("ada@example.com")])
}

pub(crate) fn row_for(recipients: Vec<Recipient>) -> NewRow {
    let message = Encoded::new("test/1", "{}");
    NewRow::new(DeliveryId::new(), message, recipients)
}

/// A row with an idempotency key.
pub(crate) fn keyed_row(key: &str) -> NewRow {
    let mut row = row();
    row.key = Some(key.to_owned());
    row
}

/// A settlement after an accepted call.
pub(crate) fn sent(lease: &Lease) -> Settlement {
    settlement(lease, Outcome::Sent, Next::Sent)
}

/// A settlement after a transient failure.
pub(crate) fn retry(lease: &Lease, after: Duration) -> Settlement {
    settlement(lease, Outcome::Transient, Next::Pending { after })
}

pub(crate) fn settlement(lease: &Lease, outcome: Outcome, next: Next) -> Settlement {
    let attempt = Attempt::new(lease.attempts + 1, lease.cycle, lease.claimed_at, lease.claimed_at, outcome);
    Settlement::new(lease.key, lease.charged_attempts + 1, next).with_attempt(attempt)
}
