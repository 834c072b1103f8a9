//! Why a handshake failed, in words that fit whoever is on the other side: a client, or a backend.

use std::io;

use rustls::{AlertDescription, CertificateError, PeerIncompatible};

/// Why a handshake failed, in an operator's words.
pub(super) fn explain(error: &io::Error) -> String {
    let Some(error) = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof => "it closed the connection in the handshake".to_owned(),
            _ => format!("the handshake broke off: {error}"),
        };
    };
    match error {
        rustls::Error::InvalidCertificate(why) => match why {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "its certificate has expired",
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet"
            }
            CertificateError::NotValidForName => "its certificate is for another name",
            CertificateError::NotValidForNameContext { expected, presented } => {
                // They come as `DnsName("orders.internal")`.
                let names: Vec<&str> = presented.iter().map(|name| name.split('"').nth(1).unwrap_or(name)).collect();
                let names = if names.is_empty() { "nobody".to_owned() } else { names.join(", ") };
                return format!("its certificate is not for {}, but for {names}", expected.to_str());
            }
            CertificateError::UnknownIssuer => "its certificate was signed by nobody who is trusted here",
            other => return format!("its certificate is not valid: {other}"),
        }
        .to_owned(),
        rustls::Error::AlertReceived(alert) => refusal(*alert),
        rustls::Error::InvalidMessage(_) => "it does not speak TLS".to_owned(),
        rustls::Error::NoApplicationProtocol => "it speaks no protocol that is spoken here (ALPN)".to_owned(),
        rustls::Error::NoCertificatesPresented => "it shows no certificate, and must".to_owned(),
        rustls::Error::PeerIncompatible(why) => match why {
            PeerIncompatible::SignatureAlgorithmsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::SupportedVersionsExtensionRequired => {
                "it speaks no version of TLS that is accepted here".to_owned()
            }
            PeerIncompatible::NoCipherSuitesInCommon => "it offers no cipher that is accepted here".to_owned(),
            other => format!("it offers nothing that is accepted here: {other:?}"),
        },
        other => other.to_string(),
    }
}

/// What the other side means by an alert (RFC 8446, section 6.2).
fn refusal(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::UnknownCA => "it does not trust who signed our certificate",
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate => "it does not accept our certificate",
        AlertDescription::CertificateExpired => "to it our certificate has expired",
        AlertDescription::CertificateRequired => "it wants a certificate of ours",
        AlertDescription::HandshakeFailure
        | AlertDescription::InsufficientSecurity
        | AlertDescription::ProtocolVersion => "it accepts nothing of what was offered",
        AlertDescription::NoApplicationProtocol => "it speaks no protocol that was offered (ALPN)",
        AlertDescription::UnrecognisedName => "it does not know the name that it was asked for",
        other => return format!("it refused: {other:?}"),
    }
    .to_owned()
}
