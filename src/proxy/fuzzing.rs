//! The request path as fuzz targets see it: bytes in, and what must hold of what comes out.

use std::{borrow::Cow, net::IpAddr};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version, header};

use super::{
    compress::negotiate,
    frames::Frames,
    grpc,
    headers::{self, Origin, Special},
    sanitise,
};
use crate::{config::plan::Coding, route, upstream::Added};

/// Takes a head through all that is done to it on its way to a backend. Bytes that the HTTP library would refuse are none.
///
/// # Panics
/// What would be forwarded is not what was matched, or says what clients may not say.
pub fn request_head(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let Some(request) = read(*kind, bytes) else { return };
    let (is_call, granted) = (grpc::is_call(&request), grpc::timeout(request.headers()));
    assert!(!is_call || request.version() == Version::HTTP_2);
    assert!(granted.is_none_or(|granted| granted.as_secs() <= 99_999_999 * 3_600));

    let mut head = request.into_parts().0;
    let peer = IpAddr::from([10, 0, 0, 1]);
    let everybody = ["0.0.0.0/0".parse().expect("a network"), "::/0".parse().expect("a network")];
    let trusted = if kind & 4 == 0 { &[][..] } else { &everybody[..] };
    let client = headers::client_ip(peer, trusted, &head.headers);
    assert!(!trusted.is_empty() || client == peer);
    if let Some(id) = headers::trusted_request_id(&head.headers, peer, trusted) {
        assert!(!trusted.is_empty() && id.to_str().is_ok_and(|id| !id.contains(['"', '\\', ' '])));
    }
    let special = Special::of(&head.headers);
    if sanitise::sanitise(&mut head, special).is_err() {
        return;
    }
    let Ok(host) = sanitise::host(&head).map(Cow::into_owned) else { return };
    assert!(route::normalise_host(&host).is_ok_and(|again| again == host), "{host}");
    let path = head.uri.path();
    let is_normal = route::normalise_path(path).is_ok_and(|again| again == path);
    assert!(is_normal || (path == "*" && head.method == Method::OPTIONS), "{path}");
    assert!(head.uri.authority().is_none() && head.uri.scheme().is_none());

    let mut added = Added::new();
    headers::strip_hop_by_hop(&mut head.headers, special);
    headers::strip_claims(&mut head.headers, special, |name| name == "x-subject");
    headers::join_cookies(&mut head.headers, special);
    let text = HeaderValue::from_static("10.0.0.1");
    let origin = Origin { peer, text, scheme: "http", trusted };
    headers::forwarded(&mut head.headers, special, origin, &mut added);
    for (name, value) in added {
        head.headers.append(name, value);
    }
    let count = |name: &str| head.headers.get_all(name).iter().count();
    for gone in ["connection", "transfer-encoding", "te", "upgrade", "keep-alive", "proxy-connection", "x-subject"] {
        assert_eq!(count(gone), 0, "{gone}");
    }
    assert!(head.headers.keys().all(|name| !name.as_str().contains('_')));
    assert_eq!(count("x-forwarded-for"), 1);
    assert!(count(header::HOST.as_str()) <= 1 && count(header::COOKIE.as_str()) <= 1);
    if trusted.is_empty() {
        assert_eq!(head.headers["x-forwarded-for"], "10.0.0.1");
        assert_eq!(count("forwarded") + count("x-real-ip"), 0);
    }
}

/// Takes bytes for those of a WebSocket.
///
/// # Panics
/// Where a frame may be put in depends on how the bytes were cut into pieces.
pub fn websocket_frames(bytes: &[u8]) {
    let Some((piece, bytes)) = bytes.split_first() else { return };
    let (mut whole, mut cut) = (Frames::default(), Frames::default());
    whole.pass(bytes);
    bytes.chunks(usize::from(*piece).max(1)).for_each(|piece| cut.pass(piece));
    assert_eq!(whole.is_between(), cut.is_between());
}

/// Takes lines for fields of `Accept-Encoding`, to a route that offers what the first byte says.
///
/// # Panics
/// What is chosen is not offered, or not wanted, or not what a plain reading of RFC 9110, section 12.5.3, leads to.
pub fn accept_encoding(bytes: &[u8]) {
    let Some((offer, bytes)) = bytes.split_first() else { return };
    let mut ours = vec![Coding::Zstd, Coding::Brotli, Coding::Gzip];
    ours.rotate_left(usize::from(offer >> 3) % 3);
    let mut number = 0;
    ours.retain(|_| {
        number += 1;
        offer & (1 << number) == 0
    });
    let mut headers = HeaderMap::new();
    let mut wishes = Vec::new();
    for value in bytes.split(|byte| *byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok()) {
        wishes.extend(value.to_str().unwrap_or_default().split(',').filter_map(wish));
        headers.append(header::ACCEPT_ENCODING, value);
    }

    let weight = |names: &[&str]| {
        let named = wishes.iter().filter(|(name, _)| names.contains(&name.as_str()));
        named.map(|(_, weight)| *weight).min()
    };
    let of = |coding: &Coding| {
        let names: &[&str] = if *coding == Coding::Gzip { &["gzip", "x-gzip"] } else { &[coding.token()] };
        weight(names).or(weight(&["*"])).unwrap_or(0)
    };
    let (most, identity) = (ours.iter().map(of).max().unwrap_or(0), weight(&["identity"]).unwrap_or(0));
    let expected = ours.iter().find(|coding| of(coding) == most).filter(|_| most > 0 && most >= identity);

    let chosen = negotiate(&headers, &ours);
    assert!(chosen.is_none_or(|coding| ours.contains(&coding) && of(&coding) > 0), "{chosen:?} {wishes:?}");
    assert_eq!(chosen.as_ref(), expected, "{wishes:?}");
}

/// `gzip;q=0.5`, in thousandths.
fn wish(text: &str) -> Option<(String, u16)> {
    let parts: Vec<&str> = text.split(';').map(str::trim).collect();
    let weight = match parts.get(1) {
        None => 1_000,
        Some(parameter) => {
            let (name, value) = parameter.split_once('=')?;
            let value = value.trim();
            let is_plain = value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
            let whole = value.starts_with(['0', '1']) && (value.len() == 1 || value[1..].starts_with('.'));
            if !name.trim().eq_ignore_ascii_case("q") || !is_plain || !whole || value.len() > 5 {
                return None;
            }
            let weight: f32 = value.parse().ok()?;
            if weight > 1.0 {
                return None;
            }
            (weight * 1_000.0).round() as u16
        }
    };
    Some((parts[0].to_ascii_lowercase(), weight))
}

/// `METHOD TARGET`, then a line for each field.
fn read(kind: u8, bytes: &[u8]) -> Option<Request<()>> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let line = std::str::from_utf8(lines.next()?).ok()?;
    let (method, target) = line.split_once(' ')?;
    let version = [Version::HTTP_11, Version::HTTP_2, Version::HTTP_10, Version::HTTP_11];
    let version = version.get(usize::from(kind & 3)).copied()?;
    let mut request = Request::builder().method(method).uri(target).version(version);
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (line.get(..colon)?, line.get(colon + 1..)?);
        request = request.header(HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value.trim_ascii()).ok()?);
    }
    request.body(()).ok()
}
