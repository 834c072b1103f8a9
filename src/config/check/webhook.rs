//! Who is told of events.

use std::time::Duration;

use super::Check;
use crate::{
    base::Name,
    config::{
        diagnostics::Code,
        plan::{EventKind, Host, UpstreamTls, Webhook},
        spec::{self, List, Spec, UpstreamTlsSpec, WebhookSpec, Written},
        yaml::At,
    },
    tls,
};

const KINDS: &[(&str, EventKind)] = &[
    ("backend", EventKind::Backend),
    ("api", EventKind::Api),
    ("reload", EventKind::Reload),
    ("refused", EventKind::Refused),
    ("process", EventKind::Process),
    ("warning", EventKind::Warning),
];

/// Webhooks of one config. Each is a task and a connection.
const MOST: usize = 16;

impl<'a> Check<'a> {
    pub(super) fn webhooks(&mut self, spec: &Spec, at: At<'a>) -> Vec<Webhook> {
        let block = at.key("telemetry").key("webhooks");
        let Some(written) = spec.telemetry.as_ref().and_then(|telemetry| telemetry.webhooks.as_ref()) else {
            return vec![];
        };
        if written.0.len() > MOST {
            let finding = self.finding(Code::OutOfRange, block, format!("there are at most {MOST} webhooks"));
            self.report(finding.label("tell fewer, who tell the others"));
        }
        let webhooks = written.0.iter().take(MOST);
        webhooks.filter_map(|(name, written)| self.webhook(block.key(name), name, written)).collect()
    }

    fn webhook(&mut self, at: At<'a>, name: &str, written: &WebhookSpec) -> Option<Webhook> {
        let name = self.name(at, name, "a webhook", true).unwrap_or_else(|| Name::derived(name));
        let headers = written.headers.as_ref().map(|headers| self.own_headers(at.key("headers"), headers, "a webhook"));
        let second = Duration::from_secs(1);
        let timeout = self.duration(at, "timeout", written.timeout.as_ref(), Duration::from_millis(100)..=second * 60);
        let attempts = self.count(at, "attempts", written.attempts.as_ref(), 1..=100);
        let events = written.events.as_ref().map(|events| self.event_kinds(at.key("events"), events));
        let Some(url) = &written.url else {
            self.missing(at, "url", &format!("webhook `{name}`"), "add url: https://HOST/PATH");
            return None;
        };
        let (is_secure, host, port, path) = self.webhook_url(at.key("url"), &url.text)?;
        let tls = match is_secure {
            true => Some(self.webhook_tls(at, written)?),
            false => None,
        };
        Some(Webhook {
            name,
            tls,
            host,
            port,
            path,
            headers: headers.unwrap_or_default(),
            events: events.unwrap_or_else(|| vec![EventKind::Backend, EventKind::Refused, EventKind::Warning]),
            timeout: timeout.unwrap_or(second * 5),
            attempts: attempts.and_then(|attempts| u8::try_from(attempts).ok()).unwrap_or(5),
        })
    }

    fn webhook_tls(&mut self, at: At<'a>, written: &WebhookSpec) -> Option<UpstreamTls> {
        let plain = UpstreamTlsSpec::default();
        self.peer_tls(at.key("tls"), written.tls.as_ref().unwrap_or(&plain), vec![tls::Protocol::Http1])
    }

    /// A URL: an address as backends have it, and behind it a path, which may hold a secret.
    fn webhook_url(&mut self, at: At<'a>, text: &str) -> Option<(bool, Host, u16, String)> {
        let authority = text.find("://").map_or(0, |scheme| scheme + 3);
        let end =
            text.get(authority..).and_then(|rest| rest.find(['/', '?', '#'])).map_or(text.len(), |end| authority + end);
        let (base, path) = text.split_at(end);
        let path = if path.is_empty() { "/" } else { path };
        let is_target =
            path.starts_with('/') && path.parse::<http::uri::PathAndQuery>().is_ok_and(|p| p.as_str() == path);
        if authority == 0 || !is_target {
            let finding = self.finding(Code::Invalid, at, format!("`{}` is not a URL to tell events to", at.shown()));
            self.report(finding.label("write it like https://hooks.example.com/tidegate"));
            return None;
        }
        let (host, port, tls) = self.address(at, base)?;
        Some((tls, host, port, path.to_owned()))
    }

    fn event_kinds(&mut self, at: At<'a>, written: &List<Written<spec::EventKind>>) -> Vec<EventKind> {
        if written.0.is_empty() {
            let finding = self.finding(Code::Missing, at, "nothing would be told");
            self.report(finding.label("write one, like backend, or delete the webhook"));
        }
        let mut kinds = vec![];
        for (i, kind) in written.0.iter().enumerate() {
            match kind {
                Some(kind) => kinds.extend(self.word(at.item(i), &kind.text, "a kind of event", KINDS)),
                None => self.empty_item(at.item(i)),
            }
        }
        kinds.dedup();
        kinds
    }
}
