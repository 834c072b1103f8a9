//! Values that parse and print themselves.
//!
//! The ground floor: durations, sizes, rates, names, secrets, time stamps. Everything here is what an operator writes in
//! the file or reads in a message, so each type has one way in (`parse`) and one way out (`Display`), and what is printed
//! parses again. Nothing here knows a file, a socket or a runtime.

pub mod duration;
mod file;
mod name;
mod percent;
mod rate;
mod secret;
mod size;
mod timestamp;
#[cfg(test)]
mod tests;

pub use file::{open_regular, without_waiting};
pub use name::{Name, NameError};
pub use percent::{Percent, PercentError};
pub use rate::{Period, Rate, RateError};
pub use secret::Secret;
pub use size::{Size, SizeError};
pub use timestamp::{Timestamp, TimestampError};
