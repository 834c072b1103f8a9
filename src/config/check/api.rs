//! APIs: their versions, stages and dates, and which one a route belongs to.

use std::{collections::BTreeMap, sync::Arc};

use http::{Uri, uri::PathAndQuery};

use super::{Apis, Check, Placed};
use crate::{
    base::{Name, Timestamp},
    config::{
        diagnostics::Code,
        plan::{Api, Stage, Successor},
        spec::{Any, ApiSpec, Moment, RouteSpec, Spec, Written},
        yaml::At,
    },
};

const STAGES: &[(&str, Stage)] =
    &[("beta", Stage::Beta), ("stable", Stage::Stable), ("deprecated", Stage::Deprecated), ("retired", Stage::Retired)];

/// A version is a label in metrics and a column on a screen.
const LONGEST_VERSION: usize = 63;

impl<'a> Check<'a> {
    pub(super) fn apis(&mut self, spec: &Spec, at: At<'a>) -> Apis<'a> {
        let block = at.key("apis");
        let mut apis = BTreeMap::new();
        for (name, written) in spec.apis.iter().flat_map(|named| &named.0) {
            let at = block.key(name);
            if let Some(name) = self.name(at, name, "an API", true) {
                let value = Arc::new(self.api(at, name.clone(), written));
                apis.insert(name, Placed { value, at });
            }
        }
        self.successors(&apis);
        apis
    }

    /// The API that a route names.
    pub(super) fn route_api(&mut self, at: At<'a>, written: &RouteSpec, apis: &Apis<'a>) -> Option<Name> {
        let text = &written.api.as_ref()?.text;
        self.used.insert(("apis", text.clone()));
        match apis.get_key_value(text.as_str()) {
            Some((name, _)) => return Some(name.clone()),
            None if self.root.key("apis").names(text) => {}
            None => self.unknown(at, "api", text, apis.keys().map(|name| &**name).collect()),
        }
        None
    }

    fn api(&mut self, at: At<'a>, name: Name, written: &ApiSpec) -> Api {
        let version = match &written.version {
            Some(version) => self.api_version(at.key("version"), &version.text),
            None => {
                self.missing(at, "version", &format!("API `{name}`"), "add version: \"1\"");
                None
            }
        };
        let api = Api {
            version: version.unwrap_or_default(),
            stage: self.choice(at, "stage", written.stage.as_ref(), "a stage", STAGES).unwrap_or(Stage::Stable),
            deprecated: self.date(at.key("deprecated"), written.deprecated.as_ref()),
            sunset: self.date(at.key("sunset"), written.sunset.as_ref()),
            link: written.link.as_ref().and_then(|link| self.page(at.key("link"), link)),
            successor: written.successor.as_ref().and_then(|successor| self.successor(at.key("successor"), successor)),
            name,
        };
        self.dates(at, &api);
        api
    }

    fn api_version(&mut self, at: At<'a>, text: &str) -> Option<String> {
        let is_version =
            (1..=LONGEST_VERSION).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_version {
            let finding = self.finding(Code::Invalid, at, format!("`{}` is not a version", at.shown()));
            self.report(finding.label("write up to 63 letters, digits and signs, without spaces: 1, v2, 2026-10"));
        }
        is_version.then(|| text.to_owned())
    }

    fn date(&mut self, at: At<'a>, written: Option<&Written<Moment>>) -> Option<Timestamp> {
        let date = Timestamp::of_date(&written?.text).ok();
        if date.is_none() {
            let finding = self.finding(Code::Invalid, at, format!("`{}` is not a date", at.shown()));
            self.report(finding.label("write it like 2027-01-01 (its start in UTC) or 2027-01-01T09:00:00Z"));
        }
        date
    }

    fn page(&mut self, at: At<'a>, written: &Written<Any>) -> Option<String> {
        let url = Some(written.text.clone()).filter(|text| is_url(text));
        if url.is_none() {
            let finding = self.finding(Code::Invalid, at, format!("`{}` is not a URL", at.shown()));
            self.report(finding.label("write it like https://docs.example.com/migrate"));
        }
        url
    }

    fn successor(&mut self, at: At<'a>, written: &Written<Any>) -> Option<Successor> {
        let text = &written.text;
        if is_url(text)
            || (text.starts_with('/') && text.parse::<PathAndQuery>().is_ok_and(|path| path == text.as_str()))
        {
            return Some(Successor::Target(text.clone()));
        }
        match Name::parse(text) {
            Ok(name) => Some(Successor::Api(name)),
            Err(_) => {
                let finding = self.finding(Code::Invalid, at, format!("`{}` is no successor", at.shown()));
                self.report(finding.label("write the name of an entry of `apis`, a URL, or a path like /v2/orders"));
                None
            }
        }
    }

    fn successors(&mut self, apis: &Apis<'a>) {
        for (name, placed) in apis {
            let Some(Successor::Api(successor)) = &placed.value.successor else { continue };
            let at = placed.at.key("successor");
            if successor == name {
                let finding = self.finding(Code::Contradiction, at, format!("API `{name}` is its own successor"));
                self.report(finding.label("name another one, or delete the field"));
            } else if !apis.contains_key(successor) && !self.root.key("apis").names(successor) {
                self.unknown(at, "successor", successor, apis.keys().map(|name| &**name).collect());
            }
        }
    }

    /// What stage and dates say of each other. Time heals what is wrong only because a date is still to come, and makes nothing wrong.
    fn dates(&mut self, at: At<'a>, api: &Api) {
        let now = Timestamp::now();
        let is_to_come = |date: Option<Timestamp>| date.is_some_and(|date| date > now);
        let stage = api.stage.as_str();
        let finding = match (api.stage, api.deprecated, api.sunset) {
            (_, Some(deprecated), Some(sunset)) if sunset < deprecated => {
                let message = "`sunset` is before `deprecated`";
                let finding = self.finding(Code::Contradiction, at.key("sunset"), message);
                finding
                    .label("an API is deprecated first, and retired then")
                    .related(at.key("deprecated").span(), "deprecated here")
            }
            (Stage::Deprecated | Stage::Retired, deprecated, _) if is_to_come(deprecated) => {
                let message = format!("`stage: {stage}`, and `deprecated` is a date to come");
                let finding = self.finding(Code::Contradiction, at.key("stage"), message);
                finding
                    .label("write the stage of today: the date changes it")
                    .related(at.key("deprecated").span(), "to come")
            }
            (Stage::Retired, _, sunset) if is_to_come(sunset) => {
                let message = "`stage: retired`, and `sunset` is a date to come";
                let finding = self.finding(Code::Contradiction, at.key("stage"), message);
                finding
                    .label("write the stage of today: the date changes it")
                    .related(at.key("sunset").span(), "to come")
            }
            (Stage::Deprecated, None, _) if !at.has("deprecated") => {
                let message = format!("API `{}` is deprecated and does not say since when", api.name);
                let finding = self.finding(Code::Missing, at.key("stage"), message);
                finding.label("add deprecated: 2027-01-01: clients are told the date")
            }
            _ => return,
        };
        self.report(finding);
    }
}

/// An absolute URL that can stand in a `Link`.
fn is_url(text: &str) -> bool {
    let is_web =
        |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|h| !h.is_empty());
    // A `#` is cut off by the parser.
    let (before, fragment) = text.split_once('#').unwrap_or((text, ""));
    let is_fragment = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%".contains(&byte);
    before.parse::<Uri>().is_ok_and(|uri| is_web(&uri))
        && fragment.bytes().all(is_fragment)
        && !text.contains(['<', '>', '"'])
}
