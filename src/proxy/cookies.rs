//! The cookies of a request (RFC 6265, section 4.2.1).

use http::{
    HeaderMap, HeaderValue,
    header::{COOKIE, Entry},
};

use crate::net::values;

/// The value of the first cookie of this name.
pub(super) fn find<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    values(headers, &COOKIE).flat_map(|line| pairs(line.as_bytes())).find_map(|pair| value_of(pair, name))
}

/// Removes every cookie of this name; the others stay as they are written.
pub(super) fn remove(headers: &mut HeaderMap, name: &str) {
    if find(headers, name).is_none() {
        return;
    }
    let Entry::Occupied(lines) = headers.entry(COOKIE) else { return };
    let (_, lines) = lines.remove_entry_mult();
    let left: Vec<HeaderValue> = lines.filter_map(|line| without(&line, name)).collect();
    for line in left {
        headers.append(COOKIE, line);
    }
}

fn without(line: &HeaderValue, name: &str) -> Option<HeaderValue> {
    let others: Vec<&[u8]> = pairs(line.as_bytes()).filter(|pair| value_of(pair, name).is_none()).collect();
    let mut left = HeaderValue::from_bytes(&others.join(&b"; "[..])).ok().filter(|left| !left.is_empty())?;
    left.set_sensitive(line.is_sensitive());
    Some(left)
}

fn pairs(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b';').map(<[u8]>::trim_ascii).filter(|pair| !pair.is_empty())
}

fn value_of<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let (found, value) = pair.split_at_checked(name.len())?;
    let value = value.trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start();
    (found == name.as_bytes()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookies(lines: &[&'static str]) -> HeaderMap {
        lines.iter().map(|line| (COOKIE, HeaderValue::from_static(line))).collect()
    }

    fn lines(headers: &HeaderMap) -> Vec<&str> {
        headers.get_all(COOKIE).iter().map(|line| line.to_str().unwrap()).collect()
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let headers = cookies(&["xsid=0; sid2=1;sid = 2 ; sid=3", "other=4"]);
        assert_eq!(find(&headers, "sid"), Some(&b"2"[..]));
        assert_eq!(find(&headers, "other"), Some(&b"4"[..]));
        assert_eq!(find(&headers, "id"), None);
        assert_eq!(find(&headers, "SID"), None);
        assert_eq!(find(&cookies(&["sid", "sid;"]), "sid"), None);
        assert_eq!(find(&cookies(&["sid="]), "sid"), Some(&b""[..]));
    }

    #[test]
    fn the_others_stay_as_they_are_written() {
        let mut headers = cookies(&["a=1; sid=2; b=\"x=y\"", "sid=3", "c"]);
        remove(&mut headers, "sid");
        assert_eq!(lines(&headers), ["a=1; b=\"x=y\"", "c"]);
        remove(&mut headers, "sid");
        assert_eq!(lines(&headers), ["a=1; b=\"x=y\"", "c"]);
        let mut alone = cookies(&["sid=2"]);
        remove(&mut alone, "sid");
        assert!(alone.is_empty());
    }
}
