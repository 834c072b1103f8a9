//! Auth and limits.

use std::{collections::BTreeMap, sync::Arc};

use http::HeaderName;

use super::{Auths, Check, Limits, Placed, hash};
use crate::{
    base::{Name, Rate, Secret},
    config::{
        diagnostics::Code,
        plan::{ApiKeys, Auth, AuthMethod, BasicUser, BasicUsers, Consumer, KeySource, Limit, LimitKey},
        spec::{self, ApiKeySpec, AuthSpec, BasicSpec, LimitSpec, Named, OneOrMany, Spec},
        yaml::{At, Document, read_text, unreadable},
    },
};

/// The largest file of keys or users.
const LARGEST: u64 = 4 << 20;
const MAX_KEYS: u32 = 100_000;

impl<'a> Check<'a> {
    pub(super) fn auth(&mut self, spec: &Spec, at: At<'a>) -> Auths<'a> {
        let block = at.key("auth");
        let mut auths = BTreeMap::new();
        for (name, written) in spec.auth.iter().flat_map(|named| &named.0) {
            let at = block.key(name);
            let name = self.name(at, name, "an auth", true);
            let method = self.auth_method(at, written);
            if let (Some(name), Some(method)) = (name, method) {
                let value = Arc::new(Auth { name: name.clone(), method });
                auths.insert(name, Placed { value, at });
            }
        }
        auths
    }

    fn auth_method(&mut self, at: At<'a>, written: &AuthSpec) -> Option<AuthMethod> {
        match (&written.api_key, &written.basic) {
            (Some(api_key), None) => self.api_keys(at.key("api_key"), api_key).map(AuthMethod::ApiKey),
            (None, Some(basic)) => Some(AuthMethod::Basic(self.basic(at.key("basic"), basic))),
            (None, None) => {
                if !at.has("api_key") && !at.has("basic") {
                    let finding = self.finding(Code::Missing, at, "this auth asks nothing");
                    self.report(finding.label("add `api_key` or `basic`"));
                }
                None
            }
            (Some(_), Some(_)) => {
                let mut finding = self.finding(Code::Contradiction, at, "one auth asks in one way only");
                finding.span = at.key("basic").key_span();
                self.report(finding.label("give it an entry of its own under `auth`; a route may list both"));
                None
            }
        }
    }

    fn api_keys(&mut self, at: At<'a>, written: &ApiKeySpec) -> Option<ApiKeys> {
        let source = match (&written.header, &written.query) {
            (Some(header), None) => self.header(at.key("header"), &header.text).map(KeySource::Header),
            (None, Some(query)) => self.query_name(at.key("query"), &query.text),
            (None, None) => {
                let finding = self.finding(Code::Missing, at, "nothing says where the key is");
                self.report(finding.label("add header: x-api-key, or query: NAME"));
                None
            }
            (Some(_), Some(_)) => {
                let finding =
                    self.finding(Code::Contradiction, at.key("query"), "a key is in a header or in the query");
                self.report(finding.label("delete one; a second auth can take the other"));
                None
            }
        };
        let mut consumers = vec![];
        if let Some(keys) = &written.keys {
            self.consumers(at.key("keys"), keys, &mut consumers);
        }
        if let Some(file) = &written.keys_file {
            self.keys_file(at.key("keys_file"), &file.text, &mut consumers);
        }
        if !at.has("keys") && !at.has("keys_file") {
            let finding = self.finding(Code::Missing, at, "nobody has a key");
            self.report(finding.label("add `keys` or `keys_file`"));
        }
        consumers.sort_by(|a, b| (&a.name, a.digest).cmp(&(&b.name, b.digest)));
        consumers.dedup();
        self.same_keys(at, &consumers);
        Some(ApiKeys { source: source?, consumers })
    }

    pub(super) fn header(&mut self, at: At<'a>, text: &str) -> Option<HeaderName> {
        let header = HeaderName::from_bytes(text.as_bytes()).ok();
        if header.is_none() {
            let finding = self.finding(Code::Invalid, at, format!("`{}` is not the name of a header", at.shown()));
            self.report(finding.label("write it like x-api-key"));
        }
        header
    }

    fn query_name(&mut self, at: At<'a>, text: &str) -> Option<KeySource> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if !text.is_empty() && text.bytes().all(allowed) {
            return Some(KeySource::Query(text.to_owned()));
        }
        let finding = self.finding(Code::Invalid, at, format!("`{}` is not the name of a query parameter", at.shown()));
        self.report(finding.label("use letters, digits, -, _ and ."));
        None
    }

    fn consumers(&mut self, at: At<'a>, keys: &Named<OneOrMany<spec::KeyHash>>, consumers: &mut Vec<Consumer>) {
        for (name, hashes) in &keys.0 {
            let entry = at.key(name);
            self.person(entry, name, "a key");
            for (at, text) in self.each(entry, Some(hashes)) {
                self.mask(at);
                match hash::key_digest(text) {
                    Ok(digest) => consumers.push(Consumer { name: Name::derived(name.as_str()), digest }),
                    Err(why) => {
                        let finding = self.finding(Code::BadHash, at, format!("the key of `{name}` {why}"));
                        self.report(finding.label(match text.contains("${") {
                            true => {
                                "`${…}` is not expanded in hashes; put the entry in a file and name it in `keys_file`"
                            }
                            false => "write sha256: and 64 hexadecimal digits; `tidegate hash-key` prints it",
                        }));
                    }
                }
            }
        }
    }

    /// The name of whoever holds a key or a password: printable, for logs and limits.
    fn person(&mut self, at: At<'a>, name: &str, what: &str) {
        if let Err(why) = hash::is_person(name) {
            let mut finding = self.finding(Code::Invalid, at, format!("a holder of {what} {why}"));
            finding.span = at.key_span();
            self.report(finding);
        }
    }

    /// Two names for one key: nobody could say whose request it was.
    fn same_keys(&mut self, at: At<'a>, consumers: &[Consumer]) {
        let mut holders: BTreeMap<[u8; 32], &Name> = BTreeMap::new();
        for consumer in consumers {
            if let Some(first) = holders.insert(consumer.digest, &consumer.name) {
                let place = if at.key("keys").has(&consumer.name) { at.key("keys").key(&consumer.name) } else { at };
                let mut finding =
                    self.finding(Code::SameName, place, format!("`{first}` and `{}` have the same key", consumer.name));
                finding.span = place.key_span();
                self.report(finding.label("give each a key of its own"));
            }
        }
    }

    fn keys_file(&mut self, at: At<'a>, path: &str, consumers: &mut Vec<Consumer>) {
        let Some(text) = self.read_file(at, path) else { return };
        let (mut document, flaws) = Document::parse(&text);
        if let Some(first) = flaws.first() {
            let line = text[..first.span.start.min(text.len())].lines().count().max(1);
            // The title alone: the message would quote what may be a key.
            self.in_file(at, path, line, &first.code.title().trim_end_matches('.').to_lowercase());
            return;
        }
        let (keys, findings) = document.read::<KeysFile>();
        if !findings.is_empty() {
            self.in_file(at, path, 1, "it is not entries of the form `name: sha256:…`");
        }
        for (name, hashes) in keys.0.0 {
            let texts: Vec<&str> = match &hashes {
                OneOrMany::One(one) => vec![&one.text],
                OneOrMany::Many(list) => list.0.iter().flatten().map(|hash| hash.text.as_str()).collect(),
            };
            for text in texts {
                let digest = hash::is_person(&name).and_then(|()| hash::key_digest(text));
                match digest {
                    Ok(digest) => consumers.push(Consumer { name: Name::derived(name.as_str()), digest }),
                    Err(why) => self.in_file_bad_hash(at, path, &format!("the key of `{}` {why}", name.escape_debug())),
                }
            }
        }
    }

    fn basic(&mut self, at: At<'a>, written: &BasicSpec) -> BasicUsers {
        let realm = written.realm.as_ref().map_or("tidegate", |realm| &realm.text);
        if !realm.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\') || realm.is_empty()
        {
            let finding = self.finding(Code::Invalid, at.key("realm"), "this realm cannot be sent in a header");
            self.report(finding.label("printable ASCII without \" and \\"));
        }
        let mut users = vec![];
        for (name, written) in written.users.iter().flat_map(|named| &named.0) {
            let at = at.key("users").key(name);
            self.mask(at);
            self.person(at, name, "a password");
            match hash::password(&written.text) {
                Ok(()) => users.push(user(name, &written.text)),
                Err(why) => {
                    let finding = self.finding(Code::BadHash, at, format!("the password of `{name}` {why}"));
                    self.report(finding.label(match written.text.contains("${") {
                        true => "`${…}` is not expanded in hashes; put the entry in a file and name it in `users_file`",
                        false => "write an argon2 or bcrypt hash; `tidegate hash-password` prints one",
                    }));
                }
            }
        }
        if let Some(file) = &written.users_file {
            self.users_file(at.key("users_file"), &file.text, &mut users);
        }
        if !at.has("users") && !at.has("users_file") {
            let finding = self.finding(Code::Missing, at, "nobody has a password");
            self.report(finding.label("add `users` or `users_file`"));
        }
        users.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(pair) = users.windows(2).find(|pair| pair[0].name == pair[1].name) {
            let finding = self.finding(Code::SameName, at, format!("user `{}` is given twice", pair[0].name));
            self.report(finding.label("once in `users`, once in `users_file`, or twice in the file"));
        }
        BasicUsers { realm: realm.to_owned(), users }
    }

    fn users_file(&mut self, at: At<'a>, path: &str, users: &mut Vec<BasicUser>) {
        let Some(text) = self.read_file(at, path) else { return };
        let lines = text.lines().map(str::trim).zip(1..).filter(|(line, _)| !line.is_empty() && !line.starts_with('#'));
        for (line, number) in lines {
            let Some((name, hashed)) = line.split_once(':') else {
                self.in_file(at, path, number, "a line is `name:HASH`");
                continue;
            };
            match hash::is_person(name).and_then(|()| hash::password(hashed)) {
                Ok(()) => users.push(user(name, hashed)),
                Err(why) => {
                    self.in_file_bad_hash(
                        at,
                        path,
                        &format!("the password of `{}` (line {number}) {why}", name.escape_debug()),
                    );
                }
            }
        }
    }

    pub(super) fn read_file(&mut self, at: At<'a>, path: &str) -> Option<String> {
        let path = self.folder.join(path);
        self.findings.files.push(path.clone());
        match read_text(&path, LARGEST) {
            Ok(text) => Some(text),
            Err(why) => {
                let finding = unreadable(at, &path, self.folder, &why);
                self.report(finding);
                None
            }
        }
    }

    fn in_file(&mut self, at: At<'a>, path: &str, line: usize, why: &str) {
        let finding = self.finding(Code::Unreadable, at, format!("{path}, line {line}: {why}"));
        self.report(finding);
    }

    fn in_file_bad_hash(&mut self, at: At<'a>, path: &str, why: &str) {
        let finding = self.finding(Code::BadHash, at, format!("in {path}: {why}"));
        self.report(finding);
    }

    pub(super) fn limits(&mut self, spec: &Spec, at: At<'a>) -> Limits<'a> {
        let block = at.key("limits");
        let mut limits = BTreeMap::new();
        for (name, written) in spec.limits.iter().flat_map(|named| &named.0) {
            let at = block.key(name);
            let name = self.name(at, name, "a limit", true);
            let limit = self.limit(at, name.clone().unwrap_or_else(|| Name::derived("?")), written);
            if let (Some(name), Some(limit)) = (name, limit) {
                limits.insert(name, Placed { value: Arc::new(limit), at });
            }
        }
        limits
    }

    fn limit(&mut self, at: At<'a>, name: Name, written: &LimitSpec) -> Option<Limit> {
        let burst = self.count(at, "burst", written.burst.as_ref(), 1..=u32::MAX);
        let max_keys = self.count(at, "max_keys", written.max_keys.as_ref(), 1..=10_000_000);
        let by = written.by.as_ref().and_then(|by| self.limit_key(at.key("by"), &by.text));
        let Some(rate) = &written.rate else {
            self.missing(at, "rate", &format!("limit `{name}`"), "add rate: 10/s");
            return None;
        };
        let rate = self.rate(at.key("rate"), &rate.text)?;
        Some(Limit {
            name,
            rate,
            burst: burst.unwrap_or(rate.count.get()),
            by: by.unwrap_or(LimitKey::Ip),
            max_keys: max_keys.unwrap_or(MAX_KEYS),
        })
    }

    /// `10/s`, `10/s per ip`, `5/s per header x-user`.
    pub(super) fn inline_limit(&mut self, at: At<'a>, text: &str, name: Name) -> Option<Limit> {
        let (rate, by) = match text.split_once(" per ") {
            Some((rate, by)) if rate.contains('/') => (rate, Some(by)),
            _ => (text, None),
        };
        let rate = self.rate(at, rate)?;
        let by = match by {
            Some(by) => self.limit_key(at, by.trim())?,
            None => LimitKey::Ip,
        };
        Some(Limit { name, rate, burst: rate.count.get(), by, max_keys: MAX_KEYS })
    }

    fn rate(&mut self, at: At<'a>, text: &str) -> Option<Rate> {
        if let Ok(rate) = Rate::parse(text) {
            return Some(rate);
        }
        let finding = self.finding(Code::Rate, at, format!("`{}` is not a rate", at.shown()));
        let count: String = text.chars().take_while(char::is_ascii_digit).collect();
        let label = match count.as_str() {
            _ if at.is_expanded() => "write it like 10/s, 100/min, 1000/h or 5000/d".to_owned(),
            "" | "0" => "write it like 10/s, 100/min, 1000/h or 5000/d".to_owned(),
            count if text.starts_with(&format!("{count}/")) => format!("the period is s, min, h or d: {count}/s"),
            count => format!("write {count}/s, or {count}/s per ip"),
        };
        self.report(finding.label(label));
        None
    }

    fn limit_key(&mut self, at: At<'a>, text: &str) -> Option<LimitKey> {
        match text {
            "global" => return Some(LimitKey::Global),
            "ip" => return Some(LimitKey::Ip),
            "key" => return Some(LimitKey::Key),
            _ => {}
        }
        if let Some(name) = text.strip_prefix("header ") {
            return self.header(at, name.trim()).map(LimitKey::Header);
        }
        let mut finding = self.finding(Code::NotAChoice, at, format!("a limit cannot be by `{text}`"));
        if at.is_expanded() {
            finding.message = "a limit cannot be by this".to_owned();
        }
        self.report(finding.note("choices: ip, header NAME, key, global"));
        None
    }
}

fn user(name: &str, hash: &str) -> BasicUser {
    BasicUser { name: Name::derived(name), hash: Secret::new(hash.to_owned()) }
}

/// What `keys_file` holds.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct KeysFile(Named<OneOrMany<spec::KeyHash>>);

impl Default for KeysFile {
    fn default() -> Self {
        Self(Named(BTreeMap::new()))
    }
}
