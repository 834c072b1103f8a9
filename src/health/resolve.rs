//! Addresses behind names, asked of the system's resolver.
//!
//! Called while a snapshot is built. A name that does not resolve is an outcome like any other: its backend is down, the
//! config is not wrong.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::lookup_host,
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, timeout_at},
};

use crate::base::{Name, duration::Written};

/// Why a name has no addresses.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ResolveError {
    /// The resolver says no.
    #[error("does not resolve: {0}")]
    Failed(String),
    /// It resolves to nothing.
    #[error("has no address")]
    NoAddress,
    /// The resolver did not answer in time.
    #[error("did not resolve within {}", Written(*.0))]
    Timeout(Duration),
}

/// Lookups under way at once; each holds a thread of the blocking pool.
const PARALLEL: usize = 32;

/// Addresses of one name that are used.
const MOST_ADDRESSES: usize = 256;

/// Looks up each name. The results stand in the order of the names, their addresses sorted, each once, at most 256 of them.
/// The timeout is for all of it together.
pub async fn resolve(names: &[(Name, u16)], timeout: Duration) -> Vec<Result<Vec<SocketAddr>, ResolveError>> {
    let deadline = Instant::now() + timeout;
    let permits = Arc::new(Semaphore::new(PARALLEL));
    let mut lookups = JoinSet::new();
    for (index, (host, port)) in names.iter().cloned().enumerate() {
        let permits = Arc::clone(&permits);
        lookups.spawn(async move {
            let lookup = async {
                let _permit = permits.acquire().await;
                lookup(&host, port).await
            };
            (index, timeout_at(deadline, lookup).await.unwrap_or(Err(ResolveError::Timeout(timeout))))
        });
    }
    let mut results = vec![Err(ResolveError::NoAddress); names.len()];
    while let Some(done) = lookups.join_next().await {
        if let Ok((index, result)) = done
            && let Some(slot) = results.get_mut(index)
        {
            *slot = result;
        }
    }
    results
}

async fn lookup(host: &str, port: u16) -> Result<Vec<SocketAddr>, ResolveError> {
    let found = lookup_host((host, port)).await.map_err(|error| ResolveError::Failed(error.to_string()))?;
    let mut addresses: Vec<SocketAddr> = found.collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(MOST_ADDRESSES);
    if addresses.is_empty() { Err(ResolveError::NoAddress) } else { Ok(addresses) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn results_stand_in_the_order_of_the_names() {
        let names = [("127.0.0.2", 80), ("name.invalid", 81), ("::1", 82)].map(|(n, p)| (Name::derived(n), p));
        let results = resolve(&names, Duration::from_secs(20)).await;
        assert_eq!(results[0], Ok(vec!["127.0.0.2:80".parse().unwrap()]));
        assert!(results[1].is_err());
        assert_eq!(results[2], Ok(vec!["[::1]:82".parse().unwrap()]));
    }
}
