//! `…/backends/{b}/backtest`: what other thresholds would have made of the probes that are on record.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Observed, Problem, Row};
use crate::{
    base::duration::{self, Elapsed},
    config::plan::HealthCheck,
    health::{self, Outs, Thresholds, Trial},
};

/// What is asked: fields of a health check with other values. What is not named is as it is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Asked {
    check: Option<String>,
    healthy_after: Option<u16>,
    unhealthy_after: Option<u16>,
    timeout: Option<String>,
}

/// The answer for one health check.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct BacktestDocument {
    /// The check.
    pub check: String,
    /// The time on record, in seconds.
    pub over_s: f64,
    /// Probes on record that say something of the backend; 512 at most.
    pub probes: usize,
    /// With the thresholds in force.
    pub present: Replayed,
    /// With those that were asked about.
    pub trial: Replayed,
    /// The longest that the trial takes the backend out later than the present does, in seconds.
    pub delay_s: f64,
    /// The same in words.
    pub words: String,
}

/// The record under some thresholds.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Replayed {
    /// Passes in a row that bring the backend back.
    pub healthy_after: u16,
    /// Failures in a row that take it out.
    pub unhealthy_after: u16,
    /// The deadline of a probe, in milliseconds.
    pub timeout_ms: f64,
    /// How often it is out.
    pub times: usize,
    /// For how long altogether, in seconds.
    pub lasted_s: f64,
}

/// Replays each health check of a backend, or the one that is asked about.
pub(super) fn backtest(observed: &Observed, row: &Row<'_>, asked: &Asked) -> Result<Vec<BacktestDocument>, Problem> {
    let timeout = asked.timeout.as_deref().map(time).transpose()?;
    for (field, value) in [("healthy_after", asked.healthy_after), ("unhealthy_after", asked.unhealthy_after)] {
        if value.is_some_and(|value| !(1..=1_000).contains(&value)) {
            return Err(Problem::bad_request(format!("`{field}` is from 1 to 1000.")));
        }
    }
    let checks = &observed.view.plan.health.checks;
    let meant = |check: &&HealthCheck| asked.check.as_ref().is_none_or(|name| *check.name == **name);
    let view =
        row.view.ok_or_else(|| Problem::conflict("no_address", "Its name has no address: it was never asked."))?;
    let is_longer = |check: &&HealthCheck| timeout.is_some_and(|timeout| timeout > check.timeout);
    if let Some(check) = checks.iter().filter(meant).find(is_longer) {
        let detail =
            format!("`timeout` is longer than that of `{}`: what was not waited for is not known.", check.name);
        return Err(Problem::bad_request(detail));
    }
    let replay = |check: &HealthCheck| {
        let present = Thresholds::from(check);
        let thresholds = Thresholds {
            healthy_after: asked.healthy_after.unwrap_or(present.healthy_after),
            unhealthy_after: asked.unhealthy_after.unwrap_or(present.unhealthy_after),
        };
        let found = view.timeline.backtest(&check.name, present, Trial { thresholds, timeout })?;
        Some(BacktestDocument::of(check, thresholds, timeout, found))
    };
    let documents: Vec<_> = checks.iter().filter(meant).filter_map(replay).collect();
    match documents.is_empty() {
        true => Err(Problem::conflict("no_probes", "No probe of such a health check is on record.")),
        false => Ok(documents),
    }
}

fn time(text: &str) -> Result<Duration, Problem> {
    let wrong = |why| Problem::bad_request(format!("`timeout: {}` {why}; write 500ms or 2s.", text.escape_debug()));
    duration::parse(text).map_err(|why| wrong(why.to_string()))
}

impl BacktestDocument {
    fn of(check: &HealthCheck, trial: Thresholds, timeout: Option<Duration>, found: health::Backtest) -> Self {
        let replayed = |thresholds: Thresholds, timeout: Duration, outs: Outs| Replayed {
            healthy_after: thresholds.healthy_after,
            unhealthy_after: thresholds.unhealthy_after,
            timeout_ms: timeout.as_secs_f64() * 1e3,
            times: outs.times,
            lasted_s: outs.lasted.as_secs_f64(),
        };
        Self {
            check: check.name.to_string(),
            over_s: found.over.as_secs_f64(),
            probes: found.probes,
            present: replayed(Thresholds::from(check), check.timeout, found.present),
            trial: replayed(trial, timeout.unwrap_or(check.timeout), found.trial),
            delay_s: found.delay.as_secs_f64(),
            words: words(&found),
        }
    }
}

/// `over 1h25m, 512 probes: out 2 times, 1m0s, instead of 9 times, 2m50s; 20s later at most`
fn words(found: &health::Backtest) -> String {
    let out = |outs: Outs| match (outs.times, outs.lasted) {
        (0, _) => "never".to_owned(),
        (1, lasted) => format!("once, {}", Elapsed(lasted)),
        (times, lasted) => format!("{times} times, {}", Elapsed(lasted)),
    };
    let probes = format!("over {}, {} probes", Elapsed(found.over), found.probes);
    if found.present == found.trial {
        return format!("{probes}: no difference; out {}", out(found.present));
    }
    let later = match found.delay {
        Duration::ZERO => String::new(),
        delay => format!("; {} later at most", Elapsed(delay)),
    };
    format!("{probes}: out {} instead of {}{later}", out(found.trial), out(found.present))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backtest_is_a_sentence() {
        let outs = |times, seconds| Outs { times, lasted: Duration::from_secs(seconds) };
        let (over, probes) = (Duration::from_secs(5_100), 512);
        let found = |present, trial, delay| {
            words(&health::Backtest { over, probes, present, trial, delay: Duration::from_secs(delay) })
        };
        insta::assert_snapshot!(
            [
                found(outs(9, 170), outs(2, 60), 20),
                found(outs(2, 60), outs(9, 170), 0),
                found(outs(1, 50), outs(0, 0), 0),
                found(outs(1, 50), outs(1, 50), 0),
            ]
            .join("\n")
        );
    }
}
