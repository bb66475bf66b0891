//! Runs the tool's binary, with an outbox in a temporary directory or on a database server.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// The time limit of each wait.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// Waits until `condition` is true. `what` describes it in the panic message.
pub(crate) fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    wait_within(TIMEOUT, what, condition);
}

/// Waits with another time limit.
pub(crate) fn wait_within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "waited {limit:?} until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The tool with its working directory and its outbox.
pub(crate) struct Tool {
    directory: TempDir,
    /// The environment variables that select the outbox.
    env: Vec<(&'static str, String)>,
    binary: PathBuf,
}

impl Tool {
    /// An SQLite outbox whose file does not exist yet.
    pub(crate) fn without_tables() -> Self {
        Self::with_env(vec![("DATABASE_URL", "sqlite://outbox.db".to_owned())])
    }

    /// The outbox that these environment variables select.
    pub(crate) fn with_env(env: Vec<(&'static str, String)>) -> Self {
        Self { directory: tempfile::tempdir().unwrap(), env, binary: env!("CARGO_BIN_EXE_postrider").into() }
    }

    /// An empty outbox in SQLite.
    pub(crate) fn new() -> Self {
        let tool = Self::without_tables();
        tool.ok(&["migrate"]);
        tool
    }

    /// An empty outbox in the database with this URL.
    pub(crate) fn on_database(url: &str) -> Self {
        let tool = Self::with_env(vec![("DATABASE_URL", url.to_owned())]);
        tool.ok(&["migrate"]);
        tool
    }

    /// The tool of another release, on the same outbox.
    pub(crate) fn use_binary(&mut self, binary: &Path) {
        self.binary = binary.to_owned();
    }

    /// The tool's file.
    pub(crate) fn binary(&self) -> &Path {
        &self.binary
    }

    /// The URL of the outbox's database.
    pub(crate) fn database_url(&self) -> &str {
        &self.env.iter().find(|(name, _)| *name == "DATABASE_URL").unwrap().1
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Writes a file into the tool's working directory.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.directory().join(name), content).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(args).current_dir(self.directory()).stdin(Stdio::null());
        for variable in [
            "TRANSPORT_URL",
            "RUST_LOG",
            "POSTRIDER_PASSWORD",
            "POSTRIDER_CHECK_AS",
            "POSTRIDER_OPERATOR",
            "POSTRIDER_SCHEMA",
            "POSTRIDER_TABLE_PREFIX",
            "POSTRIDER_PGBOUNCER",
        ] {
            command.env_remove(variable);
        }
        command.env("USER", "sam");
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        // A backtrace can contain more than the panic message, and no output may contain a secret.
        command.env("RUST_BACKTRACE", "1");
        command
    }

    /// Runs a command and waits for its end.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        Running::start(&mut self.command(args)).wait()
    }

    /// Runs a command with more environment variables.
    pub(crate) fn run_with_env(&self, variables: &[(&str, &str)], args: &[&str]) -> Output {
        Running::start(self.command(args).envs(variables.iter().copied())).wait()
    }

    /// Runs a command with a standard input.
    pub(crate) fn run_with_stdin(&self, input: &str, args: &[&str]) -> Output {
        let mut running = Running::start(self.command(args).stdin(Stdio::piped()));
        running.child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        running.wait()
    }

    /// Starts a command in the background.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        Running::start(&mut self.command(args))
    }

    /// Runs a command that must succeed, and returns its standard output.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.code, 0, "postrider {args:?}: {}", output.stderr);
        output.stdout
    }

    /// Runs a command that must succeed and print one JSON value, and returns the value.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(args)).unwrap()
    }

    /// Enqueues one mail, by default from Ada to Bob, and returns its id.
    pub(crate) fn enqueue(&self, args: &[&str]) -> String {
        let defaults = [("--from", "ada@example.com"), ("--to", "bob@example.com"), ("--text", "Hello!")];
        let missing =
            defaults.iter().filter(|(name, _)| !args.contains(name)).flat_map(|(name, value)| [*name, *value]);
        let all: Vec<&str> = ["enqueue"].into_iter().chain(missing).chain(args.iter().copied()).collect();
        let printed = self.ok(&all);
        let id = printed.strip_suffix('\n').unwrap();
        assert!(!id.contains('\n'), "more than one line: {printed}");
        id.to_owned()
    }

    /// Sends what is due, and returns the summary.
    pub(crate) fn drain(&self, url: &str) -> Value {
        self.json(&["work", "--drain", "--json", "--transport", url, "--retry-base", "1ms", "--retry-cap", "1ms"])
    }

    /// Repeats `drain` until this many mails are sent.
    pub(crate) fn drain_until_sent(&self, url: &str, count: u64) {
        let mut sent = 0;
        wait_until("all mail is sent", || {
            sent += self.drain(url)["sent"].as_u64().unwrap();
            sent >= count
        });
        assert_eq!(sent, count);
    }

    pub(crate) fn show(&self, id: &str) -> Value {
        self.json(&["show", id, "--json"])
    }

    pub(crate) fn stats(&self) -> Value {
        self.json(&["stats", "--json"])
    }

    /// The objects of `list --json`.
    pub(crate) fn list(&self, args: &[&str]) -> Vec<Value> {
        let all: Vec<&str> = ["list", "--json"].into_iter().chain(args.iter().copied()).collect();
        self.ok(&all).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// The result of a command.
pub(crate) struct Output {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A command in the background. Dropping it kills the process.
pub(crate) struct Running {
    child: Child,
    stdout: Stream,
    stderr: Stream,
}

/// What a process has written to a stream so far.
struct Stream {
    text: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Stream {
    fn read(mut from: impl Read + Send + 'static) -> Self {
        let text: Arc<Mutex<String>> = Arc::default();
        let sink = Arc::clone(&text);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                sink.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        });
        Self { text, reader: Some(reader) }
    }

    fn so_far(&self) -> String {
        self.text.lock().unwrap().clone()
    }

    fn whole(&mut self) -> String {
        self.reader.take().unwrap().join().unwrap();
        self.so_far()
    }
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = Stream::read(child.stdout.take().unwrap());
        let stderr = Stream::read(child.stderr.take().unwrap());
        Self { child, stdout, stderr }
    }

    /// The standard output so far.
    pub(crate) fn stdout(&self) -> String {
        self.stdout.so_far()
    }

    /// The standard error so far.
    pub(crate) fn stderr(&self) -> String {
        self.stderr.so_far()
    }

    /// Sends a signal: `TERM`, `INT`, `KILL`.
    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Sends a signal to its only child process.
    pub(crate) fn signal_child(&self, name: &str) {
        let pid = self.child.id();
        let child = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let kill = format!("kill -{name} {child}");
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// The exit status, or `None` if it still runs.
    pub(crate) fn try_wait(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    pub(crate) fn wait(mut self) -> Output {
        wait_until("the tool exits", || self.child.try_wait().unwrap().is_some());
        let status = self.child.wait().unwrap();
        let (stdout, stderr) = (self.stdout.whole(), self.stderr.whole());
        assert!(!stderr.contains("panicked"), "{stderr}");
        Output { code: status.code().unwrap_or_else(|| panic!("ended by {status}: {stderr}")), stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Does nothing after the process has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
