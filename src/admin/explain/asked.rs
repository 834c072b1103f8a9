//! A request that is asked about, as the gateway would look at it.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};

use super::ExplainOrder;
use crate::{
    base::Name,
    config::plan::{Plan, Route},
    route::{self, Ask, Miss, Unmet},
};

/// A request, brought into the form in which it is matched.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) host: String,
    pub(super) path: String,
    query: Option<String>,
    headers: HeaderMap,
    is_from_proxy: bool,
    /// The one that it comes by, where that is known.
    pub(super) listener: Option<Name>,
    /// Why the gateway refuses it whatever route it would have.
    pub(super) refused: Option<String>,
}

impl Asked {
    /// Reads an order.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(super) fn of(plan: &Plan, order: &ExplainOrder) -> Result<Self, String> {
        let method = match order.method.as_str() {
            "" => Method::GET,
            text => Method::from_bytes(text.as_bytes()).map_err(|_| format!("`{text}` is not a method."))?,
        };
        let headers = fields(order)?;
        let uri = target(&order.url)?;
        let authority = uri.authority().map(|authority| authority.as_str().to_owned());
        let field = headers.get(header::HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
        if let (Some(authority), Some(field)) = (&authority, &field)
            && authority != field
        {
            return Err(format!("The URL names the host `{authority}` and the field `Host` another: `{field}`."));
        }
        let named = authority.or(field).unwrap_or_default();
        let (host, path) = (route::normalise_host(&named), route::normalise_path(uri.path()));
        let refused = match (&method, &host, &path) {
            (&Method::CONNECT, ..) => Some("CONNECT is not served".to_owned()),
            (&Method::TRACE, ..) => Some("TRACE is not served".to_owned()),
            (_, Err(why), _) => Some(why.to_string()),
            (.., Err(why)) => Some(why.to_string()),
            (_, Ok(_), Ok(_)) => None,
        };
        Ok(Self {
            method,
            host: host.map_or_else(|_| named.clone(), Cow::into_owned),
            path: path.map_or_else(|_| uri.path().to_owned(), Cow::into_owned),
            query: uri.query().map(str::to_owned),
            headers,
            is_from_proxy: order.from_proxy,
            listener: listener(plan, order, &uri)?,
            refused,
        })
    }

    pub(super) fn ask(&self) -> Ask<'_> {
        let Self { method, host, path, query, headers, is_from_proxy, .. } = self;
        Ask { host, path, method, headers, is_from_proxy: *is_from_proxy, query: query.as_deref() }
    }

    /// Whether a route serves the listener that the request comes by.
    pub(super) fn comes_by(&self, plan: &Plan, route: &Route) -> bool {
        let Some(listener) = &self.listener else { return true };
        let serves_all = plan.listeners.get(listener).is_none_or(|listener| listener.redirect_to.is_none());
        route.listeners.as_ref().map_or(serves_all, |listeners| listeners.contains(listener))
    }

    /// The path as others may read it.
    pub(super) fn other_readings(&self) -> impl Iterator<Item = String> + use<> {
        let readings = self.path.contains([';', '%']).then(|| {
            let bare = route::unescaped(&self.path);
            let without = route::without_parameters(&bare);
            [bare, without]
        });
        readings.into_iter().flatten()
    }

    /// In what it differs, in words.
    pub(super) fn differs(&self, miss: &Miss<'_>) -> String {
        match miss {
            Miss::Host if self.host.is_empty() => "no host is named".to_owned(),
            Miss::Host => format!("host is {}", self.host),
            Miss::Path => format!("path is {}", self.path),
            Miss::Condition(Unmet::Method) => format!("method is {}", self.method),
            Miss::Condition(Unmet::Header(name)) => match self.headers.get(*name) {
                Some(value) => format!("header {name} is {}", String::from_utf8_lossy(value.as_bytes())),
                None => format!("header {name} is not there"),
            },
            Miss::Condition(Unmet::Query(name)) => {
                let query = self.query.as_deref().unwrap_or_default();
                match form_urlencoded::parse(query.as_bytes()).find(|(other, _)| other == name) {
                    Some((_, value)) => format!("parameter {name} is {value}"),
                    None => format!("parameter {name} is not there"),
                }
            }
        }
    }
}

fn fields(order: &ExplainOrder) -> Result<HeaderMap, String> {
    let field = |(name, value): &(String, String)| {
        let name =
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is not the name of a header."))?;
        let value =
            HeaderValue::from_str(value).map_err(|_| format!("The value of `{name}` cannot be in a header."))?;
        Ok((name, value))
    };
    let mut fields = HeaderMap::new();
    for (name, value) in order.headers.iter().map(field).collect::<Result<Vec<_>, String>>()? {
        fields.append(name, value);
    }
    Ok(fields)
}

/// A URL with or without a scheme, or a path.
fn target(url: &str) -> Result<Uri, String> {
    let bad = || format!("`{url}` is not a URL: write https://HOST/PATH, or /PATH.");
    let without_fragment = url.split('#').next().unwrap_or_default();
    let whole = match without_fragment.starts_with('/') || without_fragment.contains("://") {
        true => without_fragment.to_owned(),
        false if without_fragment.is_empty() => return Err(bad()),
        false => format!("http://{without_fragment}"),
    };
    whole.parse().map_err(|_| bad())
}

/// The listener that is named, or the only one that is behind the port of the URL.
fn listener(plan: &Plan, order: &ExplainOrder, uri: &Uri) -> Result<Option<Name>, String> {
    if let Some(named) = &order.listener {
        let found = plan.listeners.keys().find(|name| name.as_str() == named);
        return found.cloned().map(Some).ok_or_else(|| {
            let known: Vec<&str> = plan.listeners.keys().map(|name| &**name).collect();
            format!("There is no listener `{named}`. Listeners: {}.", known.join(", "))
        });
    }
    let port = uri.port_u16();
    let mut behind = plan.listeners.values().filter(|listener| port.is_some() && listener.bind.port() == port);
    let first = behind.next().filter(|_| behind.next().is_none());
    Ok(first.map(|listener| listener.name.clone()))
}
