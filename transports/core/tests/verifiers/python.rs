//! Python's parsers, in one process for many mails.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

pub(crate) struct Python {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Python {
    /// Starts the interpreter that `scripts/servers/verifiers.sh` installs.
    pub(crate) fn start() -> Self {
        let interpreter = std::env::var("POSTRIDER_TEST_PYTHON");
        let interpreter =
            interpreter.expect("POSTRIDER_TEST_PYTHON is a Python with dkimpy: scripts/servers/README.md");
        let mut process = Command::new(interpreter)
            .args(["-c", include_str!("verify.py")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python starts");
        let (input, output) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        Self { process, input, output }
    }

    /// Parses a mail with Python's `email`.
    #[allow(dead_code, reason = "not every crate uses all methods")]
    pub(crate) fn read(&mut self, mail: &[u8]) -> Value {
        self.ask(mail, None)
    }

    /// The result of dkimpy for each signature: `pass`, or the error.
    #[allow(dead_code, reason = "not every crate uses all methods")]
    pub(crate) fn verify(&mut self, mail: &[u8], dns: &BTreeMap<String, String>) -> Vec<String> {
        serde_json::from_value(self.ask(mail, Some(dns))["dkim"].take()).expect("a list")
    }

    fn ask(&mut self, mail: &[u8], dns: Option<&BTreeMap<String, String>>) -> Value {
        let request = json!({ "mail": STANDARD.encode(mail), "dns": dns });
        writeln!(self.input, "{request}").expect("Python reads");
        self.input.flush().expect("Python reads");
        let mut answer = String::new();
        self.output.read_line(&mut answer).expect("Python answers");
        serde_json::from_str(&answer).unwrap_or_else(|error| {
            panic!("Python answered {answer:?} ({error}) to:\n{}", String::from_utf8_lossy(mail));
        })
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
