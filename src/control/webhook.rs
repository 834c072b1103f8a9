//! Webhooks: whoever wants to know is told of events, one after the other, by a request for each.
//!
//! Each webhook is a task that reads the event log at its own pace. It is not waited for: of what it has not told, the log keeps the
//! last 500, and what is gone by then is counted as lost. A receiver that fails is tried again with pauses that double.

use std::{
    collections::BTreeMap,
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, StatusCode, Uri,
    header::{CONNECTION, CONTENT_TYPE, HOST, USER_AGENT},
};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    net::lookup_host,
    task::AbortHandle,
    time::{sleep, timeout},
};

use crate::{
    base::Name,
    config::plan::{EventKind, Host, Protocol, UpstreamTls, Webhook},
    net::Address,
    telemetry::{Event, EventLog, Events, events::Recorded},
    tls::{Connector, PeerName},
    upstream::{Dial, Secured},
};

/// All webhooks in force.
#[derive(Debug, Default)]
pub struct Webhooks(BTreeMap<Name, Running>);

#[derive(Debug)]
struct Running {
    plan: Webhook,
    told: Arc<Told>,
    task: AbortHandle,
}

/// What became of the events for one webhook.
#[derive(Debug, Default)]
pub struct Told {
    /// The receiver has taken it.
    pub delivered: AtomicU64,
    /// Every attempt failed, or the receiver does not want it.
    pub failed: AtomicU64,
    /// There was no time: 500 others came before it could be looked at, wanted or not.
    pub lost: AtomicU64,
}

impl Webhooks {
    /// Takes an edit in: what is new starts with the next event, what is gone ends at once, what is the same goes on.
    pub fn apply(&mut self, webhooks: &[Webhook], log: &Arc<EventLog>, events: &Events) {
        self.0.retain(|_, running| {
            let stays = webhooks.contains(&running.plan);
            if !stays {
                running.task.abort();
            }
            stays
        });
        for plan in webhooks {
            self.0.entry(plan.name.clone()).or_insert_with(|| {
                let told = Arc::<Told>::default();
                let teller = Teller { told: Arc::clone(&told), ..Teller::new(plan.clone(), log, events) };
                Running { plan: plan.clone(), told, task: tokio::spawn(teller.run()).abort_handle() }
            });
        }
    }

    /// What became of the events, by webhook.
    #[must_use]
    pub fn told(&self) -> BTreeMap<Name, Arc<Told>> {
        self.0.iter().map(|(name, running)| (name.clone(), Arc::clone(&running.told))).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// The task of one webhook.
struct Teller {
    plan: Webhook,
    connector: Option<Secured>,
    log: Arc<EventLog>,
    events: Events,
    told: Arc<Told>,
    // It was said that the receiver fails, and it has not taken anything since.
    is_failing: bool,
}

/// The first pause after a failure, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// The reason of our own warnings, which are told to nobody: a receiver that fails would be told of that forever.
const WARNING: &str = "webhook";

impl Teller {
    fn new(plan: Webhook, log: &Arc<EventLog>, events: &Events) -> Self {
        let connector = plan.tls.as_ref().map(|tls| secured(tls, &plan.host));
        let (log, events) = (Arc::clone(log), events.clone());
        Self { plan, connector, log, events, told: Arc::default(), is_failing: false }
    }

    async fn run(mut self) {
        let mut newest = self.log.newest();
        let mut last = *newest.borrow_and_update();
        // Until the log is gone, and the process with it.
        while newest.changed().await.is_ok() {
            // One at a time: what waits meanwhile is the log's, which keeps the newest.
            while let Some(recorded) = self.log.next(last) {
                self.told.lost.fetch_add(recorded.sequence.saturating_sub(last + 1), Relaxed);
                last = recorded.sequence;
                if self.wants(&recorded.event) {
                    self.tell(&recorded).await;
                }
            }
        }
    }

    fn wants(&self, event: &Event) -> bool {
        let kind = match event {
            Event::Api { .. } => EventKind::Api,
            Event::Backend { .. } => EventKind::Backend,
            Event::Reloaded { .. } => EventKind::Reload,
            Event::Refused { .. } => EventKind::Refused,
            Event::Process { .. } => EventKind::Process,
            Event::Warning { what, .. } if *what != WARNING => EventKind::Warning,
            Event::Client { .. } | Event::Warning { .. } => return false,
        };
        self.plan.events.contains(&kind)
    }

    /// Tries until it is taken, or refused, or often enough.
    async fn tell(&mut self, recorded: &Recorded) {
        let mut pause = PAUSES.0;
        for attempt in 1..=self.plan.attempts {
            let answer = timeout(self.plan.timeout, self.post(recorded)).await;
            let why = match answer.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
                Ok(status) if status.is_success() => {
                    self.told.delivered.fetch_add(1, Relaxed);
                    self.is_failing = false;
                    return;
                }
                Ok(status) if is_final(status) => {
                    return self.give_up(&format!("it answers {}", status.as_u16()));
                }
                Ok(status) => format!("it answers {}", status.as_u16()),
                Err(why) => why,
            };
            if attempt == self.plan.attempts {
                return self.give_up(&why);
            }
            sleep(pause.mul_f64(0.8 + 0.4 * fastrand::f64())).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Says so once: the log must not grow with every event that cannot be told.
    fn give_up(&mut self, why: &str) {
        self.told.failed.fetch_add(1, Relaxed);
        if !std::mem::replace(&mut self.is_failing, true) {
            let detail = format!("`{}` was not told of an event: {why}", self.plan.name);
            self.events.emit(Event::Warning { what: WARNING, detail });
        }
    }

    async fn post(&self, recorded: &Recorded) -> Result<StatusCode, String> {
        let mut failure = "its name has no address".to_owned();
        for address in self.addresses().await.map_err(|error| format!("its name does not resolve: {error}"))? {
            let dial = Dial { address, tls: self.connector.clone(), protocol: Protocol::Http1 };
            match dial.connect().await {
                Ok(transport) => return self.send(transport, recorded).await.map_err(|error| error.to_string()),
                Err(error) => failure = error.to_string(),
            }
        }
        Err(failure)
    }

    async fn addresses(&self) -> io::Result<Vec<Address>> {
        let port = self.plan.port;
        Ok(match &self.plan.host {
            Host::Dns(name) => lookup_host((name.as_str(), port)).await?.map(Address::from).collect(),
            Host::Ip(ip) => vec![std::net::SocketAddr::new(*ip, port).into()],
            Host::Unix(path) => vec![Address::Unix(Arc::clone(path))],
        })
    }

    async fn send(&self, transport: crate::upstream::Transport, recorded: &Recorded) -> hyper::Result<StatusCode> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(transport)).await?;
        let mut exchange = pin!(sender.send_request(self.request(recorded)));
        // One event, one connection: both end with this. One that ends first leaves what it has read to the exchange.
        let response = tokio::select! {
            biased;
            response = &mut exchange => response?,
            _ = connection => exchange.await?,
        };
        Ok(response.status())
    }

    fn request(&self, recorded: &Recorded) -> Request<Full<Bytes>> {
        const AGENT: &str = concat!("tidegate/", env!("CARGO_PKG_VERSION"), " (webhook)");
        let mut request = Request::new(Full::new(Bytes::from(recorded.json() + "\n")));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.plan.path.parse::<Uri>().unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert(HOST, authority(&self.plan));
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        headers.insert("x-tidegate-sequence", recorded.sequence.into());
        headers.extend(self.plan.headers.iter().cloned());
        request
    }
}

/// Whether there is no use in asking again.
fn is_final(status: StatusCode) -> bool {
    status.is_client_error() && status != StatusCode::REQUEST_TIMEOUT && status != StatusCode::TOO_MANY_REQUESTS
}

fn secured(tls: &UpstreamTls, host: &Host) -> Secured {
    let own = || PeerName::parse(&host.to_string()).expect("a host is a name or an address");
    let connector = Connector::new(&tls.trust).expect("the check of the config has made one");
    Secured { connector: Arc::new(connector), name: tls.name.clone().unwrap_or_else(own) }
}

fn authority(plan: &Webhook) -> HeaderValue {
    let host = match &plan.host {
        Host::Ip(std::net::IpAddr::V6(ip)) => format!("[{ip}]"),
        host => host.to_string(),
    };
    let is_usual = plan.port == if plan.tls.is_some() { 443 } else { 80 };
    let authority = if is_usual || plan.port == 0 { host } else { format!("{host}:{}", plan.port) };
    HeaderValue::from_str(&authority).expect("an authority is visible ASCII")
}
