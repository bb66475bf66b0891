//! Uses an outbox in PostgreSQL, and an unrelated SQLite database through rusqlite.

use std::error::Error;

use postrider::{Email, EnqueueOnly, Outbox, PgStore};

fn main() -> Result<(), Box<dyn Error>> {
    let settings = rusqlite::Connection::open_in_memory()?;
    settings.execute_batch("CREATE TABLE settings (schema TEXT); INSERT INTO settings VALUES ('shop_mail')")?;
    let schema: String = settings.query_row("SELECT schema FROM settings", [], |row| row.get(0))?;

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _guard = runtime.enter();
    let pool = sqlx::PgPool::connect_lazy("postgres://127.0.0.1/shop")?;
    let outbox: Outbox<PgStore, EnqueueOnly<Email>> = Outbox::enqueue_only(PgStore::in_schema(pool, &schema)?);
    if format!("{:?}", outbox.store()).contains("shop_mail") { Ok(()) } else { Err("SQLite lost the name".into()) }
}
