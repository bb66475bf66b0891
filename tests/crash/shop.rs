//! An application for the retention test: its mails share large attachments, in transactions that commit, roll back or lose their connection.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use postrider::{Attachment, DeliveryId, Email, NewDelivery, Outbox};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt, SeedableRng};
use sqlx::{AssertSqlSafe, Connection};

use crate::database::{Database, Kind, Pool, on_store};

/// The recipient of mails that the next hop refuses permanently.
pub(crate) const REFUSED: &str = "nobody@example.com";
/// The recipient of mails that are scheduled and cancelled.
pub(crate) const LATER: &str = "later@example.com";

/// The number of shared attachments.
pub(crate) const BLOBS: usize = 40;

/// The index of a random shared attachment. A few are in many mails. Each of the others is often in no mail, and is then deleted even
/// while the backlog is long.
pub(crate) fn random_blob(random: &mut StdRng) -> usize {
    if random.random_bool(0.2) { random.random_range(6..BLOBS) } else { random.random_range(0..6) }
}

/// The octets of a shared attachment, all values among them.
pub(crate) fn blob(number: usize) -> Vec<u8> {
    // From 4 KiB on, the outbox stores a blob once.
    let mut octets = vec![0; 4_096 + 800 * number];
    StdRng::seed_from_u64(number as u64).fill_bytes(&mut octets);
    octets
}

/// The name of the file of a shared attachment.
pub(crate) fn file_name(number: usize) -> String {
    format!("blob-{number}.bin")
}

/// What the application stored beside a mail, in the same transaction.
pub(crate) struct Order {
    pub(crate) key: Option<String>,
    pub(crate) recipient: String,
}

/// Threads that enqueue.
pub(crate) struct Shop {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Shop {
    pub(crate) fn open(database: &Database, threads: usize, random: &mut StdRng) -> Self {
        let table =
            "CREATE TABLE orders (id VARCHAR(36) PRIMARY KEY, order_key VARCHAR(36), recipient VARCHAR(40) NOT NULL)";
        database.run(table);
        let stop: Arc<AtomicBool> = Arc::default();
        let mut start = || {
            let (address, stopped, random) = (database.address(), Arc::clone(&stop), StdRng::from_rng(random));
            let kind = database.kind;
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async { sell(kind, &address.connect(1).await, &stopped, random).await });
            })
        };
        let threads = (0..threads).map(|_| start()).collect();
        Self { stop, threads }
    }

    /// Stops the threads, and returns the orders that were committed, by the id of the mail.
    pub(crate) fn close(self, database: &Database) -> HashMap<String, Order> {
        self.stop.store(true, Ordering::SeqCst);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        let rows: Vec<(String, Option<String>, String)> = database.rows("SELECT id, order_key, recipient FROM orders");
        rows.into_iter().map(|(id, key, recipient)| (id, Order { key, recipient })).collect()
    }
}

async fn sell(kind: Kind, pool: &Pool, stop: &AtomicBool, mut random: StdRng) {
    while !stop.load(Ordering::SeqCst) {
        // After an error, the transaction may be committed or not. The rows of `orders` show it.
        let _ = sell_one(kind, pool, &mut random).await;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..15))).await;
    }
}

/// One transaction with up to three mails. Some mails share their attachments with each other as well.
async fn sell_one(kind: Kind, pool: &Pool, random: &mut StdRng) -> Result<(), Box<dyn Error>> {
    on_store!(pool, pool, store => {
        let outbox = Outbox::enqueue_only(store);
        let mut connection = pool.acquire().await?;
        let mut tx = connection.begin_with(kind.begin()).await?;
        for _ in 0..random.random_range(1..=3) {
            let recipient = *["ada@example.com", "bob@example.com", "eve@example.com", REFUSED, LATER].choose(random).unwrap();
            let mut delivery = NewDelivery::new(email(recipient, random)?);
            let key = random.random_ratio(1, 3).then(|| DeliveryId::new().to_string());
            if let Some(key) = &key {
                delivery = delivery.key(key);
            }
            if recipient == LATER {
                delivery = delivery.send_in(Duration::from_secs(3_600));
            }
            let id = outbox.enqueue_in(&mut tx, delivery).await?;
            let key = key.map_or("NULL".to_owned(), |key| format!("'{key}'"));
            let insert = format!("INSERT INTO orders VALUES ('{id}', {key}, '{recipient}')");
            sqlx::raw_sql(AssertSqlSafe(insert)).execute(&mut *tx).await?;
        }
        match random.random_range(0..10) {
            0 | 1 => tx.rollback().await?,
            // The connection breaks, and the server notices that by itself.
            2 => {
                drop(tx);
                connection.detach().close_hard().await?;
            }
            _ => tx.commit().await?,
        }
    });
    Ok(())
}

/// A mail with one to three attachments, each maybe more than once.
fn email(recipient: &str, random: &mut StdRng) -> Result<Email, Box<dyn Error>> {
    let mut email = Email::builder().from("shop@example.com").to(recipient).subject("Your order").text("Thank you");
    for _ in 0..random.random_range(1..=3) {
        let number = random_blob(random);
        email = email.attach(Attachment::new(file_name(number), "application/octet-stream", blob(number))?);
    }
    Ok(email.build()?)
}

/// Enqueues a mail with a key that may be taken, and returns the id of the delivery with this key.
pub(crate) fn enqueue_with_key(database: &Database, key: &str) -> String {
    let address = database.address();
    database.runtime.block_on(async {
        let pool = address.connect(1).await;
        let email = Email::builder().from("shop@example.com").to("ada@example.com").text("Twice").build().unwrap();
        let delivery = NewDelivery::new(email).key(key);
        on_store!(&pool, pool, store => {
            Outbox::enqueue_only(store).enqueue(delivery).await.unwrap().to_string()
        })
    })
}
