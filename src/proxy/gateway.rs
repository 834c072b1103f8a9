//! The straight line that every request walks, and what a worker's requests share.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    future::pending,
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header, request::Parts};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tower::Service;

use super::{
    Client, Exchange, Fault, RequestBody, ResponseBody, Tunnel,
    body::Used,
    compress::Offer,
    fields::Fields,
    forward::forward,
    headers::{self, Special},
    lifecycle, mirror, own,
    respond::{self, Refused},
    sanitise::{self, Malformed},
    ticket,
    upgrade::{self, Asked},
    upload::Upload,
    way::Way,
};
use crate::{
    base::Timestamp,
    layers::Pass,
    route::{self, Ask},
    runtime::{Live, Pinned, Pins, Route},
    telemetry::{AccessBuffer, AccessLog, AccessRecord, WorkerId, metrics::RouteMetrics},
    upstream::{Added, Bells, Pools, RequestHead},
};

/// A worker's gateway: everything that its requests share. Nothing of it is ever touched by another thread.
#[derive(Debug)]
pub struct Gateway {
    worker: WorkerId,
    pins: Pins,
    pools: Pools<RequestBody>,
    access_log: RefCell<Option<AccessBuffer>>,
    is_logging: Cell<bool>,
    unrouted: Arc<RouteMetrics>,
    // What request ids are cut from: they share its memory.
    ids: RefCell<BytesMut>,
}

impl Gateway {
    /// A worker's gateway on the snapshot in force. `unrouted` counts requests that no route takes.
    #[must_use]
    pub fn new(worker: WorkerId, live: Arc<Live>, bells: Arc<Bells>, unrouted: Arc<RouteMetrics>) -> Self {
        Self {
            worker,
            pins: Pins::new(live),
            pools: Pools::new(worker.0, bells),
            access_log: RefCell::default(),
            is_logging: Cell::default(),
            unrouted,
            ids: RefCell::default(),
        }
    }

    /// The gateway as one client's connection sees it. Whatever goes wrong with a request is an answer too: hyper cuts the
    /// connection of a service that fails, so this one cannot.
    pub fn service(
        self: Rc<Self>,
        client: Rc<Client>,
    ) -> impl Service<Request<Incoming>, Response = Response<ResponseBody>, Error = Infallible> + Clone {
        tower::service_fn(move |request| Rc::clone(&self).handle(Rc::clone(&client), request))
    }

    async fn handle(
        self: Rc<Self>,
        client: Rc<Client>,
        request: Request<Incoming>,
    ) -> Result<Response<ResponseBody>, Infallible> {
        let exchange = Exchange::begin(&self, &client, self.pin(), &request);
        let served = serve(&exchange, request).await;
        let mut response = served.unwrap_or_else(|refused| respond::refuse(&exchange, refused));
        if exchange.is_last() {
            // The client may send its next request meanwhile, which nobody would read.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }

    /// The snapshot in force.
    pub fn pin(&self) -> Rc<Pinned> {
        self.pins.pin()
    }

    /// Upkeep, about once a second: old connections are closed, log lines that wait are handed over.
    pub fn tick(&self, now: Instant) {
        // An idle worker, too, lets go of what was in force.
        drop(self.pin());
        self.pools.prune(now);
        if let Some(buffer) = &mut *self.access_log.borrow_mut() {
            buffer.flush_if_due(now);
        }
    }

    /// Starts, or with `None` stops, one line per request.
    pub fn log_to(&self, log: Option<&AccessLog>) {
        self.is_logging.set(log.is_some());
        self.access_log.replace(log.map(AccessLog::buffer));
    }

    /// The worker's number.
    #[must_use]
    pub const fn worker(&self) -> WorkerId {
        self.worker
    }

    /// The worker's connections to backends.
    #[must_use]
    pub const fn pools(&self) -> &Pools<RequestBody> {
        &self.pools
    }

    pub(super) fn unrouted(&self) -> &Arc<RouteMetrics> {
        &self.unrouted
    }

    pub(super) fn is_logging(&self) -> bool {
        self.is_logging.get()
    }

    pub(super) fn log(&self, record: &AccessRecord<'_>) {
        if let Some(buffer) = &mut *self.access_log.borrow_mut() {
            buffer.record(record);
        }
    }

    /// Sortable by time, and not to be guessed from another: 48 bits of milliseconds, 80 of chance.
    pub(super) fn new_request_id(&self) -> HeaderValue {
        let millis = u128::from(Timestamp::now().as_micros() / 1_000);
        let id = millis << 80 | (fastrand::u128(..) >> 48);
        let digit = |nibble: u8| nibble + if nibble < 10 { b'0' } else { b'a' - 10 };
        let mut digits = [0; 32];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(id.to_be_bytes()) {
            pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 0xf)]);
        }
        let mut ids = self.ids.borrow_mut();
        if ids.capacity() < digits.len() {
            *ids = BytesMut::with_capacity(32 * digits.len());
        }
        ids.extend_from_slice(&digits);
        let id = HeaderValue::from_maybe_shared(ids.split().freeze());
        let mut id = id.expect("hexadecimal digits are a header value");
        // To HPACK: no other head will have it, so the table of fields has no use for it (RFC 7541, section 6.2.3).
        id.set_sensitive(true);
        id
    }
}

/// The straight line.
async fn serve(exchange: &Rc<Exchange>, request: Request<Incoming>) -> Result<Response<ResponseBody>, Refused> {
    if exchange.client().overstays() {
        return Err(Refused::overstays());
    }
    let (mut head, body) = request.into_parts();
    let body = Upload::of(body, exchange);
    sanitise::measure(&head, &exchange.client().listener.plan.limits)?;
    let extended = upgrade::extended_connect(&mut head)?;
    let special = Special::of(&head.headers);
    sanitise::sanitise(&mut head, special)?;
    let Some(route) = find(exchange, &head)? else { return no_route(exchange, &head) };

    let way = Way::of(exchange, route, &head.headers);

    // Looked at before anybody refuses it: what the client has sent ahead was meant for a tunnel, and is nobody's request.
    let asked = Asked::of(&head, special, way.as_ref(), body.is_some(), extended);
    if let Ok(Some(Asked { extended: None, .. })) = &asked {
        exchange.be_last();
    }

    let mut pass = Pass::default();
    let admitted = route.layers.admit(exchange.worker(), exchange.client_ip(), &mut head, &mut pass).await;
    exchange.admitted(&head, pass.identity.take());
    if let Err(refusal) = admitted {
        return Err(Refused::by_layer(&refusal, &pass));
    }
    lifecycle::enter(exchange, route)?;

    if head.method == Method::OPTIONS && !headers::may_forward(&mut head.headers) {
        return Ok(respond::options(exchange));
    }
    let fields = Fields::of(exchange, route, &head);
    let Some(way) = way else {
        asked?;
        let mut response = own::answer(exchange, route, &head)?.ok_or(Fault::Internal)?;
        pass.decorate(response.headers_mut());
        lifecycle::announce(route, response.headers_mut());
        fields.change_response(response.headers_mut());
        return Ok(response);
    };
    let mut body = RequestBody::new(body, &head, exchange, route.plan.max_body.map(|size| size.0))?;
    let offer = route.plan.compress.as_ref().map(|compression| Offer::of(compression, &head));
    let asked = asked?;
    let mut head = ready_for_backend(exchange, head, special);
    way.rewrite(&mut head)?;
    fields.change_request(&mut head);
    if let Some(asked) = &asked {
        asked.ask(&mut head.parts.headers);
    }
    if asked.is_none() {
        mirror::begin(exchange, &way, &head, &mut body);
    }
    let ticket = ticket::of(exchange, &way, &mut head);
    let (response, used) = forward(exchange, &way, head, body, asked.as_ref(), ticket).await?;

    let (mut head, ()) = response.into_parts();
    head.version = Version::HTTP_11;
    pass.decorate(&mut head.headers);
    lifecycle::announce(route, &mut head.headers);
    ticket::bind(exchange, &way, ticket, used.lease.member(), &mut head.headers);
    head.headers.insert(headers::X_REQUEST_ID, exchange.id().clone());
    fields.change_response(&mut head.headers);
    let body = match asked {
        None => {
            let length = used.connection.size_hint().exact();
            match offer.and_then(|offer| offer.take(&mut head, length)) {
                None => ResponseBody::backend(Rc::clone(exchange), used),
                Some(coding) => ResponseBody::compressed(Rc::clone(exchange), used, coding),
            }
        }
        Some(asked) if head.status == StatusCode::SWITCHING_PROTOCOLS => {
            begin_tunnel(exchange, &mut head, used, asked)?
        }
        Some(asked) => {
            asked.declined(head.status)?;
            ResponseBody::backend(Rc::clone(exchange), used)
        }
    };
    exchange.answered(head.status, None);
    exchange.called(&head.headers);
    Ok(Response::from_parts(head, body))
}

/// The backend has agreed: what comes after the head of the response is a tunnel.
fn begin_tunnel(
    exchange: &Rc<Exchange>,
    head: &mut http::response::Parts,
    used: Used,
    asked: Asked,
) -> Result<ResponseBody, Fault> {
    asked.answer(head);
    let Used { lease, connection } = used;
    let backend = connection.into_upgraded().ok_or(Fault::ResetBeforeHeaders)?;
    exchange.becomes_tunnel();
    let tunnel = Tunnel::new(Rc::clone(exchange), lease, backend, asked.is_websocket());
    match asked.extended {
        // Whoever drives the client's connection goes on with it, when the response is written.
        None => exchange.client().becomes_tunnel(tunnel),
        Some(extended) => exchange.client().spawn(async move {
            if let Ok(stream) = extended.stream.await {
                // When its connection is cut, so is the task.
                tunnel.run(TokioIo::new(stream), Bytes::new(), pending()).await;
            }
        }),
    }
    Ok(ResponseBody::Tunnel)
}

fn find<'a>(exchange: &'a Exchange, head: &Parts) -> Result<Option<&'a Arc<Route>>, Refused> {
    let host = sanitise::host(head)?;
    let served = exchange.routed().snapshot.served(exchange.client().listener.id);
    let (method, headers, query) = (&head.method, &head.headers, head.uri.query());
    let is_from_proxy = exchange.client().is_trusted();
    let lead_to = |path: &str| {
        served.and_then(|served| served.table.find(&Ask { host: &host, path, method, headers, is_from_proxy, query }))
    };
    let path = head.uri.path();
    let route = lead_to(path);
    if path.contains([';', '%']) {
        let bare = route::unescaped(path);
        if !is_same(route, lead_to(&bare)) || !is_same(route, lead_to(&route::without_parameters(&bare))) {
            return Err(Malformed::Ambiguous.into());
        }
    }
    Ok(route.map(|route| exchange.matched(route)))
}

// Some servers decode `%40`, or cut `;…` off every segment, and others do not: where those are different routes here, they may
// have different auth.
fn is_same(route: Option<&Arc<Route>>, other: Option<&Arc<Route>>) -> bool {
    route.map(Arc::as_ptr) == other.map(Arc::as_ptr)
}

fn no_route(exchange: &Rc<Exchange>, head: &Parts) -> Result<Response<ResponseBody>, Refused> {
    let host = sanitise::host(head)?;
    match exchange.client().listener.plan.redirect_to {
        Some(port) if !host.is_empty() && head.uri.path().starts_with('/') => {
            Ok(respond::redirect(exchange, &host, &head.uri, port))
        }
        _ => Err(Fault::NoRoute.into()),
    }
}

fn ready_for_backend(exchange: &Exchange, mut head: Parts, special: Special) -> RequestHead {
    let client = exchange.client();
    let takes_trailers = headers::takes_trailers(&head.headers, special);
    headers::strip_hop_by_hop(&mut head.headers, special);
    headers::strip_claims(&mut head.headers, special, |name| exchange.is_identity(name));
    if special.has(Special::EXPECT) {
        // The backend's "go on" is not awaited: hyper has told the client already, or will when the body is first read.
        head.headers.remove(header::EXPECT);
    }
    if head.version == Version::HTTP_2 {
        headers::join_cookies(&mut head.headers, special);
    }
    let mut added = Added::with_capacity(5);
    headers::forwarded(&mut head.headers, special, client.origin(), &mut added);
    // An operator may have called it as one of ours is called, and means it: but the id stays the id.
    if let Some((name, subject)) = client.identity().filter(|(name, _)| **name != headers::X_REQUEST_ID) {
        head.headers.remove(name);
        added.retain(|(other, _)| other != name);
        added.push((name.clone(), subject.clone()));
    }
    if special.has(Special::REQUEST_ID) {
        head.headers.remove(headers::X_REQUEST_ID);
    }
    added.push((headers::X_REQUEST_ID, exchange.id().clone()));
    head.extensions.clear();
    RequestHead { parts: head, added, takes_trailers }
}
