//! What the outbox does on every database. Each test runs on SQLite, PostgreSQL 15 and 18, MariaDB and MySQL.
//!
//! These tests use an outbox. `tests/stores.rs` tests the stores alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![cfg_attr(not(any(feature = "postgres", feature = "mysql")), allow(dead_code, reason = "some tests need a server"))]

mod cancellation;
mod deletions;
mod insert;
mod keys;
mod malformed_rows;
mod operators;
mod pools;
mod relays;
mod servers;
#[path = "../support/mod.rs"]
mod support;
mod tables;
mod traces;
mod transactions;

/// The tests of every database.
macro_rules! database_tests {
    ($attributes:tt $database:expr) => {
        crate::support::tests_for! { $attributes $database;
            cancellation { a_dropped_call_leaves_no_transaction_open }
            insert {
                another_program_enqueues_with_one_statement
                many_rows_are_inserted_in_batches_and_in_order
                one_row_that_is_refused_refuses_all
            }
            keys {
                a_key_that_another_transaction_holds_is_waited_for
                keys_that_differ_in_one_character_differ
            }
            malformed_rows {
                a_malformed_mail_becomes_a_dead_letter
                malformed_values_stop_no_other_delivery
                queue_rows_without_a_mail_are_removed
                a_delivery_due_long_ago_is_counted_and_sent
                a_deleted_mail_takes_its_rows_along
            }
            operators {
                long_replies_are_written_and_survive_a_bulk_resend
                acts_of_a_newer_release_take_no_place_on_a_page
            }
            relays {
                a_pool_of_one_connection_is_enough
                a_relay_finds_a_commit_after_its_notification
                no_transaction_is_open_while_the_transport_is_called
            }
            tables {
                ten_processes_migrate_at_once
                plain_sql_makes_the_same_tables_as_migrate
                a_call_without_tables_fails_as_not_migrated
                a_closed_pool_fails_as_closed
                two_outboxes_are_separate
            }
            traces {
                a_traceparent_is_stored_as_its_header_and_goes_with_its_delivery
                an_invalid_traceparent_counts_as_none_and_stops_no_mail
            }
            transactions {
                mail_and_data_commit_or_roll_back_together
                a_spawned_task_enqueues_on_a_pooled_connection
            }
        }
        crate::support::tests_for! { multi_thread $attributes $database;
            deletions { deletions_at_once_count_each_delivery_once }
            operators { operators_beside_relays_and_callers_lose_and_repeat_nothing }
            relays { four_relays_send_each_mail_once_while_others_enqueue }
        }
    };
}

/// The tests of every database with a server.
#[cfg(any(feature = "postgres", feature = "mysql"))]
macro_rules! server_tests {
    ($attributes:tt $database:expr) => {
        database_tests!($attributes $database);
        crate::support::tests_for! { $attributes $database;
            pools { a_relay_keeps_its_connection_until_the_backlog_ends }
            servers {
                a_relay_reconnects_after_its_connections_are_killed
                a_connection_that_became_read_only_is_not_used_again
            }
        }
        crate::support::tests_for! { multi_thread $attributes $database;
            pools {
                a_pool_closes_under_a_busy_relay
                relays_that_share_a_pool_leave_each_other_connections
            }
        }
    };
}

mod sqlite {
    use crate::support::database::Sqlite;

    database_tests!([] Sqlite::new());
}

#[cfg(feature = "postgres")]
mod postgres_15 {
    use crate::support::database::Postgres;

    server_tests!([#[ignore = "needs PostgreSQL: run scripts/test"]] Postgres::new("PG"));
}

#[cfg(feature = "postgres")]
mod postgres_18 {
    use crate::support::database::Postgres;

    server_tests!([#[ignore = "needs PostgreSQL 18: run scripts/test"]] Postgres::new("PG18"));
}

#[cfg(feature = "mysql")]
mod mariadb {
    use crate::support::database::MySql;

    server_tests!([#[ignore = "needs MariaDB: run scripts/test"]] MySql::new("MARIADB"));
}

#[cfg(feature = "mysql")]
mod mysql {
    use crate::support::database::MySql;

    server_tests!([#[ignore = "needs MySQL: run scripts/test"]] MySql::new("MYSQL"));
}
