//! Relays that die, stall or lose their database lose no mail, and send no more twice than they had in their hands.
//!
//! `POSTRIDER_SOAK=1` runs the long forms; `POSTRIDER_SEED` repeats the moments of a run as nearly as that is possible. What was
//! counted is printed in any case.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod database;
mod kill;
mod long_transaction;
mod many;
mod outage;
mod program;
mod scene;
#[path = "../cli/server.rs"]
#[allow(dead_code, reason = "shared with the tests of the tool, which use all of it")]
mod server;
mod severed;
mod stopped;
#[path = "../cli/tool.rs"]
#[allow(dead_code, reason = "shared with the tests of the tool, which use all of it")]
mod tool;

use std::fmt::Display;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rand::SeedableRng;
use rand::rngs::StdRng;

use database::{Database, Kind};

/// A test for each fault that a database can meet.
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
    faults!(Sqlite [] kill many stopped long_transaction);
}

mod postgres {
    faults!(Postgres [#[ignore = "needs PostgreSQL: run scripts/test"]] kill many stopped severed outage long_transaction);
}

mod mariadb {
    faults!(MariaDb [#[ignore = "needs MariaDB: run scripts/test"]] kill many stopped severed outage long_transaction);
}

mod mysql {
    faults!(MySql [#[ignore = "needs MySQL: run scripts/test"]] kill many stopped severed outage long_transaction);
}

/// Some end the server that others use, and each wants the machine to itself: a relay that is kept from running loses its leases.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One run of one test: how long it is to be, its chances, and what it prints.
struct Run {
    name: String,
    soak: bool,
    seed: u64,
}

impl Run {
    fn new(kind: Kind, fault: &str) -> Self {
        let seed = std::env::var("POSTRIDER_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
        let run = Self { name: format!("{kind:?} {fault}"), soak: std::env::var_os("POSTRIDER_SOAK").is_some(), seed };
        run.say(format_args!("seed {seed}"));
        run
    }

    fn random(&self) -> StdRng {
        StdRng::seed_from_u64(self.seed)
    }

    fn count(&self, short: usize, soak: usize) -> usize {
        if self.soak { soak } else { short }
    }

    /// Past libtest, which keeps what a test prints to itself unless it fails.
    fn say(&self, what: impl Display) {
        let mut terminal = std::io::stderr();
        writeln!(terminal, "{}: {what}", self.name).unwrap();
    }
}
