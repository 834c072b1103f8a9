//! Headers that belong to one hop, and headers that say where a request came from.

use std::net::{IpAddr, SocketAddr};

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{self, CONNECTION, FORWARDED, TRANSFER_ENCODING},
};
use ipnet::IpNet;

use crate::{net::values, upstream::Added};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(super) const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Which of the fields that mean something to the gateway a head has.
///
/// Found in one pass over what is there: to ask the map for each field that might be there costs a hash each, and most heads have
/// two of them. A field that was removed since then is looked for in vain.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Special(u16);

impl Special {
    const NONE: Self = Self(0);
    pub(super) const CONNECTION: Self = Self(1);
    pub(super) const CONTENT_LENGTH: Self = Self(1 << 1);
    pub(super) const COOKIE: Self = Self(1 << 2);
    pub(super) const EXPECT: Self = Self(1 << 3);
    /// One of those that concern only the connection that they came on, other than `Connection` itself.
    const HOP_BY_HOP: Self = Self(1 << 4);
    pub(super) const REQUEST_ID: Self = Self(1 << 5);
    const TE: Self = Self(1 << 6);
    pub(super) const TRANSFER_ENCODING: Self = Self(1 << 7);
    /// One whose name has an underscore.
    const UNDERSCORE: Self = Self(1 << 8);
    pub(super) const UPGRADE: Self = Self(1 << 9);
    /// One by which proxies say where a request came from.
    const WORD_OF_A_PROXY: Self = Self(1 << 10);

    pub(super) fn of(headers: &HeaderMap) -> Self {
        Self(headers.keys().fold(0, |all, name| all | Self::of_name(name.as_str()).0))
    }

    // By the first letter first: most fields are none of these, and to compare with each would cost more than the lookups.
    fn of_name(name: &str) -> Self {
        let is_special = match name.as_bytes() {
            [b'c', ..] => match name {
                "connection" => Self::CONNECTION,
                "content-length" => Self::CONTENT_LENGTH,
                "cookie" => Self::COOKIE,
                _ => Self::NONE,
            },
            [b'e', ..] if name == "expect" => Self::EXPECT,
            [b't', ..] => match name {
                "te" => Self(Self::TE.0 | Self::HOP_BY_HOP.0),
                "transfer-encoding" => Self(Self::TRANSFER_ENCODING.0 | Self::HOP_BY_HOP.0),
                _ => Self::NONE,
            },
            [b'u', ..] if name == "upgrade" => Self(Self::UPGRADE.0 | Self::HOP_BY_HOP.0),
            [b'x', ..] => match name {
                "x-request-id" => Self::REQUEST_ID,
                "x-real-ip" => Self::WORD_OF_A_PROXY,
                // `X-Forwarded-Prefix`, `-Port`, `-Ssl`, ...: backends believe some of them.
                _ if name.starts_with("x-forwarded-") => Self::WORD_OF_A_PROXY,
                _ => Self::NONE,
            },
            [b'f', ..] if name == "forwarded" => Self::WORD_OF_A_PROXY,
            [b'k' | b'p', ..] => match name {
                "keep-alive" | "proxy-authenticate" | "proxy-authorization" | "proxy-connection" => Self::HOP_BY_HOP,
                _ => Self::NONE,
            },
            _ => Self::NONE,
        };
        let has_underscore = name.bytes().any(|byte| byte == b'_');
        Self(is_special.0 | if has_underscore { Self::UNDERSCORE.0 } else { 0 })
    }

    /// Whether it has one of these.
    pub(super) const fn has(self, these: Self) -> bool {
        self.0 & these.0 != 0
    }
}

/// Removes what concerns only the connection that it came on (RFC 9110, section 7.6.1), fields nominated by `Connection`
/// among them.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap, special: Special) {
    if special.has(Special::CONNECTION) {
        for name in nominated(headers) {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    // Each side is framed anew.
    strip(headers, special, Special::HOP_BY_HOP);
}

/// Removes fields of a kind, if there are any.
fn strip(headers: &mut HeaderMap, special: Special, kind: Special) {
    if special.has(kind) {
        remove_all(headers, |name| Special::of_name(name.as_str()).has(kind));
    }
}

// By what is there, not by what might be: a head is short, and a field that is absent would cost a hash.
fn remove_all(headers: &mut HeaderMap, is_unwanted: impl Fn(&HeaderName) -> bool) {
    while let Some(name) = headers.keys().find(|name| is_unwanted(name)).cloned() {
        headers.remove(name);
    }
}

/// Whether the client asks for trailers.
pub(super) fn takes_trailers(headers: &HeaderMap, special: Special) -> bool {
    if !special.has(Special::TE) {
        return false;
    }
    let codings = headers.get_all(header::TE).iter().flat_map(|te| te.as_bytes().split(|byte| *byte == b','));
    codings.map(<[u8]>::trim_ascii).any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
}

/// Whether the transfer coding is one that hyper undoes: `chunked`, once, or none.
pub(super) fn is_framing_understood(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

/// Whether nothing is expected but what the gateway does, which is to say "go on" (RFC 9110, section 10.1.1).
pub(super) fn is_expectation_known(headers: &HeaderMap) -> bool {
    let mut expected = headers.get_all(header::EXPECT).iter().flat_map(|list| list.as_bytes().split(|b| *b == b','));
    expected.all(|one| one.trim_ascii().is_empty() || one.trim_ascii().eq_ignore_ascii_case(b"100-continue"))
}

/// Removes what clients may not say: fields that tell backends who a client is, and fields whose name has an underscore, as nginx
/// does: to programs behind CGI and WSGI, `X_Forwarded_For` and `X-Forwarded-For` are one.
pub(super) fn strip_claims(headers: &mut HeaderMap, special: Special, is_identity: impl Fn(&HeaderName) -> bool) {
    strip(headers, special, Special::UNDERSCORE);
    remove_all(headers, is_identity);
}

/// Makes one `Cookie` of many: HTTP/2 clients send crumbs, and HTTP/1.1 knows one header (RFC 9113, section 8.2.3).
pub(super) fn join_cookies(headers: &mut HeaderMap, special: Special) {
    if !special.has(Special::COOKIE) {
        return;
    }
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else { return };
    let mut whole = first.as_bytes().to_vec();
    for crumb in [second].into_iter().chain(crumbs) {
        whole.extend_from_slice(b"; ");
        whole.extend_from_slice(crumb.as_bytes());
    }
    if let Ok(whole) = HeaderValue::from_maybe_shared(bytes::Bytes::from(whole)) {
        headers.insert(header::COOKIE, whole);
    }
}

/// Removes from trailers what may only stand in a head (RFC 9110, section 6.5.1): it frames, routes, authenticates, or says what
/// the body is.
pub(super) fn strip_trailers(trailers: &mut HeaderMap) {
    remove_all(trailers, is_of_a_head);
    let special = Special::of(trailers);
    strip(trailers, special, Special(Special::HOP_BY_HOP.0 | Special::CONNECTION.0));
}

/// The same for the trailers of a request, and what clients may not say there either.
pub(super) fn strip_request_trailers(trailers: &mut HeaderMap, is_identity: impl Fn(&HeaderName) -> bool) {
    strip_trailers(trailers);
    let special = Special::of(trailers);
    strip_claims(trailers, special, is_identity);
    strip(trailers, special, Special::WORD_OF_A_PROXY);
}

fn is_of_a_head(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "authorization"
            | "content-encoding"
            | "content-length"
            | "content-range"
            | "content-type"
            | "cookie"
            | "host"
            | "set-cookie"
            | "trailer"
            | "x-request-id"
    )
}

/// Leaves a response one way to say where it ends. A length beside `chunked` is wrong or needless (RFC 9112, section 6.3), and
/// left in place it would cut the response on its way out.
pub(super) fn settle_framing(headers: &mut HeaderMap, special: Special) -> bool {
    if special.has(Special::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
        return is_framing_understood(headers);
    }
    !special.has(Special::CONTENT_LENGTH) || is_length_plain(headers)
}

/// Whether the length is one number or none. `5, 5` is one to some and none to others.
pub(super) fn is_length_plain(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    match (lengths.next(), lengths.next()) {
        (None, _) => true,
        (Some(length), None) => !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit),
        (Some(_), Some(_)) => false,
    }
}

// End-to-end fields that a sender may not have removed by naming them: they route, frame or authenticate the request.
fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    let lists = headers.get_all(CONNECTION).iter().map(HeaderValue::as_bytes);
    let options = lists.flat_map(|list| list.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    // What nearly every `Connection` says names no field that would not go anyway.
    let named = options.filter(|option| ![&b"close"[..], b"keep-alive"].contains(option));
    let names = named.filter_map(|name| HeaderName::from_bytes(name).ok());
    names.filter(|name| ![header::HOST, header::CONTENT_LENGTH, header::AUTHORIZATION].contains(name)).collect()
}

/// The client's address: the rightmost hop that no trusted proxy vouches for.
///
/// `X-Forwarded-For` is believed only as far as a chain of trusted peers reaches, and read from the right, because a client
/// may put anything on its left. `Forwarded` (RFC 7239) is read only where the former is absent.
pub(super) fn client_ip(peer: IpAddr, trusted: &[IpNet], headers: &HeaderMap) -> IpAddr {
    let peer = peer.to_canonical();
    let is_trusted = |ip: &IpAddr| trusted.iter().any(|net| net.contains(ip));
    if !is_trusted(&peer) {
        return peer;
    }
    let mut client = peer;
    let hops: Vec<Option<IpAddr>> = match headers.contains_key(X_FORWARDED_FOR) {
        true => listed(headers, &X_FORWARDED_FOR).map(parse_hop).collect(),
        false => listed(headers, &FORWARDED).map(forwarded_for).collect(),
    };
    for hop in hops.into_iter().rev() {
        // What cannot be read ends the chain: the last hop that could be is all that is known.
        let Some(hop) = hop else { break };
        client = hop;
        if !is_trusted(&client) {
            break;
        }
    }
    client
}

fn listed<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("?"));
    values.flat_map(|list| list.split(',')).map(str::trim)
}

fn parse_hop(text: &str) -> Option<IpAddr> {
    let address = text.parse::<SocketAddr>().map(|a| a.ip()).or_else(|_| text.trim_matches(['[', ']']).parse());
    address.ok().map(|ip| ip.to_canonical())
}

fn forwarded_for(element: &str) -> Option<IpAddr> {
    let pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let mut values = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("for")).map(|(_, value)| value.trim());
    parse_hop(values.next()?.trim_matches('"'))
}

/// Where a request came from, as its connection says.
#[derive(Debug)]
pub(super) struct Origin<'a> {
    pub(super) peer: IpAddr,
    /// The same, ready to be sent on.
    pub(super) text: HeaderValue,
    /// `http` or `https`.
    pub(super) scheme: &'static str,
    pub(super) trusted: &'a [IpNet],
}

/// The scheme that the client has used: as its connection says, or as a trusted proxy does.
pub(super) fn scheme(headers: &HeaderMap, from: &Origin<'_>) -> &'static str {
    let peer = from.peer.to_canonical();
    let is_trusted = from.trusted.iter().any(|net| net.contains(&peer));
    let said = || values(headers, &X_FORWARDED_PROTO).next().map(HeaderValue::as_bytes);
    match said().filter(|_| is_trusted) {
        Some(scheme) if scheme.eq_ignore_ascii_case(b"https") => "https",
        Some(scheme) if scheme.eq_ignore_ascii_case(b"http") => "http",
        _ => from.scheme,
    }
}

/// Says where the request came from, in fields that are added to the head. What an untrusted peer says of it is removed.
pub(super) fn forwarded(headers: &mut HeaderMap, special: Special, from: Origin<'_>, added: &mut Added) {
    let Origin { peer, text, scheme, trusted } = from;
    let peer = peer.to_canonical();
    let host = || values(headers, &header::HOST).next().cloned();
    if !special.has(Special::WORD_OF_A_PROXY) {
        added.extend(host().map(|host| (X_FORWARDED_HOST, host)));
        added.push((X_FORWARDED_FOR, text));
        added.push((X_FORWARDED_PROTO, HeaderValue::from_static(scheme)));
        return;
    }
    if !trusted.iter().any(|net| net.contains(&peer)) {
        strip(headers, special, Special::WORD_OF_A_PROXY);
    }
    let mut chain: Vec<&[u8]> = listed(headers, &X_FORWARDED_FOR).map(str::as_bytes).collect();
    chain.push(text.as_bytes());
    let chain = HeaderValue::from_bytes(&chain.join(&b", "[..])).unwrap_or(text);
    headers.insert(X_FORWARDED_FOR, chain);
    headers.entry(X_FORWARDED_PROTO).or_insert(HeaderValue::from_static(scheme));
    if let Some(host) = headers.get(header::HOST).cloned() {
        headers.entry(X_FORWARDED_HOST).or_insert(host);
    }
}

/// Counts one forward off `Max-Forwards`, which bounds those of OPTIONS (RFC 9110, section 7.6.2): false if none is left.
pub(super) fn may_forward(headers: &mut HeaderMap) -> bool {
    let Some(value) = headers.get(header::MAX_FORWARDS) else { return true };
    let left = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    // What is no number bounds nothing. One beyond all bounds is as good as the largest.
    let Some(left) = left.filter(|text| !text.is_empty()).map(|text| text.parse().unwrap_or(u32::MAX)) else {
        return true;
    };
    let Some(less) = left.checked_sub(1) else { return false };
    headers.insert(header::MAX_FORWARDS, HeaderValue::from(less));
    true
}

/// A request id that a trusted peer sent, if it is one that is safe to log and pass on.
pub(super) fn trusted_request_id(headers: &HeaderMap, peer: IpAddr, trusted: &[IpNet]) -> Option<HeaderValue> {
    // Asked first: it costs nothing where nobody is trusted.
    let peer = peer.to_canonical();
    if !trusted.iter().any(|net| net.contains(&peer)) {
        return None;
    }
    let id = headers.get(X_REQUEST_ID)?;
    let is_safe = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'/' | b'+' | b'=');
    let fits = (1..=128).contains(&id.len()) && id.as_bytes().iter().all(is_safe);
    fits.then(|| id.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    fn trusted() -> Vec<IpNet> {
        vec!["10.0.0.0/8".parse().unwrap()]
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn origin(trusted: &[IpNet]) -> Origin<'_> {
        Origin { peer: PEER, text: HeaderValue::from_static("10.0.0.1"), scheme: "http", trusted }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn strip_all_hop_by_hop(headers: &mut HeaderMap) {
        let special = Special::of(headers);
        strip_hop_by_hop(headers, special);
    }

    /// With what is added.
    fn forwarded_by(origin: Origin<'_>, mut headers: HeaderMap) -> HeaderMap {
        let (special, mut added) = (Special::of(&headers), Added::new());
        forwarded(&mut headers, special, origin, &mut added);
        for (name, value) in added {
            assert!(headers.insert(name, value).is_none());
        }
        headers
    }

    #[test]
    fn strips_hop_by_hop_and_what_connection_names() {
        let mut map = headers(&[
            ("connection", "close, X-Secret"),
            ("connection", "x-other, host, content-length"),
            ("host", "a"),
            ("content-length", "3"),
            ("x-secret", "1"),
            ("x-other", "1"),
            ("keep-alive", "5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("proxy-authorization", "x"),
            ("x-kept", "1"),
        ]);
        strip_all_hop_by_hop(&mut map);
        let mut left: Vec<_> = map.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "host", "x-kept"]);
    }

    #[test]
    fn a_byte_that_is_no_name_hides_no_other() {
        let mut map = headers(&[("x-secret", "1")]);
        map.insert(CONNECTION, HeaderValue::from_bytes(b"x-s\xff, x-secret").unwrap());
        strip_all_hop_by_hop(&mut map);
        assert!(map.is_empty(), "{map:?}");
    }

    #[test]
    fn trailers_say_nothing_that_belongs_in_a_head() {
        let mut map = headers(&[
            ("x-sum", "1"),
            ("x-forwarded-for", "6.6.6.6"),
            ("x_real_ip", "6.6.6.6"),
            ("x-request-id", "me"),
            ("authorization", "me"),
            ("content-length", "9"),
            ("connection", "close"),
            ("x-subject", "CN=me"),
        ]);
        strip_request_trailers(&mut map, |name| name == "x-subject");
        assert_eq!(map, headers(&[("x-sum", "1")]));
    }

    #[test]
    fn a_response_has_one_framing() {
        let settled = |pairs: &[(&'static str, &'static str)]| {
            let mut map = headers(pairs);
            let special = Special::of(&map);
            settle_framing(&mut map, special).then_some(map)
        };
        let both = settled(&[("transfer-encoding", "chunked"), ("content-length", "5")]);
        assert_eq!(both, Some(headers(&[("transfer-encoding", "chunked")])));
        assert!(settled(&[("content-length", "5")]).is_some());
        for doubtful in ["5, 5", "+5", "", "5 5"] {
            assert_eq!(settled(&[("content-length", doubtful)]), None, "{doubtful}");
        }
        assert_eq!(settled(&[("content-length", "5"), ("content-length", "5")]), None);
        assert_eq!(settled(&[("transfer-encoding", "gzip, chunked")]), None);
    }

    #[test]
    fn the_client_is_the_rightmost_untrusted_hop() {
        let chain = headers(&[("x-forwarded-for", "1.1.1.1, 2.2.2.2"), ("x-forwarded-for", "10.9.9.9")]);
        assert_eq!(client_ip(PEER, &trusted(), &chain), ip("2.2.2.2"));
        assert_eq!(client_ip(PEER, &[], &chain), PEER);
        let all_trusted = headers(&[("x-forwarded-for", "10.3.3.3, 10.2.2.2")]);
        assert_eq!(client_ip(PEER, &trusted(), &all_trusted), ip("10.3.3.3"));
        let garbage = headers(&[("x-forwarded-for", "1.1.1.1, unknown, 10.2.2.2")]);
        assert_eq!(client_ip(PEER, &trusted(), &garbage), ip("10.2.2.2"));
        let ports = headers(&[("x-forwarded-for", "[2001:db8::1]:99")]);
        assert_eq!(client_ip(PEER, &trusted(), &ports), ip("2001:db8::1"));
        let forwarded = headers(&[("forwarded", "for=1.1.1.1;proto=https, For=\"[2001:db8::2]:1\"")]);
        assert_eq!(client_ip(PEER, &trusted(), &forwarded), ip("2001:db8::2"));
        assert_eq!(client_ip("::ffff:9.9.9.9".parse().unwrap(), &trusted(), &chain), ip("9.9.9.9"));
    }

    #[test]
    fn an_untrusted_peers_word_is_replaced() {
        let map = headers(&[
            ("host", "shop"),
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-prefix", "/admin"),
            ("x-real-ip", "6.6.6.6"),
            ("forwarded", "for=6.6.6.6"),
        ]);
        let expected = headers(&[
            ("host", "shop"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "shop"),
        ]);
        assert_eq!(forwarded_by(origin(&[]), map), expected);
        assert_eq!(forwarded_by(origin(&[]), headers(&[("host", "shop")])), expected);
    }

    #[test]
    fn a_trusted_peers_word_is_kept_and_its_address_appended() {
        let map = headers(&[("host", "a"), ("x-forwarded-for", "6.6.6.6"), ("x-forwarded-proto", "https")]);
        let map = forwarded_by(origin(&trusted()), map);
        assert_eq!(map["x-forwarded-for"], "6.6.6.6, 10.0.0.1");
        assert_eq!(map["x-forwarded-proto"], "https");
        assert_eq!(map["x-forwarded-host"], "a");
    }

    #[test]
    fn a_request_id_is_taken_only_from_a_trusted_peer_and_only_if_safe() {
        let good = headers(&[("x-request-id", "abc-123")]);
        assert_eq!(trusted_request_id(&good, PEER, &trusted()).unwrap(), "abc-123");
        assert_eq!(trusted_request_id(&good, PEER, &[]), None);
        assert_eq!(trusted_request_id(&headers(&[("x-request-id", "a b\"")]), PEER, &trusted()), None);
    }
}
