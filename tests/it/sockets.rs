//! What a listener listens on, who holds it, and what happens when there is no socket left to give.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _},
        net::UnixListener,
    },
    path::Path,
    process::Command,
};

use rustix::process::Signal;

use crate::support::{Backend, Client, Gateway, Launch, Load, eventually, own_address, route, spare_address, upstream};

fn listener(bind: &str, fields: &str) -> String {
    format!("listeners: {{ main: {{ bind: \"{bind}\"{fields} }} }}\n")
}

fn inode(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

fn this_process() -> String {
    let name = fs::read_to_string("/proc/self/comm").unwrap();
    format!("{} (pid {})", name.trim(), std::process::id())
}

#[test]
fn a_unix_socket_serves_like_any_listener() {
    let backend = Backend::start();
    let log = "telemetry: { access_log: {} }\n";
    let config = format!("workers: 2\n{log}{}{}", listener("unix:http.sock", ""), route(&[backend.address()], ""));
    let gateway = Gateway::start(config);
    let path = gateway.folder().join("http.sock");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
    gateway.await_event("where it listens", |event| event["detail"] == format!("main unix:{}", path.display()));
    let mut clients: Vec<Client> = (0..20).map(|_| Client::unix(&path)).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").text(), "hello");
        assert_eq!(client.get("/").text(), "hello");
    }
    assert_eq!(backend.requests()[0].header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(gateway.await_access_log(40)[0]["client"], "127.0.0.1:0");
    drop(clients);
    assert_eq!(gateway.stop(), 0);
}

#[test]
fn a_socket_file_goes_with_its_gateway_and_one_of_the_dead_is_replaced() {
    let backend = Backend::start();
    let folder = tempfile::tempdir().unwrap();
    let (http, admin) = (folder.path().join("http.sock"), folder.path().join("admin.sock"));
    let config = format!(
        "admin: {{ bind: \"unix:{}\", socket_mode: \"0600\" }}\n{}{}",
        admin.display(),
        listener(&format!("unix:{}", http.display()), ""),
        route(&[backend.address()], "")
    );
    let mut killed = Gateway::start(&config);
    let (code, said) = Launch::default().refused(&config);
    let holder = format!("unix:{} is in use by tidegate (pid {})", http.display(), killed.pid());
    assert!(code == 2 && said.contains(&holder), "{code}: {said}");
    assert_eq!(Client::unix(&http).get("/").status(), 200);

    killed.signal(Signal::KILL);
    killed.await_end();
    assert!(http.exists() && admin.exists());
    let gateway = Gateway::start(&config);
    assert_eq!(Client::unix(&http).get("/").status(), 200);
    assert_eq!(fs::metadata(&admin).unwrap().mode() & 0o777, 0o600);
    assert_eq!(gateway.stop(), 0);
    assert!(!http.exists() && !admin.exists());
}

#[test]
fn a_file_that_is_no_socket_is_kept() {
    let launch = Launch::default().file("http.sock", "precious");
    let path = launch.folder().join("http.sock");
    let (code, said) =
        launch.refused(format!("{}{}", listener("unix:http.sock", ""), route(&["127.0.0.1:9".parse().unwrap()], "")));
    assert!(code == 2 && said.contains(&format!("{} exists and is not a socket", path.display())), "{code}: {said}");
}

#[test]
fn an_edit_leaves_a_socket_that_it_does_not_name_and_changes_who_may_connect() {
    let backend = Backend::start();
    let config = |fields: &str, more: &str| {
        format!(
            "listeners: {{ main: {{ bind: \"unix:http.sock\"{fields} }}{more} }}\n{}",
            route(&[backend.address()], "")
        )
    };
    let gateway = Gateway::start(config("", ""));
    let (path, other) = (gateway.folder().join("http.sock"), gateway.folder().join("other.sock"));
    let (before, mut client) = (inode(&path), Client::unix(&path));
    client.get("/");
    let more = ", more: { bind: \"unix:other.sock\" }";
    assert_eq!(gateway.edit(config(", socket_mode: \"0666\"", more))["event"], "reload");
    assert_eq!((inode(&path), fs::metadata(&path).unwrap().mode() & 0o777), (before, 0o666));
    assert_eq!(client.get("/").text(), "hello");
    assert_eq!(Client::unix(&other).get("/").text(), "hello");
    assert_eq!(gateway.edit(config("", ""))["event"], "reload");
    eventually("its file is gone", || !other.exists());

    // One that is in the way refuses the edit, which leaves nothing behind.
    let _holder = UnixListener::bind(&other).unwrap();
    let both = ", a: { bind: \"unix:another.sock\" }, more: { bind: \"unix:other.sock\" }";
    let refused = gateway.edit(config("", both));
    assert_eq!(refused["event"], "refused");
    assert!(refused["findings"].to_string().contains(&format!("in use by {}", this_process())), "{refused}");
    assert!(fs::symlink_metadata(&other).unwrap().file_type().is_socket());
    assert!(!gateway.folder().join("another.sock").exists());
    assert_eq!(client.get("/").text(), "hello");
}

#[test]
fn the_admin_answers_on_a_unix_socket() {
    let backend = Backend::start();
    let gateway = Gateway::start(format!(
        "admin: {{ bind: \"unix:admin.sock\" }}\n{}",
        route(&[backend.address()], "name: shop")
    ));
    let path = gateway.folder().join("admin.sock");
    let ask = |host: &str| {
        let request = format!("GET /livez HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        Client::unix(&path).send(request).response().status()
    };
    // No page of a browser gets here: any name is good.
    assert_eq!((ask("localhost"), ask("tidegate")), (200, 200));
    let named = format!("unix:{}", path.display());
    let config = gateway.config();
    for args in [&["--admin", &named][..], &["-c", config.to_str().unwrap()]] {
        let output = Command::new(env!("CARGO_BIN_EXE_tidegate")).arg("status").args(args).output().unwrap();
        let table = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && table.contains(&backend.address().to_string()), "{table}");
    }
    assert_eq!(gateway.stop(), 0);
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate")).args(["status", "--admin", &named]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&format!("no tidegate answers at {named}: no such file")), "{said}");
}

#[test]
fn a_port_that_is_taken_names_who_holds_it() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let to_nowhere = route(&["127.0.0.1:9".parse().unwrap()], "");
    for taken in [format!("127.0.0.1:{port}"), format!("0.0.0.0:{port}"), format!("[::]:{port}")] {
        let (code, said) = Launch::default().refused(listener(&taken, "") + &to_nowhere);
        let expected = format!("`listeners.main.bind`: port {port} is in use by {}: stop it", this_process());
        assert!(code == 2 && said.contains(&expected), "{taken}: {code}: {said}");
    }
    let backend = Backend::start();
    let gateway = Gateway::start(route(&[backend.address()], ""));
    let refused = gateway.edit(listener(&format!("127.0.0.1:{port}"), "") + &to_nowhere);
    let expected = format!("listener `main`: port {port} is in use by {}", this_process());
    assert!(refused["findings"].to_string().contains(&expected), "{refused}");
    assert_eq!(gateway.get("/").text(), "hello");
}

#[test]
fn an_address_that_cannot_be_had_says_why() {
    let to_nowhere = route(&["127.0.0.1:9".parse().unwrap()], "");
    let (code, said) = Launch::default().refused(listener("192.0.2.1:8080", "") + &to_nowhere);
    assert!(code == 2 && said.contains("192.0.2.1 is not an address of this machine"), "{code}: {said}");
    let (code, said) = Launch::default().refused(listener("unix:no/http.sock", "") + &to_nowhere);
    assert!(code == 2 && said.contains("there is no folder"), "{code}: {said}");

    let first_free = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if first_free.trim() != "1024" {
        eprintln!("every port is free on this machine: nothing to refuse");
        return;
    }
    let launch = match rustix::process::getuid().is_root() {
        true => Launch::default().under(&["setpriv", "--bounding-set=-net_bind_service"]),
        false => Launch::default(),
    };
    let (code, said) = launch.refused(listener("127.0.0.1:81", "") + &to_nowhere);
    assert!(code == 2 && said.contains("not allowed to bind port 81: give the process CAP_NET_BIND_SERVICE"), "{said}");
}

/// Every edit takes the place of a listener that is in its own way, and clients come all the time.
#[test]
fn a_listener_grows_and_shrinks_over_its_own_address_under_load() {
    let backend = Backend::start();
    let narrow = spare_address();
    let wide = |ip: &str| format!("{ip}:{}", narrow.port());
    let config = |bind: &str| listener(bind, "") + &route(&[backend.address()], "");
    let gateway = Gateway::start(config(&narrow.to_string()));
    let elsewhere = SocketAddr::from(([127, 0, 0, 2], narrow.port()));
    assert!(TcpStream::connect(elsewhere).is_err());

    let ask = |_| "GET / HTTP/1.1\r\nhost: shop.test\r\nconnection: close\r\n\r\n".to_owned();
    let load = Load::relentless(4).start(narrow, ask);
    for bind in [wide("0.0.0.0"), wide("[::]")] {
        load.goes_on_for(100);
        let event = gateway.edit(config(&bind));
        assert_eq!(event["event"], "reload", "{bind}: {event}");
        assert_eq!(Client::connect(elsewhere).get("/").text(), "hello");
        load.goes_on_for(100);
    }
    load.stop().assert_flawless();

    assert_eq!(gateway.edit(config(&narrow.to_string()))["event"], "reload");
    eventually("it is for one address again", || TcpStream::connect(elsewhere).is_err());
    assert_eq!(Client::connect(narrow).get("/").text(), "hello");
    assert_eq!(gateway.edit(config(&wide("0.0.0.0")))["event"], "reload");
    assert_eq!(Client::connect(narrow).get("/").text(), "hello");
    assert_eq!(gateway.stop(), 0);
    assert!(TcpStream::connect(narrow).is_err());
}

#[test]
fn a_port_of_the_admin_is_taken_until_a_restart() {
    let backend = Backend::start();
    let admin = own_address();
    let config = |listener: &str, admin: &str| {
        format!("admin: {{ bind: \"{admin}\" }}\n{listener}{}", route(&[backend.address()], ""))
    };
    let gateway = Gateway::start(config("", &admin.to_string()));
    let refused = gateway.edit(config(&listener(&admin.to_string(), ""), "127.0.0.1:9"));
    assert_eq!(refused["event"], "refused");
    let findings = refused["findings"].to_string();
    assert!(findings.contains("port 8080 is in use by this gateway") && findings.contains(".yaml:3:1"), "{refused}");
}

#[test]
fn ipv6_is_spoken_and_every_address_takes_both() {
    let backend = Backend::start();
    let config = |bind: &str| {
        let log = "telemetry: { access_log: {} }\n";
        let fields = ", trusted_proxies: [127.0.0.0/8]";
        format!("{log}{}{}", listener(bind, fields), route(&[backend.address()], ""))
    };
    let gateway = Gateway::start(config("[::1]:0"));
    assert_eq!(gateway.address().ip().to_string(), "::1");
    assert_eq!(gateway.get("/").text(), "hello");
    assert!(gateway.await_access_log(1)[0]["client"].as_str().unwrap().starts_with("[::1]:"));

    let gateway = Gateway::start(config("[::]:0"));
    let port = gateway.address().port();
    let ask = "GET / HTTP/1.1\r\nhost: shop.test\r\nx-forwarded-for: 203.0.113.7\r\n\r\n";
    for ip in ["[::1]", "127.0.0.1"] {
        let address = format!("{ip}:{port}").parse().unwrap();
        assert_eq!(Client::connect(address).send(ask).response().text(), "hello");
    }
    // The client of IPv4 matches a network of IPv4.
    let seen = backend.requests();
    let seen: Vec<_> = seen.iter().skip(1).map(|request| request.header("x-forwarded-for").unwrap()).collect();
    assert_eq!(seen, ["::1", "203.0.113.7, 127.0.0.1"]);
}

#[test]
fn running_out_of_descriptors_costs_no_spin_and_passes() {
    let backend = Backend::start();
    let launch = Launch::default().under(&["prlimit", "--nofile=96:96"]);
    let gateway = launch.start(format!("workers: 2\n{}", upstream(&[backend.address()], "")));
    // Each worker has a connection to the backend before there is none left to give.
    let mut served: Vec<Client> = (0..8).map(|_| gateway.connect()).collect();
    served.iter_mut().for_each(|client| assert_eq!(client.get("/").text(), "hello"));
    let idle: Vec<Client> = (0..200).map(|_| gateway.connect()).collect();
    gateway.await_event("it is told", |event| event["reason"] == "accept_failed");

    let (began, before) = (std::time::Instant::now(), gateway.cpu_ticks());
    while began.elapsed().as_secs() < 1 {
        for client in &mut served {
            assert_eq!(client.get("/").text(), "hello");
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let ticks = gateway.cpu_ticks() - before;
    assert!(ticks < 30, "{ticks} hundredths of a second for a second of little");

    drop(idle);
    for _ in 0..10 {
        assert_eq!(gateway.get("/").text(), "hello");
    }
    let complaints = gateway.events(|event| event["reason"] == "accept_failed").len();
    assert!(complaints <= 4, "{complaints} complaints");
}

#[test]
fn the_soft_limit_of_descriptors_is_raised() {
    let backend = Backend::start();
    let launch = Launch::default().under(&["prlimit", "--nofile=64:512"]);
    let gateway = launch.start(upstream(&[backend.address()], ""));
    let limits = fs::read_to_string(format!("/proc/{}/limits", gateway.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(line.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["512", "512"]);
}
