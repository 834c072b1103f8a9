//! The command line, one file per command.
//!
//! `main` calls [`main`], which parses the arguments and runs one command. Results go to standard output and everything else
//! to standard error. Exit codes are the same everywhere: 0 yes or done, 1 the honest "no" (a config has errors), 2 trouble
//! (bad usage, a file that cannot be read). The environment is read here and nowhere else.

mod args;
mod check;
mod demo;
mod explain;
mod find;
mod hash;
mod print;
mod quick;
mod run;
mod version;

use std::process::ExitCode;

use clap::Parser as _;

pub(crate) use args::RunArgs;
use args::{Cli, Command};
use print::{print, say};

use crate::config;

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    let Cli { color, command } = Cli::parse();
    color.choice().write_global();
    answer(command).unwrap_or_else(|Trouble(what)| {
        say(&format!("tidegate: {what}\n"));
        TROUBLE.into()
    })
}

fn answer(command: Command) -> Result<ExitCode, Trouble> {
    match command {
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::check(&args),
        Command::Demo(args) => demo::demo(&args),
        Command::Schema { out: None } => print(&config::schema()),
        Command::Schema { out: Some(file) } => print::write_file(&file, &config::schema()),
        Command::Reference => print(&config::reference()),
        Command::ExplainError { code } => explain::explain_error(&code),
        Command::HashKey => hash::hash_key(),
        Command::HashPassword => hash::hash_password(),
        Command::Version { json } => print(&version::version(json)),
    }
}

/// The exit code of an honest "no".
const NO: u8 = 1;
/// The exit code when no answer could be given.
const TROUBLE: u8 = 2;

/// Why a command has no answer.
#[derive(Debug)]
struct Trouble(String);

/// Looks up `${NAME}` in a config. A value that is not Unicode counts as unset.
fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
