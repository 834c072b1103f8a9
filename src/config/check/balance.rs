//! How backends are chosen.

use std::time::Duration;

use super::{Check, upstream::DAY};
use crate::{
    base::{Name, Secret},
    config::{
        diagnostics::Code,
        plan::{Balance, BalanceMode, HashAlgorithm, HashKey, OnFailure, Placing, SameSite, Sticky},
        spec::{self, BalanceSpec, ShortOr, StickySpec, Written},
        suggest,
        yaml::At,
    },
};

const MODES: &[&str] = &["round_robin", "random", "least_requests", "p2c", "hash ip"];

/// The modes that have a name behind them, for the words of a finding.
const NAMED: &[&str] = &["hash header NAME", "hash cookie NAME", "hash query NAME"];

const SHORTEST_KEY: usize = 16;

impl<'a> Check<'a> {
    /// How a backend of `upstream` is chosen.
    pub(super) fn balance(
        &mut self,
        at: At<'a>,
        upstream: &Name,
        written: Option<&ShortOr<spec::Balance, BalanceSpec>>,
    ) -> Balance {
        let at = at.key("balance");
        match written {
            None => Balance::default(),
            Some(ShortOr::Short(mode)) => Balance { mode: self.balance_mode(at, &mode.text), sticky: None },
            Some(ShortOr::Fields(fields)) => {
                let sticky = fields.sticky.as_ref();
                let sticky = sticky.and_then(|sticky| self.sticky(at.key("sticky"), upstream, sticky));
                Balance { mode: self.long_mode(at, fields), sticky }
            }
        }
    }

    fn balance_mode(&mut self, at: At<'a>, text: &str) -> BalanceMode {
        match text {
            "round_robin" => return BalanceMode::RoundRobin,
            "random" => return BalanceMode::Random,
            "least_requests" => return BalanceMode::LeastRequests,
            "p2c" => return BalanceMode::P2c,
            _ => {}
        }
        let words: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
        let key = match words.as_slice() {
            ["hash", "ip"] => Some(HashKey::Ip),
            ["hash", "header", name] => self.header(at, name).map(HashKey::Header),
            ["hash", "cookie", name] => self.cookie_name(at, name).map(HashKey::Cookie),
            ["hash", "query", name] => self.query_key(at, name).map(HashKey::Query),
            _ => {
                self.unknown_mode(at, text);
                None
            }
        };
        let by = |by| Placing { by, algorithm: HashAlgorithm::default(), bounded_load: None };
        key.map(|key| BalanceMode::Hash(by(key))).unwrap_or_default()
    }

    fn unknown_mode(&mut self, at: At<'a>, text: &str) {
        let words = || MODES.iter().copied();
        let finding = self.finding(Code::NotAChoice, at, format!("`{}` is not a balance mode", at.shown()));
        let bare = |word: &str| word.replace(['_', '-'], "");
        let same = || words().find(|word| bare(word) == bare(&text.to_ascii_lowercase()));
        let finding = match suggest::nearest(text, words()).or_else(same) {
            // What a hash is made of cannot be guessed.
            Some(near) if !text.starts_with("hash") => finding.label(format!("did you mean {near}?")).fix(near),
            _ if text.starts_with("hash") => finding.label("say of what: hash header NAME, hash ip"),
            _ => finding,
        };
        self.report(finding.note(format!("choices: {}", suggest::list(words().chain(NAMED.iter().copied())))));
    }

    fn long_mode(&mut self, at: At<'a>, written: &BalanceSpec) -> BalanceMode {
        let mode = written.mode.as_ref().map(|mode| self.balance_mode(at.key("mode"), &mode.text)).unwrap_or_default();
        let algorithms = [("ring", HashAlgorithm::Ring), ("maglev", HashAlgorithm::Maglev)];
        let algorithm = self.choice(at, "algorithm", written.algorithm.as_ref(), "an algorithm", &algorithms);
        let bounded_load = self.bounded_load(at, written.bounded_load.as_ref());
        match mode {
            BalanceMode::Hash(placing) => {
                BalanceMode::Hash(Placing { algorithm: algorithm.unwrap_or_default(), bounded_load, ..placing })
            }
            other => {
                // A mode that was refused may have been meant as one of these.
                let is_meant = written.mode.as_ref().is_none_or(|mode| !mode.text.starts_with("hash"));
                for field in ["algorithm", "bounded_load"].into_iter().filter(|field| is_meant && at.has(field)) {
                    let message = format!("`{field}` is for `mode: hash …`");
                    let mut finding = self.finding(Code::Contradiction, at.key(field), message);
                    finding.span = at.key(field).key_span();
                    self.report(finding.label("delete it, or write a mode like hash header x-user"));
                }
                other
            }
        }
    }

    fn bounded_load(&mut self, block: At<'a>, written: Option<&Written<spec::OverPercent>>) -> Option<u16> {
        let (text, at) = (&written?.text, block.key("bounded_load"));
        let percent = text.strip_suffix('%').filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
        let finding = match percent.map(str::parse::<u16>) {
            Some(Ok(percent @ 100..=1_000)) => return Some(percent),
            Some(Ok(_)) => {
                let message = format!("`bounded_load: {}` is out of range", at.shown());
                self.finding(Code::OutOfRange, at, message).label("from 100% to 1000%")
            }
            Some(Err(_)) | None => {
                let message = format!("`{}` is not a whole percentage", at.shown());
                self.finding(Code::Invalid, at, message).label("write it like 125%")
            }
        };
        self.report(finding);
        None
    }

    fn sticky(&mut self, at: At<'a>, upstream: &Name, written: &StickySpec) -> Option<Sticky> {
        let key = written.key.as_ref().and_then(|key| self.sticky_key(at.key("key"), &key.text));
        let ttl = Duration::from_secs(1)..=DAY * 400;
        let ttl = self.duration(at, "ttl", written.ttl.as_ref(), ttl);
        let path = written.path.as_ref().and_then(|path| self.cookie_path(at.key("path"), &path.text));
        let sites = [("lax", SameSite::Lax), ("strict", SameSite::Strict), ("none", SameSite::None)];
        let same_site = self.choice(at, "same_site", written.same_site.as_ref(), "a rule for other sites", &sites);
        let secure = self.flag(at, "secure", written.secure.as_ref());
        let http_only = self.flag(at, "http_only", written.http_only.as_ref());
        let policies = [("another", OnFailure::Another), ("fail", OnFailure::Fail)];
        let on_failure = self.choice(at, "on_failure", written.on_failure.as_ref(), "a failure policy", &policies);
        let Some(cookie) = &written.cookie else {
            self.missing(at, "cookie", "sticky", "add cookie: NAME");
            return None;
        };
        let sticky = Sticky {
            cookie: self.cookie_name(at.key("cookie"), &cookie.text)?,
            key: key.unwrap_or_else(|| Secret::new(format!("tidegate:{upstream}"))),
            ttl,
            path: path.unwrap_or_else(|| "/".to_owned()),
            same_site: same_site.unwrap_or_default(),
            secure,
            http_only: http_only.unwrap_or(true),
            on_failure: on_failure.unwrap_or_default(),
        };
        self.kept_by_browsers(at, &sticky);
        Some(sticky)
    }

    fn sticky_key(&mut self, at: At<'a>, text: &str) -> Option<Secret> {
        if !at.is_expanded() {
            self.mask(at);
            let finding = self.finding(Code::PlainSecret, at, "the key of the cookie is written in plain text");
            self.report(finding.label("write ${NAME} or ${file:PATH}"));
        }
        if text.len() >= SHORTEST_KEY {
            return Some(Secret::new(text.to_owned()));
        }
        let message = format!("the key of the cookie is shorter than {SHORTEST_KEY} characters");
        let finding = self.finding(Code::OutOfRange, at, message);
        self.report(finding.label("32 random ones are good: openssl rand -hex 16"));
        None
    }

    /// Browsers drop what contradicts itself, silently (RFC 6265bis, section 5.7).
    fn kept_by_browsers(&mut self, at: At<'a>, sticky: &Sticky) {
        let has_prefix =
            |prefix: &str| sticky.cookie.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
        let (is_host, is_secure) = (has_prefix("__Host-"), has_prefix("__Secure-"));
        if sticky.secure != Some(true) && (is_host || is_secure || sticky.same_site == SameSite::None) {
            let (field, what) = match is_host || is_secure {
                true => ("cookie", format!("`cookie: {}`", at.key("cookie").shown())),
                false => ("same_site", "`same_site: none`".to_owned()),
            };
            let finding = self.finding(Code::Contradiction, at.key(field), format!("{what} needs `secure: true`"));
            self.report(finding.label("browsers drop such a cookie"));
        }
        if is_host && sticky.path != "/" {
            let message = format!("`cookie: {}` needs `path: /`", at.key("cookie").shown());
            let finding = self.finding(Code::Contradiction, at.key("path"), message);
            self.report(finding.label("browsers drop such a cookie"));
        }
    }

    fn cookie_name(&mut self, at: At<'a>, text: &str) -> Option<String> {
        // A token (RFC 9110, section 5.6.2), as RFC 6265, section 4.1.1 wants it.
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if (1..=128).contains(&text.len()) && text.bytes().all(is_token) {
            return Some(text.to_owned());
        }
        let finding = self.finding(Code::Invalid, at, format!("`{}` is not the name of a cookie", at.shown()));
        self.report(finding.label("use letters, digits, -, _ and ."));
        None
    }

    fn query_key(&mut self, at: At<'a>, text: &str) -> Option<String> {
        let allowed = |byte: u8| byte.is_ascii_graphic() && !b"&=#+%?".contains(&byte);
        if !text.is_empty() && text.bytes().all(allowed) {
            return Some(text.to_owned());
        }
        let finding = self.finding(Code::Invalid, at, format!("`{}` is not the name of a query parameter", at.shown()));
        self.report(finding.label("use letters, digits, -, _ and ."));
        None
    }

    fn cookie_path(&mut self, at: At<'a>, text: &str) -> Option<String> {
        if text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';') {
            return Some(text.to_owned());
        }
        let finding = self.finding(Code::Invalid, at, format!("`{}` is not the path of a cookie", at.shown()));
        self.report(finding.label("write it like /shop"));
        None
    }
}
