//! What a client sends of a body, and what becomes of the rest where nobody wants it any more.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::Client;

/// A client's body, as it comes.
///
/// To drop a body of HTTP/2 before its end would reset its stream. That is allowed once the response is whole (RFC 9113, section
/// 8.1), but clients that are about to send the end take it for an error, and what they still send to many such streams for an
/// attack by which the connection ends. So the rest is read and forgotten, as far as it comes soon.
pub(super) struct Upload {
    // Taken when this is dropped.
    incoming: Option<Incoming>,
    client: Rc<Client>,
}

impl Upload {
    /// The body of a request, if it has one.
    pub(super) fn of(incoming: Incoming, client: &Rc<Client>) -> Option<Self> {
        let has_body = !incoming.is_end_stream();
        has_body.then(|| Self { incoming: Some(incoming), client: Rc::clone(client) })
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
        let rest = self.incoming.take().filter(|incoming| !incoming.is_end_stream());
        if let Some(rest) = rest.filter(|_| self.client.is_multiplexed()) {
            self.client.spawn(forget(rest, Rc::clone(&self.client)));
        }
    }
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
