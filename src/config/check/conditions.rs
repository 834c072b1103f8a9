//! What a route asks of a request besides its host and path.

use http::{HeaderName, Method, header};

use super::Check;
use crate::config::{
    diagnostics::Code,
    plan::{Conditions, Wanted},
    spec::{self, List, Named, RouteSpec, Written},
    yaml::At,
};

impl<'a> Check<'a> {
    /// The `methods`, `headers` and `query` of the route at `at`.
    pub(super) fn conditions(&mut self, at: At<'a>, written: &RouteSpec) -> Conditions {
        let methods = written.methods.as_ref().map(|list| self.matched_methods(at.key("methods"), list));
        let headers = written.headers.as_ref().map(|all| self.matched_headers(at.key("headers"), all));
        let query = written.query.as_ref().map(|all| self.matched_query(at.key("query"), all));
        Conditions {
            methods: methods.unwrap_or_default(),
            headers: headers.unwrap_or_default(),
            query: query.unwrap_or_default(),
        }
    }

    fn matched_methods(&mut self, at: At<'a>, list: &List<Written<spec::Method>>) -> Vec<Method> {
        if list.0.is_empty() {
            let finding = self.finding(Code::Missing, at, "no method would match");
            self.report(finding.label("write one, or delete the field to match any"));
        }
        let mut methods = vec![];
        for (at, text) in self.items(at, list) {
            match self.method(at, text) {
                Some(Method::TRACE) => {
                    let finding = self.finding(Code::Invalid, at, "TRACE is refused, whatever matches it");
                    self.report(finding.label("delete it"));
                }
                method => methods.extend(method),
            }
        }
        methods.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        methods.dedup();
        methods
    }

    fn matched_headers(&mut self, at: At<'a>, all: &Named<Written<spec::Wanted>>) -> Vec<(HeaderName, Wanted)> {
        let mut matched: Vec<(HeaderName, Wanted)> = vec![];
        for (name, value) in &all.0 {
            let at = at.key(name);
            let wrong = match HeaderName::from_bytes(name.as_bytes()) {
                Ok(header) if header.as_str().contains('_') => {
                    (format!("`{name}` never matches"), "fields with an underscore are removed: write a -")
                }
                Ok(_) if value.text.trim() != value.text || value.text.contains(char::is_control) => (
                    format!("`{name}` is never this"),
                    "a value has no white space around it, and no control characters",
                ),
                Ok(header::HOST) => (format!("`{name}` is matched by `host`"), "use the field host"),
                Ok(header) if matched.iter().any(|(other, _)| *other == header) => {
                    (format!("`{name}` is asked for twice"), "case does not matter: delete one")
                }
                Ok(header) => {
                    matched.extend(self.wanted(at, &value.text).map(|wanted| (header, wanted)));
                    continue;
                }
                Err(_) => (format!("`{name}` is not the name of a header"), "a name is made of letters, digits and -"),
            };
            let mut finding = self.finding(Code::Invalid, at, wrong.0);
            finding.span = at.key_span();
            self.report(finding.label(wrong.1));
        }
        matched.sort_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
        matched
    }

    fn matched_query(&mut self, at: At<'a>, all: &Named<Written<spec::Wanted>>) -> Vec<(String, Wanted)> {
        let mut matched = vec![];
        for (name, value) in &all.0 {
            matched.extend(self.wanted(at.key(name), &value.text).map(|wanted| (name.clone(), wanted)));
        }
        matched
    }
}
