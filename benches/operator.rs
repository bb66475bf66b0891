//! How long an operator waits for a list, a count, the statistics and one delivery, on an outbox with a past.

#![allow(clippy::expect_used, clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its figures")]

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use postrider::{AdminStore, Filter, Outbox, State, Store, StoreError};
use support::figures::{Figures, Times, write_json};
use support::past::Past;
use support::{Options, databases};

/// Each question is asked this often, or as often as this time allows, but at least once.
const RUNS: usize = 200;
const TIME: Duration = Duration::from_secs(3);

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::main]
async fn main() {
    let options = Options::read();
    let mut tables = BTreeMap::new();
    let past = |full: usize| {
        let count = options.count.unwrap_or(if options.full { full } else { 100_000 });
        Past { count, live: count / 25, newest: Duration::from_secs(60) }
    };
    if options.wants("postgres") {
        let (store, past) = (databases::pg_store(4).await, past(5_000_000));
        past.fill_postgres(&store).await;
        tables.extend(ask_all("postgres", store, past.count).await);
    }
    if options.wants("mariadb") {
        let (store, past) = (databases::mysql_store(4).await, past(5_000_000));
        // A server with millions of mails has more than the default of 128 MiB.
        let more = "SET GLOBAL innodb_buffer_pool_size = 2147483648";
        sqlx::raw_sql(more).execute(store.pool()).await.expect("the server has the memory");
        past.fill_mysql(&store).await;
        tables.extend(ask_all("mariadb", store, past.count).await);
    }
    if options.wants("sqlite") {
        let ((store, _directory), past) = (databases::sqlite_store(4).await, past(1_000_000));
        past.fill_sqlite(&store).await;
        tables.extend(ask_all("sqlite", store, past.count).await);
    }
    if let Some(path) = &options.json {
        write_json(path, &tables);
    }
}

/// The filter of each run of a question.
type FilterOfRun = Box<dyn Fn(usize) -> Filter>;

/// The filters, each with different values in each run. `count` is the number of deliveries.
fn filters(count: usize) -> Vec<(&'static str, FilterOfRun)> {
    // Numbers of finished deliveries from all over the past, so that their pages are not all in the cache.
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
            "created in an hour, days ago",
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

/// The address of a user, as in [`support::past`].
fn address(user: usize) -> String {
    match user % 10 {
        0..4 => format!("user-{user}@mail-one.example"),
        4..6 => format!("user-{user}@mail-two.example"),
        _ => format!("user-{user}@company-{}.example", user % 20_011),
    }
}

/// A user whom a mail with two recipients is for.
fn copied(number: usize, count: usize) -> usize {
    (number / 10 * 10 + 5) * 7919 % (count / 4)
}

/// The figures of one database.
struct Answers {
    name: &'static str,
    median: Figures,
    p99: Figures,
}

impl Answers {
    /// Asks a question again and again, and prints a row of the table. An answer has a number of rows.
    async fn ask(&mut self, question: &str, ask: impl AsyncFn(usize) -> Result<u64, StoreError>) {
        let (start, mut times, mut found) = (Instant::now(), Times::default(), 0);
        while times.len() < RUNS && (times.len() == 0 || start.elapsed() < TIME) {
            let run = Instant::now();
            match ask(times.len()).await {
                Ok(rows) => found = rows,
                Err(error) => {
                    println!("| {question} | {error} after {:.0} ms | | | |", run.elapsed().as_secs_f64() * 1e3);
                    return;
                }
            }
            times.add(run.elapsed());
        }
        let (median, p99) = (times.percentile(50.0), times.percentile(99.0));
        println!("| {question} | {median:.1} | {p99:.1} | {} | {found} |", times.len());
        self.median.add(question, median);
        self.p99.add(question, p99);
    }
}

async fn ask_all<S: Store + AdminStore>(name: &'static str, store: S, count: usize) -> BTreeMap<String, Figures> {
    let outbox = Outbox::enqueue_only(store);
    let outbox = &outbox;
    let mut answers = Answers { name, median: Figures::default(), p99: Figures::default() };
    println!("\nAn operator's questions to {name} with {count} deliveries, pages of 100\n");
    println!("| question | median ms | 99th percentile ms | runs | rows of the last |\n|---|--:|--:|--:|--:|");
    for (question, filter) in filters(count) {
        answers.ask(question, async |run| Ok(outbox.list(&filter(run)).await?.len() as u64)).await;
    }
    // The second page, and one from the middle.
    let first = outbox.list(&Filter::new().newest_first()).await.expect("a page");
    let after = first.last().expect("a delivery").id;
    answers
        .ask("next page of the newest", async |_| {
            Ok(outbox.list(&Filter::new().newest_first().after(after)).await?.len() as u64)
        })
        .await;
    let dead = Filter::new().state(State::Dead).newest_first();
    let page = outbox.list(&dead).await.expect("a page");
    let dead = dead.after(page.last().expect("a dead delivery").id);
    answers.ask("next page of the dead", async |_| Ok(outbox.list(&dead).await?.len() as u64)).await;
    let hot = Filter::new().recipient("alerts@ops.example").newest_first();
    let page = outbox.list(&hot).await.expect("a page");
    let hot = hot.after(page.last().expect("a delivery").id);
    answers.ask("next page of a recipient with 1 in 100", async |_| Ok(outbox.list(&hot).await?.len() as u64)).await;
    for (question, filter) in [
        ("count of the dead, up to 10,000", Filter::new().state(State::Dead)),
        ("count of a recipient with 1 in 100, up to 10,000", Filter::new().recipient("alerts@ops.example")),
        ("count of a domain with 4 in 10, up to 10,000", Filter::new().recipient("@mail-one.example")),
        ("count of all, up to 10,000", Filter::new()),
    ] {
        let filter = filter.limit(10_000);
        answers.ask(question, async |_| outbox.count(&filter).await).await;
    }
    answers.ask("stats", async |_| outbox.stats().await.map(|stats| stats.sent)).await;
    for (question, hours) in [("hourly, of a day", 24), ("hourly, of 30 days", 30 * 24)] {
        let since = SystemTime::now() - hours * HOUR;
        answers.ask(question, async |_| Ok(outbox.hourly(since).await?.len() as u64)).await;
    }
    let ids: Vec<_> = first.iter().chain(&page).map(|delivery| delivery.id).collect();
    let ids = &ids;
    answers.ask("get one delivery", async |run| Ok(outbox.get(ids[run % ids.len()]).await?.map_or(0, |_| 1))).await;
    let title = |part: &str| format!("{}, {part}", answers.name);
    BTreeMap::from([(title("median"), answers.median), (title("p99"), answers.p99)])
}
