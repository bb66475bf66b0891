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

/// Where one claim is to look.
#[derive(Debug)]
pub(crate) struct Look<P> {
    pub(crate) floor: Floor<P>,
    /// Which reset it came after. A claim that began before the last one must not put the old floor back.
    resets: u64,
}

#[derive(Debug)]
struct Backlog<P> {
    full_claims: u32,
    looked_at_all: Option<Instant>,
    reached: Floor<P>,
    resets: u64,
}

impl<P: Copy> Backlog<P> {
    fn reset(&mut self) {
        self.reached = Floor::default();
        self.resets += 1;
    }

    fn look(&self) -> Look<P> {
        Look { floor: self.reached, resets: self.resets }
    }
}

impl<P> Default for Floors<P> {
    fn default() -> Self {
        Self(Mutex::new(Backlog { full_claims: 0, looked_at_all: None, reached: Floor::default(), resets: 0 }))
    }
}

impl<P: Ord + Copy> Floors<P> {
    fn backlog(&self) -> MutexGuard<'_, Backlog<P>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From where the next claim is to look.
    pub(crate) fn next(&self, now: Instant) -> Look<P> {
        let backlog = self.backlog();
        let fresh = backlog.looked_at_all.is_some_and(|then| now.saturating_duration_since(then) < WHILE);
        if backlog.full_claims >= STREAK && fresh {
            return backlog.look();
        }
        drop(backlog);
        self.beginning(now)
    }

    /// From the beginning, where a claim from the floor found nothing.
    pub(crate) fn beginning(&self, now: Instant) -> Look<P> {
        let mut backlog = self.backlog();
        backlog.looked_at_all = Some(now);
        backlog.reset();
        backlog.look()
    }

    /// Notes what a claim took: for each row its priority and its place.
    pub(crate) fn took(&self, look: &Look<P>, full: bool, rows: impl IntoIterator<Item = (i64, P)>) {
        let mut backlog = self.backlog();
        if !full {
            backlog.full_claims = 0;
            backlog.reset();
            return;
        }
        backlog.full_claims = backlog.full_claims.saturating_add(1);
        if look.resets != backlog.resets {
            return;
        }
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

    /// Floors after a streak of full claims, the last of which reached 8.
    fn in_a_backlog(start: Instant) -> Floors<i64> {
        let floors = Floors::default();
        for place in 1..=i64::from(STREAK) {
            let look = floors.next(start);
            assert_eq!(look.floor, Floor::default());
            floors.took(&look, true, [(5, place), (9, 0)]);
        }
        floors
    }

    #[test]
    fn only_a_backlog_is_taken_up_where_it_was_left_and_only_for_a_while() {
        let start = Instant::now();
        let floors = in_a_backlog(start);
        let floor = floors.next(start).floor;
        assert_eq!((floor[5], floor[9], floor[0]), (Some(8), Some(0), None));
        let look = floors.next(start + WHILE);
        assert_eq!(look.floor, Floor::default(), "all is looked at now and then");
        floors.took(&look, true, [(5, 3)]);
        let look = floors.next(start + WHILE);
        assert_eq!(look.floor[5], Some(3), "what was found at the beginning is where to go on");
        floors.took(&look, false, [(5, 4)]);
        assert_eq!(floors.next(start + WHILE).floor, Floor::default(), "the backlog is at its end");
    }

    #[test]
    fn a_claim_that_was_under_way_does_not_put_the_old_floor_back() {
        let start = Instant::now();
        let floors = in_a_backlog(start);
        let old = floors.next(start);
        let new = floors.next(start + WHILE);
        floors.took(&old, true, [(5, 9)]);
        floors.took(&new, true, [(5, 1)]);
        assert_eq!(floors.next(start + WHILE).floor[5], Some(1), "what lies between is not passed by");
    }

    #[test]
    fn where_the_floor_had_nothing_the_next_claim_goes_on_from_what_the_beginning_had() {
        let start = Instant::now();
        let floors = in_a_backlog(start);
        assert_eq!(floors.next(start).floor[5], Some(8));
        let look = floors.beginning(start);
        floors.took(&look, true, [(5, 2)]);
        assert_eq!(floors.next(start).floor[5], Some(2));
    }
}
