//! A copy of a request to a second upstream, of which the client never hears.
//!
//! It has its own deadline and its own bound on how many are under way, takes nobody's turn and is tried once. What it brings is
//! counted and thrown away. A backend that fails at copies alone is not judged by them.

use std::{
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant as Clock,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, StatusCode, header};
use http_body::Body as _;
use tokio::{
    sync::oneshot,
    task::spawn_local,
    time::{Instant, timeout_at},
};

use super::{Again, Exchange, Gateway, RequestBody, forward::address, way::Way};
use crate::{
    net::values,
    runtime::{Mirror, Route},
    telemetry::metrics::Mirrored,
    upstream::{Connection, RequestHead, Reuse, Ticket},
};

const X_MIRRORED: HeaderName = HeaderName::from_static("x-mirrored");

/// The most of a response that is read so that its connection can be used again, in bytes. Behind more it is closed.
const MOST_OF_A_RESPONSE: usize = 1 << 20;

/// Begins to mirror a request, if its route wants that and its turn has come. What it does from here on is done beside the request.
pub(super) fn begin(exchange: &Rc<Exchange>, way: &Way<'_>, head: &RequestHead, body: &mut RequestBody) {
    let Some(mirror) = way.mirror.filter(|mirror| is_drawn(mirror)) else { return };
    let Some(route) = exchange.route().map(Arc::clone) else { return };
    let counted = |result| route.metrics.mirrored(exchange.worker(), result);
    let most = mirror.plan.max_body.0;
    if body.size_hint().lower() > most {
        return counted(Mirrored::TooLarge);
    }
    let Some(place) = Place::take(mirror) else { return counted(Mirrored::Dropped) };
    let copied = if body.is_empty() { None } else { body.copied(usize::try_from(most).unwrap_or(usize::MAX)) };
    let (gateway, head) = (Rc::clone(exchange.gateway()), marked(head));
    let due = Instant::now() + mirror.plan.timeout;
    spawn_local(async move {
        let done = timeout_at(due, mirrored(&gateway, &place.0, head, copied)).await;
        route.metrics.mirrored(gateway.worker(), done.unwrap_or(Mirrored::Timeout));
        drop::<Arc<Route>>(route);
    });
}

fn is_drawn(mirror: &Mirror) -> bool {
    let share = mirror.plan.share.basis_points();
    share >= 10_000 || fastrand::u16(..10_000) < share
}

/// One of the copies that may be under way.
struct Place(Arc<Mirror>);

impl Place {
    fn take(mirror: &Arc<Mirror>) -> Option<Self> {
        let place = Self(Arc::clone(mirror));
        // Given back by dropping, also where there are too many.
        let others = mirror.under_way.fetch_add(1, Relaxed);
        (others < mirror.plan.max_in_flight).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

/// The same head, marked as a copy.
fn marked(head: &RequestHead) -> RequestHead {
    let (mut parts, mut added) = (head.parts.clone(), head.added.clone());
    parts.headers.remove(X_MIRRORED);
    // The copy of a body has no trailers.
    parts.headers.remove(header::TRAILER);
    added.retain(|(name, _)| name != X_MIRRORED);
    added.push((X_MIRRORED, HeaderValue::from_static("1")));
    RequestHead { parts, added, takes_trailers: head.takes_trailers }
}

/// A copy of a body as it passes.
pub(super) struct Copy {
    bytes: BytesMut,
    most: usize,
    to: Option<oneshot::Sender<Copied>>,
}

/// What became of the copy of a body. Where nothing is said, the body did not come to its end.
pub(super) enum Copied {
    TooLarge,
    Whole(Bytes),
}

impl Copy {
    /// A copy of at most so many bytes, and where it goes.
    pub(super) fn of_at_most(most: usize) -> (Self, oneshot::Receiver<Copied>) {
        let (to, from) = oneshot::channel();
        (Self { bytes: BytesMut::new(), most, to: Some(to) }, from)
    }

    pub(super) fn push(&mut self, data: &[u8]) {
        if self.to.is_none() {
            return;
        }
        if data.len() > self.most.saturating_sub(self.bytes.len()) {
            self.bytes = BytesMut::new();
            return self.tell(Copied::TooLarge);
        }
        self.bytes.extend_from_slice(data);
    }

    pub(super) fn end(&mut self) {
        if self.to.is_some() {
            let whole = self.bytes.split().freeze();
            self.tell(Copied::Whole(whole));
        }
    }

    fn tell(&mut self, copied: Copied) {
        // Nobody hears it where the copy has run out of time.
        drop(self.to.take().map(|to| to.send(copied)));
    }
}

/// Sends the copy, as soon as all of it is there, and reads what comes.
async fn mirrored(
    gateway: &Gateway,
    mirror: &Mirror,
    head: RequestHead,
    copied: Option<oneshot::Receiver<Copied>>,
) -> Mirrored {
    let body = match copied {
        None => None,
        Some(copied) => match copied.await {
            Ok(Copied::Whole(body)) => Some(body),
            Ok(Copied::TooLarge) => return Mirrored::TooLarge,
            Err(_) => return Mirrored::Incomplete,
        },
    };
    sent(gateway, mirror, head, body).await.map_or(Mirrored::Failed, |()| Mirrored::Ok)
}

async fn sent(gateway: &Gateway, mirror: &Mirror, mut head: RequestHead, body: Option<Bytes>) -> Option<()> {
    let upstream = &mirror.upstream;
    let lease = upstream.live.lease(gateway.worker(), Ticket::default(), &[], upstream.plan.max_in_flight).ok()?;
    let member = Arc::clone(lease.member());
    let names_host = values(&head.parts.headers, &header::HOST).next().is_some();
    address(&mut head, names_host, upstream, &member);
    let began = Clock::now();
    let mut reuse = Reuse::Allowed;
    loop {
        let at_hand = gateway.pools().at_hand(&member.backend, upstream.limits, reuse, began);
        let mut connection = match at_hand {
            Some(connection) => connection,
            None => Box::pin(gateway.pools().checkout(&member.backend, upstream.limits)).await.ok()?,
        };
        let body = body.clone().map_or(RequestBody::Empty, |body| RequestBody::Again(Box::new(Again::of(body))));
        match connection.send(&head, body).await {
            Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => return None,
            Ok(response) => {
                forget(connection).await?;
                member.backend.metrics().record(gateway.worker(), response.status().as_u16(), began.elapsed());
                drop(lease);
                return Some(());
            }
            // It had died since its last use: asked again on a new one.
            Err(unsent) if unsent.body.is_some() && connection.is_reused() => reuse = Reuse::Refused,
            Err(_) => return None,
        }
    }
}

/// Reads a response to its end, so that its connection can be used again, unless that is too far away.
async fn forget(mut connection: Connection<RequestBody>) -> Option<()> {
    let mut read = 0;
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut connection).poll_frame(cx)).await {
        read += frame.ok()?.data_ref().map_or(0, Bytes::len);
        if read > MOST_OF_A_RESPONSE {
            return Some(());
        }
    }
    connection.give_back();
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_whole_or_none() {
        let (mut copy, mut from) = Copy::of_at_most(4);
        copy.push(b"ab");
        copy.push(b"cd");
        assert!(from.try_recv().is_err());
        copy.end();
        assert!(matches!(from.try_recv(), Ok(Copied::Whole(whole)) if whole == "abcd"));

        let (mut copy, mut from) = Copy::of_at_most(4);
        copy.push(b"abcde");
        copy.end();
        assert!(matches!(from.try_recv(), Ok(Copied::TooLarge)));

        let (mut copy, mut from) = Copy::of_at_most(4);
        copy.push(b"ab");
        drop(copy);
        assert!(matches!(from.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
    }
}
