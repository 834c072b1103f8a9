//! The TLS probe: a handshake as the backend or the check says, and how long the certificate is valid.

use std::time::{Duration, SystemTime};

use super::{Attempt, Failure, Question, quoted};
use crate::{base::duration::Elapsed, config::plan::TlsProbe, tls::Facts, upstream::Transport};

pub(super) async fn probe(attempt: &mut Attempt, question: &Question, probe: &TlsProbe) -> Result<(), Failure> {
    let Transport::Tls(stream) = attempt.dial(&question.dial).await? else {
        return Err(Failure::new("tls", "TLS: the backend is reached without it"));
    };
    let facts =
        stream.facts().ok_or_else(|| Failure::new("certificate", "it shows no certificate that can be read"))?;
    attempt.found = lasts(&facts, SystemTime::now(), probe.valid_for)?;
    Ok(())
}

/// How long a certificate is valid, in words. Nobody may have verified it.
fn lasts(facts: &Facts, now: SystemTime, valid_for: Duration) -> Result<String, Failure> {
    let name = quoted(facts.name(), 60);
    if let Some(ago) = facts.expired_for(now) {
        return Err(Failure::new("certificate", format!("certificate of {name} expired {} ago", Short(ago))));
    }
    if let Some(wait) = facts.valid_in(now) {
        return Err(Failure::new(
            "certificate",
            format!("certificate of {name} is not valid for another {}", Short(wait)),
        ));
    }
    let left = facts.not_after.duration_since(now).unwrap_or_default();
    match left < valid_for {
        true => Err(Failure::degraded("certificate", format!("certificate of {name} expires in {}", Short(left)))),
        false => Ok(format!("certificate valid for {}, checked", Short(left))),
    }
}

/// Whole days, else as [`Elapsed`] has it.
struct Short(Duration);

impl std::fmt::Display for Short {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.as_secs() / 86_400 {
            0 => Elapsed(self.0).fmt(f),
            days => write!(f, "{days}d"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::health::Kind;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn a_certificate_is_valid_expires_soon_or_has_expired() {
        let facts = Facts {
            names: vec!["orders.internal".to_owned()],
            subject: String::new(),
            not_before: UNIX_EPOCH + DAY * 100,
            not_after: UNIX_EPOCH + DAY * 200,
        };
        let said = |days: u32, hours: u32| {
            let now = UNIX_EPOCH + DAY * days + DAY * hours / 24;
            lasts(&facts, now, DAY * 7).map_err(|failure| (failure.kind, failure.detail))
        };
        assert_eq!(said(110, 0).unwrap(), "certificate valid for 90d, checked");
        assert_eq!(said(193, 0).unwrap(), "certificate valid for 7d, checked");
        let expires = |how: &str| Err((Kind::Degraded, format!("certificate of orders.internal expires in {how}")));
        assert_eq!((said(196, 1), said(199, 22)), (expires("3d"), expires("2h00m")));
        let failed = |how: &str| Err((Kind::Fail, format!("certificate of orders.internal {how}")));
        assert_eq!(said(203, 1), failed("expired 3d ago"));
        assert_eq!(said(98, 0), failed("is not valid for another 2d"));
    }
}
