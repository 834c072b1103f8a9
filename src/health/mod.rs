//! Whether a backend is fit: probes, the state machine, the task that publishes verdicts.
//!
//! schedule ([`cadence`]) → one probe ([`probe`]) → [`Outcome`] → [`Machine`] → the backend's verdict, the upstream's eligible
//! slice and one event ([`Monitor`]). One task per upstream is the only writer of all of these; everybody else reads the
//! verdict (an atomic), the slice (swapped whole) or the [`UpstreamView`]. Nothing here knows routes, requests or the file.

mod backtest;
mod cadence;
mod detection;
mod ejection;
mod line;
mod machine;
mod monitor;
mod outcome;
mod probe;
mod resolve;
mod round;
mod subject;
mod timeline;
mod view;

pub use backtest::{Backtest, History, Outs, Trial};
pub use detection::Detection;
pub use ejection::{Ejector, Spared, Window, may_eject};
pub use machine::{Machine, Thresholds, Transition};
pub use monitor::{Monitor, NoSuchBackend, Prober};
pub use outcome::{Kind, Outcome};
#[cfg(fuzzing)]
pub use probe::fuzzing;
pub use resolve::{Answer, LookUp, Looking, ResolveError, Resolver};
pub use round::Round;
pub use timeline::{Change, Drain, Ejected, Probe, Probed, Record, Source, Timeline};
pub use view::{BackendView, UpstreamView};
