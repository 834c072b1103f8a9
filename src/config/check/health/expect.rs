//! What a probe expects.

use std::time::Duration;

use http::{HeaderName, Method};

use super::{super::upstream::DAY, Check};
use crate::config::{
    diagnostics::Code,
    plan::{Document, Expect, JsonPath, StatusRange, TlsProbe, Wanted},
    spec::{self, ExpectSpec, Named, OneOrMany, Status, Written},
    yaml::At,
};

impl<'a> Check<'a> {
    pub(super) fn expect(&mut self, at: At<'a>, written: &ExpectSpec, method: &Method) -> Expect {
        let plain = Expect::default();
        let status = written.status.as_ref().map(|status| self.statuses(at.key("status"), status));
        let status = status.filter(|status| !status.is_empty()).unwrap_or(plain.status);
        let degraded = written.degraded_status.as_ref();
        let degraded_status = degraded.map(|status| self.statuses(at.key("degraded_status"), status));
        let degraded_status = degraded_status.unwrap_or_default();
        self.is_either(at, &status, &degraded_status);
        for field in ["body", "json"].into_iter().filter(|field| *method == Method::HEAD && at.has(field)) {
            let finding = self.finding(Code::Contradiction, at.key(field), "the answer to HEAD has no body to match");
            self.report(finding.label("probe with GET"));
        }
        let words = [("read", Document::Read), ("ignore", Document::Ignore)];
        let document = self.choice(at, "document", written.document.as_ref(), "a use of documents", &words);
        let expect = Expect {
            status,
            degraded_status,
            headers: written
                .headers
                .as_ref()
                .map(|all| self.expected_headers(at.key("headers"), all))
                .unwrap_or_default(),
            body: self.expected_body(at, written),
            json: written.json.as_ref().map(|all| self.expected_json(at.key("json"), all)).unwrap_or_default(),
            document: document.unwrap_or_default(),
        };
        self.turned_away(at, &expect);
        expect
    }

    /// Says where a probe passes that was sent elsewhere, or refused, and of which nothing else is known.
    fn turned_away(&mut self, at: At<'a>, expect: &Expect) {
        let Expect { status, headers, body, json, .. } = expect;
        if !at.has("status") || !headers.is_empty() || body.is_some() || !json.is_empty() {
            return;
        }
        let unchanged = StatusRange { first: 304, last: 304 };
        let is_redirect = |range: &StatusRange| range.first >= 300 && range.last <= 399 && *range != unchanged;
        let refusal = [401, 403].into_iter().find(|refusal| status.iter().any(|range| range.contains(*refusal)));
        let (message, label, meant) = match refusal {
            Some(refusal) => (
                format!("this health check passes where the probe is refused ({refusal})"),
                "probe a path without auth, or bring credentials in `headers`",
                "if this is meant, expect what comes with it, like headers: { www-authenticate: \"~ Bearer\" }",
            ),
            None if status.iter().all(is_redirect) => (
                "only a redirect passes this health check".to_owned(),
                "one to a login page passes, too: probe a path that answers 200",
                "if this is meant, expect where it leads to, like headers: { location: /ready }",
            ),
            None => return,
        };
        let finding = self.finding(Code::TurnedAway, at.key("status"), message);
        self.report(finding.label(label).note(meant));
    }

    /// Says where a status both passes and is degraded.
    fn is_either(&mut self, at: At<'a>, status: &[StatusRange], degraded: &[StatusRange]) {
        let pairs = degraded.iter().flat_map(|degraded| status.iter().map(move |passes| (*degraded, *passes)));
        let both = |(degraded, passes): &(StatusRange, StatusRange)| {
            degraded.first <= passes.last && passes.first <= degraded.last
        };
        if let Some((degraded, passes)) = pairs.into_iter().find(both) {
            let first = degraded.first.max(passes.first);
            let message = format!("status {first} would pass and be degraded");
            let finding = self.finding(Code::Contradiction, at.key("degraded_status"), message);
            self.report(finding.label(format!("{passes} passes: write `status` without {degraded}")));
        }
    }

    /// What a body, or an answer in TCP, must hold.
    pub(super) fn expected_body(&mut self, at: At<'a>, written: &ExpectSpec) -> Option<Wanted> {
        let (at, body) = (at.key("body"), written.body.as_ref()?);
        if body.text.is_empty() {
            let finding = self.finding(Code::Invalid, at, "every body holds the empty text");
            self.report(finding.label("write what the body must hold, or delete it"));
            return None;
        }
        self.wanted(at, &body.text)
    }

    fn expected_headers(&mut self, at: At<'a>, all: &Named<Written<spec::Wanted>>) -> Vec<(HeaderName, Wanted)> {
        let mut expected = vec![];
        for (name, value) in &all.0 {
            let at = at.key(name);
            match HeaderName::from_bytes(name.as_bytes()) {
                Ok(header) => expected.extend(self.wanted(at, &value.text).map(|wanted| (header, wanted))),
                Err(_) => {
                    let mut finding = self.finding(Code::Invalid, at, format!("`{name}` is not the name of a header"));
                    finding.span = at.key_span();
                    self.report(finding);
                }
            }
        }
        expected.sort_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
        expected
    }

    fn expected_json(&mut self, at: At<'a>, all: &Named<Written<spec::Wanted>>) -> Vec<(JsonPath, Wanted)> {
        let mut expected = vec![];
        for (path, value) in &all.0 {
            let at = at.key(path);
            match JsonPath::parse(path) {
                Some(path) => expected.extend(self.wanted(at, &value.text).map(|wanted| (path, wanted))),
                None => {
                    let message = format!("`{path}` is not a path to a field");
                    let mut finding = self.finding(Code::Invalid, at, message);
                    finding.span = at.key_span();
                    self.report(finding.label("write it like checks.db.status, or /checks/db/status"));
                }
            }
        }
        expected
    }

    pub(super) fn tls_probe(&mut self, at: At<'a>, written: &ExpectSpec) -> TlsProbe {
        let valid_for = self.duration(at, "valid_for", written.valid_for.as_ref(), Duration::ZERO..=DAY * 365);
        TlsProbe { valid_for: valid_for.unwrap_or(DAY * 7) }
    }

    pub(super) fn statuses(&mut self, at: At<'a>, written: &OneOrMany<Status>) -> Vec<StatusRange> {
        let mut ranges: Vec<StatusRange> = match written {
            OneOrMany::One(status) => self.status(at, &status.text).into_iter().collect(),
            OneOrMany::Many(list) => {
                if list.0.is_empty() {
                    let finding = self.finding(Code::Missing, at, "no status would pass");
                    self.report(finding.label("write one, like 200-399"));
                }
                let mut ranges = vec![];
                for (i, status) in list.0.iter().enumerate() {
                    match status {
                        Some(status) => ranges.extend(self.status(at.item(i), &status.text)),
                        None => self.empty_item(at.item(i)),
                    }
                }
                ranges
            }
        };
        ranges.sort_by_key(|range| (range.first, range.last));
        ranges.dedup();
        ranges
    }

    fn status(&mut self, at: At<'a>, text: &str) -> Option<StatusRange> {
        let range = StatusRange::parse(text);
        if range.is_none() {
            let finding = self.finding(Code::Invalid, at, format!("`{}` is not a status", at.shown()));
            self.report(finding.label("write one from 200 to 599, or a range like 200-399"));
        }
        range
    }
}
