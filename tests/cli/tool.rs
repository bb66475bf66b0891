//! The tool's own binary, with an outbox in a directory that the test's end removes, or on a server.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Nothing here takes so long unless it hangs.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Waits for something to become true.
pub(crate) fn wait_until(what: &str, holds: impl FnMut() -> bool) {
    wait_within(LIMIT, what, holds);
}

/// Waits for something that may take longer than others.
pub(crate) fn wait_within(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < limit, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) struct Tool {
    directory: TempDir,
    outbox: Vec<(&'static str, String)>,
}

impl Tool {
    /// With nothing there yet.
    pub(crate) fn bare() -> Self {
        Self::of(vec![("DATABASE_URL", "sqlite://outbox.db".to_owned())])
    }

    /// With the outbox that these variables name.
    pub(crate) fn of(outbox: Vec<(&'static str, String)>) -> Self {
        Self { directory: tempfile::tempdir().unwrap(), outbox }
    }

    /// With an empty outbox.
    pub(crate) fn new() -> Self {
        let tool = Self::bare();
        tool.ok(&["migrate"]);
        tool
    }

    /// With an empty outbox in a database of a server's.
    pub(crate) fn at(database: &str) -> Self {
        let tool = Self::of(vec![("DATABASE_URL", database.to_owned())]);
        tool.ok(&["migrate"]);
        tool
    }

    /// The URL of the outbox's database.
    pub(crate) fn database(&self) -> &str {
        &self.outbox.iter().find(|(name, _)| *name == "DATABASE_URL").unwrap().1
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Writes a file into the tool's working directory.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.directory().join(name), content).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
        command.args(args).current_dir(self.directory()).stdin(Stdio::null());
        for other in ["TRANSPORT_URL", "RUST_LOG", "POSTRIDER_SCHEMA", "POSTRIDER_TABLE_PREFIX", "POSTRIDER_PGBOUNCER"]
        {
            command.env_remove(other);
        }
        command.envs(self.outbox.iter().map(|(name, value)| (name, value)));
        // A panic would be seen at its worst.
        command.env("RUST_BACKTRACE", "1");
        command
    }

    /// Runs to the end.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        Running::start(&mut self.command(args)).wait()
    }

    /// Runs to the end in another environment.
    pub(crate) fn run_with(&self, variables: &[(&str, &str)], args: &[&str]) -> Ran {
        Running::start(self.command(args).envs(variables.iter().copied())).wait()
    }

    /// Runs to the end with something on the standard input.
    pub(crate) fn run_fed(&self, input: &str, args: &[&str]) -> Ran {
        let mut running = Running::start(self.command(args).stdin(Stdio::piped()));
        running.child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        running.wait()
    }

    /// Runs in the background.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        Running::start(&mut self.command(args))
    }

    /// Runs to a good end; returns the standard output.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, 0, "postrider {args:?}: {}", ran.stderr);
        ran.stdout
    }

    /// Runs to a good end; returns the one JSON value on the standard output.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(args)).unwrap()
    }

    /// Enqueues a mail from Ada to Bob, unless the arguments say otherwise; returns its one id.
    pub(crate) fn enqueue(&self, args: &[&str]) -> String {
        let defaults = [("--from", "ada@example.com"), ("--to", "bob@example.com"), ("--text", "Hello!")];
        let missing =
            defaults.iter().filter(|(name, _)| !args.contains(name)).flat_map(|(name, value)| [*name, *value]);
        let all: Vec<&str> = ["enqueue"].into_iter().chain(missing).chain(args.iter().copied()).collect();
        let printed = self.ok(&all);
        let id = printed.strip_suffix('\n').unwrap();
        assert!(!id.contains('\n'), "one delivery, one line: {printed}");
        id.to_owned()
    }

    /// Sends what is due; returns the summary.
    pub(crate) fn drain(&self, url: &str) -> Value {
        self.json(&["work", "--drain", "--json", "--transport", url, "--retry-base", "1ms", "--retry-cap", "1ms"])
    }

    /// Sends again and again until so many were sent in all.
    pub(crate) fn drain_until_sent(&self, url: &str, wanted: u64) {
        let mut sent = 0;
        wait_until("all is sent", || {
            sent += self.drain(url)["sent"].as_u64().unwrap();
            sent >= wanted
        });
        assert_eq!(sent, wanted);
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

/// How a run ended.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A run under way. Killed if the test gives up on it.
pub(crate) struct Running {
    child: Child,
    stdout: Option<JoinHandle<String>>,
    stderr: Arc<Mutex<String>>,
    stderr_reader: Option<JoinHandle<()>>,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let stderr: Arc<Mutex<String>> = Arc::default();
        let heard = Arc::clone(&stderr);
        let stdout = std::thread::spawn(move || {
            let mut text = String::new();
            out.read_to_string(&mut text).unwrap();
            text
        });
        let stderr_reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = err.read(&mut buffer) {
                heard.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        });
        Self { child, stdout: Some(stdout), stderr, stderr_reader: Some(stderr_reader) }
    }

    /// What it has said on the standard error so far.
    pub(crate) fn said(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// Sends a signal: `TERM`, `INT`, `KILL`.
    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Sends a signal to the only process that it has started.
    pub(crate) fn signal_child(&self, name: &str) {
        let pid = self.child.id();
        let child = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let kill = format!("kill -{name} {child}");
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Whether it has ended by itself.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    pub(crate) fn wait(mut self) -> Ran {
        wait_until("the tool ends", || self.child.try_wait().unwrap().is_some());
        let status = self.child.wait().unwrap();
        self.stderr_reader.take().unwrap().join().unwrap();
        let stdout = self.stdout.take().unwrap().join().unwrap();
        let stderr = self.said();
        assert!(!stderr.contains("panicked"), "{stderr}");
        Ran { code: status.code().unwrap_or_else(|| panic!("ended by {status}: {stderr}")), stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After the end this does nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
