//! Hosts in the one form in which they are matched.

use std::borrow::Cow;

/// A host as it is matched: lower case, without port and trailing dot.
pub type Host<'a> = Cow<'a, str>;

/// Why a `Host` header or an authority names no host.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HostError {
    /// A character that no host name, address or port has: user information, spaces, commas, controls, ...
    #[error("the host has a character that no host has")]
    Charset,
    /// Nothing between two dots, before the first or after the last but the root's.
    #[error("the host has an empty label")]
    Label,
    /// The port is not a number up to 65535.
    #[error("the port is not a number up to 65535")]
    Port,
    /// Above 255 bytes.
    #[error("the host is longer than 255 characters")]
    TooLong,
}

/// Reads `host[:port]` as clients send it (RFC 9110, section 7.2) and returns the host as it is matched. Borrowed when the
/// client sent it so.
///
/// # Errors
/// [`HostError`] where it is not of that form. An empty text is an empty host.
pub fn normalise(text: &str) -> Result<Host<'_>, HostError> {
    let mut canonical = None;
    let (host, port) = match text.strip_prefix('[') {
        Some(literal) => {
            let (inside, after) = literal.split_once(']').ok_or(HostError::Charset)?;
            let Ok(address) = inside.parse::<std::net::Ipv6Addr>() else { return Err(HostError::Charset) };
            // The brackets stay: they tell an address from a name.
            let host = text.get(..inside.len() + 2).ok_or(HostError::Charset)?;
            // As the config has it: many texts are one address.
            canonical = Some(format!("[{address}]")).filter(|canonical| canonical != host);
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return Err(HostError::Charset),
            }
        }
        None => match text.as_bytes().iter().position(|byte| *byte == b':').map(|colon| text.split_at(colon)) {
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => (text, None),
        },
    };
    if let Some(port) = port
        && (!port.bytes().all(|b| b.is_ascii_digit()) || (!port.is_empty() && port.parse::<u16>().is_err()))
    {
        return Err(HostError::Port);
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    // By bytes, here and above: every request's host comes by, and to look for a character of UTF-8 costs several times as much.
    let bytes = host.as_bytes();
    let has_empty_label = matches!(bytes, [] | [b'.', ..] | [.., b'.']) || bytes.windows(2).any(|pair| pair == b"..");
    if !text.is_empty() && has_empty_label {
        return Err(HostError::Label);
    }
    if host.len() > 255 {
        return Err(HostError::TooLong);
    }
    let is_name = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if !host.starts_with('[') && !bytes.iter().all(is_name) {
        return Err(HostError::Charset);
    }
    if let Some(canonical) = canonical {
        return Ok(Cow::Owned(canonical));
    }
    match bytes.iter().any(u8::is_ascii_uppercase) {
        true => Ok(Cow::Owned(host.to_ascii_lowercase())),
        false => Ok(Cow::Borrowed(host)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_addresses_and_ports() {
        for (text, host) in [
            ("example.com", "example.com"),
            ("Example.COM:8080", "example.com"),
            ("example.com.", "example.com"),
            ("example.com.:443", "example.com"),
            ("example.com:", "example.com"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("[::1]:80", "[::1]"),
            ("[2001:DB8::1]", "[2001:db8::1]"),
            ("[0:0:0:0:0:0:0:1]:80", "[::1]"),
            ("", ""),
        ] {
            assert_eq!(normalise(text).as_deref(), Ok(host), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_host() {
        for (text, error) in [
            ("user@example.com", HostError::Charset),
            ("a b", HostError::Charset),
            ("a,b", HostError::Charset),
            ("a/b", HostError::Charset),
            ("[::1", HostError::Charset),
            ("[::1]x", HostError::Charset),
            ("[example]", HostError::Charset),
            (".", HostError::Label),
            ("a..", HostError::Label),
            ("a..b", HostError::Label),
            (".a", HostError::Label),
            (":80", HostError::Label),
            ("a:80:80", HostError::Port),
            ("a:+80", HostError::Port),
            ("a:65536", HostError::Port),
        ] {
            assert_eq!(normalise(text), Err(error), "{text}");
        }
        assert_eq!(normalise(&"a".repeat(256)), Err(HostError::TooLong));
    }
}
