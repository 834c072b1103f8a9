//! What backends say of themselves, as a fuzz target sees it: bytes in, and what must hold of what is made of them.

use super::{
    document::{Document, Media},
    grpc,
};

/// Reads bytes as a health document, as an answer of `grpc.health.v1`, and as the message of a failed call.
///
/// # Panics
/// What would be shown of them is long, or not printable.
pub fn answer(bytes: &[u8]) {
    let mut details = vec![];
    for media in [Media::Json, Media::Text] {
        if let Some(document) = Document::read(media, bytes) {
            details.push(document.blamed());
            details.extend(document.judge().err().map(|failure| failure.detail));
        }
    }
    details.extend(grpc::serving(bytes).err().map(|failure| failure.detail));
    assert!(grpc::unescaped(bytes).len() <= 3 * bytes.len());
    for detail in details {
        assert!(detail.chars().count() < 2_000 && !detail.chars().any(char::is_control));
    }
}
