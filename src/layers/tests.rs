use std::{
    future::poll_fn,
    net::Ipv4Addr,
    num::NonZeroU32,
    pin::Pin,
    sync::mpsc::{Sender, channel},
    task::Poll,
};

use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{Request, header::AUTHORIZATION};

use super::{auth::hash_key, *};
use crate::{
    base::{Period, Rate, Secret},
    config::plan::{ApiKeys, Auth, AuthMethod, BasicUser, BasicUsers, Consumer, KeySource, Limit},
};

const W: WorkerId = WorkerId(0);
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn pool() -> PasswordPool {
    PasswordPool::new(1, 16).unwrap()
}

fn limit(name: &str, per_day: u32, by: LimitKey) -> Arc<RateLimiter> {
    let rate = Rate { count: NonZeroU32::new(per_day).unwrap(), per: Period::Day };
    Arc::new(RateLimiter::new(&Limit { name: self::name(name), rate, burst: per_day, by, max_keys: 100 }))
}

fn keys(source: KeySource) -> Arc<Authenticator> {
    let digest = |key: &str| {
        let hex = hash_key(key).unwrap();
        let hex = hex.strip_prefix("sha256:").unwrap();
        std::array::from_fn(|n| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap())
    };
    let holders = [("ann", "key-of-ann"), ("bob", "b+/=%"), ("bob", "second-of-bob")];
    let consumers = holders.iter().map(|(n, key)| Consumer { name: name(n), digest: digest(key) }).collect();
    let method = AuthMethod::ApiKey(ApiKeys { source, consumers });
    Arc::new(Authenticator::new(&Auth { name: name("partners"), method }, &pool()))
}

fn header_keys() -> Arc<Authenticator> {
    keys(KeySource::Header(HeaderName::from_static("x-api-key")))
}

fn query_keys() -> Arc<Authenticator> {
    keys(KeySource::Query("api_key".into()))
}

fn cheap_argon2(password: &str) -> Secret {
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(8, 1, 1, None).unwrap());
    Secret::new(argon2.hash_password(password.as_bytes()).unwrap().to_string())
}

fn basic(pool: &PasswordPool) -> Arc<Authenticator> {
    let users = vec![
        BasicUser { name: name("ann"), hash: cheap_argon2("right") },
        BasicUser { name: name("bob"), hash: Secret::new(bcrypt::hash("grün:€", 4).unwrap()) },
    ];
    let method = AuthMethod::Basic(BasicUsers { realm: "the \"ops\"".into(), users });
    Arc::new(Authenticator::new(&Auth { name: name("ops"), method }, pool))
}

fn pipeline(limits: &[&Arc<RateLimiter>], auths: &[&Arc<Authenticator>]) -> Pipeline {
    let limits = limits.iter().map(|limit| Arc::clone(limit)).collect();
    Pipeline::new(limits, auths.iter().map(|auth| Arc::clone(auth)).collect(), 1)
}

fn head(uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn basic_header(credentials: impl AsRef<[u8]>) -> String {
    format!("Basic {}", STANDARD.encode(credentials))
}

async fn admit(pipeline: &Pipeline, head: &mut Parts) -> (Result<(), Refusal>, Pass) {
    let mut pass = Pass::default();
    let result = pipeline.admit(W, CLIENT, head, &mut pass).await;
    (result, pass)
}

/// The consumer that a request is found to be of, or the reason why none.
async fn who(pipeline: &Pipeline, head: &mut Parts) -> Result<String, String> {
    let (result, pass) = admit(pipeline, head).await;
    match result {
        Ok(()) => Ok(pass.identity.map_or_else(String::new, |identity| identity.consumer.to_string())),
        Err(Refusal::Unauthorized { reason, .. }) => Err(reason.into()),
        Err(other) => Err(format!("{}", other.status())),
    }
}

async fn who_with(pipeline: &Pipeline, headers: &[(&str, &str)]) -> Result<String, String> {
    who(pipeline, &mut head("/", headers)).await
}

fn lines(decorate: impl Fn(&mut HeaderMap)) -> String {
    let mut headers = HeaderMap::new();
    decorate(&mut headers);
    headers.iter().map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap())).collect()
}

fn counts(pipeline: &Pipeline) -> Vec<String> {
    let counted = pipeline.decisions().filter(|decision| decision.count > 0);
    counted.map(|d| format!("{:?} {} {} {} {}", d.kind, d.name, d.decision, d.reason, d.count)).collect()
}

/// Holds the only thread of a pool up, until what is returned is dropped.
fn hold_up(pool: &PasswordPool) -> (Sender<()>, impl Drop + use<>) {
    let (release, released) = channel::<()>();
    let (start, started) = channel();
    let answer = pool.submit(move || {
        start.send(()).unwrap();
        let _ = released.recv();
    });
    started.recv().unwrap();
    (release, answer.unwrap())
}

async fn is_pending(mut future: Pin<&mut impl Future>) -> bool {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
}

#[tokio::test]
async fn an_empty_pipeline_admits_and_changes_nothing() {
    let pipeline = pipeline(&[], &[]);
    let mut head = head("/a?api_key=1", &[("authorization", "Basic x")]);
    let (result, pass) = admit(&pipeline, &mut head).await;
    assert!(pipeline.is_empty() && result.is_ok() && pass.identity.is_none());
    assert_eq!(lines(|headers| pass.decorate(headers)), "");
    assert_eq!((head.uri.to_string().as_str(), head.headers.len()), ("/a?api_key=1", 1));
}

#[tokio::test]
async fn a_key_in_a_header_says_who_sent_the_request_and_is_not_forwarded() {
    let pipeline = pipeline(&[], &[&header_keys()]);
    for (key, consumer) in [("key-of-ann", "ann"), ("b+/=%", "bob"), ("second-of-bob", "bob")] {
        let mut head = head("/", &[("x-api-key", key), ("x-other", "1")]);
        assert_eq!(who(&pipeline, &mut head).await.as_deref(), Ok(consumer));
        assert!(!head.headers.contains_key("x-api-key") && head.headers.contains_key("x-other"));
    }
}

#[tokio::test]
async fn a_key_in_a_header_is_refused_for_every_other_form() {
    let pipeline = pipeline(&[], &[&header_keys()]);
    let key = ("x-api-key", "key-of-ann");
    assert_eq!(who_with(&pipeline, &[]).await, Err("missing".into()));
    assert_eq!(who_with(&pipeline, &[("x-api-key", "")]).await, Err("missing".into()));
    assert_eq!(who_with(&pipeline, &[("x-api-key", "key-of-anna")]).await, Err("unknown_key".into()));
    assert_eq!(who_with(&pipeline, &[key, key]).await, Err("repeated".into()));
    assert_eq!(who_with(&pipeline, &[("x-api-key", ""), key]).await, Err("repeated".into()));
    assert_eq!(who_with(&pipeline, &[("x-api-key", &"x".repeat(513))]).await, Err("malformed".into()));
    assert_eq!(
        counts(&pipeline),
        [
            "Auth partners deny malformed 1",
            "Auth partners deny missing 2",
            "Auth partners deny repeated 2",
            "Auth partners deny unknown_key 1"
        ]
    );
}

#[tokio::test]
async fn a_key_in_the_query_is_decoded_and_not_forwarded() {
    let pipeline = pipeline(&[], &[&query_keys()]);
    for (uri, expected, rest) in [
        ("/a?b=1&api_key=key-of-ann&c=2", Ok("ann"), "/a?b=1&c=2"),
        ("/a?api_key=b+%2F=%25", Ok("bob"), "/a"),
        ("/a?api%5Fkey=key-of-ann", Ok("ann"), "/a"),
        ("/a?api_key=wrong&b", Err("unknown_key"), "/a?b"),
        ("/a?api_key=key-of-ann&api_key=key-of-ann", Err("repeated"), "/a"),
        ("/a?api_key=key-of-ann&api%5fkey=", Err("repeated"), "/a"),
        ("/a?api_key", Err("missing"), "/a"),
        ("/a?b=1", Err("missing"), "/a?b=1"),
        ("/a", Err("missing"), "/a"),
    ] {
        let mut head = head(uri, &[]);
        assert_eq!(who(&pipeline, &mut head).await.as_deref().map_err(String::as_str), expected, "{uri}");
        assert_eq!(head.uri.to_string(), rest);
    }
}

#[tokio::test]
async fn a_key_is_taken_out_of_a_request_that_a_limit_refuses() {
    let pipeline = pipeline(&[&limit("day", 1, LimitKey::Ip)], &[&query_keys()]);
    for status in [Ok("ann".to_owned()), Err("429 Too Many Requests".to_owned())] {
        let mut head = head("/a?api_key=key-of-ann", &[]);
        assert_eq!(who(&pipeline, &mut head).await, status);
        assert_eq!(head.uri, "/a");
    }
}

#[tokio::test]
async fn a_right_password_admits_and_is_not_forwarded() {
    let pipeline = pipeline(&[], &[&basic(&pool())]);
    for (credentials, user) in [("ann:right", "ann"), ("bob:grün:€", "bob")] {
        let mut head = head("/", &[("authorization", &basic_header(credentials))]);
        assert_eq!(who(&pipeline, &mut head).await.as_deref(), Ok(user));
        assert!(head.headers.is_empty());
    }
    let header = basic_header("ann:right").replacen("Basic ", "bAsIC   ", 1);
    assert_eq!(who_with(&pipeline, &[("authorization", &header)]).await.as_deref(), Ok("ann"));
}

#[tokio::test]
async fn wrong_passwords_and_unknown_users_cost_and_read_the_same() {
    let auth = basic(&pool());
    let pipeline = pipeline(&[], &[&auth]);
    for (n, credentials) in ["ann:wrong", "bob:right", "ann:", "nobody:right", ":right"].into_iter().enumerate() {
        let header = basic_header(credentials);
        assert_eq!(who_with(&pipeline, &[("authorization", &header)]).await, Err("bad_password".into()));
        assert_eq!(auth.hashed(), n as u64 + 1, "{credentials} is hashed");
    }
    assert_eq!(counts(&pipeline), ["Auth ops deny bad_password 5"]);
}

#[tokio::test]
async fn an_unknown_user_with_a_known_ones_password_is_not_admitted() {
    let pipeline = pipeline(&[], &[&basic(&pool())]);
    // Whichever user's hash stands in for the unknown one, its password is right.
    for user in ["carol", "dave", "erin", "frank"] {
        for password in ["right", "grün:€"] {
            let header = basic_header(format!("{user}:{password}"));
            assert_eq!(who_with(&pipeline, &[("authorization", &header)]).await, Err("bad_password".into()));
        }
    }
}

#[tokio::test]
async fn credentials_that_are_none_are_refused_without_hashing() {
    let auth = basic(&pool());
    let pipeline = pipeline(&[], &[&auth]);
    let encoded = STANDARD.encode("ann:right");
    for (header, reason) in [
        ("Basic".to_owned(), "malformed"),
        ("Basic ".to_owned(), "malformed"),
        ("Basic !!!".to_owned(), "malformed"),
        (format!("Basic {encoded}x"), "malformed"),
        (format!("Basic {encoded} x"), "malformed"),
        (basic_header("ann:x").replace('=', ""), "malformed"),
        (basic_header("ann-right"), "malformed"),
        (basic_header("ann:ri\0ght"), "malformed"),
        (basic_header(b"ann:\xff"), "malformed"),
        (basic_header(format!("ann:{}", "x".repeat(2_000))), "malformed"),
        ("Bearer abc".to_owned(), "missing"),
        ("Basically abc".to_owned(), "missing"),
        (String::new(), "missing"),
    ] {
        assert_eq!(who_with(&pipeline, &[("authorization", &header)]).await, Err(reason.into()), "{header}");
    }
    let right = basic_header("ann:right");
    let twice = [("authorization", right.as_str()), ("authorization", right.as_str())];
    assert_eq!(who_with(&pipeline, &twice).await, Err("repeated".into()));
    assert_eq!(auth.hashed(), 0);
}

#[tokio::test]
async fn a_password_found_right_is_hashed_once_and_a_wrong_one_every_time() {
    let auth = basic(&pool());
    let pipeline = pipeline(&[], &[&auth]);
    let (right, wrong) = (basic_header("ann:right"), basic_header("ann:wrong"));
    for _ in 0..5 {
        assert_eq!(who_with(&pipeline, &[("authorization", &right)]).await.as_deref(), Ok("ann"));
    }
    assert_eq!(auth.hashed(), 1);
    for n in 0..3 {
        assert_eq!(who_with(&pipeline, &[("authorization", &wrong)]).await, Err("bad_password".into()));
        assert_eq!(auth.hashed(), 2 + n);
    }
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_a_remembered_password_needs_no_queue() {
    let pool = PasswordPool::new(1, 1).unwrap();
    let pipeline = pipeline(&[], &[&basic(&pool)]);
    let (ann, bob) = (basic_header("ann:right"), basic_header("bob:grün:€"));
    assert_eq!(who_with(&pipeline, &[("authorization", &ann)]).await.as_deref(), Ok("ann"));

    let held = hold_up(&pool);
    let queued = pool.submit(|| ()).unwrap();
    let (result, _) = admit(&pipeline, &mut head("/", &[("authorization", &bob)])).await;
    let refusal = result.unwrap_err();
    assert_eq!((refusal.clone(), refusal.status()), (Refusal::Overloaded, StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(lines(|headers| refusal.decorate(headers)), "retry-after: 1\n");
    assert_eq!(who_with(&pipeline, &[("authorization", &ann)]).await.as_deref(), Ok("ann"));

    drop(held);
    queued.await.unwrap();
    assert_eq!(who_with(&pipeline, &[("authorization", &bob)]).await.as_deref(), Ok("bob"));
    assert_eq!(counts(&pipeline), ["Auth ops allow  3", "Auth ops deny overloaded 1"]);
}

#[tokio::test]
async fn requests_that_come_together_with_one_password_hash_it_once() {
    let pool = pool();
    let auth = basic(&pool);
    let pipeline = pipeline(&[], &[&auth]);
    let header = basic_header("ann:right");
    let held = hold_up(&pool);
    let headers = [("authorization", header.as_str())];
    let requests = (0..8).map(|_| who_with(&pipeline, &headers));
    let mut requests = Box::pin(futures_util::future::join_all(requests));
    assert!(is_pending(requests.as_mut()).await);
    drop(held);
    assert!(requests.await.iter().all(|user| user.as_deref() == Ok("ann")));
    assert_eq!(auth.hashed(), 1);
}

#[tokio::test]
async fn a_password_whose_client_has_left_is_not_hashed() {
    let pool = pool();
    let auth = basic(&pool);
    let pipeline = pipeline(&[], &[&auth]);
    let held = hold_up(&pool);
    let mut head = head("/", &[("authorization", &basic_header("ann:right"))]);
    {
        let mut request = Box::pin(admit(&pipeline, &mut head));
        assert!(is_pending(request.as_mut()).await);
    }
    assert!(head.headers.is_empty(), "what is logged of it has no password either");
    drop(held);
    pool.submit(|| ()).unwrap().await.unwrap();
    assert_eq!(auth.hashed(), 0);
}

#[tokio::test]
async fn work_that_panics_costs_neither_its_thread_nor_lets_anybody_in() {
    let pool = PasswordPool::new(1, 1).unwrap();
    let answer = pool.submit(|| panic!("as a library might"));
    assert!(answer.unwrap().await.is_err());
    assert_eq!(pool.submit(|| 7).unwrap().await, Ok(7));
}

#[tokio::test]
async fn any_auth_of_a_route_admits_and_all_credentials_stay_here() {
    let pipeline = pipeline(&[], &[&basic(&pool()), &header_keys()]);
    let (right, wrong) = (basic_header("ann:right"), basic_header("ann:wrong"));
    let key = ("x-api-key", "second-of-bob");
    assert_eq!(who_with(&pipeline, &[("authorization", &right)]).await.as_deref(), Ok("ann"));
    assert_eq!(who_with(&pipeline, &[key]).await.as_deref(), Ok("bob"));

    let mut both = head("/", &[("authorization", &wrong), key]);
    assert_eq!(who(&pipeline, &mut both).await.as_deref(), Ok("bob"));
    assert!(both.headers.is_empty());

    let mut foreign = head("/", &[("authorization", "Bearer for-the-backend"), key]);
    assert_eq!(who(&pipeline, &mut foreign).await.as_deref(), Ok("bob"));
    assert_eq!(foreign.headers.get(AUTHORIZATION).unwrap(), "Bearer for-the-backend");

    let bad_key = ("x-api-key", "wrong");
    assert_eq!(who_with(&pipeline, &[bad_key]).await, Err("unknown_key".into()), "not `missing`");
    assert_eq!(who_with(&pipeline, &[("authorization", &wrong), bad_key]).await, Err("unknown_key".into()));
    assert_eq!(
        counts(&pipeline),
        ["Auth ops allow  1", "Auth partners allow  3", "Auth partners deny unknown_key 2"],
        "one request, one decision"
    );
}

#[tokio::test]
async fn a_cheap_auth_that_admits_saves_the_hashing() {
    let auth = basic(&pool());
    let pipeline = pipeline(&[], &[&auth, &header_keys()]);
    let wrong = basic_header("ann:wrong");
    let headers = [("authorization", wrong.as_str()), ("x-api-key", "key-of-ann")];
    assert_eq!(who_with(&pipeline, &headers).await.as_deref(), Ok("ann"));
    assert_eq!(auth.hashed(), 0);
}

#[tokio::test]
async fn a_refusal_challenges_for_every_auth() {
    let pipeline = pipeline(&[], &[&basic(&pool()), &header_keys(), &query_keys()]);
    let (result, _) = admit(&pipeline, &mut head("/", &[])).await;
    let refusal = result.unwrap_err();
    assert_eq!(refusal.status(), StatusCode::UNAUTHORIZED);
    insta::assert_snapshot!(lines(|headers| refusal.decorate(headers)), @r#"
    www-authenticate: Basic realm="the \"ops\"", charset="UTF-8"
    www-authenticate: ApiKey realm="tidegate", header="x-api-key"
    www-authenticate: ApiKey realm="tidegate", query="api_key"
    "#);
}

#[tokio::test]
async fn limits_are_reported_all_with_the_tightest() {
    let (global, ip) = (limit("all", 1_000, LimitKey::Global), limit("per-client", 3, LimitKey::Ip));
    let pipeline = pipeline(&[&global, &ip], &[]);
    let mut seen = String::new();
    for _ in 0..4 {
        let (result, pass) = admit(&pipeline, &mut head("/", &[])).await;
        seen += &lines(|headers| {
            pass.decorate(headers);
            if let Err(refusal) = &result {
                refusal.decorate(headers);
            }
        });
    }
    insta::assert_snapshot!(seen, @r#"
    ratelimit-policy: "all";q=1000;w=86400, "per-client";q=3;w=86400
    ratelimit: "per-client";r=2;t=28800
    ratelimit-policy: "all";q=1000;w=86400, "per-client";q=3;w=86400
    ratelimit: "per-client";r=1;t=28800
    ratelimit-policy: "all";q=1000;w=86400, "per-client";q=3;w=86400
    ratelimit: "per-client";r=0;t=28800
    ratelimit-policy: "all";q=1000;w=86400, "per-client";q=3;w=86400
    ratelimit: "per-client";r=0;t=28800
    retry-after: 28800
    "#);
    assert_eq!(
        counts(&pipeline),
        ["Limit per-client allow  3", "Limit per-client deny  1", "Limit all allow  3"],
        "the narrower limit is asked first, and its refusal spends nothing of the wider one"
    );
}

#[tokio::test]
async fn a_backends_own_limit_fields_stay() {
    let pipeline = pipeline(&[&limit("per-client", 3, LimitKey::Ip)], &[]);
    let (_, pass) = admit(&pipeline, &mut head("/", &[])).await;
    let mut headers = HeaderMap::new();
    headers.insert(RATELIMIT, HeaderValue::from_static("\"backend\";r=1"));
    pass.decorate(&mut headers);
    assert_eq!(headers.get_all(RATELIMIT).iter().count(), 2);
}

#[tokio::test]
async fn limits_stand_before_auth_and_those_by_consumer_behind_it() {
    let (ip, by_key) = (limit("per-client", 4, LimitKey::Ip), limit("per-consumer", 1, LimitKey::Key));
    let pipeline = pipeline(&[&by_key, &ip], &[&header_keys()]);
    let (ann, bob) = ([("x-api-key", "key-of-ann")], [("x-api-key", "second-of-bob")]);
    assert_eq!(who_with(&pipeline, &[]).await, Err("missing".into()), "spends a token of the client");
    assert_eq!(who_with(&pipeline, &ann).await.as_deref(), Ok("ann"));
    let (result, pass) = admit(&pipeline, &mut head("/", &ann)).await;
    let refusal = result.unwrap_err();
    assert!(matches!(&refusal, Refusal::RateLimited { limit, .. } if &**limit == "per-consumer"), "{refusal}");
    assert!(pass.identity.is_some(), "the log knows who was refused");
    assert_eq!(who_with(&pipeline, &bob).await.as_deref(), Ok("bob"));
    assert_eq!(who_with(&pipeline, &[]).await, Err("429 Too Many Requests".into()));
    assert_eq!(
        counts(&pipeline),
        [
            "Limit per-client allow  4",
            "Limit per-client deny  1",
            "Limit per-consumer allow  2",
            "Limit per-consumer deny  1",
            "Auth partners allow  3",
            "Auth partners deny missing 1"
        ]
    );
}

#[tokio::test]
async fn routes_share_a_limiter_and_count_for_themselves() {
    let shared = limit("per-client", 3, LimitKey::Ip);
    let (one, two) = (pipeline(&[&shared], &[]), pipeline(&[&shared], &[]));
    for pipeline in [&one, &two, &two, &one] {
        let _ = admit(pipeline, &mut head("/", &[])).await;
    }
    assert_eq!(counts(&one), ["Limit per-client allow  1", "Limit per-client deny  1"]);
    assert_eq!(counts(&two), ["Limit per-client allow  2"]);
}

#[test]
fn admitting_is_send_and_small() {
    fn size_of_send<T: Send>(value: &T) -> usize {
        size_of_val(value)
    }
    let (pipeline, mut head, mut pass) = (pipeline(&[], &[]), head("/", &[]), Pass::default());
    let admit = pipeline.admit(W, CLIENT, &mut head, &mut pass);
    let size = size_of_send(&admit);
    assert!(size <= 640, "the future of every request carries {size} bytes for this");
}

#[tokio::test]
async fn secrets_are_in_no_debug_output() {
    let pool = pool();
    let (auths, limit) = ([basic(&pool), header_keys()], limit("per-client", 9, LimitKey::Ip));
    let pipeline = pipeline(&[&limit], &[&auths[0], &auths[1]]);
    let right = basic_header("ann:right");
    let mut head = head("/", &[("authorization", right.as_str())]);
    let (result, pass) = admit(&pipeline, &mut head).await;
    let shown = format!("{pipeline:?} {pass:?} {result:?} {head:?} {pool:?}");
    let token = right.split_once(' ').unwrap().1;
    for secret in ["right", "key-of-ann", "argon2", "$2b$", token] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}

mod as_tower_layer {
    use std::convert::Infallible;

    use ::tower::{Layer, ServiceExt, service_fn};
    use http::Response;

    use super::*;
    use crate::layers::tower::{AdmitLayer, ClientAddr};

    async fn backend(request: Request<String>) -> Result<Response<String>, Infallible> {
        let who = request.extensions().get::<Identity>().map_or("nobody", |identity| &identity.consumer);
        let seen = format!("{who} {} {}", request.uri(), request.body());
        Ok(Response::new(seen))
    }

    async fn call(layer: &AdmitLayer, client: &str, uri: &str) -> Response<String> {
        let mut request = Request::builder().uri(uri).body("body".to_owned()).unwrap();
        request.extensions_mut().insert(ClientAddr(client.parse().unwrap()));
        let service = layer.layer(service_fn(backend));
        // Spawned, because the layer is for any runtime: the future must be `Send`.
        tokio::spawn(service.oneshot(request)).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn it_admits_and_refuses_like_the_pipeline() {
        let pipeline = Arc::new(pipeline(&[&limit("per-client", 2, LimitKey::Ip)], &[&query_keys()]));
        let layer = AdmitLayer::new(Arc::clone(&pipeline), W);

        let admitted = call(&layer, "192.0.2.1", "/a?api_key=key-of-ann&b").await;
        assert_eq!((admitted.status(), admitted.body().as_str()), (StatusCode::OK, "ann /a?b body"));
        assert!(admitted.headers().contains_key(RATELIMIT));

        let stranger = call(&layer, "192.0.2.1", "/a").await;
        assert_eq!((stranger.status(), stranger.body().as_str()), (StatusCode::UNAUTHORIZED, ""));
        assert!(stranger.headers().contains_key(WWW_AUTHENTICATE) && stranger.headers().contains_key(RATELIMIT));

        let limited = call(&layer, "192.0.2.1", "/a?api_key=key-of-ann").await;
        assert_eq!(limited.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(limited.headers().contains_key(RETRY_AFTER));

        let other = call(&layer, "192.0.2.2", "/a?api_key=key-of-ann").await;
        assert_eq!(other.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn requests_without_an_address_share_one_bucket() {
        let pipeline = Arc::new(pipeline(&[&limit("per-client", 2, LimitKey::Ip)], &[]));
        let service = AdmitLayer::new(pipeline, W).layer(service_fn(backend));
        let mut statuses = Vec::new();
        for _ in 0..3 {
            let response = service.clone().oneshot(Request::new(String::new())).await.unwrap();
            statuses.push(response.status().as_u16());
        }
        assert_eq!(statuses, [200, 200, 429]);
    }
}
