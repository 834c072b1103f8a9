//! What a request brings to the choice of its backend, and what its client takes along to come back to it.

use std::fmt::Write as _;

use http::{
    HeaderMap, HeaderValue,
    header::{CACHE_CONTROL, SET_COOKIE},
};

use super::{Exchange, cookies, way::Way};
use crate::{
    config::plan::{BalanceMode, HashKey, SameSite, Sticky},
    net::values,
    upstream::{self, Member, RequestHead, Ticket, Token},
};

/// Reads what the upstream asks for. The cookie of the gateway's own goes no further.
pub(super) fn of(exchange: &Exchange, route: &Way<'_>, head: &mut RequestHead) -> Ticket {
    let balance = &route.upstream.plan.balance;
    let key = match &balance.mode {
        BalanceMode::Hash(placing) => key(exchange, head, &placing.by),
        BalanceMode::LeastRequests | BalanceMode::P2c | BalanceMode::Random | BalanceMode::RoundRobin => None,
    };
    let token = balance.sticky.as_ref().and_then(|sticky| {
        let token = cookies::find(&head.parts.headers, &sticky.cookie).and_then(Token::read);
        cookies::remove(&mut head.parts.headers, &sticky.cookie);
        token
    });
    Ticket { key, token }
}

/// Where the request belongs. One that says nothing belongs nowhere: all of them in one place would be too many for it.
fn key(exchange: &Exchange, head: &RequestHead, by: &HashKey) -> Option<u64> {
    let text = match by {
        HashKey::Ip => return Some(upstream::place_ip(exchange.client_ip())),
        HashKey::Cookie(name) => cookies::find(&head.parts.headers, name),
        HashKey::Header(name) => {
            let added = head.added.iter().filter(|(added, _)| added == name).map(|(_, value)| value);
            values(&head.parts.headers, name).chain(added).next().map(HeaderValue::as_bytes)
        }
        HashKey::Query(name) => head.parts.uri.query().and_then(|query| parameter(query, name)).map(str::as_bytes),
    };
    text.filter(|text| !text.is_empty()).map(upstream::place)
}

/// The value of the first parameter of this name, as it is written.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').filter_map(|pair| pair.split_once('=')).find(|(found, _)| *found == name).map(|(_, value)| value)
}

/// Binds the client to the backend that has answered, unless it is.
pub(super) fn bind(exchange: &Exchange, route: &Way<'_>, ticket: Ticket, member: &Member, headers: &mut HeaderMap) {
    let Some(sticky) = &route.upstream.plan.balance.sticky else { return };
    let token = route.upstream.live.eligible().token(member.backend.slot());
    let Some(token) = token.filter(|token| ticket.token != Some(*token)) else { return };
    let came_by_tls = exchange.client().listener.tls.is_some();
    let Ok(cookie) = HeaderValue::try_from(cookie(sticky, token, came_by_tls)) else { return };
    headers.append(SET_COOKIE, cookie);
    if !is_private(headers) {
        // A cache that keeps it for others would bind them all (RFC 9111, section 7.3).
        headers.append(CACHE_CONTROL, HeaderValue::from_static("private"));
    }
}

fn cookie(sticky: &Sticky, token: Token, came_by_tls: bool) -> String {
    let mut text = format!("{}={token}; Path={}", sticky.cookie, sticky.path);
    if let Some(ttl) = sticky.ttl {
        let _ = write!(text, "; Max-Age={}", ttl.as_secs());
    }
    if sticky.http_only {
        text.push_str("; HttpOnly");
    }
    if sticky.secure.unwrap_or(came_by_tls) {
        text.push_str("; Secure");
    }
    text.push_str(match sticky.same_site {
        SameSite::Lax => "; SameSite=Lax",
        SameSite::None => "; SameSite=None",
        SameSite::Strict => "; SameSite=Strict",
    });
    text
}

fn is_private(headers: &HeaderMap) -> bool {
    let lists = values(headers, &CACHE_CONTROL).map(HeaderValue::as_bytes);
    let mut directives = lists.flat_map(|list| list.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    directives.any(|one| one.eq_ignore_ascii_case(b"private") || one.eq_ignore_ascii_case(b"no-store"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{base::Secret, config::plan::OnFailure};

    fn sticky() -> Sticky {
        Sticky {
            cookie: "tg".to_owned(),
            key: Secret::new("k".to_owned()),
            ttl: None,
            path: "/".to_owned(),
            same_site: SameSite::Lax,
            secure: None,
            http_only: true,
            on_failure: OnFailure::Another,
        }
    }

    #[test]
    fn a_cookie_says_what_the_config_says() {
        let token = Token::read(b"AAAAAAAAAAAAAAAAAAAAAA").unwrap();
        let plain = "tg=AAAAAAAAAAAAAAAAAAAAAA; Path=/; HttpOnly";
        assert_eq!(cookie(&sticky(), token, false), format!("{plain}; SameSite=Lax"));
        assert_eq!(cookie(&sticky(), token, true), format!("{plain}; Secure; SameSite=Lax"));
        let other = Sticky {
            ttl: Some(Duration::from_secs(3_600)),
            path: "/shop".to_owned(),
            same_site: SameSite::None,
            secure: Some(true),
            http_only: false,
            ..sticky()
        };
        let expected = "tg=AAAAAAAAAAAAAAAAAAAAAA; Path=/shop; Max-Age=3600; Secure; SameSite=None";
        assert_eq!(cookie(&other, token, false), expected);
    }

    #[test]
    fn a_parameter_is_found_by_its_whole_name() {
        assert_eq!(parameter("xuser=1&user=a%20b&user=c", "user"), Some("a%20b"));
        assert_eq!(parameter("user&users=1", "user"), None);
    }

    #[test]
    fn what_is_private_is_seen() {
        let headers = |text| HeaderMap::from_iter([(CACHE_CONTROL, HeaderValue::from_static(text))]);
        assert!(is_private(&headers("max-age=5, Private")) && is_private(&headers("no-store")));
        // Of one field only.
        assert!(!is_private(&headers("public, private=\"set-cookie\"")));
    }
}
