use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::{
    base::Name,
    config::plan::{self, PathRegex, Segment, Template, Wanted},
};

fn host(pattern: &str) -> HostPattern {
    match pattern.strip_prefix("*.") {
        Some(parent) => HostPattern::Wildcard(Name::derived(parent)),
        None => HostPattern::Exact(Name::derived(pattern)),
    }
}

fn path(pattern: &str) -> PathPattern {
    if let Some(regex) = pattern.strip_prefix("~ ") {
        return PathPattern::Regex(PathRegex::parse(regex).unwrap());
    }
    let (text, is_prefix) = pattern.strip_suffix("/*").map_or((pattern, false), |prefix| (prefix, true));
    if !text.contains('{') {
        return if is_prefix { PathPattern::Prefix(text.to_owned()) } else { PathPattern::Exact(text.to_owned()) };
    }
    let segment = |text: &str| match text.strip_prefix('{') {
        Some(name) => Segment::Capture(name.trim_end_matches('}').to_owned()),
        None => Segment::Literal(text.to_owned()),
    };
    PathPattern::Template(Template { segments: text.split('/').skip(1).map(segment).collect(), is_prefix })
}

/// `GET`, `x-a: 1`, `?a=1`: what a route asks besides, one condition after the other.
fn conditions(written: &[&str]) -> Conditions {
    let mut conditions = Conditions::default();
    for text in written {
        if let Some((name, value)) = text.split_once(": ") {
            conditions.headers.push((HeaderName::try_from(name).unwrap(), wanted(value)));
        } else if let Some((name, value)) = text.strip_prefix('?').and_then(|text| text.split_once('=')) {
            conditions.query.push((name.to_owned(), wanted(value)));
        } else {
            conditions.methods.push(text.parse().unwrap());
        }
    }
    conditions.methods.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    conditions.headers.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
    conditions.query.sort_by(|(a, _), (b, _)| a.cmp(b));
    conditions
}

fn wanted(text: &str) -> Wanted {
    match text.strip_prefix("~ ") {
        Some(pattern) => Wanted::Pattern(plan::Pattern::parse(pattern).unwrap()),
        None => Wanted::Text(text.to_owned()),
    }
}

/// A route, by what was written of it.
struct Route {
    written: String,
    hosts: Vec<HostPattern>,
    path: PathPattern,
    conditions: Conditions,
}

impl Route {
    fn pattern(&self) -> Pattern<'_, &str> {
        Pattern { hosts: &self.hosts, path: &self.path, conditions: &self.conditions, to: &self.written }
    }
}

/// A route: its hosts, its path and what it asks besides, separated by spaces.
fn route(written: &str) -> Route {
    let (hosts, rest) = written.split_once(' ').unwrap();
    let mut parts = rest.split(" & ");
    let path = path(parts.next().unwrap());
    let conditions = conditions(&parts.collect::<Vec<_>>());
    let mut hosts: Vec<HostPattern> = hosts.split(',').filter(|host| *host != "-").map(host).collect();
    hosts.sort();
    Route { written: written.to_owned(), hosts, path, conditions }
}

fn routes(written: &[&str]) -> Vec<Route> {
    written.iter().map(|written| route(written)).collect()
}

fn table(routes: &[Route]) -> Table<String> {
    Table::new(routes.iter().map(Route::pattern).map(|Pattern { hosts, path, conditions, to }| Pattern {
        hosts,
        path,
        conditions,
        to: to.to_owned(),
    }))
}

/// A request: `GET api.example.com/a?b=c`, and fields.
struct Request {
    method: Method,
    host: String,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
}

impl Request {
    fn new(written: &str, fields: &[(&'static str, &'static str)]) -> Self {
        let (method, target) = written.split_once(' ').unwrap();
        let (host, target) = target.split_at(target.find('/').unwrap());
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        let fields =
            fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let (host, path) = (host.to_owned(), path.to_owned());
        Self { method: method.parse().unwrap(), host, path, query, headers: fields.collect() }
    }

    fn ask(&self) -> Ask<'_> {
        let Self { method, host, path, query, headers } = self;
        Ask { host, path, method, headers, is_from_proxy: false, query: query.as_deref() }
    }
}

fn found<'t>(table: &'t Table<String>, request: &str, fields: &[(&'static str, &'static str)]) -> Option<&'t str> {
    table.find(&Request::new(request, fields).ask()).map(String::as_str)
}

#[test]
fn prefers_the_exact_path_then_the_longest_prefix() {
    let table = table(&routes(&["- /*", "- /a/*", "- /a/b/*", "- /a/b"]));
    let found = |path: &str| found(&table, &format!("GET x{path}"), &[]);
    assert_eq!(found("/a/b"), Some("- /a/b"));
    assert_eq!(found("/a/b/"), Some("- /a/b/*"));
    assert_eq!(found("/a/b/c"), Some("- /a/b/*"));
    assert_eq!(found("/a"), Some("- /a/*"));
    assert_eq!(found("/ab"), Some("- /*"));
    assert_eq!(found("/"), Some("- /*"));
}

#[test]
fn a_template_is_before_what_it_is_below_and_behind_a_longer_text() {
    let table = table(&routes(&[
        "- /*",
        "- /u/*",
        "- /u/{id}",
        "- /u/{id}/files/*",
        "- /u/me",
        "- /u/me/files/*",
        "- /{any}/b",
    ]));
    let found = |path: &str| found(&table, &format!("GET x{path}"), &[]);
    assert_eq!(found("/u/me"), Some("- /u/me"));
    assert_eq!(found("/u/7"), Some("- /u/{id}"));
    assert_eq!(found("/u/7/"), Some("- /u/*"));
    assert_eq!(found("/u/7/files"), Some("- /u/{id}/files/*"));
    assert_eq!(found("/u/me/files/1"), Some("- /u/me/files/*"));
    assert_eq!(found("/u/b"), Some("- /u/{id}"));
    assert_eq!(found("/x/b"), Some("- /{any}/b"));
    assert_eq!(found("//b"), Some("- /*"), "a capture is not empty");
    // Nothing below `/u/me` matches, so what is less specific is looked at.
    assert_eq!(found("/u/me/other"), Some("- /u/*"));
}

#[test]
fn regular_expressions_are_last_but_for_what_matches_everything() {
    let table = table(&routes(&["- /*", "- ~ ^/v[0-9]+/", "- ~ /v[0-9]+/users$", "- /v1/*"]));
    let found = |path: &str| found(&table, &format!("GET x{path}"), &[]);
    assert_eq!(found("/v2/orders"), Some("- ~ ^/v[0-9]+/"));
    assert_eq!(found("/v2/users"), Some("- ~ /v[0-9]+/users$"), "the longer one");
    assert_eq!(found("/v1/users"), Some("- /v1/*"));
    assert_eq!(found("/x/v2/users"), Some("- /*"), "it is anchored, whatever is written");
}

#[test]
fn prefers_the_more_specific_host_and_falls_through_where_its_paths_do_not_match() {
    let table = table(&routes(&["api.example.com /orders/*", "*.example.com /*", "*.a.example.com /*", "- /any"]));
    let found = |target: &str| found(&table, &format!("GET {target}"), &[]);
    assert_eq!(found("api.example.com/orders/1"), Some("api.example.com /orders/*"));
    assert_eq!(found("api.example.com/other"), Some("*.example.com /*"));
    assert_eq!(found("x.a.example.com/"), Some("*.a.example.com /*"));
    assert_eq!(found("y.x.a.example.com/"), Some("*.a.example.com /*"));
    assert_eq!(found("example.com/any"), Some("- /any"));
    assert_eq!(found("example.com/"), None);
    assert_eq!(found("/any"), Some("- /any"));
}

#[test]
fn of_one_path_the_one_that_asks_for_most_is_first_and_the_others_are_behind_it() {
    let table = table(&routes(&[
        "- /a",
        "- /a & GET",
        "- /a & x-env: prod",
        "- /a & x-env: prod & ?v=2",
        "- /a & x-env: prod & x-user: ~ ^a",
        "- /a & GET & ?v=2",
        "- /* & POST",
    ]));
    let found = |request: &str, fields: &[(&'static str, &'static str)]| found(&table, request, fields);
    assert_eq!(found("PUT x/a", &[]), Some("- /a"));
    assert_eq!(found("GET x/a", &[]), Some("- /a & GET"));
    assert_eq!(found("GET x/a?v=2", &[("x-env", "prod")]), Some("- /a & GET & ?v=2"), "a method counts before fields");
    assert_eq!(found("PUT x/a", &[("x-env", "prod")]), Some("- /a & x-env: prod"));
    assert_eq!(found("PUT x/a?w=1&v=2", &[("x-env", "prod")]), Some("- /a & x-env: prod & ?v=2"));
    let both = [("x-env", "prod"), ("x-user", "amy")];
    assert_eq!(found("PUT x/a?v=2", &both), Some("- /a & x-env: prod & x-user: ~ ^a"));
    assert_eq!(found("PUT x/a", &[("x-env", "Prod")]), Some("- /a"), "a value is compared as it is");
    assert_eq!((found("POST x/b", &[]), found("GET x/b", &[])), (Some("- /* & POST"), None));
}

#[test]
fn the_first_value_of_a_field_and_of_a_parameter_counts_decoded() {
    let table = table(&routes(&["- /a & x-env: prod", "- /b & ?full name=a b&c"]));
    let twice = |first, second| found(&table, "GET x/a", &[("x-env", first), ("x-env", second)]);
    assert_eq!((twice("prod", "test").is_some(), twice("test", "prod").is_some()), (true, false));
    for (query, is_found) in [
        ("full+name=a%20b%26c", true),
        ("full%20name=a+b%26c&full+name=", true),
        ("full+name=&full+name=a+b%26c", false),
        ("", false),
    ] {
        assert_eq!(found(&table, &format!("GET x/b?{query}"), &[]).is_some(), is_found, "{query}");
    }
}

#[test]
fn fields_are_matched_as_backends_read_them() {
    let table =
        table(&routes(&["- /a & cookie: ~ (^|; )canary=1", "- /b & x-forwarded-proto: https", "- /c & x-a: 1"]));
    let crumbs = [("cookie", "x=1"), ("cookie", "canary=1")];
    assert!(found(&table, "GET x/a", &crumbs).is_some());
    assert!(found(&table, "GET x/c", &[("x-a", " 1\t")]).is_some());
    let request = Request::new("GET x/b", &[("x-forwarded-proto", "https")]);
    let is_found = |is_from_proxy| table.find(&Ask { is_from_proxy, ..request.ask() }).is_some();
    assert_eq!((is_found(true), is_found(false)), (true, false), "what proxies say, nobody else may");
}

#[test]
fn what_does_not_match_says_why() {
    let routes = routes(&["a.test /x", "- /y", "- /x & POST", "- /x & x-env: prod", "- /x & ?v=2", "*.test /x/{id}"]);
    let request = Request::new("GET b.test/x", &[]);
    let missed: Vec<(&str, Option<Miss<'_>>)> =
        candidates(routes.iter().map(Route::pattern), &request.ask()).into_iter().map(|c| (c.to, c.miss)).collect();
    let env = HeaderName::from_static("x-env");
    assert_eq!(
        missed,
        [
            ("- /x & POST", Some(Miss::Condition(Unmet::Method))),
            ("- /x & x-env: prod", Some(Miss::Condition(Unmet::Header(&env)))),
            ("- /x & ?v=2", Some(Miss::Condition(Unmet::Query("v")))),
            ("*.test /x/{id}", Some(Miss::Path)),
            ("- /y", Some(Miss::Path)),
            ("a.test /x", Some(Miss::Host)),
        ]
    );
}

/// Paths of few segments of few letters, so that many of them match.
fn paths() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => "(/[ab]){0,3}(/\\*)?".prop_filter("a path", |path| !path.is_empty()),
        4 => "(/([ab]|\\{c\\})){1,3}(/\\*)?",
        2 => prop::sample::select(vec!["~ ^/a", "~ /a/b$", "~ ^/[ab]/", "~ /(a|b)/a"]).prop_map(str::to_owned),
    ]
}

fn asked() -> impl Strategy<Value = String> {
    let method = prop::sample::select(vec!["", " & GET", " & POST"]);
    let header = prop::sample::select(vec!["", " & x-a: 1", " & x-a: ~ ^[12]$"]);
    let query = prop::sample::select(vec!["", " & ?q=1", " & ?q=~ .", " & ?q=1 & ?r=1"]);
    (method, header, query).prop_map(|(method, header, query)| format!("{method}{header}{query}"))
}

fn hosts() -> impl Strategy<Value = String> {
    prop_oneof![1 => Just("-".to_owned()), 3 => "(\\*\\.)?[ab](\\.[ab]){0,2}(,(\\*\\.)?[ab](\\.[ab])?)?"]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_looking_at_every_route(
        written in vec((hosts(), paths(), asked()), 0..16),
        h in "[ab](\\.[ab]){0,3}",
        p in "(/[ab]?){1,5}",
        is_post in any::<bool>(),
        field in option::of(prop::sample::select(vec!["1", "2", "3"])),
        query in option::of(prop::sample::select(vec!["q=1", "q=2&q=1", "r=1&q=1", "r=1"])),
    ) {
        let written: Vec<String> = written.into_iter().map(|(hosts, path, asked)| format!("{hosts} {path}{asked}")).collect();
        let routes = routes(&written.iter().map(String::as_str).collect::<Vec<_>>());
        let method = if is_post { "POST" } else { "GET" };
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        let fields: Vec<_> = field.into_iter().map(|value| ("x-a", value)).collect();
        let request = Request::new(&format!("{method} {h}{p}{query}"), &fields);
        let table = table(&routes);
        let all = candidates(routes.iter().map(Route::pattern), &request.ask());
        let first = all.first().filter(|first| first.miss.is_none());
        let found = table.find(&request.ask());
        // Two that are as specific are an error of the config; here it does not matter which of them it is.
        let candidate = |written: &str| all.iter().find(|candidate| candidate.to == written).expect("it is one of them");
        match (found, first) {
            (None, None) => {}
            (Some(found), Some(first)) => {
                let found = candidate(found);
                prop_assert_eq!((&found.rank, &found.miss), (&first.rank, &None));
            }
            (found, first) => prop_assert!(false, "{:?} and {:?}", found, first),
        }
    }
}

/// A request, its fields, and the route that has it.
type Case = (&'static str, &'static [(&'static str, &'static str)], Option<&'static str>);

/// What the conformance tests of the Kubernetes Gateway API ask of an HTTPRoute's matches, in words of our own: requests, each with
/// the route that has it.
#[test]
fn matches_are_those_of_the_gateway_api() {
    let cases: [(&[&str], &[Case]); 6] = [
        // Exact paths match nothing else: no path below, no slash more, no other case.
        (
            &["- /one", "- /two"],
            &[
                ("GET a/one", &[], Some("- /one")),
                ("GET a/two", &[], Some("- /two")),
                ("GET a/", &[], None),
                ("GET a/one/example", &[], None),
                ("GET a/two/", &[], None),
                ("GET a/Two", &[], None),
            ],
        ),
        // A prefix is made of whole segments; a longer one wins, and beside it a field.
        (
            &["- /*", "- /v2/*", "- /* & version: two"],
            &[
                ("GET a/", &[], Some("- /*")),
                ("GET a/example", &[], Some("- /*")),
                ("GET a/v2", &[], Some("- /v2/*")),
                ("GET a/v2/", &[], Some("- /v2/*")),
                ("GET a/v2/example", &[], Some("- /v2/*")),
                ("GET a/v2example", &[], Some("- /*")),
                ("GET a/foo/v2/example", &[], Some("- /*")),
                ("GET a/", &[("version", "one")], Some("- /*")),
                ("GET a/", &[("version", "two")], Some("- /* & version: two")),
                ("GET a/v2", &[("version", "two")], Some("- /v2/*")),
            ],
        ),
        // Hosts across routes: what matches is looked for in the routes of the host alone.
        (
            &["example.com,example.net /*", "example.com /v2/*", "*.example.com /*", "- /v2/*"],
            &[
                ("GET example.com/v2", &[], Some("example.com /v2/*")),
                ("GET example.net/v2", &[], Some("example.com,example.net /*")),
                ("GET a.b.example.com/v2", &[], Some("*.example.com /*")),
                ("GET example.org/v2", &[], Some("- /v2/*")),
                ("GET example.org/", &[], None),
            ],
        ),
        // Fields: all of them must be there; more of them win.
        (
            &[
                "- /* & version: one",
                "- /* & version: two",
                "- /* & color: orange & version: two",
                "- /* & color: ~ ^(red|blue)$ & version: ~ .",
            ],
            &[
                ("GET a/", &[("version", "one")], Some("- /* & version: one")),
                ("GET a/", &[("version", "two")], Some("- /* & version: two")),
                ("GET a/", &[("version", "two"), ("color", "orange")], Some("- /* & color: orange & version: two")),
                (
                    "GET a/",
                    &[("version", "two"), ("color", "blue")],
                    Some("- /* & color: ~ ^(red|blue)$ & version: ~ ."),
                ),
                ("GET a/", &[("color", "orange")], None),
                ("GET a/", &[("version", "three")], None),
                ("GET a/", &[], None),
            ],
        ),
        // Methods: no other will do, HEAD for GET neither; a path counts before a method, and that before fields.
        (
            &[
                "- /* & POST",
                "- /* & GET",
                "- /path1/* & GET",
                "- /path1/* & version: one",
                "- /path1/* & GET & version: one",
            ],
            &[
                ("POST a/", &[], Some("- /* & POST")),
                ("GET a/", &[], Some("- /* & GET")),
                ("HEAD a/", &[], None),
                ("GET a/path1", &[], Some("- /path1/* & GET")),
                ("PUT a/path1", &[("version", "one")], Some("- /path1/* & version: one")),
                ("GET a/path1", &[("version", "one")], Some("- /path1/* & GET & version: one")),
                ("POST a/path1", &[("version", "two")], Some("- /* & POST")),
                ("PUT a/path1", &[], None),
            ],
        ),
        // Parameters: by their first value, as it is; fields count before them.
        (
            &[
                "- /* & ?animal=whale",
                "- /* & ?animal=dolphin",
                "- /* & ?animal=dolphin & ?color=blue",
                "- /* & version: one & ?animal=whale",
            ],
            &[
                ("GET a/?animal=whale", &[], Some("- /* & ?animal=whale")),
                ("GET a/?animal=dolphin", &[], Some("- /* & ?animal=dolphin")),
                ("GET a/?animal=dolphin&color=blue", &[], Some("- /* & ?animal=dolphin & ?color=blue")),
                ("GET a/?color=blue&animal=dolphin&x=y", &[], Some("- /* & ?animal=dolphin & ?color=blue")),
                ("GET a/?animal=whale&animal=dolphin", &[], Some("- /* & ?animal=whale")),
                ("GET a/?animal=whale", &[("version", "one")], Some("- /* & version: one & ?animal=whale")),
                ("GET a/?animal=Dolphin", &[], None),
                ("GET a/?color=blue", &[], None),
                ("GET a/", &[], None),
            ],
        ),
    ];
    for (written, requests) in cases {
        let table = table(&routes(written));
        for (request, fields, whose) in requests {
            let fields: Vec<(&'static str, &'static str)> = fields.to_vec();
            assert_eq!(found(&table, request, &fields), *whose, "{request} {fields:?}");
        }
    }
}
