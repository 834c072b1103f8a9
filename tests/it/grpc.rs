//! gRPC from end to end: real calls through the gateway, and the gateway's own answers in gRPC's words.

use http::{HeaderMap, Request, Response};

use crate::support::{Act, Authority, Backend, Gateway, Http2Backend, Launch, Server, eventually, ok, python};

fn to(address: std::net::SocketAddr, fields: &str) -> String {
    format!(
        "upstreams: {{ up: {{ backends: [\"{address}\"], protocol: http2, health: none }} }}\n\
         routes: [{{ path: /*, to: up, {fields} }}]\n"
    )
}

#[test]
fn real_calls_pass_in_both_directions() {
    let server = Server::python("grpc_server.py", &[]);
    let gateway = Gateway::start(to(server.address(), ""));
    assert_eq!(python("grpc_client.py", &[&gateway.address().to_string()]).trim(), "all answered");
}

#[test]
fn real_calls_pass_over_tls() {
    let server = Server::python("grpc_server.py", &[]);
    let authority = Authority::new("authority");
    let pair = authority.server(&["gateway.test"], 1);
    let files = Launch::default().file("0.pem", &pair.cert).file("0.key", &pair.key).file("ca.pem", authority.pem());
    let listener = "listeners: { main: { bind: \"127.0.0.1:0\", tls: { certs: [{ cert: 0.pem, key: 0.key }] } } }\n";
    let gateway = files.start(format!("{listener}{}", to(server.address(), "")));
    let ca = gateway.folder().join("ca.pem");
    let said = python("grpc_client.py", &[&gateway.address().to_string(), ca.to_str().unwrap()]);
    assert_eq!(said.trim(), "all answered");
}

/// Calls a method, and returns the head of the answer.
async fn call(gateway: &Gateway, path: &str, headers: &[(&'static str, &str)]) -> Response<()> {
    let socket = tokio::net::TcpStream::connect(gateway.address()).await.unwrap();
    let (client, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post(format!("http://gateway.test{path}")).header("content-type", "application/grpc");
    let request =
        headers.iter().fold(request.header("te", "trailers"), |request, (name, value)| request.header(*name, *value));
    let (response, _) = client.ready().await.unwrap().send_request(request.body(()).unwrap(), true).unwrap();
    let (head, body) = response.await.unwrap().into_parts();
    assert!(body.is_end_stream(), "a head without a body");
    Response::from_parts(head, ())
}

#[tokio::test]
async fn faults_are_statuses_of_grpc() {
    let backend = Http2Backend::start(100, |seen| match seen.head.uri().path() {
        "/late" => Act::Hold,
        _ => Act::Reset(h2::Reason::INTERNAL_ERROR),
    });
    let gone = crate::support::refusing();
    let config = format!(
        "telemetry: {{ access_log: {{}} }}\n\
         upstreams:\n  up: {{ backends: [\"{}\"], protocol: http2, health: none }}\n  gone: {{ backends: [\"{}\"], protocol: http2, health: none }}\n\
         auth: {{ ops: {{ basic: {{ users: {{ amy: \"$2b$04$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy\" }} }} }} }}\n\
         routes:\n  - {{ path: /late, to: up }}\n  - {{ path: /slow, to: up, timeouts: {{ request: 100ms, connect: 50ms }} }}\n  \
         - {{ path: /reset, to: up }}\n  - {{ path: /gone, to: gone }}\n  - {{ path: /secret, to: up, auth: ops }}\n  \
         - {{ path: /once, to: gone, limit: 1/h per ip }}\n",
        backend.address(),
        gone.0
    );
    let gateway = Gateway::start(config);
    call(&gateway, "/once", &[]).await;
    let deadline: &[(&str, &str)] = &[("grpc-timeout", "150m")];
    let cases = [
        ("/late", deadline, "4", "The service did not respond in time."),
        ("/reset", &[], "14", "The service closed the connection without a response."),
        ("/gone", &[], "14", "The service refuses connections."),
        ("/secret", &[], "16", "Valid credentials are required."),
        ("/once", &[], "8", "The limit `/once#1` is spent. Try again in 3600 s."),
        ("/none", &[], "12", "Nothing is served under this host and path."),
    ];
    for (path, headers, status, message) in cases {
        let response = call(&gateway, path, headers).await;
        let said = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(
            (said("grpc-status").as_str(), said("content-type").as_str()),
            (status, "application/grpc"),
            "{path}"
        );
        assert_eq!(said("grpc-message").split(" in 3").next(), message.split(" in 3").next(), "{path}");
    }
    let log = gateway.await_access_log(7);
    assert_eq!((&log[1]["grpc_status"], &log[1]["reason"]), (&4.into(), &"response_timeout".into()));
}

#[tokio::test]
async fn the_status_in_trailers_is_logged() {
    let backend = Http2Backend::start(100, |_| {
        let trailers = HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), "9".parse().unwrap())]);
        Act::Answer(ok("message"), trailers)
    });
    let gateway = Gateway::start(format!("telemetry: {{ access_log: {{}} }}\n{}", to(backend.address(), "")));
    let socket = tokio::net::TcpStream::connect(gateway.address()).await.unwrap();
    let (client, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post("http://a/x").header("content-type", "application/grpc").body(()).unwrap();
    let (response, _) = client.ready().await.unwrap().send_request(request, true).unwrap();
    let mut body = response.await.unwrap().into_body();
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data.unwrap().len()).unwrap();
    }
    assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "9");
    assert_eq!(gateway.await_access_log(1)[0]["grpc_status"], 9);
}

#[test]
fn a_caller_that_speaks_http1_is_told_in_http() {
    let backend = Backend::start();
    let gateway = Gateway::start(to(backend.address(), "").replace("path: /*", "path: /only"));
    let request = "POST /x HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(gateway.send(request).fault(), (404, "no_route".to_owned()));
    eventually("nothing came through", || backend.hits() == 0);
}
