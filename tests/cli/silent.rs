//! A database that takes the connection and says nothing.

use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};

use crate::tool::{LIMIT, Running, Tool};

/// A server that only listens; says when somebody has come.
fn silent() -> (u16, Receiver<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (came, has_come) = channel();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            if came.send(stream).is_err() {
                return;
            }
        }
    });
    (port, has_come)
}

fn urls(port: u16) -> [String; 2] {
    ["postgres", "mysql"].map(|scheme| format!("{scheme}://app@127.0.0.1:{port}/shop"))
}

#[test]
fn a_database_that_says_nothing_is_not_waited_for_without_end() {
    let (port, _coming) = silent();
    for url in urls(port) {
        let tool = Tool::of(vec![("DATABASE_URL", url.clone())]);
        let ran = tool.run(&["stats"]);
        assert_eq!((ran.code, ran.stderr.lines().count()), (1, 1), "{}", ran.stderr);
        assert!(ran.stderr.contains("has said nothing"), "{}", ran.stderr);
    }
}

#[test]
fn a_signal_ends_the_wait_for_the_database() {
    for command in [&["stats"][..], &["work", "--transport", "smtp://127.0.0.1:1"]] {
        for (signal, code) in [("TERM", 143), ("INT", 130)] {
            let (port, has_come) = silent();
            let tool = Tool::of(vec![("DATABASE_URL", urls(port)[0].clone())]);
            let running = tool.start(command);
            let _stream = has_come.recv_timeout(LIMIT).unwrap();
            running.signal(signal);
            let ran = running.wait();
            assert_eq!((ran.code, ran.stderr.as_str()), (code, ""));
        }
    }
}

/// The first process of a container has no default for signals: what it does not catch, it does not hear.
#[test]
#[ignore = "needs PID namespaces: run scripts/test"]
fn a_signal_ends_the_first_process_of_a_container_as_well() {
    let (port, has_come) = silent();
    let tool = Tool::of(vec![("DATABASE_URL", urls(port)[0].clone())]);
    let mut command = Command::new("unshare");
    // Without being root, in a namespace of users where one is.
    let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    command.args(if is_root { &[][..] } else { &["--user", "--map-root-user"] });
    command.args(["--pid", "--fork", "--kill-child", env!("CARGO_BIN_EXE_postrider"), "stats"]);
    command.env("DATABASE_URL", tool.database());
    let running = Running::start(&mut command);
    let _stream = has_come.recv_timeout(LIMIT).unwrap();
    running.signal_child("TERM");
    let ran = running.wait();
    assert_eq!((ran.code, ran.stderr.as_str()), (143, ""));
}
