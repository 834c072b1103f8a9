//! A second backend is asked where the first takes long: whoever answers first is heard.

use std::{pin::pin, time::Duration};

use futures_util::future::{Either, select};
use tokio::time::timeout;

use super::{
    Exchange, RequestBody,
    exchange::Begun,
    forward::{Answer, Failure, address, attempt, pick},
    retry::{Retries, dismiss},
    way::Way,
};
use crate::upstream::{Lease, RequestHead, Slot, Ticket};

/// A first attempt that may be given company.
pub(super) struct Hedge<'a> {
    pub(super) exchange: &'a Exchange,
    pub(super) route: &'a Way<'a>,
    pub(super) ticket: Ticket,
    pub(super) names_host: bool,
    pub(super) after: Duration,
}

impl Hedge<'_> {
    /// The better of two attempts, of which the second is made only where the first takes long.
    ///
    /// The first good answer ends the other attempt, which says nothing of its backend: it was slow, not wrong. Where one of them
    /// fails, all depends on the other.
    pub(super) async fn attempt(
        &self,
        retries: &Retries<'_>,
        lease: Lease,
        begun: Begun,
        head: &RequestHead,
        tried: &mut Vec<Slot>,
    ) -> Result<Answer, Failure> {
        let Self { exchange, route, .. } = *self;
        let mut first = pin!(self.ask(lease, begun, head));
        if let Ok(came) = timeout(self.after, &mut first).await {
            return came;
        }
        let Some(lease) = self.second(retries, tried) else { return first.await };
        tried.push(lease.member().backend.slot());
        let mut head = head.clone();
        address(&mut head, self.names_host, route.upstream, lease.member());
        let second_begun = exchange.begin_attempt(lease.member());
        let second = pin!(self.ask(lease, second_begun, &head));
        let (came, other, other_number) = match select(first, second).await {
            Either::Left((came, second)) => (came, Either::Right(second), second_begun.number),
            Either::Right((came, first)) => (came, Either::Left(first), begun.number),
        };
        match came {
            Ok(answer) if !retries.wants_another(answer.0.status(), answer.0.headers()) => {
                exchange.overtaken(other_number);
                Ok(answer)
            }
            Ok(answer) => {
                dismiss(exchange, Ok(answer));
                other.await
            }
            Err(_) => other.await,
        }
    }

    async fn ask(&self, lease: Lease, begun: Begun, head: &RequestHead) -> Result<Answer, Failure> {
        attempt(self.exchange, self.route, lease, begun, head, RequestBody::Empty, None).await
    }

    /// Another backend, as far as there is one and the budget allows it.
    fn second(&self, retries: &Retries<'_>, tried: &[Slot]) -> Option<Lease> {
        let lease = pick(self.exchange, self.route, self.ticket, tried).ok()?;
        retries.allow_hedge().then_some(lease)
    }
}
