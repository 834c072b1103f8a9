//! A [`Pipeline`] as a tower layer, for users of the library: any service over `http` requests, on any runtime.
//!
//! It answers refusals itself, with the bare status; the gateway does not use it, because its own refusals go through its
//! table of faults.

use std::{
    future::Future,
    mem,
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower::{Layer, Service};

use super::{Pass, Pipeline};
use crate::telemetry::cells::WorkerId;

/// The client's address: a request extension, set by whoever accepted the connection. Requests without it share the
/// buckets of one client.
#[derive(Clone, Copy, Debug)]
pub struct ClientAddr(pub IpAddr);

/// Puts a [`Pipeline`] in front of a service.
#[derive(Clone, Debug)]
pub struct AdmitLayer {
    pipeline: Arc<Pipeline>,
    worker: WorkerId,
}

/// A service behind a [`Pipeline`]. An admitted request carries the [`Identity`](super::Identity) as an extension where
/// there is auth.
#[derive(Clone, Debug)]
pub struct Admit<S> {
    inner: S,
    layer: AdmitLayer,
}

impl AdmitLayer {
    /// A layer whose decisions are counted in the cells of `worker`: one thread's, else counts get lost.
    #[must_use]
    pub fn new(pipeline: Arc<Pipeline>, worker: WorkerId) -> Self {
        Self { pipeline, worker }
    }
}

impl<S> Layer<S> for AdmitLayer {
    type Service = Admit<S>;

    fn layer(&self, inner: S) -> Admit<S> {
        Admit { inner, layer: self.clone() }
    }
}

impl<S, B, R> Service<Request<B>> for Admit<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The service that is ready is the one to call; its clone need not be.
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        let AdmitLayer { pipeline, worker } = self.layer.clone();
        Box::pin(async move {
            let (mut head, body) = request.into_parts();
            let client = head.extensions.get().map_or(Ipv4Addr::UNSPECIFIED.into(), |ClientAddr(ip)| *ip);
            let mut pass = Pass::default();
            let mut response = match pipeline.admit(worker, client, &mut head, &mut pass).await {
                Ok(()) => {
                    if let Some(identity) = pass.identity.clone() {
                        head.extensions.insert(identity);
                    }
                    inner.call(Request::from_parts(head, body)).await?
                }
                Err(refusal) => {
                    let mut response = Response::new(R::default());
                    *response.status_mut() = refusal.status();
                    refusal.decorate(response.headers_mut());
                    response
                }
            };
            pass.decorate(response.headers_mut());
            Ok(response)
        })
    }
}
