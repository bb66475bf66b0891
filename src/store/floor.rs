//! Where claims left off, while there is more due than each of them takes.
//!
//! What is settled leaves dead entries at the front of the index of what is due. A transaction that somebody holds open keeps the
//! database from clearing them away, and each claim would then walk over all that was sent since.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// So many claims in a row must have been full before the next one begins where the last ended: there is a backlog.
const STREAK: u32 = 8;

/// How long before a claim looks from the beginning again, where late commits, lost leases and what others gave back are found.
const WHILE: Duration = Duration::from_secs(1);

/// For each priority, by its number, the place from which to look; `None` is the beginning.
pub(crate) type Floor<P> = [Option<P>; 10];

/// The floors of one store. A place is whatever its index puts a priority's deliveries in order by: when they are due, first of all.
#[derive(Debug)]
pub(crate) struct Floors<P>(Mutex<Backlog<P>>);

#[derive(Debug)]
struct Backlog<P> {
    full_claims: u32,
    looked_at_all: Option<Instant>,
    reached: Floor<P>,
}

impl<P> Default for Backlog<P> {
    fn default() -> Self {
        Self { full_claims: 0, looked_at_all: None, reached: Floor::default() }
    }
}

impl<P> Default for Floors<P> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<P: Ord + Copy> Floors<P> {
    fn backlog(&self) -> MutexGuard<'_, Backlog<P>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From where the next claim is to look.
    pub(crate) fn next(&self, now: Instant) -> Floor<P> {
        let mut backlog = self.backlog();
        let fresh = backlog.looked_at_all.is_some_and(|then| now.saturating_duration_since(then) < WHILE);
        if backlog.full_claims >= STREAK && fresh {
            return backlog.reached;
        }
        backlog.looked_at_all = Some(now);
        backlog.reached = Floor::default();
        backlog.reached
    }

    /// Notes what a claim took: for each row its priority and its place.
    pub(crate) fn took(&self, full: bool, rows: impl IntoIterator<Item = (i64, P)>) {
        let mut backlog = self.backlog();
        if !full {
            *backlog = Backlog::default();
            return;
        }
        backlog.full_claims = backlog.full_claims.saturating_add(1);
        for (priority, place) in rows {
            let reached = usize::try_from(priority).ok().and_then(|priority| backlog.reached.get_mut(priority));
            if let Some(reached) = reached {
                *reached = (*reached).max(Some(place));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_backlog_is_taken_up_where_it_was_left_and_only_for_a_while() {
        let (floors, start) = (Floors::default(), Instant::now());
        for due_at in 1..=i64::from(STREAK) {
            assert_eq!(floors.next(start), Floor::default());
            floors.took(true, [(5, due_at), (9, 0)]);
        }
        let reached = floors.next(start);
        assert_eq!((reached[5], reached[9], reached[0]), (Some(8), Some(0), None));
        assert_eq!(floors.next(start + WHILE), Floor::default(), "all is looked at now and then");
        floors.took(true, [(5, 3)]);
        assert_eq!(floors.next(start + WHILE)[5], Some(3), "what was found at the beginning is where to go on");
        floors.took(false, [(5, 4)]);
        assert_eq!(floors.next(start + WHILE), Floor::default(), "the backlog is at its end");
    }
}
