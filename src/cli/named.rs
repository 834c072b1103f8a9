//! Which backend is meant by `UPSTREAM/BACKEND`.
//!
//! Names of upstreams without one of their own hold slashes (`/*`), and so do Unix sockets: what was typed is compared with what there
//! is, and not taken apart.

use super::ask::{Gateway, JSON, Unanswered, encoded};
use crate::{
    admin::{BackendStatus, UpstreamStatus},
    config::nearest,
    telemetry::Printable,
};

/// A backend of a running gateway.
#[derive(Debug)]
pub(super) struct Named {
    upstream: String,
    /// What is known of it now.
    pub(super) backend: BackendStatus,
}

impl Named {
    /// Looks among the backends of a gateway for `UPSTREAM/BACKEND`, or for the only `BACKEND` of that name.
    ///
    /// # Errors
    /// There is none, or there are several, or the gateway does not answer.
    pub(super) fn find(gateway: &Gateway, typed: &str) -> Result<Self, Unanswered> {
        let upstreams: Vec<UpstreamStatus> = gateway.parse(&gateway.get("/api/v1/upstreams", JSON)?)?;
        Self::among(upstreams, typed).map_err(Unanswered::No)
    }

    fn among(upstreams: Vec<UpstreamStatus>, typed: &str) -> Result<Self, String> {
        let mut all: Vec<Self> = upstreams
            .into_iter()
            .flat_map(|UpstreamStatus { name, backends, .. }| {
                backends.into_iter().map(move |backend| Self { upstream: name.clone(), backend })
            })
            .collect();
        // Where one that leaves has the name of one that stays, the latter is meant; it comes first.
        if let Some(exact) = all.iter().position(|named| named.name() == typed) {
            return Ok(all.swap_remove(exact));
        }
        let known: Vec<(String, String)> = all.iter().map(|named| (named.name(), named.backend.name.clone())).collect();
        let mut alone = all.into_iter().filter(|named| named.backend.name == typed);
        match (alone.next(), alone.next()) {
            (Some(named), None) => Ok(named),
            (Some(one), Some(other)) => {
                Err(format!("`{}` is ambiguous: {} or {}", Printable(typed), one.shown(), other.shown()))
            }
            (None, _) => Err(unknown(typed, &known)),
        }
    }

    /// Its whole name.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.upstream, self.backend.name)
    }

    /// Its whole name, for a terminal.
    pub(super) fn shown(&self) -> String {
        Printable(&self.name()).to_string()
    }

    /// Its whole name, for a shell.
    pub(super) fn quoted(&self) -> String {
        let name = self.shown();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._/:@".contains(c);
        if name.chars().all(is_plain) { name } else { format!("'{}'", name.replace('\'', r"'\''")) }
    }

    /// Where the gateway answers for it.
    pub(super) fn path(&self) -> String {
        format!("/api/v1/upstreams/{}/backends/{}", encoded(&self.upstream), encoded(&self.backend.name))
    }
}

/// `known`: whole names, and those of the backends alone.
fn unknown(typed: &str, known: &[(String, String)]) -> String {
    let alone = typed.rsplit('/').next().unwrap_or(typed);
    let near = nearest(typed, known.iter().map(|(name, _)| name.as_str())).or_else(|| {
        let near = nearest(alone, known.iter().map(|(_, backend)| backend.as_str()))?;
        known.iter().find(|(_, backend)| backend == near).map(|(name, _)| name.as_str())
    });
    let hint = near.map(|near| format!(" Did you mean `{}`?", Printable(near))).unwrap_or_default();
    format!("there is no backend `{}`.{hint} `tidegate status` lists them", Printable(typed))
}

/// How many of some open requests are tunnels, to be put behind their number.
pub(super) fn tunnels_among(tunnels: u32) -> String {
    match tunnels {
        0 => String::new(),
        1 => " (1 of them a tunnel)".to_owned(),
        _ => format!(" ({tunnels} of them tunnels)"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// Upstreams of which only the names matter.
    pub(in crate::cli) fn upstreams(named: &[(&str, &[&str])]) -> Vec<UpstreamStatus> {
        let backend = |name: &&str| {
            json!({
                "name": name, "address": "10.0.1.11:9001", "state": "up", "since": "2026-11-22T12:01:07.000000Z",
                "for_s": 1, "reason": "", "why": "", "eligible": true, "backup": false, "weight": 1,
                "requests": 0, "errors": 0, "in_flight": 0, "connections": 0, "recent": null,
            })
        };
        let upstream = |(name, backends): &(&str, &[&str])| {
            json!({
                "name": name, "status": "up", "checked": true, "tier": "primary", "up": 1, "eligible": 1, "total": 1,
                "last_change": null, "backends": backends.iter().map(backend).collect::<Vec<_>>(),
            })
        };
        serde_json::from_value(named.iter().map(upstream).collect()).unwrap()
    }

    fn find(typed: &str) -> Result<(String, String), String> {
        let all = upstreams(&[
            ("orders", &["10.0.1.11:9001", "big", "unix:/run/orders.sock"]),
            ("/*", &["127.0.0.1:9001", "big"]),
        ]);
        Named::among(all, typed).map(|named| (named.upstream, named.backend.name))
    }

    #[test]
    fn names_may_hold_slashes() {
        let names = |upstream: &str, backend: &str| Ok((upstream.to_owned(), backend.to_owned()));
        assert_eq!(find("orders/big"), names("orders", "big"));
        assert_eq!(find("/*/big"), names("/*", "big"));
        assert_eq!(find("/*/127.0.0.1:9001"), names("/*", "127.0.0.1:9001"));
        assert_eq!(find("orders/unix:/run/orders.sock"), names("orders", "unix:/run/orders.sock"));
        assert_eq!(find("10.0.1.11:9001"), names("orders", "10.0.1.11:9001"));
        assert_eq!(find("unix:/run/orders.sock"), names("orders", "unix:/run/orders.sock"));
    }

    #[test]
    fn what_is_not_there_or_there_twice_is_named() {
        let says = |typed: &str, what: &str| {
            let why = find(typed).unwrap_err();
            assert!(why.contains(what), "{why}");
        };
        says("big", "ambiguous: orders/big or /*/big");
        says("ordres/big", "Did you mean `orders/big`?");
        says("shop/10.0.1.11:9001", "Did you mean `orders/10.0.1.11:9001`?");
        says("bog", "Did you mean `orders/big`?");
        says("nothing", "there is no backend `nothing`. `tidegate status` lists them");
        says("\u{1b}[2J", "`\\u{1b}[2J`");
    }

    #[test]
    fn a_name_can_be_pasted_into_a_shell() {
        let quoted = |typed| Named::among(upstreams(&[("/*", &["a"]), ("orders", &["b"])]), typed).unwrap().quoted();
        assert_eq!([quoted("a"), quoted("b")], ["'/*/a'", "orders/b"]);
    }
}
