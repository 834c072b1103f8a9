use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};

/// The first 7 hexadecimal digits of a file's SHA-256: enough to tell two edits apart at a glance.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Sha(String);

impl Sha {
    /// Of this text.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let digest = digest(&SHA256, text.as_bytes());
        let hex: String = digest.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        Self(hex.chars().take(7).collect())
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Sha {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
