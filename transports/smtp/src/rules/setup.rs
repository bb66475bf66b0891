//! Before a message is spoken of, nothing can be its fault; and some codes have one meaning at any stage.

use super::means::{ACCOUNT, SERVER};
use super::row::{Row, row};
use super::{PERMANENT, TRANSIENT};
use crate::error::Stage::{Auth, Connect, Greeting, Hello, Quit, Reset, StartTls};

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    // 554 is "no service here", and whoever is overloaded says it too.
    row(SERVER, "RFC 5321 section 3.1: the greeting").at(&[Connect, Greeting]),
    // Out of step: a new connection sets it right.
    row(SERVER, "RFC 5321 section 4.2.2: 503, bad sequence of commands").at(&[Hello, StartTls, Auth, Reset, Quit]).codes(&[(503, 503)]),
    row(SERVER, "RFC 5321 section 4.2.1, RFC 3207 section 4, RFC 4954 section 6").at(&[Hello, StartTls, Auth, Reset, Quit]).codes(&[TRANSIENT]),
    row(ACCOUNT, "RFC 5321 section 4.1.4, RFC 3207 section 4, RFC 4954 section 6").at(&[Hello, StartTls, Auth, Reset, Quit]).codes(&[PERMANENT]),

    // Encryption needed (RFC 5248), mechanism too weak, credentials invalid, encryption needed for the mechanism.
    row(ACCOUNT, "RFC 4954 section 6, RFC 5248 section 2.4: credentials and encryption").codes(&[(523, 523), (534, 535), (538, 538)]),
];
