//! A plan made live.
//!
//! A [`Snapshot`] is immutable: routes with their layers compiled and handles to their upstreams. [`Live`] holds the one that
//! is in force, in one swap. What has a memory (backends, buckets, counters) is owned by the [`Registry`], keyed by the part
//! of the plan that defines it, so that it outlives the snapshots that use it.

mod api;
mod build;
mod carry_over;
mod live;
mod registry;
mod snapshot;

pub use api::{Api, Caller};
pub use build::{Built, Edition, Resolved, Unresolved, build, names};
pub use carry_over::{Carried, CarryOver, Fate};
pub use live::{Live, Pinned, Pins};
pub use registry::{Registry, Tokens, UpstreamId};
pub use snapshot::{Action, Listener, ListenerId, Mirror, Route, Served, Side, Snapshot, Upstream};
