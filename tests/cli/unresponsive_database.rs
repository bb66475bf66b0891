//! A database server that accepts connections and never answers.

use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};

use crate::tool::{Running, TIMEOUT, Tool};

/// Starts the server, and returns its port and its accepted connections.
fn unresponsive_server() -> (u16, Receiver<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, accepted) = channel();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            if sender.send(stream).is_err() {
                return;
            }
        }
    });
    (port, accepted)
}

fn urls(port: u16) -> [String; 2] {
    ["postgres", "mysql"].map(|scheme| format!("{scheme}://app@127.0.0.1:{port}/shop"))
}

#[test]
fn the_wait_for_a_database_has_a_time_limit() {
    let (port, _accepted) = unresponsive_server();
    for url in urls(port) {
        let tool = Tool::with_env(vec![("DATABASE_URL", url.clone())]);
        let output = tool.run(&["stats"]);
        assert_eq!((output.code, output.stderr.lines().count()), (1, 1), "{}", output.stderr);
        assert!(output.stderr.contains("did not answer"), "{}", output.stderr);
    }
}

#[test]
fn a_signal_ends_the_wait_for_the_database() {
    for command in [&["stats"][..], &["work", "--transport", "smtp://127.0.0.1:1"]] {
        for (signal, code) in [("TERM", 143), ("INT", 130)] {
            let (port, accepted) = unresponsive_server();
            let tool = Tool::with_env(vec![("DATABASE_URL", urls(port)[0].clone())]);
            let running = tool.start(command);
            let _stream = accepted.recv_timeout(TIMEOUT).unwrap();
            running.signal(signal);
            let output = running.wait();
            assert_eq!((output.code, output.stderr.as_str()), (code, ""));
        }
    }
}

/// The first process of a container has no default action for signals, and ignores those that it does not handle.
#[test]
#[ignore = "needs PID namespaces: run scripts/test"]
fn a_signal_ends_the_first_process_of_a_container() {
    let (port, accepted) = unresponsive_server();
    let tool = Tool::with_env(vec![("DATABASE_URL", urls(port)[0].clone())]);
    let mut command = Command::new("unshare");
    // A user other than root needs a user namespace.
    let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    command.args(if is_root { &[][..] } else { &["--user", "--map-root-user"] });
    command.args(["--pid", "--fork", "--kill-child", env!("CARGO_BIN_EXE_postrider"), "stats"]);
    command.env("DATABASE_URL", tool.database_url());
    let running = Running::start(&mut command);
    let _stream = accepted.recv_timeout(TIMEOUT).unwrap();
    running.signal_child("TERM");
    let output = running.wait();
    assert_eq!((output.code, output.stderr.as_str()), (143, ""));
}
