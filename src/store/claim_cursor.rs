//! The claim cursor: while there is a backlog, a claim begins where the last one ended.
//!
//! A settled delivery leaves a dead entry at the front of the index by due time. While any transaction is open, the database cannot remove
//! these entries, and without a cursor each claim would read all of them again.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// There is a backlog once this many claims in a row were full.
const STREAK: u32 = 8;

/// After this time a claim begins at the front again, to find late commits, expired leases and released deliveries.
const REWIND_AFTER: Duration = Duration::from_secs(1);

/// For each priority, the place in the index to begin at. `None` is the front.
pub(crate) type ClaimCursor<P> = [Option<P>; 10];

/// The cursor of one store. A place `P` is what the store's index orders a priority's deliveries by, beginning with the due time.
#[derive(Debug)]
pub(crate) struct ClaimCursors<P>(Mutex<Backlog<P>>);

/// Where one claim begins.
#[derive(Debug)]
pub(crate) struct Look<P> {
    pub(crate) cursor: ClaimCursor<P>,
    /// The number of resets before this claim. A claim that began before the last reset must not restore the old cursor.
    resets: u64,
}

#[derive(Debug)]
struct Backlog<P> {
    full_claims: u32,
    looked_at_all: Option<Instant>,
    reached: ClaimCursor<P>,
    resets: u64,
}

impl<P: Copy> Backlog<P> {
    fn reset(&mut self) {
        self.reached = ClaimCursor::default();
        self.resets += 1;
    }

    fn look(&self) -> Look<P> {
        Look { cursor: self.reached, resets: self.resets }
    }
}

impl<P> Default for ClaimCursors<P> {
    fn default() -> Self {
        Self(Mutex::new(Backlog { full_claims: 0, looked_at_all: None, reached: ClaimCursor::default(), resets: 0 }))
    }
}

impl<P: Ord + Copy> ClaimCursors<P> {
    fn backlog(&self) -> MutexGuard<'_, Backlog<P>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the next claim begins.
    pub(crate) fn next(&self, now: Instant) -> Look<P> {
        let backlog = self.backlog();
        let fresh = backlog.looked_at_all.is_some_and(|then| now.saturating_duration_since(then) < REWIND_AFTER);
        if backlog.full_claims >= STREAK && fresh {
            return backlog.look();
        }
        drop(backlog);
        self.beginning(now)
    }

    /// Moves the cursor to the front, after a claim found nothing behind it.
    pub(crate) fn beginning(&self, now: Instant) -> Look<P> {
        let mut backlog = self.backlog();
        backlog.looked_at_all = Some(now);
        backlog.reset();
        backlog.look()
    }

    /// Moves the cursor behind the rows of a claim. `rows` has the priority and the place of each.
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

    /// ClaimCursors after a streak of full claims, the last of which reached 8.
    fn in_a_backlog(start: Instant) -> ClaimCursors<i64> {
        let cursors = ClaimCursors::default();
        for place in 1..=i64::from(STREAK) {
            let look = cursors.next(start);
            assert_eq!(look.cursor, ClaimCursor::default());
            cursors.took(&look, true, [(5, place), (9, 0)]);
        }
        cursors
    }

    #[test]
    fn only_a_backlog_is_taken_up_where_it_was_left_and_only_for_a_while() {
        let start = Instant::now();
        let cursors = in_a_backlog(start);
        let cursor = cursors.next(start).cursor;
        assert_eq!((cursor[5], cursor[9], cursor[0]), (Some(8), Some(0), None));
        let look = cursors.next(start + REWIND_AFTER);
        assert_eq!(look.cursor, ClaimCursor::default(), "all is looked at now and then");
        cursors.took(&look, true, [(5, 3)]);
        let look = cursors.next(start + REWIND_AFTER);
        assert_eq!(look.cursor[5], Some(3), "what was found at the beginning is where to go on");
        cursors.took(&look, false, [(5, 4)]);
        assert_eq!(cursors.next(start + REWIND_AFTER).cursor, ClaimCursor::default(), "the backlog is at its end");
    }

    #[test]
    fn a_claim_that_was_under_way_does_not_restore_the_old_cursor() {
        let start = Instant::now();
        let cursors = in_a_backlog(start);
        let old = cursors.next(start);
        let new = cursors.next(start + REWIND_AFTER);
        cursors.took(&old, true, [(5, 9)]);
        cursors.took(&new, true, [(5, 1)]);
        assert_eq!(cursors.next(start + REWIND_AFTER).cursor[5], Some(1), "what lies between is not passed by");
    }

    #[test]
    fn after_a_claim_that_found_nothing_the_cursor_goes_on_from_the_front() {
        let start = Instant::now();
        let cursors = in_a_backlog(start);
        assert_eq!(cursors.next(start).cursor[5], Some(8));
        let look = cursors.beginning(start);
        cursors.took(&look, true, [(5, 2)]);
        assert_eq!(cursors.next(start).cursor[5], Some(2));
    }
}
