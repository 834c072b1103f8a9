//! What can be typed. Doc comments here are the help texts.

use std::{path::PathBuf, time::Duration};

use anstream::ColorChoice;
use clap::{Args, Parser, Subcommand, ValueEnum, builder::PossibleValue};

use crate::{base::duration, config::plan::LogFormat};

/// An API gateway with built-in upstream health checking: one binary, one YAML file, live edits.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, max_term_width = 120)]
pub(super) struct Cli {
    /// Whether output is coloured
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub(super) color: Color,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Serve, and apply edits of the config as they are saved
    #[command(after_help = SEARCH)]
    Run(RunArgs),
    /// Say everything that is wrong with a config; contacts nothing unless it is told to
    #[command(after_help = SEARCH)]
    Check(CheckArgs),
    /// Show what a running gateway knows of its backends
    #[command(after_help = ADMIN)]
    Status(StatusArgs),
    /// Say why a backend is in the state that it is in: its last probes and changes
    #[command(after_help = ADMIN)]
    Why(WhyArgs),
    /// Show what has happened last, and what happens
    #[command(after_help = ADMIN)]
    Events(EventsArgs),
    /// Say which route a request takes, and why no other does; by the config, or with --live by a running gateway
    #[command(after_help = SEARCH)]
    Explain(ExplainArgs),
    /// Send a backend no new requests, and let those that it has finish
    #[command(after_help = ADMIN)]
    Drain(DrainArgs),
    /// Send a drained backend requests again
    #[command(after_help = ADMIN)]
    Undrain(UndrainArgs),
    /// Show an ejection and a recovery on sample backends
    Demo(DemoArgs),
    /// Print the JSON Schema of the config, for editors
    Schema {
        /// Write it to a file
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Print the reference of every field of the config, as Markdown
    Reference,
    /// Explain a code of `check`, such as E0201
    ExplainError {
        /// The code
        code: String,
    },
    /// Hash an API key for the config; reads it from standard input
    HashKey,
    /// Hash a password for the config; reads it from standard input
    HashPassword,
    /// Print the version
    Version {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

const SEARCH: &str = "Without a file: $TIDEGATE_CONFIG, then ./tidegate.yaml, then /etc/tidegate/tidegate.yaml.";

const ADMIN: &str = "Without --admin: $TIDEGATE_ADMIN, then `admin.bind` of the config, then 127.0.0.1:9901.";

/// Arguments of `tidegate run`.
#[derive(Args, Debug)]
pub(super) struct RunArgs {
    /// The config
    #[arg(short, long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Send everything to this address, without a config; may be given several times
    #[arg(long, value_name = "ADDR", conflicts_with = "config")]
    pub(super) to: Vec<String>,
    /// With --to: the port or address to listen on [default: 8080]
    #[arg(long, value_name = "ADDR", requires = "to")]
    pub(super) listen: Option<String>,
    /// Apply edits on SIGHUP only
    #[arg(long)]
    pub(super) no_watch: bool,
    /// The form of log lines, instead of what the config says
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(super) log_format: Option<LogFormat>,
}

#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    /// The config; `-` is standard input
    pub(super) file: Option<PathBuf>,
    /// The same, as `run` takes it
    #[arg(short, long, value_name = "FILE", conflicts_with = "file")]
    pub(super) config: Option<PathBuf>,
    /// Ask every backend once, from here; exit 1 if one is not fit
    #[arg(long)]
    pub(super) probe: bool,
    /// Count warnings as errors
    #[arg(long)]
    pub(super) strict: bool,
    /// How findings are written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(super) format: Format,
}

/// Which gateway is asked.
#[derive(Args, Debug)]
pub(super) struct GatewayArgs {
    /// The gateway's admin address; `unix:PATH` is a Unix socket
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) admin: Option<String>,
    /// The config that names the admin address
    #[arg(short, long, value_name = "FILE", conflicts_with = "admin")]
    pub(super) config: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    pub(super) gateway: GatewayArgs,
    /// Print the document as the gateway sends it
    #[arg(long)]
    pub(super) json: bool,
    /// Exit 1 if an upstream has no usable backend
    #[arg(long)]
    pub(super) exit_code: bool,
}

#[derive(Args, Debug)]
pub(super) struct ExplainArgs {
    /// Its method
    pub(super) method: String,
    /// Its URL, or a path alone
    pub(super) url: String,
    /// A header field; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header_field)]
    pub(super) headers: Vec<(String, String)>,
    /// The listener that it comes by [default: the one whose port the URL names, else any]
    #[arg(long, value_name = "NAME")]
    pub(super) listener: Option<String>,
    /// A proxy sends it that the listener trusts: X-Forwarded-Proto and the like count
    #[arg(long)]
    pub(super) from_proxy: bool,
    /// The config
    #[arg(short, long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Ask the running gateway, and show its backends as they are
    #[arg(long)]
    pub(super) live: bool,
    /// The gateway's admin address; it is asked then
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "config")]
    pub(super) admin: Option<String>,
    /// Show every route that does not match
    #[arg(long)]
    pub(super) all: bool,
    /// Print the document
    #[arg(long)]
    pub(super) json: bool,
}

/// `NAME: VALUE`.
fn header_field(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write it like `x-env: prod`")?;
    Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
}

#[derive(Args, Debug)]
pub(super) struct WhyArgs {
    /// The backend, as `tidegate status` names it; BACKEND alone will do where only one has that name
    #[arg(value_name = "UPSTREAM/BACKEND")]
    pub(super) backend: String,
    #[command(flatten)]
    pub(super) gateway: GatewayArgs,
    /// Say what its probes on record would have come to with another value of a field of its health check: healthy_after,
    /// unhealthy_after, or a shorter timeout; check=NAME picks one of several; may be given several times
    #[arg(long = "try", value_name = "FIELD=VALUE")]
    pub(super) trial: Vec<String>,
    /// Print the document as the gateway sends it
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct EventsArgs {
    #[command(flatten)]
    pub(super) gateway: GatewayArgs,
    /// Go on with what happens, until interrupted; a gateway that restarts is found again
    #[arg(short, long)]
    pub(super) follow: bool,
    /// Only what happened since then: 1h for an hour ago, or a moment such as 2026-11-22T12:00:00Z [default: the last 500]
    #[arg(long, value_name = "TIME")]
    pub(super) since: Option<String>,
    /// An object per line, as the log has them
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct DrainArgs {
    /// The backend, as `tidegate status` names it; BACKEND alone will do where only one has that name
    #[arg(value_name = "UPSTREAM/BACKEND")]
    pub(super) backend: String,
    #[command(flatten)]
    pub(super) gateway: GatewayArgs,
    /// Wait until it has no request any more; exit 1 if some are left after --timeout
    #[arg(long)]
    pub(super) wait: bool,
    /// Cut requests and tunnels (WebSockets and other upgrades) that it still has after this time [default: never]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) timeout: Option<Duration>,
    /// End the drain after this time [default: with `tidegate undrain`]
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    pub(super) lasts: Option<Duration>,
    /// Why; shown wherever the backend is
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct UndrainArgs {
    /// The backend, as `tidegate status` names it; BACKEND alone will do where only one has that name
    #[arg(value_name = "UPSTREAM/BACKEND")]
    pub(super) backend: String,
    #[command(flatten)]
    pub(super) gateway: GatewayArgs,
}

#[derive(Args, Debug)]
pub(super) struct DemoArgs {
    /// Stop after this time; exit 0 only if an ejection and a recovery were seen and no request failed
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    pub(super) lasts: Option<Duration>,
    /// Print one JSON document at the end; what happens goes to standard error
    #[arg(long)]
    pub(super) json: bool,
    /// The gateway's port [default: 8080, or a free one]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) port: Option<u16>,
}

fn time(text: &str) -> Result<Duration, String> {
    match duration::parse(text) {
        Ok(Duration::ZERO) => Err("is no time at all".to_owned()),
        parsed => parsed.map_err(|why| format!("{why}; write 30s or 5m")),
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Format {
    /// With source lines, for people
    Text,
    /// `file:line:col: message`, for editors
    Short,
    /// An object per line
    Json,
    /// Workflow annotations
    Github,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Color {
    Always,
    Never,
    /// If the stream is a terminal and the environment does not object
    Auto,
}

impl Color {
    pub(super) const fn choice(self) -> ColorChoice {
        match self {
            Self::Always => ColorChoice::Always,
            Self::Never => ColorChoice::Never,
            Self::Auto => ColorChoice::Auto,
        }
    }
}

impl ValueEnum for LogFormat {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Auto, Self::Text, Self::Json]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Auto => PossibleValue::new("auto").help("Text on a terminal, JSON elsewhere"),
            Self::Text => PossibleValue::new("text").help("For people"),
            Self::Json => PossibleValue::new("json").help("An object per line"),
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::error::ErrorKind> {
        Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.command).map_err(|why| why.kind())
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_takes_a_file_or_addresses() {
        let Ok(Command::Run(args)) = parse("tidegate run --to :9001 --to :9002 --listen 8081 --log-format json") else {
            panic!("not a run");
        };
        assert_eq!(args.to, [":9001", ":9002"]);
        assert_eq!(args.listen.as_deref(), Some("8081"));
        assert_eq!(args.log_format, Some(LogFormat::Json));
        assert!(args.config.is_none());

        assert_eq!(parse("tidegate run -c a.yaml --to :9001").err(), Some(clap::error::ErrorKind::ArgumentConflict));
        let alone = parse("tidegate run --listen 8081").err();
        assert_eq!(alone, Some(clap::error::ErrorKind::MissingRequiredArgument));
    }

    #[test]
    fn check_takes_a_form() {
        let Ok(Command::Check(args)) = parse("tidegate check - --strict --format github --color never") else {
            panic!("not a check");
        };
        assert_eq!(args.file, Some(PathBuf::from("-")));
        assert!(args.strict);
        assert_eq!(args.format, Format::Github);
    }

    #[test]
    fn a_drain_has_times_with_units() {
        let line = "tidegate drain /*/127.0.0.1:9001 --wait --timeout 60s --for 15m --reason deploy --admin a:1";
        let Ok(Command::Drain(args)) = parse(line) else { panic!("not a drain") };
        assert_eq!((args.backend.as_str(), args.reason.as_deref()), ("/*/127.0.0.1:9001", Some("deploy")));
        let (minute, quarter) = (Duration::from_secs(60), Duration::from_secs(900));
        assert_eq!((args.timeout, args.lasts), (Some(minute), Some(quarter)));
        for wrong in ["", "a/b --for 15", "a/b --timeout 0s", "a/b --admin a:1 -c f"] {
            assert!(parse(&format!("tidegate drain {wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_demo_lasts_for_a_time_with_a_unit() {
        let Ok(Command::Demo(args)) = parse("tidegate demo --for 30s --json --port 8081") else { panic!("not a demo") };
        assert_eq!((args.lasts, args.json, args.port), (Some(Duration::from_secs(30)), true, Some(8081)));
        for wrong in ["--for 30", "--for 0s", "--port 0", "--port 65536"] {
            assert!(parse(&format!("tidegate demo {wrong}")).is_err(), "{wrong}");
        }
    }
}
