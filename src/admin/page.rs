//! `/`: what a browser shows, links only, so that whoever opens the admin address sees what there is.

use super::Now;

/// The page. Everything in it that comes from the config is a number or escaped.
pub(super) fn index(now: &Now, is_ready: bool) -> String {
    let row = |path: &str, what: &str| format!("<tr><td><a href=\"{path}\">{path}</a></td><td>{what}</td></tr>\n");
    let rows = [
        row("/health", "what is up, degraded or down, and why"),
        row("/readyz", "whether traffic should come here"),
        row("/livez", "whether the process is alive"),
        row("/metrics", "metrics for Prometheus"),
        row("/api/v1/status", "everything that <code>tidegate status</code> shows"),
        row(
            "/api/v1/upstreams",
            "every backend; below it, what is known of each: <code>/{upstream}/backends/{backend}</code>",
        ),
        row("/api/v1/apis", "the stages of APIs, and who calls them"),
        row("/api/v1/events", "what has happened last"),
    ];
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>tidegate</title>\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <style>:root{{color-scheme:light dark;font:1rem/1.5 system-ui,sans-serif}}body{{margin:2rem auto;max-width:42rem;\
         padding:0 1rem}}td{{padding:.2rem 1.5rem .2rem 0;vertical-align:top}}</style></head>\n\
         <body><h1>tidegate {version}</h1>\n<p><strong>{health}</strong>, {ready}. Config generation {generation} ({sha}) \
         since {since}.</p>\n<table>\n{rows}</table></body></html>\n",
        version = env!("CARGO_PKG_VERSION"),
        health = now.overall().as_str(),
        ready = if is_ready { "ready" } else { "not ready" },
        generation = now.snapshot.generation,
        sha = now.snapshot.sha,
        since = now.snapshot.since,
        rows = rows.concat(),
    )
}
