//! Random numbers for the jitter of waits.

#[cfg(feature = "testkit")]
use std::sync::{Mutex, PoisonError};

#[cfg(feature = "testkit")]
use rand::{RngExt, SeedableRng, rngs::StdRng};

/// A source of random numbers: the operating system's, or a generator that a test has seeded.
#[derive(Debug, Default)]
pub(super) struct Jitter {
    #[cfg(feature = "testkit")]
    seeded: Option<Mutex<StdRng>>,
}

impl Jitter {
    #[cfg(feature = "testkit")]
    pub(super) fn seeded(seed: u64) -> Self {
        Self { seeded: Some(Mutex::new(StdRng::seed_from_u64(seed))) }
    }

    /// Returns a number from -1 to 1.
    pub(super) fn draw(&self) -> f64 {
        #[cfg(feature = "testkit")]
        if let Some(seeded) = &self.seeded {
            return seeded.lock().unwrap_or_else(PoisonError::into_inner).random_range(-1.0..=1.0);
        }
        rand::random_range(-1.0..=1.0)
    }
}
