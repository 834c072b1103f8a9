use std::{fmt, num::NonZeroU32, time::Duration};

/// How many per which period: `10/s`, `100/min`, `5/h`, `1000/d`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Rate {
    /// How many are admitted per period in the long run.
    pub count: NonZeroU32,
    /// The period that the count is for.
    pub per: Period,
}

/// The unit of time of a [`Rate`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Period {
    /// `/s`
    Second,
    /// `/min`
    Minute,
    /// `/h`
    Hour,
    /// `/d`
    Day,
}

/// Why a text is not a rate.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("is not a rate")]
pub struct RateError;

impl Rate {
    /// Reads `N/s`, `N/min`, `N/h` or `N/d`, N from 1 to 4,294,967,295.
    ///
    /// # Errors
    /// [`RateError`] for any other form.
    pub fn parse(text: &str) -> Result<Self, RateError> {
        let (count, per) = text.split_once('/').ok_or(RateError)?;
        if !count.bytes().all(|b| b.is_ascii_digit()) {
            return Err(RateError);
        }
        let count = count.parse().map_err(|_| RateError)?;
        let per = match per {
            "s" => Period::Second,
            "min" => Period::Minute,
            "h" => Period::Hour,
            "d" => Period::Day,
            _ => return Err(RateError),
        };
        Ok(Self { count, per })
    }
}

impl Period {
    /// Its length.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_secs(match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per = match self.per {
            Period::Second => "s",
            Period::Minute => "min",
            Period::Hour => "h",
            Period::Day => "d",
        };
        write!(f, "{}/{per}", self.count)
    }
}
