//! The statements of a version never change.

use std::collections::BTreeMap;
use std::path::Path;

use postrider::transport::Blob;

/// The files by their paths below `migrations`.
fn migrations() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut files = BTreeMap::new();
    for database in ["mysql", "postgres", "sqlite"] {
        for file in root.join(database).read_dir().unwrap() {
            let path = file.unwrap().path();
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            files.insert(name, std::fs::read_to_string(path).unwrap());
        }
    }
    files
}

/// `migrations/SHA256SUMS` is in the format of `sha256sum`.
#[test]
fn released_versions_do_not_change() {
    let sums = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/SHA256SUMS");
    let sums = std::fs::read_to_string(sums).unwrap();
    let expected: BTreeMap<_, _> =
        sums.lines().map(|line| line.split_once("  ").unwrap()).map(|(a, b)| (b, a)).collect();
    let files = migrations();
    assert_eq!(
        expected.keys().copied().collect::<Vec<_>>(),
        files.keys().collect::<Vec<_>>(),
        "a file of migrations/ is new or gone. To add a version: migrations/README.md"
    );
    for (name, text) in files {
        assert_eq!(
            Blob::new(text.as_bytes()).hash().to_string(),
            expected[name.as_str()],
            "migrations/{name} has changed. A released version never changes: add a version (migrations/README.md)"
        );
    }
}

/// Each database has the same versions, and the program knows each.
#[test]
fn the_program_has_each_version_in_order() {
    let files = migrations();
    let versions = |database: &str| {
        let mut versions: BTreeMap<u32, &str> = BTreeMap::new();
        for (name, text) in files.iter().filter(|(name, _)| name.starts_with(database)) {
            let (number, _) = name[database.len() + 1..].split_once('_').unwrap();
            versions.insert(number.parse().unwrap(), text);
        }
        versions
    };
    let numbers: Vec<u32> = versions("sqlite").into_keys().collect();
    assert_eq!(numbers, (1..=u32::try_from(numbers.len()).unwrap()).collect::<Vec<_>>());
    let mut schemas = vec![("sqlite", postrider::SqliteStore::schema())];
    #[cfg(feature = "postgres")]
    schemas.push(("postgres", postrider::PgStore::schema("postrider").unwrap()));
    #[cfg(feature = "mysql")]
    schemas.push(("mysql", postrider::MySqlStore::schema("postrider_").unwrap()));
    for (database, schema) in schemas {
        let versions = versions(database);
        assert_eq!(versions.keys().copied().collect::<Vec<_>>(), numbers, "{database}");
        let mut rest = schema.as_str();
        for (number, text) in versions {
            (_, rest) = rest.split_once(text).unwrap_or_else(|| panic!("{database}: version {number} is not in it"));
        }
    }
}
