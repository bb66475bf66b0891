//! What an enhanced code says (RFC 3463, and the registry of RFC 5248), where no words said more.

use super::means::{ACCOUNT, CONTENT, LIMIT, RECIPIENT, SENDER, SERVER, TOO_MANY};
use super::row::{Row, row};
use crate::error::Stage::{Accept, Data, Mail, Recipient};

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    row(SENDER, "RFC 3463 section 3.2: X.1.7, X.1.8, the sender's address").x(&[(1, 7, 8)]),
    row(SENDER, "RFC 3463 section 3.2: X.1.0 at MAIL FROM").at(&[Mail]).x(&[(1, 0, 0)]),
    row(RECIPIENT, "RFC 3463 section 3.2, RFC 5248, RFC 7505: X.1.1 to X.1.6, X.1.9, X.1.10, the recipient's address").x(&[(1, 1, 6), (1, 9, 10)]),
    row(RECIPIENT, "RFC 3463 section 3.2: X.1.0 at RCPT TO").at(&[Recipient]).x(&[(1, 0, 0)]),
    row(CONTENT, "RFC 3463 section 3.3: X.2.3, longer than the mailbox takes").x(&[(2, 3, 3)]),
    row(RECIPIENT, "RFC 3463 section 3.3: X.2.1, X.2.2, X.2.4, the mailbox").x(&[(2, 1, 2), (2, 4, 4)]),
    row(CONTENT, "RFC 3463 section 3.4: X.3.3, X.3.4, more than the system can").x(&[(3, 3, 4)]),
    row(SERVER, "RFC 3463 section 3.4: X.3.1, X.3.2, X.3.5, the system").x(&[(3, 1, 2), (3, 5, 5)]),
    row(SERVER, "RFC 3463 section 3.4: 4.3.0, the system").codes(&[super::TRANSIENT]).x(&[(3, 0, 0)]),
    row(RECIPIENT, "RFC 3463 section 3.5: X.4.1, X.4.4, the way to the recipient's host").at(&[Recipient]).x(&[(4, 1, 1), (4, 4, 4)]),
    row(SERVER, "RFC 3463 section 3.5: X.4.0 to X.4.3, the network and the directory").x(&[(4, 0, 3)]),
    row(LIMIT, "RFC 3463 section 3.5: X.4.5, congestion; Google's daily limits").x(&[(4, 5, 5)]),
    row(CONTENT, "RFC 3463 section 3.5: X.4.6, X.4.7, a loop, or too old").x(&[(4, 6, 7)]),
    row(TOO_MANY, "RFC 3463 section 3.6: X.5.3, too many recipients").at(&[Recipient]).x(&[(5, 3, 3)]),
    row(CONTENT, "RFC 3463 section 3.7, RFC 6531: X.6, the content").at(&[Data, Accept]).x(&[(6, 0, 99)]),
    row(RECIPIENT, "RFC 6531 section 3.7.4.2: X.6.7, no such addresses here").at(&[Recipient]).x(&[(6, 7, 9)]),
    row(RECIPIENT, "RFC 3463 section 3.8, RFC 7293: X.7.2, X.7.17 to X.7.19, the mailing list, the mailbox's owner").x(&[(7, 2, 2), (7, 17, 19)]),
    row(RECIPIENT, "RFC 5248 section 2.4: X.7.13 at RCPT TO, the account is disabled").at(&[Recipient]).x(&[(7, 13, 13)]),
    row(ACCOUNT, "RFC 5248 section 2.4, RFC 4954 section 6: X.7.4, X.7.8 to X.7.14, credentials and encryption").x(&[(7, 4, 4), (7, 8, 14)]),
    row(CONTENT, "RFC 3463 section 3.8, RFC 6710: X.7.3, X.7.5 to X.7.7, X.7.15, X.7.16, the message").x(&[(7, 3, 3), (7, 5, 7), (7, 15, 16)]),
    row(SENDER, "RFC 7372, RFC 7505: X.7.20 to X.7.24, X.7.26, X.7.27, SPF, DKIM, no mail to the sender; Google: X.7.29 to X.7.32").x(&[(7, 20, 24), (7, 26, 27), (7, 30, 32)]),
    row(ACCOUNT, "RFC 7372 section 3.3, RFC 5248: X.7.25, X.7.28, the client's reverse DNS, a flood").x(&[(7, 25, 25), (7, 28, 28)]),
];
