//! YAML text to plan, or a report of everything that is wrong with it.
pub mod plan;
mod sha;

pub use sha::Sha;
