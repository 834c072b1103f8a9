//! `Accept-Encoding` (RFC 9110, section 12.5.3).

use http::{HeaderMap, header};

use crate::config::plan::Coding;

/// The coding that the client likes best, and of those that it likes as much the first of ours. `None`: as it is. What cannot
/// be read is no wish.
pub(in crate::proxy) fn negotiate(headers: &HeaderMap, ours: &[Coding]) -> Option<Coding> {
    let mut best: Option<(Weight, Coding)> = None;
    let identity = weight(headers, "identity").unwrap_or(Weight(1));
    for coding in ours {
        let Some(weight) = weight(headers, coding.token()).or_else(|| weight(headers, "*")) else { continue };
        if weight > Weight(0) && weight >= identity && best.is_none_or(|(best, _)| weight > best) {
            best = Some((weight, *coding));
        }
    }
    best.map(|(_, coding)| coding)
}

/// A weight in thousandths.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Weight(u16);

/// The weight of a coding that is named; of one that is named twice, the lower.
fn weight(headers: &HeaderMap, coding: &str) -> Option<Weight> {
    let lists = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|list| list.to_str().ok());
    let named = lists.flat_map(|list| list.split(',')).filter_map(|element| {
        let mut parts = element.split(';').map(str::trim);
        let name = parts.next().filter(|name| {
            let is_alias = coding == "gzip" && name.eq_ignore_ascii_case("x-gzip");
            name.eq_ignore_ascii_case(coding) || is_alias
        });
        name.and_then(|_| quality(parts.next()))
    });
    named.min()
}

/// `q=0.5`: up to three decimals, at most 1.
fn quality(parameter: Option<&str>) -> Option<Weight> {
    let Some(parameter) = parameter else { return Some(Weight(1000)) };
    let (name, value) = parameter.split_once('=')?;
    let (whole, decimals) = value.trim().split_once('.').unwrap_or((value.trim(), ""));
    let is_number = decimals.len() <= 3 && decimals.bytes().all(|digit| digit.is_ascii_digit());
    if !name.trim().eq_ignore_ascii_case("q") || !is_number {
        return None;
    }
    let thousandths: u16 = format!("{decimals:0<3}").parse().ok()?;
    match (whole, thousandths) {
        ("0", thousandths) => Some(Weight(thousandths)),
        ("1", 0) => Some(Weight(1000)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OURS: [Coding; 3] = [Coding::Zstd, Coding::Brotli, Coding::Gzip];

    fn choose(accept: &str) -> Option<Coding> {
        let mut headers = HeaderMap::new();
        if let Ok(value) = accept.parse() {
            headers.insert(header::ACCEPT_ENCODING, value);
        }
        negotiate(&headers, &OURS)
    }

    #[test]
    fn the_client_is_given_what_it_likes_best() {
        for (accept, expected) in [
            ("gzip", Some(Coding::Gzip)),
            ("X-GZIP", Some(Coding::Gzip)),
            ("gzip, deflate, br, zstd", Some(Coding::Zstd)),
            ("gzip, br", Some(Coding::Brotli)),
            ("gzip;q=1.0, br;q=0.9", Some(Coding::Gzip)),
            ("gzip ; Q=0.5 , br ; q=0.501", Some(Coding::Brotli)),
            ("*", Some(Coding::Zstd)),
            ("*;q=0.1, zstd;q=0", Some(Coding::Brotli)),
            ("gzip;q=0", None),
            ("gzip;q=0.000", None),
            ("", None),
            ("identity", None),
            ("deflate", None),
            ("gzip;q=0.5, identity", None),
            ("gzip;q=0.5, identity;q=0.5", Some(Coding::Gzip)),
            ("identity;q=0", None),
            ("identity;q=0, gzip;q=0.001", Some(Coding::Gzip)),
            ("gzip, gzip;q=0", None),
            ("gzip;q=2", None),
            ("gzip;q=0.1234", None),
            ("gzip;q=-1", None),
            ("gzip;q=", None),
            ("gzip;level=9", None),
            (";;,,;q=1", None),
        ] {
            assert_eq!(choose(accept), expected, "{accept}");
        }
        assert_eq!(negotiate(&HeaderMap::new(), &OURS), None);
    }

    proptest! {
        #[test]
        fn nothing_is_chosen_that_is_not_named(accept in "[a-z*;=q0-9., -]{0,40}") {
            if let Some(coding) = choose(&accept) {
                prop_assert!(accept.contains(coding.token()) || accept.contains('*'), "{}", accept);
            }
        }
    }
}
