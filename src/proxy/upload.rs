//! What a client sends of a body, and what becomes of the rest where nobody wants it any more.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::{Client, Exchange};

/// A client's body, as it comes.
///
/// To drop a body of HTTP/2 before its end would reset its stream. That is allowed once the response is whole (RFC 9113, section
/// 8.1), but clients that are about to send the end take it for an error, and what they still send to many such streams for an
/// attack by which the connection ends. So the rest is read and forgotten, as far as it comes soon.
///
/// In HTTP/1.1 the connection may go on behind a body that nobody wants, if all of it is there, as a small one is with its head.
pub(super) struct Upload {
    // Taken when this is dropped.
    incoming: Option<Incoming>,
    exchange: Rc<Exchange>,
}

impl Upload {
    /// The body of a request, if it has one.
    pub(super) fn of(incoming: Incoming, exchange: &Rc<Exchange>) -> Option<Self> {
        let has_body = !incoming.is_end_stream();
        has_body.then(|| Self { incoming: Some(incoming), exchange: Rc::clone(exchange) })
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.incoming.as_mut().map_or(Poll::Ready(None), |incoming| Pin::new(incoming).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or(SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(mut rest) = self.incoming.take().filter(|incoming| !incoming.is_end_stream()) else { return };
        let client = self.exchange.client();
        if client.is_multiplexed() {
            client.spawn(forget(rest, Rc::clone(client)));
        } else if has_come(&mut rest) {
            self.exchange.body_read();
        }
    }
}

/// Whether a body of known length is there to its end. (One that the client keeps back until it is told to go on is not: hyper
/// tells it when it next looks, and by then the body is dropped.)
fn has_come(rest: &mut Incoming) -> bool {
    let frame = Pin::new(&mut *rest).poll_frame(&mut Context::from_waker(Waker::noop()));
    matches!(frame, Poll::Ready(Some(Ok(_)))) && rest.is_end_stream()
}

/// Reads a body to its end, or as much as a client may have sent before it has heard that nobody wants it.
async fn forget(mut rest: Incoming, client: Rc<Client>) {
    const LONGEST: Duration = Duration::from_secs(2);
    const MOST: usize = 256 * 1024;
    let forgotten = async {
        let mut read = 0;
        while let Some(Ok(frame)) = rest.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            read += length;
            if length > 0 {
                client.moved_on();
            }
            if read >= MOST {
                break;
            }
        }
    };
    let _ = timeout(LONGEST, forgotten).await;
}
