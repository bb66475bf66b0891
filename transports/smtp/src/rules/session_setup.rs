//! Refusals before a mail transaction, which no message can cause, and codes with one meaning at any stage.

use super::row::{PERMANENT, Row, TRANSIENT, row};
use super::verdict::{ACCOUNT, SERVER};
use crate::stage::Stage::{Auth, Connect, Greeting, Hello, Quit, Reset, StartTls};

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    // 554 means "no SMTP service here", but overloaded servers send it too.
    row(SERVER, "RFC 5321 section 3.1: the greeting").at(&[Connect, Greeting]),
    // A new connection brings both sides in sync.
    row(SERVER, "RFC 5321 section 4.2.2: 503, bad sequence of commands").at(&[Hello, StartTls, Auth, Reset, Quit]).codes(&[(503, 503)]),
    row(SERVER, "RFC 5321 section 4.2.1, RFC 3207 section 4, RFC 4954 section 6").at(&[Hello, StartTls, Auth, Reset, Quit]).codes(&[TRANSIENT]),
    row(ACCOUNT, "RFC 5321 section 4.1.4, RFC 3207 section 4, RFC 4954 section 6").at(&[Hello, StartTls, Auth, Reset, Quit]).codes(&[PERMANENT]),

    // 523 encryption needed (RFC 5248), 534 mechanism too weak, 535 credentials invalid, 538 encryption needed for the mechanism.
    row(ACCOUNT, "RFC 4954 section 6, RFC 5248 section 2.4: credentials and encryption").codes(&[(523, 523), (534, 535), (538, 538)]),
];
