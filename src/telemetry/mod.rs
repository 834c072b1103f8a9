//! What the gateway tells the outside: counters, the access log, events. It is told what happened and knows no routes.

pub mod cells;
pub mod events;

pub use events::{Event, Events};
