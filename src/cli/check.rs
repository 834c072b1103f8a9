//! `tidegate check`: everything that is wrong with a config, found without contacting anything unless that is asked for.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    NO, Trouble,
    args::{CheckArgs, Format},
    env, find, preflight,
    print::{self, print_with, reason},
};
use crate::{
    config::{
        Report, Source, Style, load,
        plan::{Plan, Upstream},
    },
    health::Detection,
};

pub(super) fn check(args: &CheckArgs) -> Result<ExitCode, Trouble> {
    let source = read(args.file.as_deref().or(args.config.as_deref()))?;
    let started = Instant::now();
    let loaded = load(&source, &env);
    let took = started.elapsed();

    let (report, plan) = match &loaded {
        Ok(loaded) => (&loaded.warnings, Some(&loaded.plan)),
        Err(report) => (report, None),
    };
    let plan = plan.filter(|_| !args.strict || report.is_empty());
    let asked = match plan.filter(|_| args.probe) {
        Some(plan) => Some(preflight::ask_all(plan)?),
        None => None,
    };
    print_with(|out| {
        write_report(out, args.format, report)?;
        if let Some(plan) = plan.filter(|_| args.format == Format::Text) {
            let contacted = if asked.is_some() { "every backend was asked once" } else { "nothing was contacted" };
            writeln!(out, "{}", summary(&source.path, plan, took, contacted))?;
            out.write_all(detection(plan).as_bytes())?;
        }
        match (&asked, args.format) {
            (Some(asked), Format::Json) => out.write_all(preflight::json(asked).as_bytes()),
            (Some(asked), _) => out.write_all(preflight::table(asked).as_bytes()),
            (None, _) => Ok(()),
        }
    })?;
    let is_fit = asked.is_none_or(|asked| preflight::are_all_fit(&asked));
    Ok(if plan.is_some() && is_fit { ExitCode::SUCCESS } else { NO.into() })
}

fn read(file: Option<&Path>) -> Result<Source, Trouble> {
    if file == Some(Path::new("-")) {
        return Source::from_reader("<stdin>", io::stdin().lock())
            .map_err(|why| Trouble(format!("cannot read standard input: {}", reason(&why))));
    }
    let path = find::config(file)?;
    Source::read(&path).map_err(|why| Trouble(format!("cannot read {}: {}", path.display(), reason(&why))))
}

fn write_report(out: &mut dyn Write, format: Format, report: &Report) -> io::Result<()> {
    let text = match format {
        Format::Text if report.is_empty() => String::new(),
        Format::Text => report.text(Style::Coloured),
        Format::Short => report.short(),
        Format::Json => report.json(),
        Format::Github => report.github(),
    };
    out.write_all(text.as_bytes())
}

/// `tidegate.yaml ok: 2 routes, 1 upstream, 3 backends (check 4 ms; nothing was contacted)`
fn summary(file: &Path, plan: &Plan, took: Duration, contacted: &str) -> String {
    let count = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    let backends = plan.upstreams.values().map(|upstream| upstream.backends.len()).sum();
    format!(
        "{} ok: {}, {}, {} (check {} ms; {contacted})",
        file.display(),
        count(plan.routes.len(), "route"),
        count(plan.upstreams.len(), "upstream"),
        count(backends, "backend"),
        took.as_millis(),
    )
}

/// How long each upstream's health checks take at worst. They follow from many fields and are written in none.
fn detection(plan: &Plan) -> String {
    const SHOWN: usize = 20;
    let found = |upstream: &Arc<Upstream>| {
        let Detection { out, back } = Detection::of(&upstream.health.checks)?;
        Some((upstream.name.clone(), out.as_secs_f64(), back.as_secs_f64()))
    };
    let known: Vec<_> = plan.upstreams.values().filter_map(found).collect();
    let width = known.iter().take(SHOWN).map(|(name, ..)| name.chars().count()).max().unwrap_or_default();
    let mut lines: String = known.iter().take(SHOWN).fold(String::new(), |lines, (name, out, back)| {
        lines + &format!("  {name:<width$}  {}\n", print::detection(*out, *back))
    });
    if known.len() > SHOWN {
        lines.push_str(&format!("  {} more\n", known.len() - SHOWN));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source { path: "tidegate.yaml".into(), text: text.to_owned() }
    }

    #[test]
    fn success_is_one_line_of_what_was_read() {
        let text = "listen: 8080
upstreams:
  web: { backends: [127.0.0.1:9001, 127.0.0.1:9002, 127.0.0.1:9003], health: tcp }
routes:
  - { path: /a, to: web }
  - { path: /b, to: web }
";
        let loaded = load(&source(text), &|_| None).unwrap();
        assert!(loaded.warnings.is_empty());
        assert_eq!(
            summary(Path::new("tidegate.yaml"), &loaded.plan, Duration::from_micros(4_200), "nothing was contacted"),
            "tidegate.yaml ok: 2 routes, 1 upstream, 3 backends (check 4 ms; nothing was contacted)"
        );
    }

    #[test]
    fn long_times_read_like_the_others() {
        let text = "listen: 8080
upstreams: { web: { backends: [127.0.0.1:9001], health: { active: { interval: 2h } } } }
routes: [{ path: /*, to: web }]
";
        let said = detection(&load(&source(text), &|_| None).unwrap().plan);
        assert_eq!(said, "  web  a dead backend is out after 2h12m at most, one that is well again back after 2h12m\n");
    }

    #[test]
    fn findings_are_written_in_the_form_that_was_asked_for() {
        let report = load(&source("listen: 8080\nroutes:\n  - { path: /*, to: order }\n"), &|_| None).unwrap_err();
        let written = |format| {
            let mut out = anstream::StripStream::new(Vec::new());
            write_report(&mut out, format, &report).unwrap();
            String::from_utf8(out.into_inner()).unwrap()
        };
        assert!(written(Format::Text).starts_with("error[E0301]: "));
        assert!(written(Format::Text).ends_with("tidegate.yaml: 1 error, 0 warnings\n"));
        assert!(written(Format::Short).starts_with("tidegate.yaml:3:21: error[E0301]: "));
        let json: serde_json::Value = serde_json::from_str(&written(Format::Json)).unwrap();
        assert_eq!((&json["code"], &json["line"], &json["col"]), (&"E0301".into(), &3.into(), &21.into()));
        assert!(written(Format::Github).starts_with("::error file=tidegate.yaml,line=3,col=21,title=E0301::"));
    }
}
