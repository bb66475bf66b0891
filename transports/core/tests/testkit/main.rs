//! The conformance suite accepts correct transports and finds each defect.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod combined;
mod defective;
mod defects;

/// The example in the documentation.
mod example {
    include!("../../src/testkit/example.rs");
}
