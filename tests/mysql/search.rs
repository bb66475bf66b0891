//! How many rows a search reads.

use std::time::SystemTime;

use postrider::{AdminStore, DeliveryId, Filter, MySqlStore, State};
use uuid::Uuid;

use crate::reads::rows_read;
use crate::support::database::{Database, MySql, unique_prefix};
use crate::{pool, run};

/// In both orders, a search reads rows in the order of the page and stops, however many deliveries meet the conditions.
pub(crate) async fn a_search_reads_no_more_than_a_page(server: MySql) {
    let prefix = unique_prefix();
    // One connection, whose counters show what was read.
    let pool = pool(server.options(), 1).await;
    let store = MySqlStore::with_table_prefix(pool.clone(), &prefix).unwrap();
    store.migrate().await.unwrap();
    // The newest thousand are pending. Of the others, every five hundredth is dead, and the rest was sent.
    let fill = format!(
        "INSERT INTO {prefix}deliveries (id, created_at, format, body, recipients, `key`)
         WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 100)
         SELECT UNHEX(LPAD(HEX(a.n * 100 + b.n), 32, '0')), 1000, 'email/1', '{{}}', '[\"Ada@example.com\", \"bob@example.org\"]',
                CONCAT('key ', a.n * 100 + b.n) FROM n a, n b;
         DELETE FROM {prefix}queue WHERE delivery_id <= UNHEX(LPAD(HEX(9100), 32, '0'));
         INSERT INTO {prefix}attempts (delivery_id, number, cycle, token, started_at, finished_at, outcome, provider_id)
         SELECT id, seq, 1, seq, 1000, 1000, 'transient', CONCAT('id-', `key`) FROM {prefix}deliveries, (SELECT 1 AS seq UNION SELECT 2) two
         WHERE id <= UNHEX(LPAD(HEX(9100), 32, '0'));
         INSERT INTO {prefix}ended (delivery_id, state, reason, ended_at, token, attempts, cycle)
         SELECT id, 'dead', NULL, 1000, 2, 2, 1 FROM {prefix}deliveries
         WHERE id <= UNHEX(LPAD(HEX(9100), 32, '0')) AND (`key` LIKE 'key %000' OR `key` LIKE 'key %500');
         ANALYZE TABLE {prefix}deliveries, {prefix}attempts, {prefix}ended, {prefix}queue, {prefix}recipients"
    );
    run(&pool, &fill).await;
    let middle = DeliveryId::from(Uuid::from_u128(5_000));
    let all = || Filter::new().limit(5);
    for (filter, found) in [
        (all(), 5),
        (all().after(middle), 5),
        (all().recipient("ADA@example.com"), 5),
        (all().recipient("bob@example.org"), 5),
        (all().recipient("bob@example.org").after(middle), 5),
        (all().recipient("nobody@example.org"), 0),
        (all().recipient("@example.net"), 0),
        (all().key("key 5000"), 1),
        (all().key("key 5000").state(State::Dead).recipient("bob@example.org"), 1),
        (all().provider_id("id-key 5000"), 1),
        (all().provider_id("id-key 5000").recipient("ada@example.com").state(State::Dead), 1),
        (all().state(State::Dead), 5),
        (all().state(State::Dead).after(middle), 5),
        (all().state(State::Dead).recipient("@example.org"), 5),
        (all().state(State::Pending), 5),
        (all().state(State::Sent), 5),
        (all().finished_from(SystemTime::UNIX_EPOCH), 5),
    ] {
        for filter in [filter.clone(), filter.newest_first()] {
            run(&pool, "FLUSH STATUS").await;
            assert_eq!(store.list(&filter).await.unwrap().len(), found, "{filter:?}");
            let rows = rows_read(&pool).await;
            assert!(rows < 300, "{filter:?}: {rows} rows read");
        }
    }
}
