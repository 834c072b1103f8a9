//! Clients as real programs.

use std::{
    ffi::OsStr,
    io::Write as _,
    process::{Command, Stdio},
    thread,
};

/// A program to run to its end.
pub struct Program {
    name: String,
    command: Command,
    input: Vec<u8>,
    is_input_held: bool,
}

/// What a program has said.
pub struct Said {
    pub code: Option<i32>,
    pub out: Vec<u8>,
    pub err: String,
}

impl Program {
    /// It is ended after a minute, with the code 124.
    pub fn new(name: &str) -> Self {
        let mut command = Command::new("timeout");
        command.args(["60", name]);
        Self { name: name.to_owned(), command, input: Vec::new(), is_input_held: false }
    }

    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.command.args(arguments);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// What it reads from its standard input.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = bytes.into();
        self
    }

    /// The end of its standard input does not come before its own.
    pub fn hold_input(mut self) -> Self {
        self.is_input_held = true;
        self
    }

    /// Runs it; it may fail.
    #[track_caller]
    pub fn run(mut self) -> Said {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().unwrap();
        let (mut stdin, input) = (child.stdin.take().expect("it is piped"), self.input);
        // It may end, or say much, before it has read everything.
        let is_held = self.is_input_held;
        let writing = thread::spawn(move || {
            let _ = stdin.write_all(&input);
            is_held.then_some(stdin)
        });
        let output = child.wait_with_output().unwrap();
        drop(writing.join().unwrap());
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        let code = output.status.code();
        assert!(code != Some(127), "{}: {err}run tests/setup, or `make test`", self.name);
        Said { code, out: output.stdout, err }
    }

    /// Runs it; it may not fail.
    #[track_caller]
    pub fn succeed(self) -> Said {
        let name = self.name.clone();
        let said = self.run();
        assert_eq!(said.code, Some(0), "{name}: {}{}", said.text(), said.err);
        said
    }
}

impl Said {
    /// What it said, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// The line that starts so, without that start.
    #[track_caller]
    pub fn line(&self, start: &str) -> String {
        let text = self.text();
        let line = text.lines().find_map(|line| line.trim_start().strip_prefix(start));
        line.unwrap_or_else(|| panic!("no line {start:?}: {text}{}", self.err)).trim().to_owned()
    }
}
