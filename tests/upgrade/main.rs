//! Upgrades of the tables: with what an older release stored, and while relays work.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![cfg_attr(not(any(feature = "postgres", feature = "mysql")), allow(dead_code, reason = "some tests need a server"))]

mod added;
mod dump;
mod erased;
mod frozen;
#[cfg(feature = "mysql")]
mod interrupted;
mod live;
mod stored;
#[path = "../support/mod.rs"]
mod support;
mod version_1;
#[cfg(feature = "postgres")]
mod version_2;

/// The tests of every database.
macro_rules! upgrade_tests {
    ($attributes:tt $database:expr) => {
        crate::support::tests_for! { $attributes $database;
            added {
                a_database_of_a_newer_release_is_refused
                statements_prepared_before_an_upgrade_work_after_it
                the_statements_from_a_version_on_upgrade_it
            }
            version_1 { what_version_1_stored_is_kept_and_sent }
        }
        crate::support::tests_for! { multi_thread $attributes $database;
            live { relays_work_while_two_processes_upgrade }
        }
    };
}

mod sqlite {
    use crate::support::database::Sqlite;

    upgrade_tests!([] Sqlite::new());
    crate::support::tests_for! { [] Sqlite::new(); erased { a_dump_after_an_erasure_does_not_name_the_person } }
}

/// The tests of every database with a server.
#[cfg(any(feature = "postgres", feature = "mysql"))]
macro_rules! server_tests {
    ($attributes:tt $database:expr) => {
        upgrade_tests!($attributes $database);
        crate::support::tests_for! { multi_thread $attributes $database;
            live { other_calls_continue_while_an_upgrade_waits }
        }
    };
}

#[cfg(feature = "postgres")]
mod postgres_15 {
    use crate::support::database::Postgres;

    server_tests!([#[ignore = "needs PostgreSQL: run scripts/test"]] Postgres::new("PG"));
    crate::support::tests_for! { [#[ignore = "needs PostgreSQL: run scripts/test"]] Postgres::new("PG");
        erased { a_dump_after_an_erasure_does_not_name_the_person }
        version_2 { roles_that_enqueue_need_no_new_right }
    }
    crate::support::tests_for! { multi_thread [#[ignore = "needs PostgreSQL: run scripts/test"]] Postgres::new("PG");
        version_2 { no_call_fails_while_the_functions_are_replaced }
    }
}

#[cfg(feature = "postgres")]
mod postgres_18 {
    use crate::support::database::Postgres;

    server_tests!([#[ignore = "needs PostgreSQL 18: run scripts/test"]] Postgres::new("PG18"));
    crate::support::tests_for! { [#[ignore = "needs PostgreSQL 18: run scripts/test"]] Postgres::new("PG18");
        version_2 { roles_that_enqueue_need_no_new_right }
    }
    crate::support::tests_for! { multi_thread [#[ignore = "needs PostgreSQL 18: run scripts/test"]] Postgres::new("PG18");
        version_2 { no_call_fails_while_the_functions_are_replaced }
    }
}

#[cfg(feature = "mysql")]
mod mariadb {
    use crate::support::database::MySql;

    server_tests!([#[ignore = "needs MariaDB: run scripts/test"]] MySql::new("MARIADB"));
    crate::support::tests_for! { [#[ignore = "needs MariaDB: run scripts/test"]] MySql::new("MARIADB");
        interrupted { an_upgrade_that_was_interrupted_continues }
        erased { a_dump_after_an_erasure_does_not_name_the_person }
    }
}

#[cfg(feature = "mysql")]
mod mysql {
    use crate::support::database::MySql;

    server_tests!([#[ignore = "needs MySQL: run scripts/test"]] MySql::new("MYSQL"));
    crate::support::tests_for! { [#[ignore = "needs MySQL: run scripts/test"]] MySql::new("MYSQL");
        interrupted { an_upgrade_that_was_interrupted_continues }
    }
}
