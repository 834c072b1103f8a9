//! What the gateway tells the outside: counters, the access log, events. It is told what happened and knows no routes.
//!
//! Workers write to cells, to their own log buffer and to a bounded queue of events: no lock, no wait. The control plane
//! reads: a scrape sums cells ([`metrics`]) into families ([`catalogue`]) and renders them ([`exposition`]); one writer
//! thread each stands between the logs and a destination that may block.

pub mod access_log;
pub mod catalogue;
pub mod cells;
mod escape;
pub mod events;
pub mod exposition;
pub mod metrics;
mod process;
mod tally;

pub use access_log::{AccessBuffer, AccessLog, AccessRecord};
pub use cells::{Counter, WorkerId};
pub(crate) use escape::Printable;
pub use events::{Event, EventLog, Events};
pub use tally::Code;
