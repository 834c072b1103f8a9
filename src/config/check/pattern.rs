//! Patterns: the hosts and paths of a route, to their normal forms, and what a value is to be.

use std::net::Ipv6Addr;

use super::{Check, address::is_dns_name};
use crate::{
    base::Name,
    config::{
        diagnostics::Code,
        plan::{HostPattern, PathPattern, PathRegex, Pattern, Segment, Template, Wanted},
        yaml::At,
    },
};

impl<'a> Check<'a> {
    /// `api.example.com` or `*.example.com`.
    pub(super) fn host_pattern(&mut self, at: At<'a>, text: &str) -> Option<HostPattern> {
        let label = if text.is_empty() {
            "write a host, or delete the field to match any"
        } else if text == "*" {
            "delete the field: without it any host matches"
        } else if text.contains("://") || text.contains('/') {
            "write the host alone"
        } else if text.starts_with('[') {
            let inside = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
            match inside.and_then(|ip| ip.parse::<Ipv6Addr>().ok()) {
                Some(ip) => return Some(HostPattern::Exact(Name::derived(format!("[{ip}]")))),
                None => "write it like [2001:db8::1], without a port",
            }
        } else if text.contains(':') {
            "write the host without a port"
        } else {
            let (parent, is_wildcard) = text.strip_prefix("*.").map_or((text, false), |parent| (parent, true));
            match is_dns_name(parent) {
                true => {
                    let name = Name::derived(parent.trim_end_matches('.').to_ascii_lowercase());
                    return Some(if is_wildcard { HostPattern::Wildcard(name) } else { HostPattern::Exact(name) });
                }
                false if parent.contains('*') => "a * stands only for whole labels in front: *.example.com",
                false => "a host is made of letters, digits, - and .",
            }
        };
        let finding = self.finding(Code::Invalid, at, format!("`{}` is not a host to match", at.shown()));
        self.report(finding.label(label));
        None
    }

    /// A text, or a regular expression behind a `~`.
    pub(super) fn wanted(&mut self, at: At<'a>, text: &str) -> Option<Wanted> {
        let Some(pattern) = text.strip_prefix('~') else { return Some(Wanted::Text(text.to_owned())) };
        let pattern = pattern.trim_start();
        let label = match Pattern::parse(pattern) {
            _ if pattern.is_empty() => "after the ~ comes a regular expression".to_owned(),
            Ok(pattern) => return Some(Wanted::Pattern(pattern)),
            Err(_) if at.is_expanded() => "after the ~ comes a regular expression".to_owned(),
            Err(why) => why,
        };
        let finding = self.finding(Code::Invalid, at, format!("`{}` is not a regular expression", at.shown()));
        self.report(finding.label(label));
        None
    }

    /// `/a`, `/a/*`, `/u/{id}` or `~ ^/v[0-9]+/`.
    pub(super) fn path_pattern(&mut self, at: At<'a>, text: &str) -> Option<PathPattern> {
        let parsed = match text.strip_prefix('~') {
            Some(regex) => parse_regex(regex.trim_start()),
            None => parse_path(text),
        };
        let label = match parsed {
            Ok(pattern) => return Some(pattern),
            Err(_) if at.is_expanded() => "write /a for one path, /a/* for all below it".to_owned(),
            Err(label) => label,
        };
        let finding = self.finding(Code::Invalid, at, format!("`{}` is not a path to match", at.shown()));
        self.report(finding.label(label));
        None
    }
}

/// More segments than any path has.
const MOST_SEGMENTS: usize = 256;

fn parse_regex(text: &str) -> Result<PathPattern, String> {
    if text.is_empty() {
        return Err("after the ~ comes a regular expression".to_owned());
    }
    let regex = PathRegex::parse(text).map_err(|why| format!("not a regular expression: {why}"))?;
    if let Some(odd) = text.chars().find(|c| !c.is_ascii_graphic()) {
        let escaped: String = odd.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect();
        return Err(format!("paths are matched as they are sent, without `{}`: write {escaped}", odd.escape_debug()));
    }
    let start = regex.literal_start();
    if !start.is_empty() && !start.starts_with('/') {
        return Err("no path matches it: they begin with /".to_owned());
    }
    if start.contains("//") {
        return Err("no path matches it: two / are one".to_owned());
    }
    // What it matches are paths, and they begin with a slash.
    match regex.regex.is_match("") {
        true => Err("it matches every path: write /* for that".to_owned()),
        false => Ok(PathPattern::Regex(regex)),
    }
}

/// The pattern, or how to write it right.
fn parse_path(text: &str) -> Result<PathPattern, String> {
    if !text.starts_with('/') {
        let absolute = format!("/{}", text.trim_start_matches("./"));
        return Err(match parse_path(&absolute) {
            Ok(_) => format!("write {absolute}"),
            Err(_) => "a path starts with /".to_owned(),
        });
    }
    if text.split('/').count() > MOST_SEGMENTS {
        return Err(format!("it has more than {MOST_SEGMENTS} segments"));
    }
    if text.contains(['{', '}']) {
        return parse_template(text).map(PathPattern::Template);
    }
    match text.strip_suffix("/*") {
        Some("") => Ok(PathPattern::ALL),
        Some(parent) => match normalise(parent)? {
            normal if normal.ends_with('/') => Err("write one / before the *".to_owned()),
            normal => Ok(PathPattern::Prefix(normal)),
        },
        None => normalise(text).map(PathPattern::Exact),
    }
}

/// `/u/{id}/files/*`: some of its segments are captures.
fn parse_template(text: &str) -> Result<Template, String> {
    let (path, is_prefix) = text.strip_suffix("/*").map_or((text, false), |path| (path, true));
    let mut segments = vec![];
    for segment in path.split('/').skip(1) {
        let capture = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        segments.push(match capture {
            Some(name) if !is_capture_name(name) => {
                return Err(format!(
                    "`{segment}` is no capture: a name is made of a-z, 0-9 and _, and starts with a letter"
                ));
            }
            Some(name) => Segment::Capture(name.to_owned()),
            None if segment.contains(['{', '}']) => {
                return Err(
                    "a capture is a whole segment, like {id}; for parts of one write a regular expression".to_owned()
                );
            }
            None => Segment::Literal(normalise(&format!("/{segment}"))?.split_off(1)),
        });
    }
    let template = Template { segments, is_prefix };
    let captures = PathPattern::Template(template.clone());
    let mut names = captures.captures();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair.first() == pair.last()) {
        Some(pair) => Err(format!("{{{}}} is there twice", pair.concat().split_at(pair.concat().len() / 2).0)),
        None => Ok(template),
    }
}

fn is_capture_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// The path as the gateway sees one after it has sanitised a request: no empty or dot segments, unreserved characters bare, other
/// escapes in upper case.
pub(super) fn normalise(path: &str) -> Result<String, String> {
    let trimmed = path.trim_end_matches('*');
    if path.ends_with('*') {
        return Err(format!("write {}/* for all paths below it", trimmed.trim_end_matches('/')));
    }
    if path.contains('*') {
        return Err("a * may only be the last segment: /a/*".to_owned());
    }
    if path.contains(['?', '#']) {
        return Err("a path has no query and no fragment".to_owned());
    }
    if path.contains("//") {
        return Err("write one / where there are two".to_owned());
    }
    if path.contains('\\') {
        return Err("write / for \\".to_owned());
    }
    let mut normal = String::new();
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        let (byte, escaped) = match byte {
            b'%' => {
                let hex = |digit: Option<u8>| digit.and_then(|digit| char::from(digit).to_digit(16));
                let (Some(high), Some(low)) = (hex(bytes.next()), hex(bytes.next())) else {
                    return Err("a % is followed by two hexadecimal digits".to_owned());
                };
                (u8::try_from(high * 16 + low).unwrap_or_default(), true)
            }
            byte => (byte, false),
        };
        let unreserved = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        let reserved =
            matches!(byte, b'/' | b':' | b'@' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'+' | b',' | b';' | b'=');
        match byte {
            b'/' | b'\\' | 0 if escaped => return Err("an escaped /, \\ or NUL is refused in requests".to_owned()),
            // Requests are matched by both spellings of these.
            _ if unreserved || reserved => normal.push(char::from(byte)),
            _ if !escaped && (byte.is_ascii_control() || byte == b' ') => {
                return Err(format!("write %{byte:02X} for this character"));
            }
            _ => normal.push_str(&format!("%{byte:02X}")),
        }
    }
    match normal.split('/').any(|segment| matches!(segment, "." | "..")) {
        true => Err("a path to match has no . or .. segments".to_owned()),
        false => Ok(normal),
    }
}
