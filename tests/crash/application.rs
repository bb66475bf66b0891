//! An application for the outage test: it commits each mail together with an order, and continues after errors of the database.

use std::collections::HashSet;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use postrider::{Email, Outbox};
use sqlx::AssertSqlSafe;

use crate::database::{Database, Pool, on_pool, on_store};
use crate::harness::Harness;

pub(crate) struct Application {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Done>,
}

#[derive(Default)]
struct Done {
    /// The ids of orders whose commit the database confirmed.
    committed: HashSet<String>,
    rolled_back: usize,
    /// The ids of orders in the database.
    orders: HashSet<String>,
}

impl Application {
    pub(crate) fn start(database: &Database) -> Self {
        let stop: Arc<AtomicBool> = Arc::default();
        let (address, stopped) = (database.address(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { work(&address.connect(1).await, &stopped).await })
        });
        Self { stop, thread }
    }

    /// Stops the thread, and checks that each mail has its order and each order its mail. Returns their ids, and the count of rollbacks.
    pub(crate) fn stop(self, harness: &Harness) -> (HashSet<String>, usize) {
        self.stop.store(true, Ordering::SeqCst);
        let done = self.thread.join().unwrap();
        let mails: HashSet<_> = harness.database.deliveries().difference(&harness.ids).cloned().collect();
        assert_eq!(mails, done.orders, "there is mail without an order, or an order without mail");
        assert!(done.committed.is_subset(&done.orders), "a committed order is gone");
        (done.orders, done.rolled_back)
    }
}

async fn work(pool: &Pool, stop: &AtomicBool) -> Done {
    let table = "CREATE TABLE orders (id VARCHAR(36) PRIMARY KEY)";
    on_pool!(pool, pool => { sqlx::raw_sql(table).execute(pool).await.unwrap(); });
    let mut done = Done::default();
    let mut turn = 0_usize;
    while !stop.load(Ordering::SeqCst) {
        turn += 1;
        let commit = !turn.is_multiple_of(4);
        match order(pool, commit).await {
            Ok(id) if commit => drop(done.committed.insert(id)),
            Ok(_) => done.rolled_back += 1,
            // The transaction may be committed or not.
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let orders: Vec<String> = on_pool!(pool, pool => {
        sqlx::query_scalar("SELECT id FROM orders").fetch_all(pool).await.unwrap()
    });
    done.orders = orders.into_iter().collect();
    done
}

async fn order(pool: &Pool, commit: bool) -> Result<String, Box<dyn Error>> {
    let email = Email::builder().from("a@example.com").to("b@example.com").text("x").build()?;
    on_store!(pool, pool, store => {
        let mut tx = pool.begin().await?;
        let id = Outbox::enqueue_only(store).enqueue_in(&mut tx, email).await?.to_string();
        let insert = AssertSqlSafe(format!("INSERT INTO orders VALUES ('{id}')"));
        sqlx::raw_sql(insert).execute(&mut *tx).await?;
        if commit { tx.commit().await? } else { tx.rollback().await? }
        Ok(id)
    })
}
