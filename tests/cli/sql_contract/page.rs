//! Reads the statements and the columns that docs/sql.md documents.

const PAGE: &str = include_str!("../../../docs/sql.md");

/// The part of the page below a heading, up to the next heading of the same or a higher level.
fn part<'a>(page: &'a str, level: &str, heading: &str) -> &'a str {
    let start = format!("\n{level} {heading}\n");
    let (_, rest) = page.split_once(&start).unwrap_or_else(|| panic!("docs/sql.md has no heading {heading}"));
    let next = (1..=level.len()).filter_map(|depth| rest.find(&format!("\n{} ", "#".repeat(depth)))).min();
    &rest[..next.unwrap_or(rest.len())]
}

/// The SQL statements of a database under one heading, in their order.
pub(super) fn statements(database: &str, heading: &str) -> Vec<String> {
    let blocks = part(part(PAGE, "##", database), "###", heading).split("```sql\n").skip(1);
    let blocks = blocks.map(|block| block.split("```").next().unwrap().trim_end());
    let statements = blocks.flat_map(|block| block.split(";\n")).map(|statement| statement.trim_end_matches(';'));
    let statements: Vec<_> = statements.map(str::to_owned).collect();
    assert!(!statements.is_empty(), "{database}, {heading}");
    statements
}

/// The headings under a database that have statements.
const HEADINGS: [&str; 7] = ["Enqueue", "Enqueue many", "From a driver", "Trace context", "Rights", "Read", "Delete"];

/// Every statement is under a heading whose statements the tests run.
#[test]
fn every_statement_is_run() {
    let count = |text: &str| text.matches("```sql\n").count();
    let databases = ["PostgreSQL", "MySQL and MariaDB", "SQLite"].map(|database| part(PAGE, "##", database));
    let headings = |text| HEADINGS.iter().filter(move |heading| !(text == databases[2] && **heading == "Rights"));
    let run = databases.iter().flat_map(|text| headings(*text).map(|heading| count(part(text, "###", heading))));
    assert_eq!(run.sum::<usize>(), count(PAGE));
}

/// The columns of the view `mail`, in their order.
pub(super) fn mail_columns() -> Vec<&'static str> {
    let table = part(PAGE, "##", "The views").split("\n\n").find(|block| block.contains("| `id` |")).unwrap();
    let cells = table.lines().filter(|line| line.starts_with("| `")).map(|line| line.split('|').nth(1).unwrap());
    cells.flat_map(|cell| cell.split(',')).map(|name| name.trim().trim_matches('`')).collect()
}
