//! Relay processes that are killed, suspended or lose their database. No mail is lost, and only mail that was in flight may be sent twice.
//!
//! Each test prints its counts and the seed of its random numbers. `POSTRIDER_SOAK=1` runs the long forms, and `POSTRIDER_SEED` repeats a
//! seed; the timing of the processes still differs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod application;
mod concurrent_relays;
mod database;
mod harness;
mod kill;
mod killed_connections;
mod long_transaction;
mod maintenance;
mod outage;
mod retention;
mod shop;
#[path = "../cli/smtp_server.rs"]
#[allow(dead_code, reason = "shared with the tests of the tool, which use all of it")]
mod smtp_server;
mod suspended_relay;
#[path = "../cli/tool.rs"]
#[allow(dead_code, reason = "shared with the tests of the tool, which use all of it")]
mod tool;
mod two_releases;

use std::fmt::Display;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rand::SeedableRng;
use rand::rngs::StdRng;

use database::{Database, Kind};

/// Generates a test for each fault on a database.
macro_rules! faults {
    ($kind:ident $attributes:tt $($fault:ident)*) => {
        $(faults!(@ $kind $attributes $fault);)*
    };
    (@ $kind:ident [$(#[$attribute:meta])?] $fault:ident) => {
        #[test]
        $(#[$attribute])?
        fn $fault() {
            let _alone = crate::one_at_a_time();
            let run = crate::Run::new(crate::Kind::$kind, stringify!($fault));
            crate::$fault::test(&run, crate::Database::new(crate::Kind::$kind));
        }
    };
}

mod sqlite {
    faults!(Sqlite [] kill concurrent_relays suspended_relay long_transaction retention two_releases);
}

mod postgres {
    faults!(Postgres [#[ignore = "needs PostgreSQL: run scripts/test"]] kill concurrent_relays suspended_relay killed_connections outage long_transaction retention two_releases);
}

mod mariadb {
    faults!(MariaDb [#[ignore = "needs MariaDB: run scripts/test"]] kill concurrent_relays suspended_relay killed_connections outage long_transaction retention two_releases);
}

mod mysql {
    faults!(MySql [#[ignore = "needs MySQL: run scripts/test"]] kill concurrent_relays suspended_relay killed_connections outage long_transaction retention two_releases);
}

/// Makes the tests run one after the other. Some crash the server that others use, and a relay that waits too long for a processor loses
/// its leases.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One run of one test.
struct Run {
    name: String,
    /// Whether this is the long form.
    soak: bool,
    seed: u64,
}

impl Run {
    fn new(kind: Kind, fault: &str) -> Self {
        let seed = std::env::var("POSTRIDER_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
        let run = Self { name: format!("{kind:?} {fault}"), soak: std::env::var_os("POSTRIDER_SOAK").is_some(), seed };
        run.print(format_args!("seed {seed}"));
        run
    }

    /// Random numbers from the seed.
    fn random(&self) -> StdRng {
        StdRng::seed_from_u64(self.seed)
    }

    fn count(&self, short: usize, soak: usize) -> usize {
        if self.soak { soak } else { short }
    }

    /// Writes to the terminal itself: libtest shows the output of failed tests only.
    fn print(&self, line: impl Display) {
        let mut terminal = std::io::stderr();
        writeln!(terminal, "{}: {line}", self.name).unwrap();
    }
}
