//! What a code alone means (RFC 5321 section 4.2.3).

use super::row::{PERMANENT, Row, TRANSIENT, row};
use super::verdict::{ACCOUNT, CONTENT, RECIPIENT, SENDER, SERVER, TOO_MANY_RECIPIENTS};
use crate::stage::Stage::{Accept, Body, Mail, Recipient};

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    row(SERVER, "RFC 5321 section 3.8: 421, the service closes the connection").codes(&[(421, 421)]),
    row(SERVER, "RFC 4954 section 6, RFC 3207 section 4, Amazon SES: 432, 454, temporarily unavailable").codes(&[(432, 432), (454, 454)]),
    row(ACCOUNT, "RFC 4954 section 6: 530, authentication required").codes(&[(530, 530)]),
    row(SERVER, "RFC 5321 section 4.2.3: 503, bad sequence of commands").codes(&[(503, 503)]),
    row(ACCOUNT, "RFC 7504 section 3: 521, the host accepts no mail").codes(&[(521, 521)]),
    row(RECIPIENT, "RFC 5248 section 2.4: 525, the account is disabled").at(&[Recipient]).codes(&[(525, 525)]),
    row(ACCOUNT, "RFC 5248 section 2.4: 525, the account is disabled").codes(&[(525, 525)]),
    row(RECIPIENT, "RFC 7504 section 4: 556, the recipient's domain accepts no mail").codes(&[(556, 556)]),

    row(TOO_MANY_RECIPIENTS, "RFC 5321 section 4.5.3.1.10: 452 and 552 at RCPT TO, too many recipients").at(&[Recipient]).codes(&[(452, 452), (552, 552)]),
    row(SERVER, "RFC 5321 section 4.2.3: 452, insufficient system storage").codes(&[(452, 452)]),
    row(RECIPIENT, "RFC 5321 section 4.2.3: 450, the mailbox is busy or blocked for now").at(&[Recipient]).codes(&[(450, 450)]),
    row(RECIPIENT, "RFC 5321 sections 3.4 and 4.2.3: 501, 551, 553, the recipient's address").at(&[Recipient]).codes(&[(501, 501), (551, 551), (553, 553)]),
    row(CONTENT, "RFC 5321 section 4.2.3, RFC 1870: 552 after the message, larger than the server accepts").at(&[Body, Accept]).codes(&[(552, 552)]),

    // At MAIL FROM, the server knows neither a recipient nor the content.
    row(SENDER, "RFC 5321 section 3.3: MAIL FROM names the sender and nothing else").at(&[Mail]).codes(&[TRANSIENT, PERMANENT]),
];
