//! Addresses behind names: from `/etc/hosts`, then from DNS with the time for which they hold.
//!
//! hickory carries questions to servers and back. Which questions are asked, and what their answers mean together, is decided
//! here, because much depends on the difference between "there is none" and "nobody knows": addresses are dropped after the
//! one and kept after the other. hickory's own look-up of a name takes A records for the whole answer where AAAA failed, and
//! goes on through the search list after a failure, whose end is then a "no such name" that nobody has said of this one.
//! It asks two servers at once, of which the one may be there only for when the other is not.
//!
//! A name that does not resolve is an outcome like any other: its backend is down, the config is not wrong. When to ask again
//! is not known here (`control::names`).

use std::{
    fmt, fs, io,
    net::{IpAddr, SocketAddr},
    path::Path,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use hickory_resolver::{
    Hosts, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::{Query, ResponseCode},
        rr::{Name as DnsName, Record, RecordType},
    },
    system_conf::parse_resolv_conf,
};

use crate::{
    base::{Name, duration::Written},
    config::plan::{Dns, Family},
};

/// What a name stands for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    /// Its addresses, at least one, in any order.
    pub addresses: Vec<IpAddr>,
    /// For how long they hold; `None` where nobody says, as in `/etc/hosts`.
    pub ttl: Option<Duration>,
    /// Addresses of this family there may be as well: nobody could say.
    pub unknown: Option<Family>,
}

/// Why a name has no addresses.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ResolveError {
    /// Nobody can say.
    #[error("cannot be looked up: {0}")]
    Failed(String),
    /// DNS knows the name, and no address of it.
    #[error("has no address")]
    NoAddress,
    /// DNS says that there is no such name.
    #[error("does not exist")]
    NoSuchName,
    /// Nobody has said in time.
    #[error("was not resolved within {}", Written(*.0))]
    Timeout(Duration),
}

impl ResolveError {
    /// Whether DNS itself says that there is no address, rather than nobody anything.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        match self {
            Self::NoAddress | Self::NoSuchName => true,
            Self::Failed(_) | Self::Timeout(_) => false,
        }
    }
}

/// A look-up under way.
pub type Looking = Pin<Box<dyn Future<Output = Result<Answer, ResolveError>> + Send>>;

/// Looks names up.
pub trait LookUp: fmt::Debug + Send + Sync {
    /// Asks for the addresses of a name. Whoever asks has a deadline.
    fn look_up(&self, name: &Name) -> Looking;

    /// What looks up by another `dns` block.
    fn renewed(&self, plan: &Dns) -> Arc<dyn LookUp>;
}

const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// How often each server is asked before nobody knows: packets may be lost.
const ROUNDS: usize = 2;

/// Looks names up in `/etc/hosts` and in DNS, by the `dns` block of a plan. Files of the system are read again when they change.
#[derive(Debug)]
pub struct Resolver {
    plan: Dns,
    sources: ArcSwapOption<Sources>,
}

impl Resolver {
    /// One that has read nothing yet.
    #[must_use]
    pub fn new(plan: Dns) -> Self {
        Self { plan, sources: ArcSwapOption::empty() }
    }

    fn sources(&self) -> Arc<Sources> {
        let changed = [HOSTS, RESOLV_CONF].map(|path| fs::metadata(path).and_then(|file| file.modified()).ok());
        if let Some(sources) = self.sources.load_full().filter(|sources| sources.changed == changed) {
            return sources;
        }
        let sources = Arc::new(Sources::read(&self.plan, changed));
        self.sources.store(Some(Arc::clone(&sources)));
        sources
    }
}

impl LookUp for Resolver {
    fn look_up(&self, name: &Name) -> Looking {
        let (sources, family, name) = (self.sources(), self.plan.family, name.clone());
        Box::pin(async move { sources.look_up(&name, family).await })
    }

    fn renewed(&self, plan: &Dns) -> Arc<dyn LookUp> {
        Arc::new(Self::new(plan.clone()))
    }
}

/// Where names are looked up, as the files of the system had it at one moment.
#[derive(Debug)]
struct Sources {
    changed: [Option<SystemTime>; 2],
    hosts: Hosts,
    servers: Result<Servers, String>,
}

impl Sources {
    fn read(plan: &Dns, changed: [Option<SystemTime>; 2]) -> Self {
        let servers = match plan.servers.is_empty() {
            true => Servers::of_system(Path::new(RESOLV_CONF), plan.timeout),
            false => Servers::new(given(&plan.servers), ResolverOpts::default(), plan.timeout),
        };
        Self { changed, hosts: Hosts::from_system().unwrap_or_default(), servers }
    }

    async fn look_up(&self, name: &str, family: Family) -> Result<Answer, ResolveError> {
        let name = DnsName::from_ascii(name).map_err(|error| ResolveError::Failed(error.to_string()))?;
        let addresses = self.in_hosts(&name, family);
        if !addresses.is_empty() {
            return Ok(Answer { addresses, ttl: None, unknown: None });
        }
        let servers = self.servers.as_ref().map_err(|error| ResolveError::Failed(error.clone()))?;
        servers.look_up(&name, family).await
    }

    fn in_hosts(&self, name: &DnsName, family: Family) -> Vec<IpAddr> {
        let found = record_types(family).into_iter().flatten().filter_map(|kind| {
            let found = self.hosts.lookup_static_host(&Query::query(name.clone(), kind))?;
            Some(addresses(found.answers()).collect::<Vec<_>>())
        });
        found.flatten().collect()
    }
}

/// DNS servers, and the names that they are asked for.
#[derive(Debug)]
struct Servers {
    // One for each server, in order. One for all would ask two at once and take the first word, be it a refusal.
    servers: Vec<TokioResolver>,
    timeout: Duration,
    search: Vec<DnsName>,
    ndots: usize,
}

/// The addresses of one family, and for how long they hold.
type Found = Result<(Vec<IpAddr>, Duration), ResolveError>;

impl Servers {
    fn of_system(path: &Path, timeout: Duration) -> Result<Self, String> {
        let nobody = |error: &dyn fmt::Display| format!("{}: {error}", path.display());
        let text = fs::read(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => format!("there is no {}, and no dns.servers", path.display()),
            _ => nobody(&error),
        })?;
        let (config, options) = parse_resolv_conf(text).map_err(|error| nobody(&error))?;
        Self::new(config, options, timeout)
    }

    fn new(config: ResolverConfig, mut options: ResolverOpts, timeout: Duration) -> Result<Self, String> {
        let (domain, mut search, servers) = config.into_parts();
        let times = u32::try_from(servers.len() * ROUNDS).unwrap_or(u32::MAX).max(1);
        // It ends before the deadline of whoever asks: where nobody answers for one family, the answer for the other is not lost.
        (options.timeout, options.attempts) = (timeout * 9 / 10 / times, 0);
        // Whoever asks knows for how long it need not ask.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        if search.is_empty() {
            search.extend(domain);
        }
        let resolver = |server| {
            let config = ResolverConfig::from_name_servers(vec![server]);
            let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
            builder.with_options(options.clone()).build().map_err(|error| error.to_string())
        };
        let ndots = options.ndots;
        Ok(Self { servers: servers.into_iter().map(resolver).collect::<Result<_, _>>()?, timeout, search, ndots })
    }

    /// Goes through the search list as the C library does, and stops where nobody knows.
    async fn look_up(&self, name: &DnsName, family: Family) -> Result<Answer, ResolveError> {
        let mut none = ResolveError::NoSuchName;
        for candidate in candidates(name, &self.search, self.ndots) {
            match self.ask(&candidate, family).await {
                Err(ResolveError::NoSuchName) => {}
                Err(ResolveError::NoAddress) => none = ResolveError::NoAddress,
                said => return said,
            }
        }
        Err(none)
    }

    async fn ask(&self, name: &DnsName, family: Family) -> Result<Answer, ResolveError> {
        let ask = async |kind: Option<RecordType>| match kind {
            Some(kind) => Some(self.question(name, kind).await),
            None => None,
        };
        let [v4, v6] = record_types(family);
        match tokio::join!(ask(v4), ask(v6)) {
            (Some(v4), Some(v6)) => both(v4, v6),
            (Some(one), None) | (None, Some(one)) => {
                one.map(|(addresses, ttl)| Answer { addresses, ttl: Some(ttl), unknown: None })
            }
            (None, None) => Err(ResolveError::NoAddress),
        }
    }

    /// Asks the servers in their order, as the C library does: often the second knows nothing of names that the first is there for.
    async fn question(&self, name: &DnsName, kind: RecordType) -> Found {
        let mut failed = ResolveError::Timeout(self.timeout);
        for server in std::iter::repeat_n(&self.servers, ROUNDS).flatten() {
            match server.lookup(name.clone(), kind).await {
                Ok(found) => return of_records(found.answers()),
                Err(error) => match self.meaning(&error) {
                    why if why.is_certain() => return Err(why),
                    why => failed = why,
                },
            }
        }
        Err(failed)
    }

    fn meaning(&self, error: &NetError) -> ResolveError {
        match error {
            // Without a word of whose zone it is, it is a referral to other servers, which this one should have followed.
            NetError::Dns(DnsError::NoRecordsFound(none)) if none.soa.is_none() && none.ns.is_some() => {
                ResolveError::Failed("the server refers to others".to_owned())
            }
            NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
                ResponseCode::NXDomain => ResolveError::NoSuchName,
                _ => ResolveError::NoAddress,
            },
            NetError::Dns(DnsError::ResponseCode(code)) => ResolveError::Failed(format!("the server says {code}")),
            NetError::Timeout => ResolveError::Timeout(self.timeout),
            error => ResolveError::Failed(error.to_string()),
        }
    }
}

/// A and AAAA, as far as they are wanted.
fn record_types(family: Family) -> [Option<RecordType>; 2] {
    match family {
        Family::Any => [Some(RecordType::A), Some(RecordType::AAAA)],
        Family::Ipv4 => [Some(RecordType::A), None],
        Family::Ipv6 => [None, Some(RecordType::AAAA)],
    }
}

fn of_records(records: &[Record]) -> Found {
    let addresses: Vec<IpAddr> = addresses(records).collect();
    // Names on the way to the addresses may hold for a shorter time.
    let ttl = records.iter().map(|record| record.ttl).min().unwrap_or_default();
    if addresses.is_empty() { Err(ResolveError::NoAddress) } else { Ok((addresses, Duration::from_secs(ttl.into()))) }
}

fn addresses(records: &[Record]) -> impl Iterator<Item = IpAddr> {
    records.iter().filter_map(|record| record.data.ip_addr())
}

fn given(servers: &[SocketAddr]) -> ResolverConfig {
    let servers = servers.iter().map(|server| {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
            connection.port = server.port();
            connection
        });
        NameServerConfig::new(server.ip(), true, connections.into())
    });
    ResolverConfig::from_name_servers(servers.collect())
}

/// Whole names that a name may be short for. One with as many dots as `ndots` is tried as it is first, others last.
fn candidates(name: &DnsName, search: &[DnsName], ndots: usize) -> Vec<DnsName> {
    let mut whole = name.clone();
    whole.set_fqdn(true);
    let searched = search.iter().filter_map(|domain| {
        let mut name = name.clone().append_domain(domain).ok()?;
        name.set_fqdn(true);
        Some(name)
    });
    match usize::from(name.num_labels()) > ndots {
        true => std::iter::once(whole).chain(searched).collect(),
        false => searched.chain([whole.clone()]).collect(),
    }
}

/// What the answers for both families mean together.
fn both(v4: Found, v6: Found) -> Result<Answer, ResolveError> {
    match (v4, v6) {
        (Ok((mut addresses, ttl)), Ok((more, other))) => {
            addresses.extend(more);
            Ok(Answer { addresses, ttl: Some(ttl.min(other)), unknown: None })
        }
        (Ok((addresses, ttl)), Err(error)) => {
            Ok(Answer { addresses, ttl: Some(ttl), unknown: (!error.is_certain()).then_some(Family::Ipv6) })
        }
        (Err(error), Ok((addresses, ttl))) => {
            Ok(Answer { addresses, ttl: Some(ttl), unknown: (!error.is_certain()).then_some(Family::Ipv4) })
        }
        // One that failed may have addresses, whatever is said of the other.
        (Err(error), Err(_)) | (Err(_), Err(error)) if !error.is_certain() => Err(error),
        (Err(ResolveError::NoSuchName), Err(ResolveError::NoSuchName)) => Err(ResolveError::NoSuchName),
        (Err(_), Err(_)) => Err(ResolveError::NoAddress),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> DnsName {
        DnsName::from_ascii(text).unwrap()
    }

    fn found(address: &str, ttl: u64) -> Found {
        Ok((vec![address.parse().unwrap()], Duration::from_secs(ttl)))
    }

    fn failed() -> Found {
        Err(ResolveError::Failed("no server answers".to_owned()))
    }

    #[test]
    fn a_name_is_completed_as_the_c_library_does() {
        let search = [name("svc.test"), name("test")];
        let all = |text: &str, ndots| {
            candidates(&name(text), &search, ndots).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(all("api", 1), ["api.svc.test.", "api.test.", "api."]);
        assert_eq!(all("api.prod", 1), ["api.prod.", "api.prod.svc.test.", "api.prod.test."]);
        assert_eq!(all("api.prod", 5), ["api.prod.svc.test.", "api.prod.test.", "api.prod."]);
    }

    #[test]
    fn the_shortest_time_of_both_families_counts() {
        let answer = both(found("192.0.2.1", 60), found("2001:db8::1", 20)).unwrap();
        assert_eq!((answer.addresses.len(), answer.ttl), (2, Some(Duration::from_secs(20))));
    }

    #[test]
    fn a_family_that_failed_is_not_one_without_addresses() {
        let unknown = |v4, v6| both(v4, v6).unwrap().unknown;
        assert_eq!(unknown(found("192.0.2.1", 60), Err(ResolveError::NoAddress)), None);
        assert_eq!(unknown(found("192.0.2.1", 60), failed()), Some(Family::Ipv6));
        assert_eq!(unknown(failed(), found("2001:db8::1", 60)), Some(Family::Ipv4));
        // Servers exist that deny a name when they are asked for its AAAA.
        assert_eq!(unknown(found("192.0.2.1", 60), Err(ResolveError::NoSuchName)), None);
        assert!(!both(Err(ResolveError::NoSuchName), failed()).unwrap_err().is_certain());
        assert!(both(Err(ResolveError::NoSuchName), Err(ResolveError::NoAddress)).unwrap_err().is_certain());
    }

    #[test]
    fn without_servers_the_reason_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        let servers = || Servers::of_system(&path, Duration::from_secs(2)).unwrap_err();
        assert_eq!(servers(), format!("there is no {}, and no dns.servers", path.display()));
        fs::write(&path, "search example.com\n").unwrap();
        assert!(servers().ends_with("no nameservers found in config"), "{}", servers());
    }

    #[tokio::test]
    async fn hosts_come_first_and_names_that_cannot_exist_do_not() {
        let mut hosts = Hosts::default();
        hosts.read_hosts_conf(&b"192.0.2.7 db\n2001:db8::7 db\n"[..]).unwrap();
        let servers = Servers::of_system(Path::new("/nowhere"), Duration::from_secs(2));
        let sources = Sources { changed: [None; 2], hosts, servers };
        let look_up = async |name: &str, family| sources.look_up(name, family).await;
        let db = look_up("db", Family::Any).await.unwrap();
        assert_eq!((db.addresses.len(), db.ttl), (2, None));
        assert_eq!(look_up("db", Family::Ipv6).await.unwrap().addresses, ["2001:db8::7".parse::<IpAddr>().unwrap()]);
        assert!(matches!(look_up("other", Family::Any).await, Err(ResolveError::Failed(_))));
        // Nobody is asked: it is reserved for this (RFC 6761).
        let nobody =
            Servers::new(given(&["127.0.0.1:9".parse().unwrap()]), ResolverOpts::default(), Duration::from_secs(2));
        let said = nobody.unwrap().look_up(&name("name.invalid"), Family::Any).await;
        assert_eq!(said, Err(ResolveError::NoSuchName));
    }
}
