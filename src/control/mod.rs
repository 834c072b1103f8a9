//! Change while running: the file is watched, a signal comes, an edit goes live or is refused.
//!
//! One task, the [`Reloader`], applies edits, one after the other; everybody else reads what it publishes in [`Status`].

mod reload;
mod status;
mod watch;

pub use reload::{First, Origin, Reloader, resolve};
pub use status::{Attempt, Readiness, Status};
pub use watch::Watch;
