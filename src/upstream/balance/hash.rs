//! The hash by which requests and backends are placed.
//!
//! Placement must be the same in every process, on every machine and in every version: several gateways in front of the same
//! backends agree, and none forgets by an upgrade. So it is XXH3 with 64 bits, whose values are published and final, of bytes that
//! are spelt out here, and tests hold its values fast. It is no secret: whoever chooses keys can choose a backend by them, here as
//! with every peer; `bounded_load` bounds what that does.

use std::net::IpAddr;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Where a text lies among all.
#[must_use]
pub fn place(text: &[u8]) -> u64 {
    xxh3_64(text)
}

/// Where an address lies: an IPv4 address by its four bytes, an IPv6 address by its sixteen.
#[must_use]
pub fn place_ip(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => xxh3_64(&ip.octets()),
        IpAddr::V6(ip) => xxh3_64(&ip.octets()),
    }
}

/// The `number`-th place of a backend.
pub(super) fn place_of(name: &str, number: u64) -> u64 {
    xxh3_64_with_seed(name.as_bytes(), number)
}

/// Where something that may be chosen, and lies at `name`, lies as one request sees it.
#[must_use]
pub fn place_for(key: u64, name: u64) -> u64 {
    xxh3_64_with_seed(&name.to_le_bytes(), key)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the reference implementation says of the same bytes.
    #[test]
    fn it_never_changes() {
        assert_eq!(place(b""), 0x2d06_8005_38d3_94c2);
        let seen = [place(b"amy"), place_ip([10, 0, 0, 1].into()), place_of("10.0.0.1:9001", 7), place_for(1, 2)];
        let known = [0x2f6c_1d4f_44de_298c, 0x83cf_f27f_7da3_9d96, 0x7b0f_c8a0_298b_ba52, 0x1722_dee5_0e00_c79c];
        assert_eq!(seen, known);
        assert_eq!(place_ip("::ffff:10.0.0.1".parse().unwrap()), place_ip([10, 0, 0, 1].into()));
    }
}
