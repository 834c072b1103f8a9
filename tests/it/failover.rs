//! A request that one backend cannot serve goes to another, where that is safe.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use crate::support::{Backend, Gateway, eventually, refusing, route};

const POST: &str = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody";

#[test]
fn a_refused_connection_sends_any_request_elsewhere() {
    let (dead, _socket) = refusing();
    let backend = Backend::start();
    let gateway =
        Gateway::start(format!("workers: 1\n{}", route(&[dead, backend.address()], "retries: { attempts: 0 }")));
    for _ in 0..4 {
        assert_eq!(gateway.send(POST).text(), "hello");
        assert_eq!(gateway.get("/").text(), "hello");
    }
    assert!(backend.requests().iter().filter(|request| request.method() == "POST").all(|post| post.body == b"body"));
    assert_eq!(backend.hits(), 8);
}

#[test]
fn a_kept_connection_that_died_is_no_failure() {
    let backend = Backend::start();
    let gateway = Gateway::start(format!("workers: 1\n{}", route(&[backend.address()], "retries: { attempts: 0 }")));
    for hits in 1..10 {
        assert_eq!(gateway.send(POST).text(), "hello");
        assert_eq!((backend.hits(), backend.connections()), (hits, hits));
        backend.hang_up();
        eventually("the backend has hung up", || backend.open() == 0);
    }
}

#[test]
fn a_backend_that_closes_after_each_response_costs_no_get() {
    let backend = Backend::scripted(|peer, _| {
        peer.respond("200 OK", "bye")?;
        peer.close()
    });
    let gateway = Gateway::start(format!("workers: 1\n{}", route(&[backend.address()], "")));
    let mut client = gateway.connect();
    // At once, so that the close and the next request cross.
    for _ in 0..100 {
        assert_eq!(client.get("/").text(), "bye");
    }
}

/// Two backends, of which the first closes in place of an answer.
fn one_of_two_resets(fields: &str) -> (Backend, Backend, Gateway) {
    let bad = Backend::scripted(|peer, _| {
        peer.read_body()?;
        peer.close()
    });
    let good = Backend::start();
    let gateway = Gateway::start(format!("workers: 1\n{}", route(&[bad.address(), good.address()], fields)));
    (bad, good, gateway)
}

#[test]
fn a_reset_before_the_head_retries_a_get_elsewhere() {
    let (bad, good, gateway) = one_of_two_resets("");
    for _ in 0..6 {
        assert_eq!(gateway.get("/").text(), "hello");
    }
    assert_eq!(good.hits(), 6);
    assert_eq!(bad.hits(), 3);
}

#[test]
fn a_reset_before_the_head_does_not_repeat_a_post() {
    let (bad, good, gateway) = one_of_two_resets("");
    let answers: Vec<u16> = (0..6).map(|_| gateway.send(POST).status()).collect();
    assert_eq!(answers.iter().filter(|status| **status == 502).count(), 3, "{answers:?}");
    assert_eq!((bad.hits(), good.hits()), (3, 3));
    let response = gateway.send(POST);
    let response = if response.status() == 200 { gateway.send(POST) } else { response };
    assert_eq!(response.fault(), (502, "reset_before_headers".to_owned()));
}

#[test]
fn a_get_with_a_body_is_not_repeated_either() {
    let (bad, good, gateway) = one_of_two_resets("");
    for _ in 0..4 {
        gateway.send("GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx");
    }
    assert_eq!((bad.hits(), good.hits()), (2, 2));
}

#[test]
fn no_attempts_means_none() {
    let (bad, good, gateway) = one_of_two_resets("retries: { attempts: 0 }");
    let answers: Vec<u16> = (0..6).map(|_| gateway.get("/").status()).collect();
    assert_eq!(answers.iter().filter(|status| **status == 502).count(), 3, "{answers:?}");
    assert_eq!((bad.hits(), good.hits()), (3, 3));
}

#[test]
fn only_failures_that_the_route_names_are_retried() {
    let (_bad, _good, gateway) = one_of_two_resets("retries: { when: [connect] }");
    let answers: Vec<u16> = (0..4).map(|_| gateway.get("/").status()).collect();
    assert_eq!(answers.iter().filter(|status| **status == 502).count(), 2, "{answers:?}");
}

#[test]
fn when_all_were_tried_the_last_failure_is_told() {
    let (first, _one) = refusing();
    let (second, _other) = refusing();
    let gateway = Gateway::start(route(&[first, second], ""));
    assert_eq!(gateway.get("/").fault(), (502, "connect_refused".to_owned()));
    assert_eq!(gateway.send(POST).fault(), (502, "connect_refused".to_owned()));
}

#[test]
fn a_single_backend_is_asked_once_more() {
    let count = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&count);
    let backend = Backend::scripted(move |peer, _| match seen.fetch_add(1, SeqCst) {
        0 => peer.close(),
        _ => peer.respond("200 OK", "second"),
    });
    let gateway = Gateway::start(route(&[backend.address()], ""));
    assert_eq!(gateway.get("/").text(), "second");
    assert_eq!(backend.hits(), 2);
    backend.behave(|peer, _| peer.close());
    assert_eq!(gateway.get("/").fault(), (502, "reset_before_headers".to_owned()));
    assert_eq!(backend.hits(), 4);
}

#[test]
fn a_reset_is_a_close_too() {
    let backend = Backend::scripted(|peer, _| peer.reset());
    let gateway = Gateway::start(route(&[backend.address()], ""));
    assert_eq!(gateway.get("/").fault(), (502, "reset_before_headers".to_owned()));
}

#[test]
fn an_answer_that_retries_do_not_name_is_never_retried() {
    let backend = Backend::scripted(|peer, _| peer.respond("501 Not Implemented", "what"));
    let other = Backend::scripted(|peer, _| peer.respond("500 Internal Server Error", "broken"));
    let gateway = Gateway::start(format!("workers: 1\n{}", route(&[backend.address(), other.address()], "")));
    for _ in 0..4 {
        assert!(gateway.get("/").status() >= 500);
    }
    assert_eq!((backend.hits(), other.hits()), (2, 2));
}

#[test]
fn what_is_not_http_is_a_bad_response_and_not_retried() {
    for garbage in ["SSH-2.0-OpenSSH_9.6\r\n\r\n", "HTTP/1.1 2000 Yes\r\n\r\n", "HTTP/1.1 200 OK\r\nbad header\r\n\r\n"]
    {
        let backend = Backend::scripted(move |peer, _| {
            peer.write(garbage)?;
            peer.wait_for_close()
        });
        let gateway = Gateway::start(route(&[backend.address()], ""));
        assert_eq!(gateway.get("/").fault(), (502, "bad_response".to_owned()), "{garbage}");
        assert_eq!(backend.hits(), 1);
    }
}

#[test]
fn a_head_that_never_ends_is_a_bad_response() {
    let backend = Backend::scripted(|peer, _| {
        peer.write("HTTP/1.1 200 OK\r\n")?;
        loop {
            peer.write(format!("x-a: {}\r\n", "b".repeat(1000)))?;
        }
    });
    let gateway = Gateway::start(route(&[backend.address()], ""));
    assert_eq!(gateway.get("/").fault(), (502, "bad_response".to_owned()));
}

#[test]
fn interim_responses_without_end_are_no_response() {
    let backend = Backend::scripted(|peer, _| {
        loop {
            peer.write("HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n".repeat(1000))?;
        }
    });
    // No deadline: what ends it is how much came.
    let gateway = Gateway::start(route(&[backend.address()], "timeouts: { request: 0s }"));
    assert_eq!(gateway.get("/").fault(), (502, "bad_response".to_owned()));
    eventually("the backend is let go", || backend.open() == 0);
}

#[test]
fn a_backend_that_switches_protocols_unasked_is_a_bad_response() {
    let backend = Backend::scripted(|peer, _| {
        peer.write("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")?;
        peer.wait_for_close()
    });
    let gateway = Gateway::start(route(&[backend.address()], ""));
    assert_eq!(gateway.get("/").fault(), (502, "bad_response".to_owned()));
}
