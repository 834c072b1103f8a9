use std::fmt;

/// A share from 0% to 100%, held in basis points (1/100 of a percent) so that it can be compared and hashed.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Percent(u16);

/// Why a text is not a percentage.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("is not a percentage from 0% to 100%")]
pub struct PercentError;

impl Percent {
    /// A whole percentage, cut at 100.
    #[must_use]
    pub const fn whole(percent: u8) -> Self {
        Self(if percent > 100 { 10_000 } else { percent as u16 * 100 })
    }

    /// Reads `20%` or `0.5%`, with at most two decimals.
    ///
    /// # Errors
    /// [`PercentError`] for any other form.
    pub fn parse(text: &str) -> Result<Self, PercentError> {
        let number = text.strip_suffix('%').ok_or(PercentError)?;
        let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(decimals) || decimals.len() > 2 {
            return Err(PercentError);
        }
        let whole: u16 = whole.parse().map_err(|_| PercentError)?;
        let hundredths: u16 = format!("{decimals:0<2}").parse().map_err(|_| PercentError)?;
        match whole.checked_mul(100).and_then(|w| w.checked_add(hundredths)) {
            Some(points) if points <= 10_000 => Ok(Self(points)),
            _ => Err(PercentError),
        }
    }

    /// Hundredths of a percent, 0 to 10,000.
    #[must_use]
    pub const fn basis_points(self) -> u16 {
        self.0
    }

    /// The share as a factor from 0.0 to 1.0.
    #[must_use]
    pub fn factor(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 100, self.0 % 100) {
            (whole, 0) => write!(f, "{whole}%"),
            (whole, hundredths) if hundredths % 10 == 0 => write!(f, "{whole}.{}%", hundredths / 10),
            (whole, hundredths) => write!(f, "{whole}.{hundredths:02}%"),
        }
    }
}
