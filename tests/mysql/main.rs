//! What only MariaDB and MySQL have. `tests/databases` has the behaviours of every database.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod blobs;
mod connections;
mod counters;
mod plain_sql;
mod reads;
mod rights;
mod search;
mod sessions;
#[path = "../support/mod.rs"]
mod support;
mod tables;
mod transactions;

use postrider::store::{Lease, Next, Settlement};
use postrider::testkit::ScriptedTransport;
use postrider::{Attempt, Email, MySqlStore, Outbox, Outcome};
use sqlx::AssertSqlSafe;
use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions};

use support::database::{Harness, MySql};

type TestOutbox = Outbox<MySqlStore, ScriptedTransport<Email>>;

macro_rules! mysql_tests {
    ($attributes:tt $database:expr) => {
        crate::support::tests_for! { $attributes $database;
            connections {
                a_call_whose_connection_is_killed_writes_nothing
                an_operators_call_is_repeated_after_a_deadlock
                dropped_calls_hold_no_rows
            }
            blobs {
                a_blob_is_stored_once
                a_blob_is_locked_while_it_is_enqueued
                transactions_with_new_blobs_do_not_deadlock
                a_blob_that_was_deleted_meanwhile_is_stored_again
                a_message_without_its_parts_is_malformed
                a_sweep_passes_over_blobs_in_use
            }
            counters {
                a_deletion_in_plain_sql_is_counted
                settlements_on_many_connections_are_counted_once
                the_views_show_what_the_tool_shows
            }
            plain_sql {
                an_insert_gets_subject_tags_and_recipients
                an_insert_that_breaks_a_rule_is_refused_with_the_name_of_the_column
                indexes_find_recipients_and_provider_ids
                truncating_the_deliveries_alone_leaves_history_and_totals
            }
            reads {
                a_claim_skips_deliveries_that_are_not_due
                pruning_reads_the_history_once
                claims_beside_commits_take_each_delivery_once
            }
            search { a_search_reads_no_more_than_a_page }
            rights { an_error_names_the_missing_right_and_few_rights_are_enough }
            sessions {
                every_statement_works_in_every_default_character_set
                every_statement_works_in_every_sql_mode
                time_zones_and_modes_change_no_text_and_no_time
            }
            tables {
                an_interrupted_migration_continues_and_loses_no_mail
                table_prefixes_that_need_quotes_are_refused
            }
            transactions {
                the_victim_of_a_deadlock_leaves_no_mail
                a_key_taken_after_the_snapshot_is_found
                a_key_that_a_strict_snapshot_hides_is_a_conflict
                the_callers_isolation_level_is_kept
            }
        }
    };
}

mod mariadb {
    mysql_tests!([#[ignore = "needs MariaDB: run scripts/test"]] crate::MySql::new("MARIADB"));
}

mod mysql {
    mysql_tests!([#[ignore = "needs MySQL: run scripts/test"]] crate::MySql::new("MYSQL"));
}

async fn pool(options: MySqlConnectOptions, connections: u32) -> MySqlPool {
    MySqlPoolOptions::new().max_connections(connections).connect_with(options).await.unwrap()
}

/// An outbox with a prefix of its own: the prefix, the pool and the outbox.
async fn outbox(server: &MySql) -> (String, MySqlPool, TestOutbox) {
    let Harness { database, pool, outbox } = Harness::new(server.clone()).await;
    (database.prefix.to_string(), pool, outbox)
}

async fn run(pool: &MySqlPool, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(pool).await.unwrap();
}

async fn scalar(pool: &MySqlPool, sql: String) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(pool).await.unwrap()
}

/// A settlement after a permanent failure, with this text as the error, the reply and the transport.
fn failed(lease: &Lease, text: &str, next: Next) -> Settlement {
    let mut attempt = Attempt::new(lease.attempts + 1, 1, lease.claimed_at, lease.claimed_at, Outcome::Permanent);
    attempt.error = Some(text.to_owned());
    attempt.reply = Some(text.to_owned());
    attempt.transport = Some(text.to_owned());
    Settlement::new(lease.key, lease.charged_attempts + 1, next).with_attempt(attempt)
}
