use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response, Uri, Version};
use http_body_util::BodyExt as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use super::{
    Garbage,
    body::{Decoder, Piece},
    fuzzing::{Understood, understand},
    head::{self, Length},
};

/// By hyper's client.
async fn hypers(method: &Method, text: &[u8]) -> Understood {
    let (near, mut far) = duplex(1024 * 1024);
    let (mut sender, connection) = http1::handshake(TokioIo::new(near)).await.unwrap();
    let driver = tokio::spawn(connection);
    let request = Request::builder().method(method).uri("/").header("host", "a").body(String::new()).unwrap();
    let answered = tokio::spawn(async move {
        let (head, body) = sender.send_request(request).await.ok()?.into_parts();
        let whole = body.collect().await.ok()?;
        let trailers = whole.trailers().cloned().unwrap_or_default();
        Some((head.status.as_u16(), head.headers, whole.to_bytes().to_vec(), trailers))
    });
    let mut asked = [0; 1024];
    assert!(far.read(&mut asked).await.unwrap() > 0);
    far.write_all(text).await.unwrap();
    drop(far);
    let understood = answered.await.unwrap();
    driver.abort();
    understood
}

/// Pieces of responses, right and wrong, to be put together by chance.
fn part() -> impl Strategy<Value = &'static [u8]> {
    let parts: &[&[u8]] = &[
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 204 \r\n",
        b"HTTP/1.1 304 Not\r\n",
        b"HTTP/1.1 103 Early\r\nlink: a\r\n\r\n",
        b"HTTP/1.1 100\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n",
        b"HTTP/2.0 200 OK\r\n",
        b"content-length: 5\r\n",
        b"content-length: 0\r\n",
        b"content-length: +5\r\n",
        b"content-length: 5, 5\r\n",
        b"transfer-encoding: chunked\r\n",
        b"Transfer-Encoding: Chunked \r\n",
        b"transfer-encoding: gzip\r\n",
        b"connection: close\r\n",
        b"x : y\r\n",
        b"x: y\r\n z\r\n",
        b"x:y\n",
        b"\r\n",
        b"\n",
        b"\r",
        b"hello",
        b"5\r\nhello\r\n",
        b"5;x=y\r\nhello\r\n",
        b"5 \r\nhello\r\n",
        b"5;\rx\r\nhello\r\n",
        b"0x5\r\nhello\r\n",
        b"5\nhello\n",
        b"fffffffffffffffff\r\n",
        b"0\r\n",
        b"0\r\n\r\n",
        b"x-sum: 1\r\n",
        b"\0",
    ];
    prop::sample::select(parts.to_vec())
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    let begun = |rest: Vec<&[u8]>| [&b"HTTP/1.1 200 OK\r\n"[..]].into_iter().chain(rest).collect::<Vec<_>>().concat();
    let parts = || prop::collection::vec(part(), 0..8);
    prop_oneof![parts().prop_map(begun), parts().prop_map(|parts| parts.concat())]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// How the bytes come makes no difference to what they say.
    #[test]
    fn pieces_say_what_the_whole_says(text in text(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]);
        let (whole, pieced) = (understand(&Method::GET, [&text[..]]), understand(&Method::GET, pieces));
        prop_assert_eq!(whole.clone().ok().flatten(), pieced.ok().flatten(), "{:?}", text.escape_ascii().to_string());
    }

    /// What we understand, hyper understands the same way. It may understand more: we refuse what it forgives.
    #[test]
    fn hyper_understands_the_same(text in text(), method in prop::sample::select(vec![Method::GET, Method::HEAD])) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let hypers = runtime.block_on(hypers(&method, &text));
        if let Ok(Some(ours)) = understand(&method, [&text[..]]) {
            prop_assert_eq!(Some(ours), hypers, "{:?}", text.escape_ascii().to_string());
        }
    }

    #[test]
    fn nothing_panics(text in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = understand(&Method::GET, [&b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"[..], &text]);
        let _ = understand(&Method::GET, [&text[..]]);
    }
}

fn understood(text: &str) -> Result<Understood, Garbage> {
    understand(&Method::GET, [text.as_bytes()])
}

#[test]
fn bodies_end_where_they_say() {
    let body = |text: &str| understood(text).map(|understood| understood.map(|(_, _, body, _)| body));
    let ok = |text: &str| Ok(Some(text.as_bytes().to_vec()));
    assert_eq!(body("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhello"), ok("he"));
    assert_eq!(body("HTTP/1.1 200 OK\r\n\r\nhello"), ok("hello"));
    assert_eq!(body("HTTP/1.1 204 No\r\ncontent-length: 2\r\n\r\nhello"), ok(""));
    let chunked = |chunks: &str| body(&format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}"));
    assert_eq!(chunked("3\r\nhel\r\nA;x\r\nlo, world!\r\n0\r\n\r\n"), ok("hello, world!"));
    for wrong in [
        "3\r\nhello\r\n0\r\n\r\n",
        "3\r\nhel\r\n",
        "3\r\nhel\r\n0\r\n",
        "3\nhel\n0\n\n",
        "-3\r\nhel\r\n0\r\n\r\n",
        "\r\nhel\r\n0\r\n\r\n",
        "3 x\r\nhel\r\n0\r\n\r\n",
        "3;\rx\r\nhel\r\n0\r\n\r\n",
        "10000000000000000\r\nhel\r\n0\r\n\r\n",
        "0\r\nx y\r\n\r\n",
    ] {
        assert!(chunked(wrong).is_err(), "{wrong:?}");
    }
    assert!(chunked(&format!("3;{}\r\nhel\r\n0\r\n\r\n", "x".repeat(5_000))).is_err());
    assert!(chunked(&format!("0\r\n{}\r\n", "x: y\r\n".repeat(101))).is_err());
    assert!(chunked(&format!("0\r\nx: {}\r\n\r\n", "y".repeat(100_000))).is_err());
    for wrong in ["content-length: 9\r\n", "content-length: 5\r\ncontent-length: 5\r\n", "transfer-encoding: gzip\r\n"]
    {
        assert!(body(&format!("HTTP/1.1 200 OK\r\n{wrong}\r\nhello")).is_err(), "{wrong}");
    }
    assert!(body("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n").is_err());
}

#[test]
fn what_is_wrong_already_is_not_awaited() {
    for wrong in ["SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 2x", "HTTP/2", "HTTP/1.1 200 OK\r\nx y: "] {
        assert!(understood(wrong).is_err(), "{wrong}");
    }
    assert_eq!(understood("HTTP/1.1 200 OK\r\nx:"), Ok(None));
}

#[test]
fn the_end_comes_with_the_last_chunk() {
    let mut decoder = Decoder::of(&Method::GET, http::StatusCode::OK, Version::HTTP_11, &chunked()).unwrap();
    let mut read = BytesMut::from(&b"5\r\nhello\r\n0\r\n\r\n"[..]);
    assert!(matches!(decoder.decode(&mut read, false), Ok(Piece::Data(_))));
    assert!(decoder.is_over() && read.is_empty());
}

fn chunked() -> HeaderMap {
    HeaderMap::from_iter([(http::header::TRANSFER_ENCODING, http::HeaderValue::from_static("chunked"))])
}

#[test]
fn a_request_has_one_framing() {
    let encoded = |request: http::request::Builder, length| {
        let mut out = Vec::new();
        head::encode(&mut out, &request.body(()).unwrap().into_parts().0.into(), length);
        String::from_utf8(out).unwrap()
    };
    let request = || {
        let request = Request::builder().uri("/a?b").header("host", "x");
        request.header("content-length", "7").header("transfer-encoding", "gzip").header("x", "1").header("x", "2")
    };
    insta::assert_snapshot!(encoded(request(), Length::Known(3)), @r"
    GET /a?b HTTP/1.1
    host: x
    x: 1
    x: 2
    content-length: 3
    ");
    assert!(encoded(request(), Length::Chunked).ends_with("x: 2\r\ntransfer-encoding: chunked\r\n\r\n"));
    assert!(encoded(request(), Length::Known(0)).ends_with("x: 2\r\ncontent-length: 0\r\n\r\n"));
    let star = Request::builder().method("OPTIONS").uri(Uri::from_static("*"));
    assert_eq!(encoded(star, Length::Known(0)), "OPTIONS * HTTP/1.1\r\n\r\n");
}

#[test]
fn a_reason_of_its_own_is_kept() {
    let reason = |text: &[u8]| {
        let head = head::parse(&mut BytesMut::from(text)).unwrap().unwrap();
        let response: Response<()> = head.response;
        response.extensions().get::<hyper::ext::ReasonPhrase>().map(|reason| Bytes::copy_from_slice(reason.as_bytes()))
    };
    assert_eq!(reason(b"HTTP/1.1 200 Fine\r\n\r\n"), Some(Bytes::from_static(b"Fine")));
    assert_eq!(reason(b"HTTP/1.1 200 OK\r\n\r\n"), None);
}
