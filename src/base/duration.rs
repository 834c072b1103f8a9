//! Durations as operators write them: `250ms`, `5s`, `1m30s`, `2h`, `1d`. The unit is mandatory.

use std::{fmt, time::Duration};

/// Why a text is not a duration.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DurationError {
    /// A bare number: seconds to nginx, milliseconds to HAProxy, so neither is guessed.
    #[error("has no unit")]
    NoUnit,
    /// Not of the form number-unit, repeated.
    #[error("is not a duration")]
    Malformed,
    /// Above 10 years, where sums of time stamps could overflow.
    #[error("is longer than 10 years")]
    TooLong,
}

const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Reads one or more `number unit` pairs without spaces; units are `ms`, `s`, `m`, `h`, `d`, largest first by custom only.
///
/// # Errors
/// [`DurationError`]: no unit, another form, or longer than 10 years.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(DurationError::NoUnit);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at(letters);
        let number: u64 = match number.parse() {
            Ok(number) => number,
            Err(_) if digits > 0 => return Err(DurationError::TooLong),
            Err(_) => return Err(DurationError::Malformed),
        };
        let millis_per_unit: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(DurationError::Malformed),
        };
        let millis = number.checked_mul(millis_per_unit).ok_or(DurationError::TooLong)?;
        total = total.checked_add(Duration::from_millis(millis)).ok_or(DurationError::TooLong)?;
        rest = tail;
    }
    match total {
        _ if text.is_empty() => Err(DurationError::Malformed),
        total if total > LONGEST => Err(DurationError::TooLong),
        total => Ok(total),
    }
}

/// Prints a duration in the form that [`parse`] reads, in whole milliseconds: `1m30s`, `250ms`, `0s`.
#[derive(Clone, Copy, Debug)]
pub struct Written(pub Duration);

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = self.0.as_millis();
        if millis == 0 {
            return f.write_str("0s");
        }
        for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
            if millis >= size {
                write!(f, "{}{unit}", millis / size)?;
                millis %= size;
            }
        }
        Ok(())
    }
}

/// Prints how long something has lasted, for people: the two largest units, no smaller than a millisecond (`3d4h`, `2m41s`).
#[derive(Clone, Copy, Debug)]
pub struct Elapsed(pub Duration);

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (secs, millis) = (self.0.as_secs(), self.0.subsec_millis());
        let (days, hours, minutes) = (secs / 86_400, secs / 3_600 % 24, secs / 60 % 60);
        match secs {
            0 => write!(f, "{millis}ms"),
            1..60 => write!(f, "{secs}s"),
            60..3_600 => write!(f, "{minutes}m{:02}s", secs % 60),
            3_600..86_400 => write!(f, "{hours}h{minutes:02}m"),
            _ => write!(f, "{days}d{hours}h"),
        }
    }
}

/// Prints how long something takes, for people: tenths of a second below a minute (`8.4s`), from then on as [`Elapsed`].
#[derive(Clone, Copy, Debug)]
pub struct Took(pub Duration);

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = (self.0.as_millis() + 50) / 100;
        match tenths {
            0..600 => write!(f, "{}.{}s", tenths / 10, tenths % 10),
            _ => Elapsed(self.0.max(Duration::from_secs(60))).fmt(f),
        }
    }
}
