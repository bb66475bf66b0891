//! Bytes on disk for each mail: after it is sent, after its message is deleted, and after the tables are rewritten.

#![allow(clippy::expect_used, clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its figures")]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use postrider::{AdminStore, Attachment, Email, MySqlStore, Outbox, PgStore, Prune, SqliteStore, State, Store};
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use sqlx::AssertSqlSafe;
use support::figures::{Figures, write_json};
use support::noop::Noop;
use support::{Options, databases};

const KIB: usize = 1024;

/// The sizes of a mail: its text, HTML and a file of its own, such as an invoice.
const SIZES: [(&str, Parts); 3] = [
    ("1 KiB", Parts { text: KIB, html: 0, file: 0 }),
    ("10 KiB", Parts { text: 2 * KIB, html: 8 * KIB, file: 0 }),
    ("200 KiB", Parts { text: 2 * KIB, html: 8 * KIB, file: 190 * KIB }),
];

const LOGO: usize = 20 * KIB;

#[derive(Clone, Copy)]
struct Parts {
    text: usize,
    html: usize,
    file: usize,
}

#[tokio::main]
async fn main() {
    let options = Options::read();
    // One round is enough: the files are the same in each.
    let (mut sent, mut pruned, mut rewritten) = (Figures::default(), Figures::default(), Figures::default());
    for (size, parts) in SIZES {
        let full = if options.full { 100_000 } else { 10_000 };
        let count = options.count.unwrap_or(if parts.file > 0 { full / 10 } else { full });
        for (with, logo) in [("", 0), (" with a logo", LOGO)] {
            let mut add = |database: &str, octets: [u64; 3]| {
                let name = format!("{database}, {size}{with}");
                for (figures, octets) in [&mut sent, &mut pruned, &mut rewritten].into_iter().zip(octets) {
                    figures.add(&name, octets as f64 / count as f64);
                }
            };
            if options.wants("postgres") {
                let store = databases::pg_store(8).await;
                let empty = on_postgres(&store, false).await;
                send(&store, count, parts, logo).await;
                let after = on_postgres(&store, false).await;
                prune(&store, count).await;
                let pruned = on_postgres(&store, false).await;
                add("postgres", [after, pruned, on_postgres(&store, true).await].map(|octets| octets - empty));
            }
            if options.wants("mariadb") {
                let store = databases::mysql_store(8).await;
                let empty = on_mariadb(&store, false).await;
                send(&store, count, parts, logo).await;
                let after = on_mariadb(&store, false).await;
                prune(&store, count).await;
                let pruned = on_mariadb(&store, false).await;
                add("mariadb", [after, pruned, on_mariadb(&store, true).await].map(|octets| octets - empty));
            }
            if options.wants("sqlite") {
                let (store, _directory) = databases::sqlite_store(4).await;
                let empty = on_sqlite(&store, false).await;
                send(&store, count, parts, logo).await;
                let after = on_sqlite(&store, false).await;
                prune(&store, count).await;
                let pruned = on_sqlite(&store, false).await;
                add("sqlite", [after, pruned, on_sqlite(&store, true).await].map(|octets| octets - empty));
            }
        }
    }
    let tables = [
        ("sent", "Bytes for each mail that was sent", sent),
        ("pruned", "… after its message is deleted", pruned),
        ("rewritten", "… after the tables are rewritten", rewritten),
    ];
    for (_, title, figures) in &tables {
        figures.print(title, "bytes", "");
    }
    if let Some(path) = &options.json {
        write_json(path, &BTreeMap::from(tables.map(|(name, _, figures)| (name.to_owned(), figures))));
    }
}

/// Enqueues mails and sends them.
async fn send<S: Store>(store: &S, count: usize, parts: Parts, logo: usize) {
    let outbox = Outbox::new(store.clone(), Noop::default());
    let mut random = StdRng::seed_from_u64(18);
    let logo = (logo > 0).then(|| octets(&mut random, logo));
    let at_once = if parts.file > 0 { 50 } else { 500 };
    for first in (0..count).step_by(at_once) {
        let mails: Vec<Email> = (first..count.min(first + at_once))
            .map(|number| mail(&mut random, number, parts, logo.as_deref()))
            .collect();
        outbox.enqueue_all(mails).await.expect("the mails are enqueued");
    }
    let summary = outbox.relay().concurrency(256).drain().await.expect("the drain succeeds");
    assert_eq!(summary.sent, count as u64, "a mail was not sent");
}

/// Deletes the messages of all mails.
async fn prune<S: AdminStore>(store: &S, count: usize) {
    // A deletion affects only mails that ended before now.
    tokio::time::sleep(Duration::from_millis(10)).await;
    let messages = Prune::messages(Duration::ZERO).state(State::Sent);
    assert_eq!(store.prune(&messages).await.expect("the deletion succeeds"), count as u64, "a message was not deleted");
}

/// A mail with English words. Its file cannot be compressed, like a PDF.
fn mail(random: &mut StdRng, number: usize, parts: Parts, logo: Option<&[u8]>) -> Email {
    let mut builder = Email::builder()
        .from("Shop <orders@shop.example>")
        .to(format!("customer-{number}@example.org").as_str())
        .subject(format!("Order {number} has left our store"))
        .template_id("order")
        .text(words(random, parts.text));
    if parts.html > 0 || logo.is_some() {
        builder = builder.html(html(random, parts.html, logo.is_some()));
    }
    if let Some(logo) = logo {
        let logo = Attachment::inline("logo", "logo.png", "image/png", logo.to_vec()).expect("an inline part");
        builder = builder.attach(logo);
    }
    if parts.file > 0 {
        let file = octets(random, parts.file);
        builder = builder.attach(Attachment::new("invoice.pdf", "application/pdf", file).expect("an attachment"));
    }
    builder.build().expect("the mail is valid")
}

/// HTML as in real mail: paragraphs, with a style for each.
fn html(random: &mut StdRng, octets: usize, logo: bool) -> String {
    let mut html = "<html><body>".to_owned();
    if logo {
        html.push_str("<img src=\"cid:logo\">");
    }
    while html.len() < octets {
        html.push_str("<tr><td style=\"padding:8px 16px;font-family:Arial,sans-serif;font-size:14px;color:#333333\">");
        html.push_str(&words(random, 200));
        html.push_str("</td></tr>\n");
    }
    html + "</body></html>"
}

/// Frequent words in a random order. Their compression by `lz4` is much like that of English text.
fn words(random: &mut StdRng, octets: usize) -> String {
    const WORDS: &str = "the of and to in is you that it he was for on are as with his they at be this have from or one had by word but \
        not what all were we when your can said there use an each which she do how their if will up other about out many then them \
        these so some her would make like him into time has look two more write go see number no way could people my than first \
        water been call who oil its now find long down day did get come made may part delivery order invoice shipped parcel \
        customer address payment received tomorrow tracking warehouse discount return thank questions contact support amount \
        reference account balance statement service available within business days standard express";
    let all: Vec<&str> = WORDS.split_whitespace().collect();
    let mut text = String::with_capacity(octets + 16);
    while text.len() < octets {
        text.push_str(all[random.random_range(0..all.len())]);
        text.push(if random.random_ratio(1, 12) { '\n' } else { ' ' });
    }
    text
}

fn octets(random: &mut StdRng, length: usize) -> Vec<u8> {
    let mut octets = vec![0; length];
    random.fill_bytes(&mut octets);
    octets
}

/// The bytes of the tables and indexes, after what autovacuum does, or after the tables are rewritten.
async fn on_postgres(store: &PgStore, rewrite: bool) -> u64 {
    let vacuum = if rewrite { "VACUUM FULL" } else { "VACUUM ANALYZE" };
    sqlx::query(vacuum).execute(store.pool()).await.expect("VACUUM works");
    let text = "SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE n.nspname = 'postrider' AND c.relkind = 'r'";
    let octets: i64 = sqlx::query_scalar(text).fetch_one(store.pool()).await.expect("a size");
    octets.unsigned_abs()
}

/// The bytes of the tables' files.
async fn on_mariadb(store: &MySqlStore, rewrite: bool) -> u64 {
    databases::quiesce_mysql(store.pool()).await;
    if rewrite {
        let text = "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE'";
        let tables: Vec<String> = sqlx::query_scalar(text).fetch_all(store.pool()).await.expect("a list");
        let text = format!("OPTIMIZE TABLE {}", tables.join(", "));
        sqlx::raw_sql(AssertSqlSafe(text)).execute(store.pool()).await.expect("OPTIMIZE works");
    }
    let text = "SELECT CAST(SUM(file_size) AS SIGNED) FROM information_schema.innodb_sys_tablespaces
                WHERE name LIKE CONCAT(DATABASE(), '/%')";
    let octets: i64 = sqlx::query_scalar(text).fetch_one(store.pool()).await.expect("a size");
    octets.unsigned_abs()
}

/// The bytes of the database's file, with an empty WAL.
async fn on_sqlite(store: &SqliteStore, rewrite: bool) -> u64 {
    if rewrite {
        sqlx::raw_sql("VACUUM").execute(store.pool()).await.expect("VACUUM works");
    }
    databases::quiesce_sqlite(store.pool()).await;
    let text = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()";
    let octets: i64 = sqlx::query_scalar(text).fetch_one(store.pool()).await.expect("a size");
    octets.unsigned_abs()
}
