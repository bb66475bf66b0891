//! How long an operator waits for a list, a count, the statistics and one delivery, with millions of deliveries.

#![allow(clippy::expect_used, clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its figures")]

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use postrider::{AdminStore, Filter, Outbox, State, Store, StoreError};
use support::dataset::Dataset;
use support::figures::{Figures, Times, write_json};
use support::{Options, databases};

/// The number of runs of each query: up to `RUNS` within `TIME`, and at least one.
const RUNS: usize = 200;
const TIME: Duration = Duration::from_secs(3);

/// How long a search goes on, as on the first page of the dashboard.
const SEARCH: Duration = Duration::from_millis(50);

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::main]
async fn main() {
    let options = Options::read();
    let mut tables = BTreeMap::new();
    let dataset = |full: usize| {
        let count = options.count.unwrap_or(if options.full { full } else { 100_000 });
        Dataset { count, unfinished: count / 25, newest: Duration::from_secs(60) }
    };
    if options.wants("postgres") {
        let (store, dataset) = (databases::pg_store(4).await, dataset(5_000_000));
        dataset.fill_postgres(&store).await;
        tables.extend(measure_all("postgres", store, dataset.count).await);
    }
    if options.wants("mariadb") {
        let (store, dataset) = (databases::mysql_store(4).await, dataset(5_000_000));
        // A server with millions of mails has more than the default of 128 MiB.
        let more = "SET GLOBAL innodb_buffer_pool_size = 2147483648";
        sqlx::raw_sql(more).execute(store.pool()).await.expect("the server has the memory");
        dataset.fill_mysql(&store).await;
        tables.extend(measure_all("mariadb", store, dataset.count).await);
    }
    if options.wants("sqlite") {
        let ((store, _directory), dataset) = (databases::sqlite_store(4).await, dataset(1_000_000));
        dataset.fill_sqlite(&store).await;
        tables.extend(measure_all("sqlite", store, dataset.count).await);
    }
    if let Some(path) = &options.json {
        write_json(path, &tables);
    }
}

/// Returns the filter for a run of a query.
type FilterOfRun = Box<dyn Fn(usize) -> Filter>;

/// The filters, each with different values in each run. `count` is the number of deliveries.
fn filters(count: usize) -> Vec<(&'static str, FilterOfRun)> {
    // Numbers of finished deliveries from the whole data set, so that their pages are not all in the cache.
    let spread = move |run: usize| run * 7_368_787 % (count * 9 / 10);
    let user = move |run: usize| spread(run) % (count / 4);
    let ago = |hours: u32| SystemTime::now() - hours * HOUR;
    let sent = move |run: usize| spread(run) / 10 * 10;
    let new = || Filter::new().newest_first();
    vec![
        ("newest", Box::new(move |_| new())),
        ("oldest", Box::new(|_| Filter::new())),
        ("recipient with 4 mails", Box::new(move |run| new().recipient(address(user(run))))),
        ("recipient with 4 mails, oldest first", Box::new(move |run| Filter::new().recipient(address(user(run))))),
        ("recipient with 1 in 100", Box::new(move |_| new().recipient("alerts@ops.example"))),
        ("recipient without mail", Box::new(move |run| new().recipient(format!("nobody-{run}@nowhere.example")))),
        (
            "second recipient",
            Box::new(move |run| new().recipient(format!("copy-{}", address(copied(spread(run), count))))),
        ),
        ("domain with 4 in 10", Box::new(move |_| new().recipient("@mail-one.example"))),
        ("domain with 4 in 10, oldest first", Box::new(move |_| Filter::new().recipient("@mail-one.example"))),
        ("domain with 1 in 20,000", Box::new(move |run| new().recipient(format!("@company-{}.example", run * 10 + 7)))),
        ("domain without mail", Box::new(move |run| new().recipient(format!("@nowhere-{run}.example")))),
        (
            "dead, with a recipient of 1 in 100",
            Box::new(move |_| new().state(State::Dead).recipient("alerts@ops.example")),
        ),
        ("dead, at a domain with 4 in 10", Box::new(move |_| new().state(State::Dead).recipient("@mail-one.example"))),
        ("key", Box::new(move |run| new().key(format!("order-{}", sent(run))))),
        ("key that no mail has", Box::new(move |run| new().key(format!("invoice-{run}")))),
        ("provider id", Box::new(move |run| new().provider_id(format!("queued-{}", sent(run))))),
        ("provider id that no mail has", Box::new(move |run| new().provider_id(format!("unknown-{run}")))),
        ("pending", Box::new(move |_| new().state(State::Pending))),
        ("pending, oldest first", Box::new(|_| Filter::new().state(State::Pending))),
        ("leased: 50", Box::new(move |_| new().state(State::Leased))),
        ("leased: 50, oldest first", Box::new(|_| Filter::new().state(State::Leased))),
        ("sent", Box::new(move |_| new().state(State::Sent))),
        ("sent, oldest first", Box::new(|_| Filter::new().state(State::Sent))),
        ("dead", Box::new(move |_| new().state(State::Dead))),
        ("dead, oldest first", Box::new(|_| Filter::new().state(State::Dead))),
        ("in doubt", Box::new(move |_| new().state(State::InDoubt))),
        ("cancelled", Box::new(move |_| new().state(State::Cancelled))),
        (
            "enqueued in an hour, days ago",
            Box::new(move |run| {
                let hours = 48 + u32::try_from(run).expect("a number") % 480;
                new().created_from(ago(hours + 1)).created_before(ago(hours))
            }),
        ),
        (
            "finished in an hour, days ago",
            Box::new(move |run| {
                let hours = 48 + u32::try_from(run).expect("a number") % 480;
                new().finished_from(ago(hours + 1)).finished_before(ago(hours))
            }),
        ),
        ("finished in the last 48 hours", Box::new(move |_| new().finished_from(ago(48)))),
        (
            "dead, and finished in an hour, days ago",
            Box::new(move |run| {
                let hours = 48 + u32::try_from(run).expect("a number") % 480;
                new().state(State::Dead).finished_from(ago(hours + 1)).finished_before(ago(hours))
            }),
        ),
        ("template of 1 in 50", Box::new(move |run| new().template_id(format!("template-{}", run % 50)))),
        ("template that no mail has", Box::new(move |_| new().template_id("reminder"))),
        ("tag of 1 in 1,000", Box::new(move |run| new().tag(format!("campaign-{}", run % 500 * 2 + 1)))),
        ("tag that no mail has", Box::new(move |_| new().tag("nothing"))),
        ("subject prefix of 1 in 3", Box::new(move |_| new().subject_prefix("Your invoice"))),
        ("subject prefix that no mail has", Box::new(move |_| new().subject_prefix("Reminder"))),
        ("transport of 1 in 10", Box::new(move |_| new().transport("failover/ses"))),
        ("transport that no mail has", Box::new(move |_| new().transport("sendmail"))),
        ("error of 1 in 50", Box::new(move |_| new().error("no such user"))),
        ("dead, with the error of 1 in 50,000", Box::new(move |_| new().state(State::Dead).error("mailbox full"))),
        ("error that no mail has", Box::new(move |_| new().error("greylisted"))),
        ("tag that no mail has, of the last day", Box::new(move |_| new().tag("nothing").created_from(ago(24)))),
        ("error that no mail has, of the last day", Box::new(move |_| new().error("greylisted").created_from(ago(24)))),
    ]
}

/// The address of a user, as in [`support::dataset`].
fn address(user: usize) -> String {
    match user % 10 {
        0..4 => format!("user-{user}@mail-one.example"),
        4..6 => format!("user-{user}@mail-two.example"),
        _ => format!("user-{user}@company-{}.example", user % 20_011),
    }
}

/// The user who is the first recipient of a mail with two.
fn copied(number: usize, count: usize) -> usize {
    (number / 10 * 10 + 5) * 7919 % (count / 4)
}

/// The figures of one database.
struct Results {
    name: &'static str,
    median: Figures,
    p99: Figures,
}

impl Results {
    /// Runs a query repeatedly, and prints a row of the table. `run_query` returns the number of rows found.
    async fn measure(&mut self, query: &str, run_query: impl AsyncFn(usize) -> Result<u64, StoreError>) {
        let (start, mut times, mut found) = (Instant::now(), Times::default(), 0);
        while times.len() < RUNS && (times.len() == 0 || start.elapsed() < TIME) {
            let run = Instant::now();
            match run_query(times.len()).await {
                Ok(rows) => found = rows,
                Err(error) => {
                    println!("| {query} | {error} after {:.0} ms | | | |", run.elapsed().as_secs_f64() * 1e3);
                    return;
                }
            }
            times.add(run.elapsed());
        }
        let (median, p99) = (times.percentile(50.0), times.percentile(99.0));
        println!("| {query} | {median:.1} | {p99:.1} | {} | {found} |", times.len());
        self.median.add(query, median);
        self.p99.add(query, p99);
    }
}

async fn measure_all<S: Store + AdminStore>(name: &'static str, store: S, count: usize) -> BTreeMap<String, Figures> {
    let outbox = Outbox::enqueue_only(store);
    let outbox = &outbox;
    let mut results = Results { name, median: Figures::default(), p99: Figures::default() };
    println!("\nAn operator's queries on {name} with {count} deliveries, pages of 100\n");
    println!("| query | median ms | 99th percentile ms | runs | rows of the last |\n|---|--:|--:|--:|--:|");
    for (query, filter) in filters(count) {
        let search = async |run| outbox.search(&filter(run), SEARCH).await;
        results.measure(query, async |run| Ok(search(run).await?.deliveries.len() as u64)).await;
        // The same without a limit of time.
        let page = search(0).await.expect("a page");
        if page.deliveries.len() < 100 && page.next.is_some() {
            let query = format!("… {query}, all");
            results.measure(&query, async |run| Ok(outbox.list(&filter(run)).await?.len() as u64)).await;
        }
    }
    // The second pages of three lists.
    let first = outbox.list(&Filter::new().newest_first()).await.expect("a page");
    let after = first.last().expect("a delivery").id;
    results
        .measure("next page of the newest", async |_| {
            Ok(outbox.list(&Filter::new().newest_first().after(after)).await?.len() as u64)
        })
        .await;
    let dead = Filter::new().state(State::Dead).newest_first();
    let page = outbox.list(&dead).await.expect("a page");
    let dead = dead.after(page.last().expect("a dead delivery").id);
    results.measure("next page of the dead", async |_| Ok(outbox.list(&dead).await?.len() as u64)).await;
    let hot = Filter::new().recipient("alerts@ops.example").newest_first();
    let page = outbox.list(&hot).await.expect("a page");
    let hot = hot.after(page.last().expect("a delivery").id);
    results
        .measure("next page of a recipient with 1 in 100", async |_| Ok(outbox.list(&hot).await?.len() as u64))
        .await;
    for (query, filter) in [
        ("count of the dead, up to 10,000", Filter::new().state(State::Dead)),
        ("count of a recipient with 1 in 100, up to 10,000", Filter::new().recipient("alerts@ops.example")),
        ("count of a domain with 4 in 10, up to 10,000", Filter::new().recipient("@mail-one.example")),
        ("count of all, up to 10,000", Filter::new()),
    ] {
        let filter = filter.limit(10_000);
        results.measure(query, async |_| outbox.count(&filter).await).await;
    }
    results.measure("stats", async |_| outbox.stats().await.map(|stats| stats.sent)).await;
    for (query, hours) in [("hourly, of a day", 24), ("hourly, of 30 days", 30 * 24)] {
        let since = SystemTime::now() - hours * HOUR;
        results.measure(query, async |_| Ok(outbox.hourly(since).await?.len() as u64)).await;
    }
    let ids: Vec<_> = first.iter().chain(&page).map(|delivery| delivery.id).collect();
    let ids = &ids;
    results.measure("get one delivery", async |run| Ok(outbox.get(ids[run % ids.len()]).await?.map_or(0, |_| 1))).await;
    let title = |part: &str| format!("{}, {part}", results.name);
    BTreeMap::from([(title("median"), results.median), (title("p99"), results.p99)])
}
