use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A moment of wall-clock time in UTC, in microseconds since 1970. Printed as RFC 3339 with six decimals.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment this is called.
    #[must_use]
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// From microseconds since 1970, as kept in an atomic.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// A day (`2027-01-01`: its start in UTC), or a moment in RFC 3339, with whatever offset.
    ///
    /// # Errors
    /// Where it is neither, or before 1970.
    pub fn of_date(text: &str) -> Result<Self, TimestampError> {
        match text.len() {
            10 => format!("{text}T00:00:00Z").parse(),
            _ => text.parse(),
        }
    }

    /// Whole seconds since 1970.
    #[must_use]
    pub const fn as_seconds(self) -> u64 {
        self.0 / 1_000_000
    }

    /// `Thu, 01 Jan 1970 00:00:00 GMT` (IMF-fixdate, RFC 9110, section 5.6.7).
    #[must_use]
    pub fn http_date(self) -> String {
        let seconds = i64::try_from(self.as_seconds()).unwrap_or(i64::MAX);
        let moment = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX);
        moment.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
    }

    /// Microseconds since 1970.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// How long ago it was; zero for a moment to come (a clock that was set back).
    #[must_use]
    pub fn elapsed(self) -> Duration {
        Duration::from_micros(Self::now().0.saturating_sub(self.0))
    }

    /// `12:04:31`, for a terminal.
    #[must_use]
    pub fn clock_time(self) -> String {
        let day_seconds = self.0 / 1_000_000 % 86_400;
        format!("{:02}:{:02}:{:02}", day_seconds / 3_600, day_seconds / 60 % 60, day_seconds % 60)
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(later.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl std::ops::Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, earlier: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(earlier.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = i64::try_from(self.0).unwrap_or(i64::MAX);
        match jiff::Timestamp::from_microsecond(micros) {
            Ok(moment) => write!(f, "{moment:.6}"),
            Err(_) => f.write_str("9999-12-30T22:00:00.000000Z"),
        }
    }
}

/// A text is not a moment in RFC 3339.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("is not a moment such as 2026-11-22T12:00:00Z")]
pub struct TimestampError;

impl std::str::FromStr for Timestamp {
    type Err = TimestampError;

    /// Reads RFC 3339, with whatever offset.
    fn from_str(text: &str) -> Result<Self, TimestampError> {
        let moment: jiff::Timestamp = text.parse().map_err(|_| TimestampError)?;
        u64::try_from(moment.as_microsecond()).map(Self).map_err(|_| TimestampError)
    }
}

impl<'de> serde::Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
