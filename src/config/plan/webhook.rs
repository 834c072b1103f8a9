use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::{Host, UpstreamTls};
use crate::base::Name;

/// Somebody who is told of events, by a request each.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Webhook {
    /// What it is called in metrics and warnings.
    pub name: Name,
    /// TLS around the requests, if it is spoken.
    pub tls: Option<UpstreamTls>,
    /// Whom to tell.
    pub host: Host,
    /// At which port; 0 on a Unix socket.
    pub port: u16,
    /// The target of the requests.
    pub path: String,
    /// Sent with each, beside our own.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What is told. Default: backends, refused edits and warnings.
    pub events: Vec<EventKind>,
    /// For one attempt. Default 5 s.
    pub timeout: Duration,
    /// Attempts for one event. Default 5.
    pub attempts: u8,
}

// As for `HttpProbe`: the bytes of a value are what its `Eq` compares.
impl std::hash::Hash for Webhook {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (&self.name, &self.tls, &self.host, self.port, &self.path).hash(state);
        self.headers.iter().for_each(|(name, value)| (name.as_str(), value.as_bytes()).hash(state));
        (&self.events, self.timeout, self.attempts).hash(state);
    }
}

/// A kind of event, as the JSON log names it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum EventKind {
    /// A date has changed the stage of an API.
    Api,
    /// What is shown of a backend has changed.
    Backend,
    /// An edit went live.
    Reload,
    /// An edit was refused.
    Refused,
    /// A stage of the process.
    Process,
    /// Something is wrong and traffic goes on.
    Warning,
}
