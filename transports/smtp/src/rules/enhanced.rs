//! What enhanced codes mean (RFC 3463, and the registry of RFC 5248) if no words say more.

use super::row::{Row, TRANSIENT, row};
use super::verdict::{ACCOUNT, CONTENT, LIMIT, RECIPIENT, SENDER, SERVER, TOO_MANY_RECIPIENTS};
use crate::stage::Stage::{Accept, Data, Mail, Recipient};

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    row(SENDER, "RFC 3463 section 3.2: X.1.7, X.1.8, the sender's address").enhanced(&[(1, 7, 8)]),
    row(SENDER, "RFC 3463 section 3.2: X.1.0 at MAIL FROM").at(&[Mail]).enhanced(&[(1, 0, 0)]),
    row(RECIPIENT, "RFC 3463 section 3.2, RFC 5248, RFC 7505: X.1.1 to X.1.6, X.1.9, X.1.10, the recipient's address").enhanced(&[(1, 1, 6), (1, 9, 10)]),
    row(RECIPIENT, "RFC 3463 section 3.2: X.1.0 at RCPT TO").at(&[Recipient]).enhanced(&[(1, 0, 0)]),
    row(CONTENT, "RFC 3463 section 3.3: X.2.3, longer than the mailbox accepts").enhanced(&[(2, 3, 3)]),
    row(RECIPIENT, "RFC 3463 section 3.3: X.2.1, X.2.2, X.2.4, the mailbox").enhanced(&[(2, 1, 2), (2, 4, 4)]),
    row(CONTENT, "RFC 3463 section 3.4: X.3.3, X.3.4, beyond what the system supports").enhanced(&[(3, 3, 4)]),
    row(SERVER, "RFC 3463 section 3.4: X.3.1, X.3.2, X.3.5, the system").enhanced(&[(3, 1, 2), (3, 5, 5)]),
    row(SERVER, "RFC 3463 section 3.4: 4.3.0, the system").codes(&[TRANSIENT]).enhanced(&[(3, 0, 0)]),
    row(RECIPIENT, "RFC 3463 section 3.5: X.4.1, X.4.4, the route to the recipient's host").at(&[Recipient]).enhanced(&[(4, 1, 1), (4, 4, 4)]),
    row(SERVER, "RFC 3463 section 3.5: X.4.0 to X.4.3, the network and the directory").enhanced(&[(4, 0, 3)]),
    row(LIMIT, "RFC 3463 section 3.5: X.4.5, congestion; Google's daily limits").enhanced(&[(4, 5, 5)]),
    row(CONTENT, "RFC 3463 section 3.5: X.4.6, X.4.7, a loop, or expired").enhanced(&[(4, 6, 7)]),
    row(TOO_MANY_RECIPIENTS, "RFC 3463 section 3.6: X.5.3, too many recipients").at(&[Recipient]).enhanced(&[(5, 3, 3)]),
    row(CONTENT, "RFC 3463 section 3.7, RFC 6531: X.6, the content").at(&[Data, Accept]).enhanced(&[(6, 0, 99)]),
    row(RECIPIENT, "RFC 6531 section 3.7.4.2: X.6.7, addresses outside ASCII not supported").at(&[Recipient]).enhanced(&[(6, 7, 9)]),
    row(RECIPIENT, "RFC 3463 section 3.8, RFC 7293: X.7.2, X.7.17 to X.7.19, the mailing list, the mailbox's owner").enhanced(&[(7, 2, 2), (7, 17, 19)]),
    row(RECIPIENT, "RFC 5248 section 2.4: X.7.13 at RCPT TO, the account is disabled").at(&[Recipient]).enhanced(&[(7, 13, 13)]),
    row(ACCOUNT, "RFC 5248 section 2.4, RFC 4954 section 6: X.7.4, X.7.8 to X.7.14, credentials and encryption").enhanced(&[(7, 4, 4), (7, 8, 14)]),
    row(CONTENT, "RFC 3463 section 3.8, RFC 6710: X.7.3, X.7.5 to X.7.7, X.7.15, X.7.16, the message").enhanced(&[(7, 3, 3), (7, 5, 7), (7, 15, 16)]),
    row(SENDER, "RFC 7372, RFC 7505: X.7.20 to X.7.24, X.7.26, X.7.27, SPF, DKIM, no mail to the sender; Google: X.7.29 to X.7.32").enhanced(&[(7, 20, 24), (7, 26, 27), (7, 30, 32)]),
    row(ACCOUNT, "RFC 7372 section 3.3, RFC 5248: X.7.25, X.7.28, the client's reverse DNS, a flood").enhanced(&[(7, 25, 25), (7, 28, 28)]),
];
