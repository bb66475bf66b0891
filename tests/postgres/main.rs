//! What only PostgreSQL has, on version 15 and on version 18. `tests/databases` has the behaviours of every database.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod blobs;
mod contract;
mod encodings;
mod faults;
mod notifications;
mod plans;
mod pooler;
mod rights;
#[path = "../support/mod.rs"]
mod support;
mod transactions;

use postrider::testkit::ScriptedTransport;
use postrider::{Email, Outbox, PgStore};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgPool;

use support::database::{Harness, Postgres};

type TestOutbox = Outbox<PgStore, ScriptedTransport<Email>>;

macro_rules! postgres_tests {
    ($attributes:tt $database:expr) => {
        crate::support::tests_for! { $attributes $database;
            blobs { a_blob_of_another_transaction_is_not_swept_before_it_is_used }
            contract {
                the_insert_trigger_names_the_rule_that_a_row_breaks
                the_function_names_what_is_wrong_with_a_mail
                emptying_the_table_of_mails_empties_the_outbox
            }
            encodings {
                a_text_that_is_not_utf_8_becomes_a_dead_letter
                a_database_in_another_encoding_is_refused_in_one_line
            }
            faults {
                a_call_that_meets_a_conflict_is_made_again
                the_server_ends_a_call_that_takes_too_long
                a_dropped_call_is_never_committed
                the_error_says_why_there_is_no_connection
                a_key_of_an_invisible_row_refuses_all_rows
            }
            notifications {
                a_commit_wakes_a_relay_in_another_process
                at_most_fifty_notifications_are_sent_each_second
                a_relay_listens_again_after_its_connections_are_killed
            }
            plans {
                a_claim_skips_deliveries_that_are_not_due
                a_claim_does_not_sort_the_backlog_before_the_first_analyze
                a_claim_does_not_sort_the_backlog_after_an_old_analyze
                a_long_transaction_does_not_make_claims_walk_over_sent_deliveries
                plans_made_over_an_empty_queue_do_not_stay
                renewing_and_settling_read_rows_by_key
                a_search_passes_over_a_backlog
                a_long_mail_is_compressed_with_lz4_if_the_server_has_it
            }
            pooler { an_outbox_works_behind_a_pooler_in_transaction_mode }
            rights {
                a_stranger_cannot_use_the_insert_trigger
                the_owner_of_a_schema_needs_no_right_to_create_one
                the_right_to_delete_a_mail_is_enough_to_forget_it
                a_program_that_enqueues_needs_few_rights
                the_rights_of_the_manual_are_enough
            }
            transactions {
                a_failed_transaction_that_is_committed_leaves_no_mail
                a_serialization_failure_leaves_no_mail
                schema_names_that_need_quotes_are_refused
            }
        }
    };
}

mod postgres_15 {
    postgres_tests!([#[ignore = "needs PostgreSQL: run scripts/test"]] crate::Postgres::new("PG"));
}

mod postgres_18 {
    postgres_tests!([#[ignore = "needs PostgreSQL 18: run scripts/test"]] crate::Postgres::new("PG18"));
}

/// An outbox in a schema of its own: the schema's name, the pool and the outbox.
async fn outbox(server: &Postgres) -> (String, PgPool, TestOutbox) {
    let Harness { database, pool, outbox } = Harness::new(server.clone()).await;
    (database.schema.to_string(), pool, outbox)
}

async fn run(pool: &PgPool, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(pool).await.unwrap();
}
