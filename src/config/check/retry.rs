//! What may be tried again.

use std::time::Duration;

use http::Method;

use super::{Check, upstream::DAY};
use crate::{
    base::Percent,
    config::{
        diagnostics::Code,
        plan::{Retries, RetryOn, StatusRange},
        spec::{self, List, RetriesSpec, Written},
        yaml::At,
    },
};

const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
const LARGEST_BODY: u32 = 1 << 20;
const MOST_RETRIES: u32 = 1_000_000;

/// What a word of `when` stands for.
#[derive(Clone, Copy)]
enum When {
    Failure(RetryOn),
    Grpc(u16),
}

const WORDS: [(&str, When); 8] = [
    ("connect", When::Failure(RetryOn::Connect)),
    ("reset", When::Failure(RetryOn::Reset)),
    ("timeout", When::Failure(RetryOn::Timeout)),
    ("grpc_cancelled", When::Grpc(1)),
    ("grpc_deadline_exceeded", When::Grpc(4)),
    ("grpc_internal", When::Grpc(13)),
    ("grpc_resource_exhausted", When::Grpc(8)),
    ("grpc_unavailable", When::Grpc(14)),
];

impl<'a> Check<'a> {
    /// The `retries` at `at`, of a route or of the defaults, on top of what it starts from.
    pub(super) fn retries(&mut self, at: At<'a>, written: Option<&RetriesSpec>, base: &Retries) -> Retries {
        let mut retries = base.clone();
        let Some(written) = written else { return retries };
        if let Some(attempts) = self.count(at, "attempts", written.attempts.as_ref(), 0..=10) {
            retries.attempts = u8::try_from(attempts).unwrap_or(u8::MAX);
        }
        if let Some(methods) = &written.methods {
            retries.methods = self.retry_methods(at.key("methods"), methods);
        }
        if let Some(timeout) = self.duration(at, "timeout", written.timeout.as_ref(), Duration::ZERO..=DAY) {
            retries.timeout = timeout;
        }
        match &written.when {
            Some(list) => self.retry_when(at.key("when"), list, &mut retries),
            // What else would it be for?
            None if written.timeout.is_some() && !retries.timeout.is_zero() => {
                retries.when.insert(RetryOn::Timeout);
            }
            None => {}
        }
        if written.body.as_ref().is_some_and(|body| body.text == "none") {
            retries.body = 0;
        } else if let Some(body) = self.bytes(at, "body", written.body.as_ref(), 1..=LARGEST_BODY) {
            retries.body = body;
        }
        let backoff = self.duration(at, "backoff", written.backoff.as_ref(), Duration::ZERO..=LONGEST_BACKOFF);
        retries.backoff = backoff.unwrap_or(base.backoff);
        let budget = self.percent(at, "budget", written.budget.as_ref(), Percent::whole(100));
        retries.budget = budget.unwrap_or(base.budget);
        let min_retries = self.count(at, "min_retries", written.min_retries.as_ref(), 0..=MOST_RETRIES);
        retries.min_retries = min_retries.unwrap_or(base.min_retries);
        let hedge_after = self.duration(at, "hedge_after", written.hedge_after.as_ref(), Duration::ZERO..=DAY);
        retries.hedge_after = hedge_after.unwrap_or(base.hedge_after);
        retries
    }

    fn retry_when(&mut self, at: At<'a>, list: &List<Written<spec::RetryOn>>, retries: &mut Retries) {
        retries.when.clear();
        retries.status.clear();
        retries.grpc.clear();
        for (at, text) in self.items(at, list) {
            if text.starts_with(|first: char| first.is_ascii_digit()) {
                retries.status.extend(self.retry_status(at, text));
                continue;
            }
            match self.word(at, text, "a failure that can be retried", &WORDS) {
                Some(When::Failure(failure)) => drop(retries.when.insert(failure)),
                Some(When::Grpc(status)) => drop(retries.grpc.insert(status)),
                None => {}
            }
        }
        retries.status.sort_by_key(|range| (range.first, range.last));
        retries.status.dedup();
    }

    fn retry_status(&mut self, at: At<'a>, text: &str) -> Option<StatusRange> {
        let range = StatusRange::parse(text).filter(|range| (400..=599).contains(&range.first) && range.last <= 599);
        if range.is_none() {
            let message = format!("`{}` is not a status that can be retried", at.shown());
            let finding = self.finding(Code::Invalid, at, message);
            self.report(finding.label("write one from 400 to 599, or a range like 502-504"));
        }
        range
    }

    fn retry_methods(&mut self, at: At<'a>, list: &List<Written<spec::Method>>) -> Vec<Method> {
        let mut methods = vec![];
        for (at, text) in self.items(at, list) {
            let Some(method) = self.method(at, text) else { continue };
            if matches!(method, Method::POST | Method::PATCH) {
                let finding = self.finding(Code::RetriesPost, at, format!("retries include {method}"));
                self.report(finding.label("a backend may do the work twice"));
            }
            methods.push(method);
        }
        methods.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        methods.dedup();
        methods
    }
}
