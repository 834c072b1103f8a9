//! The upstream that a request goes to, where its route names several, and the path that it goes there with.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Uri, uri::PathAndQuery};

use super::{Exchange, cookies, headers::X_FORWARDED_PREFIX, sanitise::Malformed};
use crate::{
    config::plan::{self, Forward, Rewrite, SplitKey, WhenDown},
    net::values,
    route,
    runtime::{Action, Mirror, Route, Side, Upstream},
    upstream::{RequestHead, Tier, place, place_for},
};

/// A route, and of its upstreams the one that this request goes to.
#[derive(Clone, Copy)]
pub(super) struct Way<'r> {
    pub(super) plan: &'r plan::Route,
    pub(super) upstream: &'r Arc<Upstream>,
    rewrite: Option<&'r Rewrite>,
    pub(super) mirror: Option<&'r Arc<Mirror>>,
}

impl<'r> Way<'r> {
    /// The way of a request; `None` where its route leads to no upstream.
    pub(super) fn of(exchange: &Exchange, route: &'r Route, headers: &HeaderMap) -> Option<Self> {
        let (Some(forward), Action::Forward { sides, mirror }) = (route.plan.action.forward(), &route.action) else {
            return None;
        };
        let (number, side) = choose(forward, sides, headers)?;
        exchange.goes_to(number);
        Some(Self {
            plan: &route.plan,
            upstream: &side.upstream,
            rewrite: forward.rewrite.as_ref(),
            mirror: mirror.as_ref(),
        })
    }

    /// Gives the request the path that backends are to see. It was matched, and authenticated, by the one that it had.
    pub(super) fn rewrite(&self, head: &mut RequestHead) -> Result<(), Malformed> {
        let Some(rewrite) = self.rewrite else { return Ok(()) };
        let uri = &head.parts.uri;
        let path = uri.path();
        let new = route::rewrite(rewrite, &self.plan.path, path)?;
        if new == path {
            return Ok(());
        }
        let target = match uri.query() {
            Some(query) => format!("{new}?{query}"),
            None => new.into_owned(),
        };
        head.parts.uri = Uri::from(PathAndQuery::try_from(target).map_err(|_| Malformed::Target)?);
        if let Rewrite::Strip(prefix) = rewrite {
            say_prefix(head, prefix);
        }
        Ok(())
    }
}

/// Tells the backend below which path clients see it, so that its links and redirects can say so. A proxy before this one that is
/// trusted may have taken off a part, too, which stands in front.
fn say_prefix(head: &mut RequestHead, prefix: &str) {
    let before = head.parts.headers.remove(&X_FORWARDED_PREFIX);
    let before = before.as_ref().and_then(|before| before.to_str().ok()).unwrap_or_default();
    if let Ok(prefix) = HeaderValue::try_from(before.trim_end_matches('/').to_owned() + prefix) {
        head.added.push((X_FORWARDED_PREFIX, prefix));
    }
}

/// Whether the backends of an upstream are all out.
pub(super) fn is_everybody_out(upstream: &Upstream) -> bool {
    matches!(upstream.live.eligible().tier(), Tier::Nobody | Tier::TooFew)
}

/// The side of a request.
fn choose<'r>(forward: &Forward, sides: &'r [Side], headers: &HeaderMap) -> Option<(usize, &'r Side)> {
    if let [only] = sides {
        return Some((0, only));
    }
    let user = forward.sticky.as_ref().and_then(|sticky| user(sticky, headers)).map(place);
    let chosen = draw(sides, user, |_| true)?;
    let is_out = |side: &Side| is_everybody_out(&side.upstream);
    match forward.when_down {
        WhenDown::Other if is_out(chosen.1) => draw(sides, user, |side| !is_out(side)).or(Some(chosen)),
        WhenDown::Other | WhenDown::Stay => Some(chosen),
    }
}

/// A side by the weights of those that may be it: always the same for the same user, by chance for nobody.
fn draw(sides: &[Side], user: Option<u64>, may_be: impl Fn(&Side) -> bool) -> Option<(usize, &Side)> {
    let heavy = || sides.iter().enumerate().filter(|(_, side)| side.weight > 0 && may_be(side));
    let Some(user) = user else {
        let sum: u64 = heavy().map(|(_, side)| u64::from(side.weight)).sum();
        let mut left = fastrand::u64(..sum.max(1));
        return heavy().find(|(_, side)| {
            let weight = u64::from(side.weight);
            let is_here = left < weight;
            left = left.saturating_sub(weight);
            is_here
        });
    };
    // Each side draws a time for this user, the sooner the heavier it is, and the soonest has it (weighted rendezvous hashing). A
    // weight that changes moves its own time alone, so nobody moves between two others.
    let time = |side: &Side| {
        let drawn = place_for(user, place(side.upstream.plan.name.as_bytes()));
        // Above 0 and up to 1, with the 53 bits that a float has.
        let share = ((drawn >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        -share.ln() / f64::from(side.weight)
    };
    heavy().min_by(|(_, a), (_, b)| time(a).total_cmp(&time(b)))
}

/// What tells whose request it is, if it is there.
fn user<'h>(sticky: &SplitKey, headers: &'h HeaderMap) -> Option<&'h [u8]> {
    let value = match sticky {
        SplitKey::Header(name) => values(headers, name).next().map(HeaderValue::as_bytes),
        SplitKey::Cookie(name) => cookies::find(headers, name),
    };
    value.filter(|value| !value.is_empty())
}
