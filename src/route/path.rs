//! Paths in the one form in which they are matched and forwarded.

use std::borrow::Cow;

/// Why a path is refused. Each of these reads differently to different servers, and what is matched must be what is forwarded.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PathError {
    /// `..` above the root.
    #[error("the path leads above the root")]
    AboveRoot,
    /// A `.` or `..` segment, where no client can have written one.
    #[error("the path, rewritten, has a dot segment")]
    Dots,
    /// `%2F`, `%5C` or `%00`, a backslash, or a `%` that no two hexadecimal digits follow.
    #[error("the path has an encoded slash, a backslash, a NUL or a stray percent sign")]
    Encoding,
    /// No `/` at the start.
    #[error("the path does not start with a slash")]
    Relative,
    /// More bytes than a path may have.
    #[error("the path, rewritten, is too long")]
    TooLong,
}

/// Brings a path into the one form that is matched and forwarded: dot segments resolved (RFC 3986, section 5.2.4), slashes
/// that follow one another merged, needlessly encoded characters decoded (section 6.2.2.2). Borrowed when it is in that form.
///
/// # Errors
/// [`PathError`] where servers disagree on what the path means.
pub fn normalise(path: &str) -> Result<Cow<'_, str>, PathError> {
    if !path.starts_with('/') {
        return Err(PathError::Relative);
    }
    if is_plain(path) {
        return Ok(Cow::Borrowed(path));
    }
    let spelled = spell(path)?;
    let mut out = String::with_capacity(spelled.len());
    let mut segments = spelled.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "" | "." if !is_last => {}
            "" | "." => out.push('/'),
            // `..;` is a parent to servers that cut path parameters off, and a name to others.
            _ if ["..;", ".;", "..%3B", ".%3B"].iter().any(|dots| segment.starts_with(dots)) => {
                return Err(PathError::AboveRoot);
            }
            ".." => {
                let parent = out.rfind('/').ok_or(PathError::AboveRoot)?;
                out.truncate(parent);
                if is_last {
                    out.push('/');
                }
            }
            _ => {
                out.push('/');
                out.push_str(segment);
            }
        }
    }
    if out.is_empty() {
        out.push('/');
    }
    Ok(Cow::Owned(out))
}

/// A normal path as servers see it that decode whatever may stand in a path as it is: `%40` is `@` to them.
#[must_use]
pub fn unescaped(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        let decoded = (byte == b'%').then(|| escaped(&mut bytes.clone())).and_then(Result::ok).filter(|b| is_bare(*b));
        if decoded.is_some() {
            bytes.nth(1);
        }
        out.push(char::from(decoded.unwrap_or(byte)));
    }
    out
}

/// A normal path as servers see it that cut path parameters (`;a=b`) off its segments.
#[must_use]
pub fn without_parameters(path: &str) -> String {
    let segments = path.split('/').skip(1).map(|segment| segment.split(';').next().unwrap_or_default());
    let bare: String = segments.flat_map(|segment| ["/", segment]).collect();
    // What is left may be two slashes, or a parent.
    normalise(&bare).map(Cow::into_owned).unwrap_or(bare)
}

// One pass over the bytes; almost every path ends here.
fn is_plain(path: &str) -> bool {
    path.bytes().all(|b| b == b'/' || is_bare(b)) && !path.as_bytes().windows(2).any(|two| matches!(two, b"//" | b"/."))
}

/// Whether a byte stands in a path as it is: the characters of RFC 3986's `pchar`, without the percent sign.
const fn is_bare(byte: u8) -> bool {
    is_unreserved(byte) || matches!(byte, b'!' | b'$' | b'&'..=b',' | b';' | b'=' | b':' | b'@')
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Each byte in its one spelling: unreserved ones bare, escapes in upper case, what does not belong in a path escaped.
pub(super) fn spell(path: &str) -> Result<String, PathError> {
    let mut out = String::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => return Err(PathError::Encoding),
            b'%' => match escaped(&mut bytes)? {
                b'/' | b'\\' | 0 => return Err(PathError::Encoding),
                byte if is_unreserved(byte) => out.push(char::from(byte)),
                byte => escape(&mut out, byte),
            },
            byte if byte == b'/' || is_bare(byte) => out.push(char::from(byte)),
            byte => escape(&mut out, byte),
        }
    }
    Ok(out)
}

fn escaped(bytes: &mut std::str::Bytes<'_>) -> Result<u8, PathError> {
    let mut digit = || char::from(bytes.next()?).to_digit(16);
    let (Some(high), Some(low)) = (digit(), digit()) else { return Err(PathError::Encoding) };
    u8::try_from(high << 4 | low).map_err(|_| PathError::Encoding)
}

fn escape(out: &mut String, byte: u8) {
    use std::fmt::Write as _;
    write!(out, "%{byte:02X}").expect("a string takes all text");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn resolves_merges_and_decodes() {
        for (path, normal) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("//a///b", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/%61%2d", "/a-"),
            ("/a/%2e%2E/b", "/b"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/a%20b", "/a%20b"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a//", "/a/"),
            ("/caf\u{e9}/{id}|", "/caf%C3%A9/%7Bid%7D%7C"),
            ("/a;v=1/b@c:d,e!f", "/a;v=1/b@c:d,e!f"),
        ] {
            assert_eq!(normalise(path).as_deref(), Ok(normal), "{path}");
        }
    }

    #[test]
    fn refuses_what_servers_disagree_on() {
        for (path, error) in [
            ("a", PathError::Relative),
            ("*", PathError::Relative),
            ("/..", PathError::AboveRoot),
            ("/a/../../b", PathError::AboveRoot),
            ("/%2e%2e/", PathError::AboveRoot),
            ("/a/..;/b", PathError::AboveRoot),
            ("/a/..%3bx/b", PathError::AboveRoot),
            ("/a%2Fb", PathError::Encoding),
            ("/a%5cb", PathError::Encoding),
            ("/a\\b", PathError::Encoding),
            ("/a%00", PathError::Encoding),
            ("/a%", PathError::Encoding),
            ("/a%zz", PathError::Encoding),
            ("/a%+1", PathError::Encoding),
        ] {
            assert_eq!(normalise(path), Err(error), "{path}");
        }
    }

    #[test]
    fn what_may_stand_as_it_is_is_decoded() {
        for (path, bare) in
            [("/%40me/x%3By", "/@me/x;y"), ("/a%20b%25", "/a%20b%25"), ("/%2B%2540", "/+%2540"), ("/", "/")]
        {
            assert_eq!(unescaped(path), bare, "{path}");
        }
    }

    #[test]
    fn parameters_are_cut_off() {
        for (path, bare) in
            [("/a;b=c/d", "/a/d"), ("/a;/;x/b;", "/a/b"), ("/a/;x", "/a/"), ("/a/b", "/a/b"), ("/;a", "/")]
        {
            assert_eq!(without_parameters(path), bare, "{path}");
        }
    }

    proptest! {
        #[test]
        fn is_idempotent_and_never_leaves_the_root(path in "/[a./%;25eE\\\\é-]{0,24}") {
            if let Ok(once) = normalise(&path) {
                let twice = normalise(&once).map(Cow::into_owned);
                prop_assert_eq!(twice.as_deref(), Ok(&*once));
                prop_assert!(once.starts_with('/') && !once.contains("//"));
                prop_assert!(!once.split('/').any(|s| s == ".." || s == "."));
            }
        }
    }
}
