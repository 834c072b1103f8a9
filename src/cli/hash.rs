//! `tidegate hash-key` and `hash-password`: from a secret on standard input to the form in which a config holds it.
//!
//! From a pipe one line is read, and more than one is refused: only one could be hashed. On a terminal the secret is asked for twice and not shown, because a slip of the finger would
//! be found out only by whoever is refused. The secret is overwritten in memory when it has been hashed.

use std::{
    io::{self, BufRead, IsTerminal as _, Stdin},
    process::ExitCode,
};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::{
    Trouble,
    print::{eprint, print},
};
use crate::layers::auth::{self, HashError, MAX_SECRET};

pub(super) fn hash_key() -> Result<ExitCode, Trouble> {
    hash("key", auth::hash_key)
}

pub(super) fn hash_password() -> Result<ExitCode, Trouble> {
    hash("password", auth::hash_password)
}

fn hash(what: &str, function: fn(&str) -> Result<String, HashError>) -> Result<ExitCode, Trouble> {
    let secret = if io::stdin().is_terminal() { ask(what)? } else { read_only(io::stdin().lock())? };
    let hash = function(&secret).map_err(|why| Trouble(format!("the {what} {why}")))?;
    print(&format!("{hash}\n"))
}

type Secret = Zeroizing<String>;

fn ask(what: &str) -> Result<Secret, Trouble> {
    let hidden = Hidden::start(io::stdin());
    if hidden.is_none() {
        eprint(format_args!("This terminal shows what you type.\n"));
    }
    let prompt = |text: &str| {
        eprint(format_args!("{text}"));
        let secret = read(io::stdin().lock());
        if hidden.is_some() {
            eprint(format_args!("\n"));
        }
        secret
    };
    let (once, again) = (prompt(&format!("The {what}: "))?, prompt("Again: ")?);
    if once == again { Ok(once) } else { Err(Trouble(format!("the two {what}s differ"))) }
}

/// The only line, without its end.
fn read_only(mut input: impl BufRead) -> Result<Secret, Trouble> {
    let secret = read(&mut input)?;
    let rest = input.fill_buf().map_err(|why| cannot_read(&why))?;
    // What is too long has not been read to its end.
    if rest.is_empty() || secret.len() > MAX_SECRET {
        Ok(secret)
    } else {
        Err(Trouble("more than one line on standard input".to_owned()))
    }
}

/// One line, without its end.
fn read(input: impl BufRead) -> Result<Secret, Trouble> {
    // One byte more than can be used, and a line's end: what is too long is said to be, not cut.
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_SECRET + 3));
    input.take(MAX_SECRET as u64 + 3).read_until(b'\n', &mut line).map_err(|why| cannot_read(&why))?;
    let line = line.strip_suffix(b"\n").unwrap_or(&line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match std::str::from_utf8(line) {
        Ok(line) => Ok(Zeroizing::new(line.to_owned())),
        Err(_) => Err(Trouble("standard input is not UTF-8 text".to_owned())),
    }
}

fn cannot_read(why: &io::Error) -> Trouble {
    Trouble(format!("cannot read standard input: {why}"))
}

/// A terminal that does not show what is typed, until this is dropped.
struct Hidden {
    terminal: Stdin,
    before: Termios,
}

impl Hidden {
    fn start(terminal: Stdin) -> Option<Self> {
        let before = tcgetattr(&terminal).ok()?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&terminal, OptionalActions::Flush, &hidden).ok()?;
        Some(Self { terminal, before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, OptionalActions::Flush, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_one_line_without_its_end() {
        for input in ["s3cret", "s3cret\n", "s3cret\r\n"] {
            assert_eq!(read_only(input.as_bytes()).unwrap().as_str(), "s3cret", "{input:?}");
        }
        for input in ["s3cret\nanother\n", "s3cret\nanother", "s3cret\n\n"] {
            assert_eq!(read(input.as_bytes()).unwrap().as_str(), "s3cret", "{input:?}");
            let Err(Trouble(what)) = read_only(input.as_bytes()) else { panic!("{input:?}") };
            assert_eq!(what, "more than one line on standard input");
        }
        assert_eq!(read(&b" s3cret \n"[..]).unwrap().as_str(), " s3cret ");
        assert!(read(&b"\xff\n"[..]).is_err());
    }

    #[test]
    fn a_secret_that_is_too_long_is_not_cut() {
        let long = "x".repeat(MAX_SECRET + 1);
        for input in [format!("{long}\r\n"), format!("{long}xxxxxx\nanother\n")] {
            let read = read_only(input.as_bytes()).unwrap();
            assert_eq!(auth::hash_key(&read), Err(HashError::TooLong));
        }
    }
}
