//! Upgrades (RFC 9110, section 7.8) and extended CONNECT (RFC 8441): what a client may ask for, and whether the backend agreed.
//!
//! Both lead to a tunnel ([`Tunnel`](super::Tunnel)), and only after the check of the backend's answer that is here: bytes that
//! pass as a tunnel while the backend takes them for requests would smuggle requests (CVE-2026-2833).

use aws_lc_rs::digest;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header, request, response};
use hyper::{ext::Protocol, upgrade::OnUpgrade};

use super::{Fault, headers::Special, sanitise::Malformed, way::Way};
use crate::config::plan;

const SEC_WEBSOCKET_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
const SEC_WEBSOCKET_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const UPGRADE: HeaderValue = HeaderValue::from_static("upgrade");
const WEBSOCKET: &str = "websocket";

/// An upgrade that a client asks for and its route allows.
pub(super) struct Asked {
    token: HeaderValue,
    /// What asked for it was a CONNECT of HTTP/2.
    pub(super) extended: Option<Extended>,
}

/// A CONNECT of HTTP/2 for a WebSocket, which goes on as an upgrade of HTTP/1.1.
pub(super) struct Extended {
    accept: HeaderValue,
    /// The stream, once it is a tunnel.
    pub(super) stream: OnUpgrade,
}

/// Makes an extended CONNECT the request that HTTP/1.1 has for the same: a GET with a key (RFC 8441, section 5).
pub(super) fn extended_connect(head: &mut request::Parts) -> Result<Option<Extended>, Malformed> {
    if head.method != Method::CONNECT {
        return Ok(None);
    }
    let protocol = head.extensions.remove::<Protocol>();
    let stream = head.extensions.remove::<OnUpgrade>();
    let (Some(protocol), Some(stream), Version::HTTP_2) = (protocol, stream, head.version) else {
        return Err(Malformed::Connect);
    };
    if protocol.as_str() != WEBSOCKET {
        return Err(Malformed::Connect);
    }
    let key = BASE64_STANDARD.encode(fastrand::u128(..).to_be_bytes());
    let accept = HeaderValue::try_from(accept_of(&key)).map_err(|_| Malformed::Connect)?;
    head.method = Method::GET;
    head.headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::try_from(key).map_err(|_| Malformed::Connect)?);
    head.headers.insert(header::CONNECTION, UPGRADE);
    head.headers.insert(header::UPGRADE, HeaderValue::from_static(WEBSOCKET));
    Ok(Some(Extended { accept, stream }))
}

/// What a server answers to a key (RFC 6455, section 4.2.2).
fn accept_of(key: &str) -> String {
    let mut sha1 = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    sha1.update(key.as_bytes());
    sha1.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    BASE64_STANDARD.encode(sha1.finish())
}

impl Asked {
    /// The upgrade that a head asks for, if the route allows it. An upgrade is an offer: one that is not taken up leaves a plain
    /// request. A CONNECT is none.
    pub(super) fn of(
        head: &request::Parts,
        special: Special,
        way: Option<&Way<'_>>,
        has_body: bool,
        extended: Option<Extended>,
    ) -> Result<Option<Self>, Malformed> {
        let is_connect = extended.is_some();
        // A backend that speaks HTTP/2 alone knows no upgrade, and nor does what the gateway answers itself.
        let is_possible = |way: &&Way<'_>| !has_body && way.upstream.plan.protocol == plan::Protocol::Http1;
        let may_be_offered = head.version == Version::HTTP_11 && special.has(Special::UPGRADE);
        let is_offered = is_connect || (may_be_offered && names(&head.headers, &header::CONNECTION, "upgrade"));
        let token = way.filter(|_| is_offered).filter(is_possible).and_then(|way| {
            let token = way.plan.upgrades.iter().find(|token| names(&head.headers, &header::UPGRADE, token));
            token.and_then(|token| HeaderValue::from_str(token).ok())
        });
        match token {
            Some(token) => Ok(Some(Self { token, extended })),
            None if is_connect => Err(Malformed::Connect),
            None => Ok(None),
        }
    }

    /// Whether it is for a WebSocket.
    pub(super) fn is_websocket(&self) -> bool {
        self.token.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes())
    }

    /// Asks the backend for it.
    pub(super) fn ask(&self, headers: &mut HeaderMap) {
        headers.insert(header::CONNECTION, UPGRADE);
        headers.insert(header::UPGRADE, self.token.clone());
    }

    /// Whether the backend agrees to what it was asked for, and to nothing else.
    pub(super) fn is_agreed(&self, headers: &HeaderMap) -> bool {
        let mut answers = headers.get_all(header::UPGRADE).iter();
        let is_same = |answer: &HeaderValue| answer.as_bytes().eq_ignore_ascii_case(self.token.as_bytes());
        let is_one = answers.next().is_some_and(is_same) && answers.next().is_none();
        let has_key = |extended: &Extended| headers.get(SEC_WEBSOCKET_ACCEPT) == Some(&extended.accept);
        is_one && names(headers, &header::CONNECTION, "upgrade") && self.extended.as_ref().is_none_or(has_key)
    }

    /// The answer to the client, of which the fields of the backend's connection were taken out.
    pub(super) fn answer(&self, head: &mut response::Parts) {
        if self.extended.is_some() {
            head.status = StatusCode::OK;
            head.headers.remove(SEC_WEBSOCKET_ACCEPT);
        } else {
            self.ask(&mut head.headers);
        }
    }

    /// Whether the backend may answer so instead of agreeing: to a CONNECT any success means that there is a tunnel.
    pub(super) fn declined(&self, status: StatusCode) -> Result<(), Fault> {
        if self.extended.is_some() && status.is_success() { Err(Fault::BadResponse) } else { Ok(()) }
    }
}

/// Whether a list of tokens has this one.
fn names(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let tokens = headers.get_all(name).iter().flat_map(|list| list.as_bytes().split(|byte| *byte == b','));
    tokens.map(<[u8]>::trim_ascii).any(|listed| listed.eq_ignore_ascii_case(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_key_is_that_of_the_rfc() {
        assert_eq!(accept_of("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn only_what_was_asked_for_is_agreed() {
        let asked = Asked { token: HeaderValue::from_static("websocket"), extended: None };
        let agrees = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, HeaderValue::from_static(value));
            }
            asked.is_agreed(&headers)
        };
        assert!(agrees(&[("connection", "Upgrade"), ("upgrade", "WebSocket")]));
        assert!(agrees(&[("connection", "keep-alive, upgrade"), ("upgrade", "websocket")]));
        for pairs in [
            &[("connection", "upgrade")][..],
            &[("upgrade", "websocket")],
            &[("connection", "close"), ("upgrade", "websocket")],
            &[("connection", "upgrade"), ("upgrade", "h2c")],
            &[("connection", "upgrade"), ("upgrade", "websocket, h2c")],
            &[("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "h2c")],
        ] {
            assert!(!agrees(pairs), "{pairs:?}");
        }
    }
}
