//! How many rows the statements on the views in docs/sql.md read.

use super::clients::{Client, Database, Session};
use super::page::statements;

/// A query for the newest rows, an id or a key uses an index, however many deliveries there are.
fn views_read_little(database: Database) {
    let session = Session::new(database, Client::Python);
    let customers: Vec<_> = (0..1_000).map(|n| format!("('customer{n}@example.com')")).collect();
    let page = |heading: &str| statements(session.heading(), heading);
    let mut fill = vec![
        "CREATE TABLE customers (mail VARCHAR(100) NOT NULL)".to_owned(),
        format!("INSERT INTO customers (mail) VALUES {}", customers.join(", ")),
    ];
    fill.extend(page("Enqueue"));
    for _ in 0..3 {
        fill.extend(page("Enqueue many"));
    }
    fill.push(match database {
        Database::Postgres => "ANALYZE postrider.deliveries".to_owned(),
        Database::Sqlite => "ANALYZE".to_owned(),
        _ => "ANALYZE TABLE postrider_deliveries, postrider_queue".to_owned(),
    });
    session.ok(&fill);
    let read = page("Read");
    let read: Vec<_> =
        read.iter().filter(|statement| !statement.contains("overview") && !statement.contains("'dead'")).collect();
    assert_eq!(read.len(), 3);
    for statement in read {
        match database {
            Database::Postgres => {
                let plan =
                    plan(&session, &format!("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) {statement}"));
                let rows: u64 = plan.iter().map(|line| rows_of(line)).sum();
                assert!(rows > 0 || statement.contains("id ="), "{plan:#?}");
                assert!(rows < 300, "{statement}: {rows} rows: {plan:#?}");
            }
            Database::Sqlite => {
                let plan = plan(&session, &format!("EXPLAIN QUERY PLAN {statement}"));
                let way = if statement.contains("WHERE") { "SEARCH d USING INDEX" } else { "SCAN d USING INDEX" };
                assert!(plan[0].starts_with(way), "{statement}: {plan:#?}");
                assert!(
                    plan.iter().skip(1).all(|line| !line.starts_with("SCAN") && !line.contains("MATERIALIZE")),
                    "{plan:#?}"
                );
                assert!(statement.contains("WHERE") || !plan.concat().contains("TEMP B-TREE"), "{plan:#?}");
            }
            Database::MariaDb | Database::MySql => {
                let counters = "SHOW SESSION STATUS LIKE 'Handler_read%'".to_owned();
                let answers = session.ok(&["FLUSH STATUS".to_owned(), statement.clone(), counters]);
                let read = answers[2].rows.iter().map(|row| row["Value"].as_ref().unwrap().parse::<u64>().unwrap());
                let rows: u64 = read.sum();
                assert!(rows < 300, "{statement}: {rows} rows read");
            }
        }
    }
}

fn plan(session: &Session, explain: &str) -> Vec<String> {
    let answer = session.ok(&[explain.to_owned()]).remove(0);
    let name = if session.database == Database::Postgres { "QUERY PLAN" } else { "detail" };
    answer.rows.iter().map(|row| row[name].clone().unwrap()).collect()
}

/// The rows that a line of PostgreSQL's plan returned or removed.
fn rows_of(line: &str) -> u64 {
    let number = |label: &str| {
        let (_, rest) = line.split_once(label)?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok()
    };
    let returned = number("actual rows=").unwrap_or(0) * number("loops=").unwrap_or(1);
    returned + number("Rows Removed by Filter: ").unwrap_or(0)
}

#[test]
#[ignore = "needs PostgreSQL and the drivers: run scripts/test"]
fn views_read_little_on_postgres() {
    views_read_little(Database::Postgres);
}

#[test]
#[ignore = "needs MariaDB and the drivers: run scripts/test"]
fn views_read_little_on_mariadb() {
    views_read_little(Database::MariaDb);
}

#[test]
#[ignore = "needs MySQL and the drivers: run scripts/test"]
fn views_read_little_on_mysql() {
    views_read_little(Database::MySql);
}

#[test]
#[ignore = "needs the drivers: run scripts/test"]
fn views_read_little_on_sqlite() {
    views_read_little(Database::Sqlite);
}
