use std::{
    borrow::Cow,
    hash::{BuildHasher, RandomState},
};

use aws_lc_rs::digest::{SHA256, digest};
use http::{Uri, request::Parts, uri::PathAndQuery};
use subtle::ConstantTimeEq;

use super::{Denial, hash::MAX_SECRET};
use crate::{
    base::Name,
    config::plan::{ApiKeys, Consumer, KeySource},
};

/// Who holds which key.
///
/// Holders are found by a secretly keyed hash of the key's digest. It is the only thing compared in varying time, and no
/// client can steer or predict it; digests themselves are compared in constant time.
pub(super) struct ApiKeyHolders {
    source: KeySource,
    keyed: RandomState,
    // Sorted by locator.
    holders: Box<[Holder]>,
}

struct Holder {
    locator: u64,
    digest: [u8; 32],
    consumer: Name,
}

impl ApiKeyHolders {
    pub(super) fn new(keys: &ApiKeys) -> Self {
        let keyed = RandomState::new();
        let holder = |consumer: &Consumer| Holder {
            locator: keyed.hash_one(consumer.digest),
            digest: consumer.digest,
            consumer: consumer.name.clone(),
        };
        let mut holders: Box<[Holder]> = keys.consumers.iter().map(holder).collect();
        holders.sort_by_key(|holder| holder.locator);
        Self { source: keys.source.clone(), keyed, holders }
    }

    /// Who sent this request, by its key.
    pub(super) fn identify(&self, head: &Parts) -> Result<Name, Denial> {
        match &self.source {
            KeySource::Header(name) => {
                let values = head.headers.get_all(name).iter().map(|value| Cow::Borrowed(value.as_bytes()));
                self.holder(&only(values)?)
            }
            KeySource::Query(name) => {
                let pairs = head.uri.query().unwrap_or_default().split('&');
                let values = pairs.filter(|pair| is_named(pair, name)).map(|pair| percent_decoded(value(pair)));
                self.holder(&only(values)?)
            }
        }
    }

    /// Takes the key out of what is forwarded and logged.
    pub(super) fn conceal(&self, head: &mut Parts) {
        match &self.source {
            KeySource::Header(name) => {
                head.headers.remove(name);
            }
            KeySource::Query(name) => remove_parameter(&mut head.uri, name),
        }
    }

    /// The parameters of the challenge: where the key is expected.
    pub(super) fn expects(&self) -> (&'static str, &str) {
        match &self.source {
            KeySource::Header(name) => ("header", name.as_str()),
            KeySource::Query(name) => ("query", name),
        }
    }

    fn holder(&self, key: &[u8]) -> Result<Name, Denial> {
        if key.len() > MAX_SECRET {
            return Err(Denial::Malformed);
        }
        let digest: [u8; 32] = digest(&SHA256, key).as_ref().try_into().expect("SHA-256 has 32 bytes");
        let locator = self.keyed.hash_one(digest);
        let first = self.holders.partition_point(|holder| holder.locator < locator);
        let candidates = self.holders.iter().skip(first).take_while(|holder| holder.locator == locator);
        let mut found = candidates.filter(|holder| holder.digest.ct_eq(&digest).into());
        found.next().map(|holder| holder.consumer.clone()).ok_or(Denial::UnknownKey)
    }
}

/// The one value that is not empty. Two are refused: the gateway and a backend could each believe another one.
fn only<'a>(mut values: impl Iterator<Item = Cow<'a, [u8]>>) -> Result<Cow<'a, [u8]>, Denial> {
    let value = values.next().filter(|value| !value.is_empty());
    match values.next() {
        Some(_) => Err(Denial::Repeated),
        None => value.ok_or(Denial::Missing),
    }
}

fn is_named(pair: &str, name: &str) -> bool {
    let written = pair.split_once('=').map_or(pair, |(name, _)| name);
    *percent_decoded(written) == *name.as_bytes()
}

fn value(pair: &str) -> &str {
    pair.split_once('=').map_or("", |(_, value)| value)
}

fn remove_parameter(uri: &mut Uri, name: &str) {
    let query = uri.query().unwrap_or_default();
    if !query.split('&').any(|pair| is_named(pair, name)) {
        return;
    }
    let mut rest = String::with_capacity(uri.path().len() + query.len() + 1);
    rest.push_str(uri.path());
    let kept = query.split('&').filter(|pair| !is_named(pair, name));
    for (n, pair) in kept.enumerate() {
        rest.push(if n == 0 { '?' } else { '&' });
        rest.push_str(pair);
    }
    let mut parts = std::mem::take(uri).into_parts();
    parts.path_and_query =
        Some(PathAndQuery::try_from(rest).expect("a valid query without one parameter is a valid query"));
    *uri = Uri::from_parts(parts).expect("only the query of a valid URI changed");
}

/// RFC 3986, section 2.1. A `+` is a plus, as keys in base64 have it; what is no escape stays as it is.
fn percent_decoded(text: &str) -> Cow<'_, [u8]> {
    if !text.contains('%') {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        decoded.push(match tail {
            [high, low, tail @ ..] if *first == b'%' => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    rest = tail;
                    high << 4 | low
                }
                _ => b'%',
            },
            _ => *first,
        });
    }
    Cow::Owned(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without_key(uri: &str) -> String {
        let mut uri: Uri = uri.parse().unwrap();
        remove_parameter(&mut uri, "key");
        uri.to_string()
    }

    #[test]
    fn only_the_key_leaves_the_query() {
        assert_eq!(without_key("/a?key=s"), "/a");
        assert_eq!(without_key("/a?b=1&key=s&c=%20"), "/a?b=1&c=%20");
        assert_eq!(without_key("/a?b=1&k%65y=s"), "/a?b=1");
        assert_eq!(without_key("/a?key&key=1&b"), "/a?b");
        assert_eq!(without_key("http://h.example:81/a?key=s&b"), "http://h.example:81/a?b");
        assert_eq!(without_key("/a?monkey=s&&"), "/a?monkey=s&&");
    }

    #[test]
    fn percent_escapes_are_decoded_and_nothing_else() {
        assert_eq!(*percent_decoded("a%2Bb+c%3d"), *b"a+b+c=");
        assert_eq!(*percent_decoded("%"), *b"%");
        assert_eq!(*percent_decoded("%4"), *b"%4");
        assert_eq!(*percent_decoded("%zz%41"), *b"%zzA");
        assert_eq!(*percent_decoded("%ff"), *b"\xff");
    }
}
