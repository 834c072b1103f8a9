//! Where the gateway answers for itself: health, readiness, metrics, what is known of each backend, events; and where it takes orders.
//!
//! [`serve()`] runs on the control runtime and reads what [`Status`](crate::control::Status) and the monitors publish; it asks
//! no backend, so an answer costs the data plane nothing. What it changes are drains, by an order to the upstream's health task. One request looks at everything once ([`Now`]);
//! the documents (`health`, `status`, `why`, `metrics`) are plain functions of that look. What goes out is made of structs of their
//! own, never of serialised internals: their fields are a contract.
//!
//! Every connection is bounded in its head, its life and its number, and on a loopback address only names that cannot be
//! rebound by DNS are answered.

mod apis;
mod backtest;
mod events;
mod explain;
mod health;
mod metrics;
mod observed;
mod page;
mod problem;
mod rates;
mod router;
mod serve;
mod status;
mod upstreams;
mod why;
#[cfg(test)]
pub(crate) mod tests;

pub use backtest::{BacktestDocument, Replayed};
pub use explain::{BackendNow, ExplainDocument, ExplainOrder, Fields, Matched, Other};
use observed::{Now, Observed, Row, Standing};
use problem::Problem;
use rates::Rates;
pub use serve::serve;
pub use status::{
    AliasStatus, AttemptStatus, BackendStatus, CarriedStatus, ConfigStatus, DetectionStatus, GatewayStatus, Recent,
    StaleName, StatusDocument, UpstreamStatus,
};
pub use why::{BackendDocument, ChangeStatus, CheckStatus, DrainStatus, EjectedStatus, LiveStatus, ProbeStatus};

/// The status document as JSON on one line, for the log. Without rates: nobody has sampled for it.
#[must_use]
pub fn state(status: &crate::control::Status) -> String {
    let document = StatusDocument::of(&Now::look(status), status, &Rates::default());
    serde_json::to_string(&document).unwrap_or_default()
}
