//! Connections to backends: kept while they are of use, never more than allowed, shared fairly.

use std::{
    net::Shutdown,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use crate::support::{Backend, Gate, Gateway, eventually, route, upstream};

#[test]
fn connections_are_used_again() {
    let backend = Backend::start();
    let gateway = Gateway::start(format!("workers: 1\n{}", route(&[backend.address()], "")));
    for _ in 0..5 {
        assert_eq!(gateway.get("/").status(), 200);
        let mut client = gateway.connect();
        assert_eq!(client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi").response().status(), 200);
    }
    assert_eq!((backend.hits(), backend.connections()), (10, 1));
}

#[test]
fn a_connection_is_used_again_only_after_the_body_has_ended() {
    let gate = Gate::default();
    let hold = gate.clone();
    let backend = Backend::scripted(move |peer, request| match request.target() {
        "/slow" => {
            peer.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\na")?;
            hold.wait()?;
            peer.write("b")
        }
        _ => peer.respond("200 OK", "fast"),
    });
    let gateway = Gateway::start(format!("workers: 1\n{}", route(&[backend.address()], "")));
    let mut slow = gateway.connect();
    slow.send("GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").head();
    assert_eq!(gateway.get("/").text(), "fast");
    assert_eq!(backend.connections(), 2);
    gate.open();
    assert_eq!(slow.read(2), b"ab");
    assert_eq!(gateway.get("/").text(), "fast");
    assert_eq!(backend.connections(), 2);
}

#[test]
fn a_connection_whose_response_came_before_the_end_of_the_request_is_not_used_again() {
    let backend = Backend::scripted(|peer, request| {
        if request.method() == "GET" {
            return peer.respond("200 OK", "hello");
        }
        peer.write("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno")?;
        peer.wait_for_close()
    });
    let gateway = Gateway::start(format!("workers: 1\n{}", route(&[backend.address()], "")));
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\nsome of it");
    let response = client.response();
    assert_eq!((response.status(), response.text()), (403, "no"));
    eventually("that connection is closed", || backend.open() == 0);
    assert_eq!(gateway.get("/").text(), "hello");
    assert_eq!(backend.connections(), 2);
}

#[test]
fn what_the_client_still_sends_after_an_early_response_is_no_request() {
    let backend = Backend::scripted(|peer, request| {
        if request.method() == "GET" {
            return peer.respond("200 OK", "hello");
        }
        peer.write("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno")?;
        peer.wait_for_close()
    });
    let gateway = Gateway::start(route(&[backend.address()], ""));
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n");
    assert_eq!(client.response().status(), 403);
    client.send("GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.finish().rest(), "");
    assert!(backend.requests().iter().all(|request| request.target() != "/smuggled"));
}

/// A backend that remembers how many requests it ever had at once.
fn counting() -> (Backend, Arc<AtomicUsize>) {
    let (now, most) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&most);
    let backend = Backend::scripted(move |peer, _| {
        seen.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
        thread::yield_now();
        now.fetch_sub(1, SeqCst);
        peer.respond("200 OK", "hello")
    });
    (backend, most)
}

#[test]
fn no_more_connections_than_allowed_over_all_workers_and_everybody_is_served() {
    let (backend, most) = counting();
    let gateway = Gateway::start(format!("workers: 4\n{}", upstream(&[backend.address()], "max_connections: 2")));
    thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                let mut client = gateway.connect();
                for _ in 0..25 {
                    assert_eq!(client.get("/").text(), "hello");
                }
            });
        }
    });
    assert_eq!(backend.hits(), 300);
    assert!(most.load(SeqCst) <= 2, "{most:?} at once");
}

#[test]
fn a_worker_is_not_starved_by_the_idle_connections_of_another() {
    let backend = Backend::start();
    let gateway = Gateway::start(format!("workers: 4\n{}", upstream(&[backend.address()], "max_connections: 1")));
    // Each client lands on some worker; the only connection has to follow.
    for _ in 0..40 {
        assert_eq!(gateway.get("/").text(), "hello");
    }
    eventually("one connection is open", || backend.open() <= 1);
}

#[test]
fn who_waits_for_a_connection_in_vain_is_told() {
    let gate = Gate::default();
    let hold = gate.clone();
    let backend = Backend::scripted(move |peer, _| {
        hold.wait()?;
        peer.respond("200 OK", "hello")
    });
    let gateway = Gateway::start(format!(
        "defaults: {{ timeouts: {{ connect: 300ms }} }}\n{}",
        upstream(&[backend.address()], "max_connections: 1")
    ));
    let mut first = gateway.connect();
    first.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    eventually("the first has the connection", || backend.hits() == 1);
    assert_eq!(gateway.get("/").fault(), (504, "connect_timeout".to_owned()));
    gate.open();
    assert_eq!(first.response().text(), "hello");
    assert_eq!(gateway.get("/").text(), "hello");
}

#[test]
fn requests_in_flight_are_limited_until_their_bodies_end() {
    let gate = Gate::default();
    let hold = gate.clone();
    let backend = Backend::scripted(move |peer, request| match request.target() {
        "/slow" => {
            peer.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\na")?;
            hold.wait()?;
            peer.write("b")
        }
        _ => peer.respond("200 OK", "fast"),
    });
    let gateway = Gateway::start(upstream(&[backend.address()], "max_in_flight: 1"));
    let mut slow = gateway.connect();
    slow.send("GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").head();
    assert_eq!(gateway.get("/").fault(), (503, "overloaded".to_owned()));
    gate.open();
    assert_eq!(slow.read(2), b"ab");
    eventually("its place is free", || gateway.get("/").status() == 200);
}

#[test]
fn a_full_backend_is_passed_over_for_one_with_room() {
    let gate = Gate::default();
    let hold = gate.clone();
    let full = Backend::scripted(move |peer, _| {
        hold.wait()?;
        peer.respond("200 OK", "full")
    });
    let free = Backend::named("free");
    let gateway =
        Gateway::start(format!("workers: 1\n{}", upstream(&[full.address(), free.address()], "max_in_flight: 1")));
    let mut held = gateway.connect();
    // Whose turn is first is chance.
    for asked in 1..=2 {
        if full.hits() == 0 {
            held = gateway.connect();
            held.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
            eventually("one of them has it", || full.hits() + free.hits() == asked);
        }
    }
    for _ in 0..4 {
        assert_eq!(gateway.get("/").text(), "free");
    }
    gate.open();
    assert!(held.response().is_whole);
}

#[test]
fn idle_connections_expire() {
    let backend = Backend::start();
    let gateway =
        Gateway::start(format!("defaults: {{ timeouts: {{ idle: 100ms }} }}\n{}", route(&[backend.address()], "")));
    assert_eq!(gateway.get("/").status(), 200);
    eventually("the connection is closed", || backend.open() == 0);
    assert_eq!(gateway.get("/").status(), 200);
}

#[test]
fn no_more_idle_connections_are_kept_than_allowed() {
    let gate = Gate::default();
    let hold = gate.clone();
    let backend = Backend::scripted(move |peer, _| {
        hold.wait()?;
        peer.respond("200 OK", "hello")
    });
    let gateway = Gateway::start(format!("workers: 1\n{}", upstream(&[backend.address()], "max_idle_connections: 2")));
    let mut clients: Vec<_> = (0..6).map(|_| gateway.connect()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    }
    eventually("all are under way", || backend.open() == 6);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response().text(), "hello");
    }
    eventually("two are kept", || backend.open() == 2);
}

#[test]
fn connections_of_a_backend_that_was_removed_drain() {
    let gate = Gate::default();
    let hold = gate.clone();
    let gone = Backend::scripted(move |peer, _| {
        peer.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\na")?;
        hold.wait()?;
        peer.write("b")
    });
    let stays = Backend::named("stays");
    let gateway = Gateway::start(format!("workers: 2\n{}", upstream(&[gone.address()], "")));
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").head();
    assert_eq!(gateway.edit(format!("workers: 2\n{}", upstream(&[stays.address()], "")))["event"], "reload");
    assert_eq!(gateway.get("/").text(), "stays");
    assert_eq!(gone.open(), 1);
    gate.open();
    assert_eq!(client.read(2), b"ab");
    eventually("its connection is closed", || gone.open() == 0);
}

#[test]
fn a_client_that_leaves_takes_its_request_to_the_backend_with_it() {
    let backend = Backend::scripted(|peer, request| {
        if request.target() == "/head" {
            peer.write("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")?;
        }
        peer.wait_for_close()
    });
    let gateway = Gateway::start(upstream(&[backend.address()], "max_in_flight: 1"));
    for path in ["/", "/head"] {
        let hits = backend.hits();
        let mut client = gateway.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n"));
        eventually("the backend has the request", || backend.hits() > hits);
        let left = std::time::Instant::now();
        client.stream().shutdown(Shutdown::Both).unwrap();
        eventually("the backend is let go", || backend.open() == 0);
        assert!(left.elapsed().as_millis() < 1000, "{path}: after {:?}", left.elapsed());
    }
}
