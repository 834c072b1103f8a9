//! Change while running: the file is watched, a signal comes, an edit goes live or is refused.
//!
//! One task, the [`Reloader`], applies edits, one after the other, and what [`Names`] stand for; everybody else reads what it publishes in [`Status`].

mod gate;
mod names;
mod reload;
mod stages;
mod status;
mod watch;
mod webhook;

pub use names::{NameNow, NameRecord, Names, Trouble};
pub use reload::{First, Origin, Reloader};
pub use status::{Attempt, Readiness, Status};
pub use watch::Watch;
pub use webhook::{Told, Webhooks};
