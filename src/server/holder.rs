//! Who listens at an address, as Linux tells it under `/proc`. Where it cannot be told, nobody is named.

use std::{
    fmt, fs,
    io::{self, BufRead as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

/// A process that listens.
#[derive(Debug)]
pub(super) struct Holder {
    pid: u32,
    name: String,
}

impl Holder {
    /// Who is in the way of a TCP address.
    pub(super) fn of_port(address: SocketAddr) -> Option<Self> {
        let sockets = listening(address);
        // Those of this process may be about to go.
        let others = sockets.iter().find(|socket| !socket.is_ours());
        Self::of_inode(others.or(sockets.first())?.inode)
    }

    /// Who listens on a Unix socket.
    pub(super) fn of_path(path: &Path) -> Option<Self> {
        let inode = lines("/proc/net/unix").find_map(|line| {
            // Num RefCount Protocol Flags Type St Inode Path
            let mut fields = line.split_ascii_whitespace();
            let (flags, inode) = (u32::from_str_radix(fields.nth(3)?, 16).ok()?, fields.nth(2)?);
            let is_meant = flags & ACCEPTS != 0 && line.strip_suffix(path.to_str()?)?.ends_with(' ');
            is_meant.then(|| inode.parse().ok())?
        });
        Self::of_inode(inode?)
    }

    /// Whether it is this process.
    pub(super) fn is_self(&self) -> bool {
        self.pid == std::process::id()
    }

    /// The first process that has a socket: of those that share one, the one that made it, as a rule.
    fn of_inode(inode: u64) -> Option<Self> {
        let mut pids: Vec<u32> = fs::read_dir("/proc").ok()?.filter_map(|entry| number(&entry.ok()?)).collect();
        pids.sort_unstable();
        let mut budget = MOST_DESCRIPTORS;
        let pid = pids.into_iter().find(|pid| has_socket(&pid.to_string(), inode, &mut budget))?;
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        Some(Self { pid, name: name.trim_end().escape_debug().to_string() })
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}

/// A TCP socket that listens.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct ListeningSocket {
    pub(super) address: SocketAddr,
    inode: u64,
}

impl ListeningSocket {
    /// Whether this process has it.
    pub(super) fn is_ours(&self) -> bool {
        has_socket("self", self.inode, &mut { MOST_DESCRIPTORS })
    }
}

/// The sockets that listen where they are in the way of this address.
pub(super) fn listening(address: SocketAddr) -> Vec<ListeningSocket> {
    let all = lines("/proc/net/tcp").chain(lines("/proc/net/tcp6"));
    all.filter_map(|line| parse(&line)).filter(|socket| is_in_the_way(socket.address, address)).collect()
}

/// The flag of a Unix socket that accepts, in `/proc/net/unix` (`__SO_ACCEPTCON`).
const ACCEPTS: u32 = 1 << 16;

/// Descriptors that are looked at: enough for any machine that is not in trouble, and done in a moment.
const MOST_DESCRIPTORS: usize = 100_000;

fn lines(file: &str) -> impl Iterator<Item = String> {
    let file = fs::File::open(file).ok().map(io::BufReader::new);
    file.into_iter().flat_map(|file| file.lines().map_while(Result::ok).skip(1))
}

fn number(entry: &fs::DirEntry) -> Option<u32> {
    entry.file_name().to_str()?.parse().ok()
}

fn has_socket(process: &str, inode: u64, budget: &mut usize) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{process}/fd")) else { return false };
    let socket = format!("socket:[{inode}]");
    descriptors
        .take_while(|_| take_one(budget))
        .flatten()
        .any(|descriptor| fs::read_link(descriptor.path()).is_ok_and(|target| target == Path::new(&socket)))
}

fn take_one(budget: &mut usize) -> bool {
    let has_some = *budget > 0;
    *budget = budget.saturating_sub(1);
    has_some
}

/// A line of `/proc/net/tcp` or `tcp6`, if its socket listens: `sl local remote st queues timer retransmits uid timeout inode`.
fn parse(line: &str) -> Option<ListeningSocket> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_ascii_whitespace();
    let local = fields.nth(1)?;
    (fields.nth(1)? == LISTEN).then_some(())?;
    let inode = fields.nth(5)?.parse().ok()?;
    let (ip, port) = local.split_once(':')?;
    let address = SocketAddr::new(parse_ip(ip)?, u16::from_str_radix(port, 16).ok()?);
    Some(ListeningSocket { address, inode })
}

/// Addresses are printed as words of 32 bits, each in this machine's order of bytes.
fn parse_ip(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(hex.get(at * 8..at * 8 + 8)?, 16).map(u32::to_ne_bytes).ok();
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

fn is_in_the_way(one: SocketAddr, other: SocketAddr) -> bool {
    let takes = |any: SocketAddr, ip: SocketAddr| any.ip().is_unspecified() && (any.is_ipv6() || ip.is_ipv4());
    one.port() == other.port() && (one.ip() == other.ip() || takes(one, other) || takes(other, one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn reads_what_linux_prints() {
        let four =
            "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1572 1 0 100";
        let six = "   1: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1573 1 0 100";
        let busy = four.replace(" 0A ", " 01 ");
        assert_eq!(parse(four), Some(ListeningSocket { address: "127.0.0.1:8080".parse().unwrap(), inode: 1572 }));
        assert_eq!(parse(six), Some(ListeningSocket { address: "[::1]:8080".parse().unwrap(), inode: 1573 }));
        for nothing in [&busy, "", "  sl  local_address", "a b c 0A"] {
            assert_eq!(parse(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn every_address_is_in_the_way_of_each() {
        let in_the_way = |one: &str, other: &str| is_in_the_way(one.parse().unwrap(), other.parse().unwrap());
        assert!(in_the_way("127.0.0.1:80", "127.0.0.1:80") && in_the_way("0.0.0.0:80", "127.0.0.1:80"));
        assert!(in_the_way("127.0.0.1:80", "[::]:80") && in_the_way("[::]:80", "[::1]:80"));
        assert!(!in_the_way("0.0.0.0:80", "[::1]:80") && !in_the_way("127.0.0.1:80", "127.0.0.2:80"));
        assert!(!in_the_way("0.0.0.0:80", "0.0.0.0:81"));
    }
}
