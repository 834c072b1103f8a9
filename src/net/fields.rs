//! Fields of a head, where it is not worth a hash to find them.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The values of a field, found by looking at one field after the other. Most heads have few, and a field that stands early, or not
/// at all in a short head, costs less to find so than a hash of its name.
pub fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a HeaderValue> {
    headers.iter().filter(move |(other, _)| *other == name).map(|(_, value)| value)
}
