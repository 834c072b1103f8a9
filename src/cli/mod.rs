//! The command line, one file per command.
//!
//! `main` calls [`main`], which parses the arguments and runs one command. Results go to standard output and everything else
//! to standard error. Exit codes are the same everywhere: 0 yes or done, 1 the honest "no" (a config has errors, there is no such backend), 2 trouble
//! (bad usage, a file that cannot be read). The environment is read here and nowhere else.

mod args;
mod ask;
mod check;
mod demo;
mod drain;
mod events;
mod explain;
mod find;
mod hash;
mod named;
mod preflight;
mod print;
mod quick;
mod run;
mod status;
mod version;
mod why;

use std::{
    io::{ErrorKind, Write},
    process::ExitCode,
};

use clap::Parser as _;

use args::{Cli, Command, DrainArgs, ExplainArgs, GatewayArgs, RunArgs, StatusArgs};
use ask::{Gateway, Unanswered};
use drain::DrainQuery;
use events::EventsQuery;
use explain::ExplainQuery;
use print::{eprint, print};
use status::{Exit, Form, StatusQuery};

use crate::{
    admin::ExplainOrder,
    config::{self, Code},
};

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    let Cli { color, command } = Cli::parse();
    color.choice().write_global();
    answer(command).unwrap_or_else(|Trouble(what)| {
        eprint(format_args!("error: {what}\n"));
        TROUBLE.into()
    })
}

fn answer(command: Command) -> Result<ExitCode, Trouble> {
    match command {
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::check(&args),
        Command::Status(args) => status(&args),
        Command::Why(args) => ask(&args.gateway, |gateway, out| match args.trial.is_empty() {
            true => why::why(gateway, &args.backend, form(args.json), out),
            false => why::backtest(gateway, &args.backend, &args.trial, form(args.json), out),
        }),
        Command::Events(args) => {
            let query = EventsQuery { since: args.since.as_deref(), follow: args.follow, form: form(args.json) };
            ask(&args.gateway, |gateway, out| events::events(gateway, &query, out))
        }
        Command::Explain(args) => explain(args),
        Command::Drain(args) => drain(&args),
        Command::Undrain(args) => {
            let by = user("tidegate undrain");
            ask(&args.gateway, |gateway, out| drain::undrain(gateway, &args.backend, &by, out))
        }
        Command::Demo(args) => demo::demo(&args),
        Command::Schema { out: None } => print(&config::schema()),
        Command::Schema { out: Some(file) } => print::write_file(&file, &config::schema()),
        Command::Reference => print(&config::reference()),
        Command::ExplainError { code } => explain_error(&code),
        Command::HashKey => hash::hash_key(),
        Command::HashPassword => hash::hash_password(),
        Command::Version { json } => print(&version::version(json)),
    }
}

fn status(args: &StatusArgs) -> Result<ExitCode, Trouble> {
    let GatewayArgs { admin, config } = &args.gateway;
    let admin = find::admin(admin.as_deref(), config.as_deref())?;
    let query = StatusQuery {
        admin: &admin,
        form: form(args.json),
        exit: if args.exit_code { Exit::Health } else { Exit::Answered },
    };
    exit(status::status(&query, &mut anstream::stdout().lock()))
}

fn explain(args: ExplainArgs) -> Result<ExitCode, Trouble> {
    let ExplainArgs { method, url, headers, listener, from_proxy, config, live, admin, all, json } = args;
    let order = ExplainOrder { method, url, headers: headers.into_iter().collect(), from_proxy, all, listener };
    let query = ExplainQuery { order, all, json };
    let (text, has_route) = match live || admin.is_some() {
        true => {
            let admin = find::admin(admin.as_deref(), config.as_deref())?;
            match Gateway::at(&admin).and_then(|gateway| explain::by_gateway(&query, &gateway)) {
                Ok(explained) => explained,
                Err(why) => return exit(Err(why)),
            }
        }
        false => explain::by_config(&query, config.as_deref())?,
    };
    print(&text)?;
    Ok(if has_route { ExitCode::SUCCESS } else { NO.into() })
}

fn drain(args: &DrainArgs) -> Result<ExitCode, Trouble> {
    let by = user("tidegate drain");
    let query = DrainQuery {
        wait: args.wait,
        timeout: args.timeout,
        lasts: args.lasts,
        reason: args.reason.as_deref(),
        by: &by,
    };
    ask(&args.gateway, |gateway, out| drain::drain(gateway, &args.backend, &query, out))
}

/// Asks the gateway that is meant.
fn ask(
    args: &GatewayArgs,
    ask: impl FnOnce(&Gateway, &mut dyn Write) -> Result<u8, Unanswered>,
) -> Result<ExitCode, Trouble> {
    let admin = find::admin(args.admin.as_deref(), args.config.as_deref())?;
    exit(Gateway::at(&admin).and_then(|gateway| ask(&gateway, &mut anstream::stdout().lock())))
}

/// What an answer, or the want of one, exits with.
fn exit(answered: Result<u8, Unanswered>) -> Result<ExitCode, Trouble> {
    match answered {
        Ok(code) => Ok(code.into()),
        Err(Unanswered::Output(why)) if why.kind() == ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(Unanswered::No(why)) => {
            eprint(format_args!("error: {why}\n"));
            Ok(NO.into())
        }
        Err(why) => Err(Trouble(why.to_string())),
    }
}

const fn form(is_json: bool) -> Form {
    if is_json { Form::Json } else { Form::Table }
}

/// Who gives an order: the user, or, where the environment does not say who that is, the command.
fn user(command: &str) -> String {
    env("USER").filter(|user| !user.is_empty()).unwrap_or_else(|| command.to_owned())
}

fn explain_error(id: &str) -> Result<ExitCode, Trouble> {
    let Some(code) = Code::find(id) else {
        let known: Vec<&str> = Code::ALL.iter().map(|code| code.id()).collect();
        return Err(Trouble(format!("there is no code `{id}`. Codes: {}", known.join(", "))));
    };
    print(&code.explain())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_that_does_not_exist_is_trouble() {
        let Err(Trouble(what)) = explain_error("E9999") else { panic!("it exists") };
        assert!(what.starts_with("there is no code `E9999`. Codes: E0101, "), "{what}");
    }
}
