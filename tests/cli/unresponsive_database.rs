//! A database server that accepts connections and never answers.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};

use postrider::DeliveryId;

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

/// A server for PostgreSQL's first connection, which stops listening before it answers that one. Returns its port.
///
/// The messages are those of the PostgreSQL manual, "Message Flow": AuthenticationOk and ReadyForQuery.
fn server_for_one_connection() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        drop(listener);
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut startup = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap() - 4];
        stream.read_exact(&mut startup).unwrap();
        stream.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").unwrap();
        // The connection is open until the tool closes it.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    port
}

/// The pool connects again and again while the server refuses, so each command needs a limit of its own.
#[test]
fn a_database_that_stops_is_reported_by_each_command() {
    let mail = ["enqueue", "--from", "ada@example.com", "--to", "bob@example.com", "--text", "Hello!"];
    let id = DeliveryId::new().to_string();
    let commands: [&[&str]; 14] = [
        &["stats"],
        &["stats", "--json", "--since", "1h"],
        &["list"],
        &["list", "--count"],
        &["show", &id],
        &["resend", &id],
        &["cancel", "--state", "pending"],
        &["pause", "--all"],
        &["probe"],
        &["audit"],
        &["prune", "messages", "--state", "sent", "--older-than", "1d"],
        &["erase", "ada@example.com"],
        &["migrate"],
        &mail,
    ];
    // At once, since each waits.
    let running = commands.map(|command| {
        let url = format!("postgres://app@127.0.0.1:{}/shop?sslmode=disable", server_for_one_connection());
        let tool = Tool::with_env(vec![("DATABASE_URL", url)]);
        let running = tool.start(command);
        (command, tool, running)
    });
    for (command, _tool, running) in running {
        let output = running.wait();
        assert_eq!((output.code, output.stderr.lines().count()), (1, 1), "{command:?}: {}", output.stderr);
        assert!(output.stderr.contains("the database does not answer"), "{command:?}: {}", output.stderr);
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
