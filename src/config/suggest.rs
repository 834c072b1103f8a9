//! "Did you mean": the nearest of the words that would be right.

/// What users of other gateways write, and what it is called here.
const SYNONYMS: &[(&str, &[&str])] = &[
    ("backend", &["backends", "to"]),
    ("servers", &["backends", "to"]),
    ("targets", &["backends", "to"]),
    ("endpoints", &["backends", "to"]),
    ("url", &["backends", "to"]),
    ("upstream", &["to", "upstreams"]),
    ("service", &["to", "upstreams"]),
    ("services", &["upstreams"]),
    ("clusters", &["upstreams"]),
    ("address", &["url", "bind"]),
    ("addr", &["url", "bind"]),
    ("rule", &["path"]),
    ("match", &["path"]),
    ("prefix", &["path"]),
    ("hosts", &["host"]),
    ("ratelimit", &["limit", "limits"]),
    ("rate_limit", &["limit", "limits"]),
    ("check", &["health"]),
    ("health_check", &["health"]),
    ("healthcheck", &["health"]),
    ("retry", &["retries"]),
    ("timeout", &["timeouts"]),
    ("port", &["listen", "bind"]),
    ("entrypoints", &["listeners"]),
    ("logging", &["telemetry"]),
    ("least_conn", &["least_requests"]),
    ("leastconn", &["least_requests"]),
    ("least_connections", &["least_requests"]),
    ("ewma", &["p2c"]),
    ("wrr", &["round_robin"]),
    ("ip_hash", &["hash ip"]),
    ("source", &["hash ip"]),
    ("ring_hash", &["ring"]),
];

/// The candidate that was probably meant: a synonym, else the nearest within two edits (one for short words), else one that
/// goes on where the other stops.
pub(crate) fn nearest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = written.to_ascii_lowercase().replace('-', "_");
    let candidates: Vec<&str> = candidates.into_iter().collect();
    let meant = SYNONYMS.iter().find(|(synonym, _)| *synonym == lower).map_or(&[][..], |(_, words)| words);
    if let Some(word) = meant.iter().find_map(|word| candidates.iter().find(|candidate| *candidate == word)) {
        return Some(word);
    }
    let starts_same = |candidate: &&str| {
        let short = candidate.len().min(lower.len());
        short >= 3 && candidate.as_bytes().get(..short) == lower.as_bytes().get(..short)
    };
    let most_edits = if lower.chars().count() <= 3 { 1 } else { 2 };
    candidates
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.replace('-', "_")), candidate))
        .filter(|(edits, _)| *edits <= most_edits)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| *candidate)
        .or_else(|| candidates.iter().copied().find(starts_same))
}

/// `a, b, c, …`, at most sixteen: more than any block has fields.
pub(super) fn list<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let mut words: Vec<&str> = words.into_iter().collect();
    if words.len() > 16 {
        words.truncate(16);
        words.push("…");
    }
    words.join(", ")
}
