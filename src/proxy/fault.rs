//! Every reason why the gateway answers for itself, in one table.

use http::StatusCode;

/// A reason why the gateway answers for itself, or cuts an answer short.
///
/// The one table of status, reason token, blame and Proxy-Status name; a snapshot test prints it whole.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Fault {
    /// The request is ambiguous or malformed.
    BadRequest,
    /// The backend's response is not HTTP.
    BadResponse,
    /// The request body is larger than the route admits.
    BodyTooLarge,
    /// The client left before the response had ended.
    ClientGone,
    /// The client stopped sending its body.
    ClientTimeout,
    /// No connection to the backend: unreachable, out of ports, ...
    ConnectFailed,
    /// The backend refuses connections.
    ConnectRefused,
    /// The backend does not answer to a connect, or no place among its connections came free in time.
    ConnectTimeout,
    /// The process, the listener or the backend was told to stop, and the time to finish was over.
    Draining,
    /// The client expects something of the gateway that it does not do (`Expect`, RFC 9110, section 10.1.1).
    ExpectationFailed,
    /// The head of the request has more fields, or more bytes, than the listener accepts.
    HeaderTooLarge,
    /// A bug: the code that served the connection panicked.
    Internal,
    /// A method that no gateway may pass on: TRACE, which shows its client what was added on the way (RFC 9110, section 9.3.8).
    MethodNotAllowed,
    /// No backend of the upstream is eligible.
    NoHealthyBackend,
    /// No route matches.
    NoRoute,
    /// Every eligible backend has all the requests it may have, or too many passwords wait to be verified.
    Overloaded,
    /// A limit of the route is spent.
    RateLimited,
    /// The backend closed the connection before it sent the head of a response.
    ResetBeforeHeaders,
    /// The backend closed the connection in the middle of a response; so does the gateway.
    ResponseCut,
    /// The response, or its head, did not come in time.
    ResponseTimeout,
    /// The API that the route belongs to is retired.
    Retired,
    /// The backend is not who it should be, or does not speak TLS as it should.
    TlsError,
    /// Nothing passed through a tunnel, either way, for as long as it may be silent.
    TunnelTimeout,
    /// None of the route's auths admits the request.
    Unauthorized,
    /// The target of the request is longer than the listener accepts.
    UriTooLong,
}

/// Whose doing a fault is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Blame {
    /// The backend's.
    Backend,
    /// The client's.
    Client,
    /// The gateway's, or its operator's.
    Gateway,
}

impl Fault {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 25] = [
        Self::BadRequest,
        Self::BadResponse,
        Self::BodyTooLarge,
        Self::ClientGone,
        Self::ClientTimeout,
        Self::ConnectFailed,
        Self::ConnectRefused,
        Self::ConnectTimeout,
        Self::Draining,
        Self::ExpectationFailed,
        Self::HeaderTooLarge,
        Self::Internal,
        Self::MethodNotAllowed,
        Self::NoHealthyBackend,
        Self::NoRoute,
        Self::Overloaded,
        Self::RateLimited,
        Self::ResetBeforeHeaders,
        Self::ResponseCut,
        Self::ResponseTimeout,
        Self::Retired,
        Self::TlsError,
        Self::TunnelTimeout,
        Self::Unauthorized,
        Self::UriTooLong,
    ];

    /// The reasons of all of them, in the order of their numbers.
    #[allow(clippy::indexing_slicing, reason = "evaluated by the compiler, to which a bad index is an error")]
    pub const REASONS: [&'static str; Self::ALL.len()] = {
        let mut reasons = [""; Self::ALL.len()];
        let mut index = 0;
        while index < reasons.len() {
            reasons[index] = Self::ALL[index].reason();
            index += 1;
        }
        reasons
    };

    /// The status that the client sees, or, where it sees none, the one that the access log shows.
    #[must_use]
    pub fn status(self) -> StatusCode {
        let code = match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::NoRoute => 404,
            Self::MethodNotAllowed => 405,
            Self::ClientTimeout | Self::TunnelTimeout => 408,
            Self::Retired => 410,
            Self::BodyTooLarge => 413,
            Self::UriTooLong => 414,
            Self::ExpectationFailed => 417,
            Self::RateLimited => 429,
            Self::HeaderTooLarge => 431,
            // nginx's: the client closed the request. Never sent, because nobody is there to read it.
            Self::ClientGone => 499,
            Self::BadResponse
            | Self::ConnectFailed
            | Self::ConnectRefused
            | Self::ResetBeforeHeaders
            | Self::ResponseCut
            | Self::TlsError => 502,
            Self::Internal => 500,
            Self::Draining | Self::NoHealthyBackend | Self::Overloaded => 503,
            Self::ConnectTimeout | Self::ResponseTimeout => 504,
        };
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The token of logs, metrics and problem documents.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::BadResponse => "bad_response",
            Self::BodyTooLarge => "body_too_large",
            Self::ClientGone => "client_gone",
            Self::ClientTimeout => "client_timeout",
            Self::ConnectFailed => "connect_failed",
            Self::ConnectRefused => "connect_refused",
            Self::ConnectTimeout => "connect_timeout",
            Self::Draining => "draining",
            Self::ExpectationFailed => "expectation_failed",
            Self::HeaderTooLarge => "header_too_large",
            Self::Internal => "internal",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::NoHealthyBackend => "no_healthy_backend",
            Self::NoRoute => "no_route",
            Self::Overloaded => "overloaded",
            Self::RateLimited => "rate_limited",
            Self::ResetBeforeHeaders => "reset_before_headers",
            Self::ResponseCut => "response_cut",
            Self::ResponseTimeout => "response_timeout",
            Self::Retired => "retired",
            Self::TlsError => "tls_error",
            Self::TunnelTimeout => "tunnel_timeout",
            Self::Unauthorized => "unauthorized",
            Self::UriTooLong => "uri_too_long",
        }
    }

    /// Whose doing it is.
    #[must_use]
    pub const fn blame(self) -> Blame {
        match self {
            Self::BadRequest
            | Self::BodyTooLarge
            | Self::ClientGone
            | Self::ClientTimeout
            | Self::ExpectationFailed
            | Self::HeaderTooLarge
            | Self::MethodNotAllowed
            | Self::NoRoute
            | Self::RateLimited
            | Self::Retired
            | Self::TunnelTimeout
            | Self::Unauthorized
            | Self::UriTooLong => Blame::Client,
            Self::BadResponse
            | Self::ConnectFailed
            | Self::ConnectRefused
            | Self::ConnectTimeout
            | Self::NoHealthyBackend
            | Self::ResetBeforeHeaders
            | Self::ResponseCut
            | Self::ResponseTimeout
            | Self::TlsError => Blame::Backend,
            Self::Draining | Self::Internal | Self::Overloaded => Blame::Gateway,
        }
    }

    /// What a gRPC client is told instead of the status: a code of its own protocol. Where a client might take the same status of
    /// HTTP for an answer of the service, the code is the one that the protocol's table gives for it; deadlines and sizes have
    /// codes of their own.
    #[must_use]
    pub const fn grpc_status(self) -> u16 {
        match self {
            Self::ClientGone => 1,
            Self::ExpectationFailed => 2,
            Self::ConnectTimeout | Self::ClientTimeout | Self::ResponseTimeout | Self::TunnelTimeout => 4,
            Self::BodyTooLarge | Self::HeaderTooLarge | Self::RateLimited | Self::UriTooLong => 8,
            Self::MethodNotAllowed | Self::NoRoute | Self::Retired => 12,
            Self::BadRequest | Self::BadResponse | Self::Internal => 13,
            Self::ConnectFailed
            | Self::ConnectRefused
            | Self::Draining
            | Self::NoHealthyBackend
            | Self::Overloaded
            | Self::ResetBeforeHeaders
            | Self::ResponseCut
            | Self::TlsError => 14,
            Self::Unauthorized => 16,
        }
    }

    /// Its error type in `Proxy-Status` (RFC 9209, section 2.3).
    #[must_use]
    pub const fn proxy_status(self) -> &'static str {
        match self {
            Self::BadRequest
            | Self::BodyTooLarge
            | Self::ClientGone
            | Self::ClientTimeout
            | Self::ExpectationFailed
            | Self::HeaderTooLarge
            | Self::MethodNotAllowed
            | Self::UriTooLong => "http_request_error",
            Self::BadResponse => "http_protocol_error",
            Self::ConnectFailed => "destination_ip_unroutable",
            Self::ConnectRefused => "connection_refused",
            Self::ConnectTimeout => "connection_timeout",
            Self::Internal => "proxy_internal_error",
            Self::Draining | Self::NoHealthyBackend => "destination_unavailable",
            Self::NoRoute => "destination_not_found",
            Self::Overloaded => "connection_limit_reached",
            Self::RateLimited | Self::Retired | Self::Unauthorized => "http_request_denied",
            Self::ResetBeforeHeaders => "connection_terminated",
            Self::ResponseCut => "http_response_incomplete",
            Self::ResponseTimeout => "http_response_timeout",
            Self::TlsError => "tls_protocol_error",
            Self::TunnelTimeout => "connection_read_timeout",
        }
    }

    /// One sentence for the client, without addresses or anything that a backend said.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::BadRequest => "The request is malformed or ambiguous.",
            Self::BadResponse => "The service gave a response that is not valid HTTP.",
            Self::BodyTooLarge => "The request body is larger than this route accepts.",
            Self::ClientGone => "The client closed the connection.",
            Self::ClientTimeout => "The request body did not arrive in time.",
            Self::ConnectFailed => "The service cannot be reached.",
            Self::ConnectRefused => "The service refuses connections.",
            Self::ConnectTimeout => "The service did not accept a connection in time.",
            Self::Draining => "The time to finish was over: what serves this request was told to stop.",
            Self::ExpectationFailed => "What the request expects cannot be done here.",
            Self::HeaderTooLarge => "The head of the request is larger than is accepted here.",
            Self::Internal => "The gateway failed.",
            Self::MethodNotAllowed => "This method is not served here.",
            Self::NoHealthyBackend => "No backend of the service is healthy.",
            Self::NoRoute => "Nothing is served under this host and path.",
            Self::Overloaded => "The service has all the requests that it can take.",
            Self::RateLimited => "Too many requests.",
            Self::ResetBeforeHeaders => "The service closed the connection without a response.",
            Self::ResponseCut => "The service closed the connection in the middle of its response.",
            Self::ResponseTimeout => "The service did not respond in time.",
            Self::Retired => "This API is retired.",
            Self::TlsError => "No secure connection to the service could be made.",
            Self::TunnelTimeout => "Nothing was said for too long.",
            Self::Unauthorized => "Valid credentials are required.",
            Self::UriTooLong => "The target of the request is longer than is accepted here.",
        }
    }

    /// Its number, below the length of [`Fault::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_places_in_the_list() {
        for (index, fault) in Fault::ALL.into_iter().enumerate() {
            assert_eq!(fault.index(), index);
        }
    }

    #[test]
    fn operators_have_the_table() {
        let page = include_str!("../../docs/http.md");
        for f in Fault::ALL {
            let (status, blame) = (f.status().as_u16(), format!("{:?}", f.blame()).to_lowercase());
            let row = format!("| `{}` | {status} | {} | {blame} |", f.reason(), f.grpc_status());
            assert!(page.contains(&row), "{row}");
        }
    }

    #[test]
    fn the_table() {
        let rows = Fault::ALL.map(|f| {
            let (status, blame) = (f.status().as_u16(), format!("{:?}", f.blame()));
            format!("{:<22}{status:<5}{:<4}{blame:<9}{}", f.reason(), f.grpc_status(), f.proxy_status())
        });
        insta::assert_snapshot!(rows.join("\n"));
    }
}
