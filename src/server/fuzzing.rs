//! The PROXY header as a fuzz target sees it.

use super::proxy_protocol::parse;
use crate::config::plan::ProxyProtocol;

/// Reads bytes as a PROXY header, in every version that may be spoken.
///
/// # Panics
/// A header is not one and the same however many bytes after it have come, or longer than they are.
pub fn proxy_header(bytes: &[u8]) {
    for spoken in [ProxyProtocol::V1, ProxyProtocol::V2, ProxyProtocol::Any] {
        let whole = parse(bytes, spoken);
        let Ok(Some(header)) = whole else { continue };
        assert!(0 < header.length && header.length <= bytes.len());
        let (alone, _) = bytes.split_at(header.length);
        assert_eq!(parse(alone, spoken), whole);
        let (cut, _) = bytes.split_at(header.length - 1);
        assert!(!matches!(parse(cut, spoken), Ok(Some(_))), "{spoken:?}");
    }
}
