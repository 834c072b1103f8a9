//! The header that a proxy puts in front of a connection to say whose it is (HAProxy's `doc/proxy-protocol.txt`). Pure: bytes
//! in, an address out.

use proxy_header::{Error, ParseConfig, Protocol, ProxyHeader};

use crate::{config::plan::ProxyProtocol, proxy::Source};

/// A whole header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Header {
    /// For whom the proxy speaks.
    pub(super) source: Source,
    /// Its bytes; what follows is the client's.
    pub(super) length: usize,
}

/// What came is no header of the kind that is spoken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct NoHeader;

const SIGNATURE_V1: &[u8] = b"PROXY ";
const SIGNATURE_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest line of version 1, its end included (section 2.1).
const LONGEST_V1: usize = 107;

/// The longest header of version 2 with all of its TLVs, which may hold a certificate's names and no more.
const LONGEST_V2: usize = 4_096;

/// The header at the start of these bytes; `None`: more have to come.
pub(super) fn parse(bytes: &[u8], spoken: ProxyProtocol) -> Result<Option<Header>, NoHeader> {
    let allow_v1 = matches!(spoken, ProxyProtocol::V1 | ProxyProtocol::Any) && begins_as(bytes, SIGNATURE_V1);
    let allow_v2 = matches!(spoken, ProxyProtocol::V2 | ProxyProtocol::Any) && begins_as(bytes, SIGNATURE_V2);
    let longest = match (allow_v1, allow_v2) {
        (false, false) => return Err(NoHeader),
        (true, false) => LONGEST_V1,
        (_, true) => LONGEST_V2,
    };
    let header = match local(bytes).filter(|_| allow_v2) {
        Some(header) => header,
        None => match ProxyHeader::parse(bytes, ParseConfig { include_tlvs: false, allow_v1, allow_v2 }) {
            Ok((header, length)) => {
                let address = header.proxied_address().filter(|address| address.protocol == Protocol::Stream);
                Header { source: address.map_or(Source::Unknown, |address| Source::Client(address.source)), length }
            }
            Err(Error::BufferTooShort) if bytes.len() < longest => return Ok(None),
            Err(_) => return Err(NoHeader),
        },
    };
    if header.length > longest { Err(NoHeader) } else { Ok(Some(header)) }
}

/// Whether the bytes are the start of a signature, or start with it.
fn begins_as(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(one, other)| one == other)
}

/// A whole header of version 2 by which the proxy speaks for itself. Its family and addresses mean nothing, whatever they are
/// (section 2.2), which the crate does not know.
fn local(bytes: &[u8]) -> Option<Header> {
    const LOCAL: u8 = 0x20;
    let [LOCAL, _, high, low] = *bytes.get(SIGNATURE_V2.len()..SIGNATURE_V2.len() + 4)? else { return None };
    let length = SIGNATURE_V2.len() + 4 + usize::from(u16::from_be_bytes([high, low]));
    (bytes.len() >= length).then_some(Header { source: Source::Proxy, length })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;
    use proxy_header::{ProxiedAddress, Tlv};

    use super::{ProxyProtocol::*, *};

    const LINE: &str = "PROXY TCP4 203.0.113.7 10.0.0.1 51234 443\r\n";

    fn v2(source: &str, destination: &str, padding: usize) -> Vec<u8> {
        let address = ProxiedAddress::stream(source.parse().unwrap(), destination.parse().unwrap());
        let mut bytes = Vec::new();
        ProxyHeader::with_tlvs(Some(address), [Tlv::Noop(padding)]).encode_v2(&mut bytes).unwrap();
        bytes
    }

    fn found(bytes: impl AsRef<[u8]>, spoken: ProxyProtocol) -> Option<(Source, usize)> {
        let header = parse(bytes.as_ref(), spoken).ok()??;
        Some((header.source, header.length))
    }

    fn client(address: &str) -> Source {
        Source::Client(address.parse().unwrap())
    }

    #[test]
    fn reads_both_versions() {
        let four = (client("203.0.113.7:51234"), LINE.len());
        for spoken in [V1, Any] {
            assert_eq!(found(format!("{LINE}GET / HTTP/1.1\r\n"), spoken), Some(four));
        }
        let line = "PROXY TCP6 2001:db8::7 2001:db8::1 51234 443\r\n";
        assert_eq!(found(line, V1), Some((client("[2001:db8::7]:51234"), line.len())));
        for (source, destination) in [("203.0.113.7:51234", "10.0.0.1:443"), ("[2001:db8::7]:1", "[::1]:2")] {
            let bytes = v2(source, destination, 100);
            for spoken in [V2, Any] {
                assert_eq!(found(&bytes, spoken), Some((client(source), bytes.len())));
            }
        }
    }

    #[test]
    fn a_proxy_may_speak_for_itself_or_for_whom_it_does_not_know() {
        let signature = |rest: &[u8]| [SIGNATURE_V2, rest].concat();
        let udp = [&b"\x21\x12\x00\x0c"[..], &[9; 12]].concat();
        let unix = [&b"\x21\x31\x00\xd8"[..], &[9; 216]].concat();
        for own in [&b"\x20\x00\x00\x00"[..], b"\x20\x11\x00\x02ab", b"\x20\x99\x00\x00"] {
            assert_eq!(found(signature(own), V2), Some((Source::Proxy, SIGNATURE_V2.len() + own.len())), "{own:?}");
        }
        for other in [&b"\x21\x00\x00\x00"[..], &udp, &unix] {
            assert_eq!(found(signature(other), V2), Some((Source::Unknown, SIGNATURE_V2.len() + other.len())));
        }
        for other in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN ffff::1 ffff::1 65535 65535\r\n"] {
            assert_eq!(found(other, V1), Some((Source::Unknown, other.len())), "{other}");
        }
    }

    #[test]
    fn anything_else_is_none() {
        let too_long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
        for wrong in [
            "GET / HTTP/1.1\r\n",
            "POST / HTTP/1.1\r\n",
            "PROXYxTCP4 203.0.113.7 10.0.0.1 51234 443\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 51234 65536\r\n",
            "PROXY TCP4 2001:db8::7 10.0.0.1 51234 443\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 51234 443 \r\n",
            "PROXY TCP5 203.0.113.7 10.0.0.1 51234 443\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 51234 443\rx",
            "proxy TCP4 203.0.113.7 10.0.0.1 51234 443\r\n",
            "\x16\x03\x01",
            &too_long,
        ] {
            assert_eq!(parse(wrong.as_bytes(), Any), Err(NoHeader), "{wrong:?}");
        }
        let (v2, long) = (v2("203.0.113.7:51234", "10.0.0.1:443", 0), v2("203.0.113.7:51234", "10.0.0.1:443", 5_000));
        for wrong in [&v2[..12], &v2, &long, &long[..LONGEST_V2]] {
            assert_eq!(parse(wrong, V1), Err(NoHeader));
        }
        assert_eq!((parse(&long, V2), parse(&long[..LONGEST_V2], V2)), (Err(NoHeader), Err(NoHeader)));
        assert_eq!(parse(LINE.as_bytes(), V2), Err(NoHeader));
    }

    /// A header of either version, some of it changed, and more after it.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let lines = ["PROXY UNKNOWN\r\n", LINE, "PROXY TCP6 2001:db8::7 2001:db8::1 51234 443\r\n", "PROXY UNKNOWN "];
        let mut headers: Vec<Vec<u8>> = lines.iter().map(|line| line.as_bytes().to_vec()).collect();
        headers.push(v2("203.0.113.7:51234", "10.0.0.1:443", 7));
        headers.push(v2("[2001:db8::7]:1", "[::1]:2", 0));
        headers.push(v2("203.0.113.7:51234", "10.0.0.1:443", 5_000));
        headers.push([SIGNATURE_V2, b"\x20\x11\x00\x02ab"].concat());
        let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
        let more = prop::collection::vec(any::<u8>(), 0..150);
        (prop::sample::select(headers), changes, more).prop_map(|(mut bytes, changes, more)| {
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.extend(more);
            bytes
        })
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes, Any);
            let _ = parse(&[SIGNATURE_V2, &bytes].concat(), Any);
            let _ = parse(&[SIGNATURE_V1, &bytes].concat(), Any);
        }

        #[test]
        fn the_split_of_the_bytes_makes_no_difference(bytes in bytes(), spoken in prop::sample::select(vec![V1, V2, Any])) {
            let whole = parse(&bytes, spoken);
            let first = (0..=bytes.len()).map(|end| parse(&bytes[..end], spoken)).find(|found| *found != Ok(None));
            prop_assert_eq!(first.unwrap_or(Ok(None)), whole);
        }

        #[test]
        fn what_is_said_is_heard(source: SocketAddr, padding in 0_usize..4_000) {
            let destination = if source.is_ipv4() { "10.0.0.1:443" } else { "[::1]:443" };
            let bytes = v2(&source.to_string(), destination, padding);
            let heard = parse(&bytes, V2).unwrap().unwrap();
            let said = SocketAddr::new(source.ip(), source.port());
            prop_assert_eq!(heard, Header { source: Source::Client(said), length: bytes.len() });
        }
    }
}
