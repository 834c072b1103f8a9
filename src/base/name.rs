use std::{borrow::Borrow, fmt, ops::Deref, sync::Arc};

/// The name of a listener, route, upstream, backend, auth or limit. Cheap to clone; compared by content.
///
/// A *written* name is `[a-z][a-z0-9-]*`, at most 63 bytes. A *derived* one (an unnamed route or upstream is named by its
/// host and path pattern, an unnamed backend by its address) may hold anything printable.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Name(Arc<str>);

/// Why a text is not a name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NameError {
    /// Something other than lower-case letters, digits and hyphens, or not starting with a letter.
    #[error("is not a name: use a-z, 0-9 and -, starting with a letter")]
    Charset,
    /// No text at all.
    #[error("is empty")]
    Empty,
    /// Names are labels in metrics and columns on a screen.
    #[error("is longer than 63 characters")]
    TooLong,
}

impl Name {
    /// A name as an operator writes it.
    ///
    /// # Errors
    /// [`NameError`] where the text is empty, too long or holds other characters.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let first = text.bytes().next().ok_or(NameError::Empty)?;
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if !first.is_ascii_lowercase() || !text.bytes().all(allowed) {
            return Err(NameError::Charset);
        }
        if text.len() > 63 {
            return Err(NameError::TooLong);
        }
        Ok(Self(text.into()))
    }

    /// A name made from a pattern or an address.
    #[must_use]
    pub fn derived(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl serde::Serialize for Name {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}
