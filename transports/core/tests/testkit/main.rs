//! The conformance suite: that it passes what is right, and catches what is not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod combined;
mod defective;
mod defects;

/// The example of the manual.
mod example {
    include!("../../src/testkit/example.rs");
}
