//! A machine that is gone without a word: no FIN, no reset, nobody who would answer. What that costs is bounded by what the config
//! says, and nothing of it is left when the machine is back.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{Backend, Cable, Client, Gate, Gateway, Load, eventually};

const ASK: &str = "GET /tunnel HTTP/1.1\r\nhost: gateway.test\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const AGREE: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                     sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
/// A ping.
const HI: &[u8] = &[0x89, 0x02, b'h', b'i'];
/// A close frame: 1001, `going away`.
const GOING_AWAY: [u8; 4] = [0x88, 0x02, 0x03, 0xe9];

/// What a machine under load may add.
const SLACK: Duration = Duration::from_millis(500);

/// For the head of a response.
const HEAD: Duration = Duration::from_millis(1_500);

/// One route to both, and others to the far one alone.
fn config(far: SocketAddr, near: SocketAddr) -> String {
    let health = "health: { active: { path: /probe, interval: 1s, interval_changing: 200ms, timeout: 500ms, \
                  jitter: 0% }, passive: none }";
    format!(
        "admin: {{ bind: \"127.0.0.1:0\" }}
workers: 1
telemetry: {{ access_log: {{}} }}
upstreams:
  both: {{ backends: [\"{far}\", \"{near}\"], {health} }}
  lone: {{ backends: [\"{far}\"], {health} }}
routes:
  - {{ path: /lone, to: lone, timeouts: {{ connect: 400ms }} }}
  - {{ path: /endless, to: lone, timeouts: {{ request: 0s }} }}
  - {{ path: /tunnel, to: lone, timeouts: {{ tunnel: 5s }} }}
  - {{ path: /tunnel/lasting, to: lone }}
  - {{ path: /*, to: both, timeouts: {{ connect: 300ms, response_header: 1500ms }} }}
"
    )
}

/// The backend behind the cable. It tells of probes, holds `/slow`, and agrees to tunnels, in which it pings once.
struct Far {
    // Dropped first: nobody waits then for a machine that does not answer.
    cable: Cable,
    backend: Backend,
    is_probed: Arc<AtomicBool>,
    slow: Gate,
}

impl Far {
    fn behind(cable: Cable) -> Self {
        let (is_probed, slow) = (Arc::<AtomicBool>::default(), Gate::default());
        let (probed, held) = (Arc::clone(&is_probed), slow.clone());
        let backend = cable.backend(move |peer, request| match request.target() {
            "/probe" if probed.swap(true, SeqCst) => peer.respond("200 OK", ""),
            // The first since somebody asked is answered late, so that the cable is cut before.
            "/probe" => {
                thread::sleep(Duration::from_millis(200));
                peer.respond("200 OK", "")
            }
            "/slow" => {
                held.wait()?;
                peer.respond("200 OK", "far")
            }
            "/tunnel" | "/tunnel/lasting" => {
                peer.write([AGREE.as_bytes(), HI].concat())?;
                peer.wait_for_close()
            }
            "/endless" => {
                peer.write("HTTP/1.1 200 OK\r\n\r\nhi")?;
                peer.wait_for_close()
            }
            _ => peer.respond("200 OK", "far"),
        });
        Self { cable, backend, is_probed, slow }
    }

    fn address(&self) -> SocketAddr {
        self.backend.address()
    }

    /// Cuts the cable in the middle of a probe; returns when.
    fn cut(&self) -> Instant {
        self.is_probed.store(false, SeqCst);
        eventually("a probe is under way", || self.is_probed.load(SeqCst));
        self.cable.cut();
        Instant::now()
    }
}

/// What the admin API says of the far backend.
fn known(gateway: &Gateway, upstream: &str, far: SocketAddr) -> Value {
    gateway.ask_admin(&format!("/api/v1/upstreams/{upstream}/backends/{far}")).json()
}

/// A span that the document says.
fn span(known: &Value, name: &str) -> Duration {
    Duration::from_secs_f64(known["detection"][name].as_f64().unwrap())
}

/// Waits until it is in this state, and returns when.
#[track_caller]
fn await_state(gateway: &Gateway, upstream: &str, backend: SocketAddr, state: &str) -> Instant {
    eventually(&format!("{backend} of {upstream} is {state}"), || known(gateway, upstream, backend)["state"] == state);
    Instant::now()
}

fn tunnel(gateway: &Gateway, path: &str) -> Client {
    let mut client = gateway.connect();
    assert_eq!(client.send(ASK.replace("/tunnel", path)).head().status(), 101);
    assert_eq!(client.read(HI.len()), HI);
    client
}

/// A request that the far backend has, and does not answer.
fn slow(gateway: &Gateway, far: &Far) -> Client {
    let has = || far.backend.requests().iter().any(|request| request.target() == "/slow");
    // Every second one is its.
    let mut asked: Vec<Client> = (0..2).map(|_| gateway.connect()).collect();
    for client in &mut asked {
        client.send("GET /slow HTTP/1.1\r\nhost: a\r\n\r\n");
    }
    eventually("the far one has a slow request", has);
    let near = asked.iter_mut().position(|client| {
        client.stream().set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        client.stream().peek(&mut [0]).is_ok()
    });
    asked.swap_remove(1 - near.expect("the other one was answered"))
}

#[test]
fn a_machine_that_vanishes_is_out_and_comes_back() {
    let Some(cable) = Cable::of(a_machine_that_vanishes_is_out_and_comes_back) else { return };
    let (far, near) = (Far::behind(cable), Backend::named("near"));
    let gateway = Gateway::start(config(far.address(), near.address()));
    for (upstream, backend) in [("both", near.address()), ("both", far.address()), ("lone", far.address())] {
        await_state(&gateway, upstream, backend, "up");
    }
    let open = |upstream: &str| known(&gateway, upstream, far.address())["connections"].as_u64().unwrap();

    // It is idle in the pool, in a tunnel and probed, and it has requests.
    let load = Load::steady(4, 100).get(gateway.address(), "/");
    load.goes_on_for(50);
    let mut talk = tunnel(&gateway, "/tunnel");
    let cut = far.cut();
    let (kept, began) = (open("both"), known(&gateway, "both", far.address()));
    assert!(kept > 0, "{began}");

    let down = await_state(&gateway, "both", far.address(), "down") - cut;
    assert!(down <= span(&began, "out_s") + SLACK, "down after {down:?}");
    let known_now = known(&gateway, "both", far.address());
    assert_eq!(known_now["reason"], "connect_timeout", "{known_now:#}");
    let failed: Vec<&Value> =
        known_now["probes"].as_array().unwrap().iter().filter(|probe| probe["result"] == "fail").collect();
    assert_eq!(failed.last().unwrap()["reason"], "timeout", "the one that was under way: {known_now:#}");

    // From here on it costs nobody anything. Until then it has cost one request for each connection that was open.
    let account = load.stop();
    assert!(account.unanswered.is_empty() && account.statuses.keys().all(|status| [200, 504].contains(status)));
    assert!(account.with(504) <= kept, "{kept} were open: {account:#?}");
    for _ in 0..10 {
        let began = Instant::now();
        assert_eq!(gateway.get("/").text(), "near");
        assert!(began.elapsed() < HEAD, "{:?}", began.elapsed());
    }

    // The tunnel has said nothing for too long.
    assert_eq!(talk.read(4), GOING_AWAY);
    eventually("the tunnel is nobody's any more", || open("lone") == 0);
    let of = |path: &'static str| gateway.access_log().into_iter().filter(move |line| line["path"] == path);
    eventually("its end is in the log", || of("/tunnel").next().is_some());
    assert_eq!(of("/tunnel").next().unwrap()["reason"], "tunnel_timeout");
    let lost: Vec<Value> = of("/").filter(|line| line["status"] != 200).collect();
    assert!(lost.iter().all(|line| line["reason"] == "response_timeout"), "{lost:#?}");

    far.cable.mend();
    let mended = Instant::now();
    let back = await_state(&gateway, "both", far.address(), "up") - mended;
    assert!(back <= span(&began, "back_s") + SLACK, "back after {back:?}");
    eventually("it gets traffic", || gateway.get("/").text() == "far");
    assert!(open("both") <= kept, "{} instead of {kept}", open("both"));
    // One may be a probe's.
    eventually("it has been told what has ended", || far.backend.open() as u64 <= open("both") + open("lone") + 1);
}

#[test]
fn a_request_in_flight_ends_in_its_time() {
    let Some(cable) = Cable::of(a_request_in_flight_ends_in_its_time) else { return };
    let (far, near) = (Far::behind(cable), Backend::named("near"));
    let gateway = Gateway::start(config(far.address(), near.address()));
    for backend in [near.address(), far.address()] {
        await_state(&gateway, "both", backend, "up");
    }
    let began = Instant::now();
    let mut asked = slow(&gateway, &far);
    far.cable.cut();
    asked.stream().set_read_timeout(Some(2 * HEAD)).unwrap();
    assert_eq!(asked.response().fault(), (504, "response_timeout".to_owned()));
    assert!(began.elapsed() <= HEAD + SLACK, "{:?}", began.elapsed());
    let known = || known(&gateway, "both", far.address());
    eventually("nobody waits any more", || known()["in_flight"] == 0);
    far.cable.mend();
    far.slow.open();
    eventually("it is told", || far.backend.open() <= 1);
}

#[test]
fn a_machine_that_the_network_does_not_know_is_unreachable() {
    let Some(cable) = Cable::of(a_machine_that_the_network_does_not_know_is_unreachable) else { return };
    let (far, near) = (Far::behind(cable), Backend::named("near"));
    let gateway = Gateway::start(config(far.address(), near.address()));
    for (upstream, backend) in [("both", near.address()), ("both", far.address()), ("lone", far.address())] {
        await_state(&gateway, upstream, backend, "up");
    }
    far.cable.vanish();
    let vanished = Instant::now();
    // Of what was not sent nothing is lost, whatever the method.
    for method in ["GET", "POST", "GET", "POST"] {
        let request = format!("{method} / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(gateway.send(request).text(), "near");
    }
    assert_eq!(gateway.get("/lone").fault(), (502, "connect_failed".to_owned()));
    let down = await_state(&gateway, "both", far.address(), "down") - vanished;
    let known = known(&gateway, "both", far.address());
    assert!(down <= span(&known, "out_s") + SLACK, "down after {down:?}");
    assert_eq!(known["reason"], "unreachable", "{known:#}");
    assert_eq!((&known["connections"], &known["in_flight"]), (&0.into(), &0.into()));

    far.cable.mend();
    let mended = Instant::now();
    let back = await_state(&gateway, "both", far.address(), "up") - mended;
    assert!(back <= span(&known, "back_s") + SLACK, "back after {back:?}");
    eventually("it gets traffic", || gateway.get("/").text() == "far");
}

/// Nobody says anything on these, so nobody would find out: the system asks. It takes a minute, which only the long form waits for.
#[test]
fn what_waits_for_a_machine_that_vanished_ends() {
    let Some(cable) = Cable::of(what_waits_for_a_machine_that_vanished_ends) else { return };
    let (far, near) = (Far::behind(cable), Backend::named("near"));
    let gateway = Gateway::start(config(far.address(), near.address()));
    await_state(&gateway, "lone", far.address(), "up");
    let mut silent = tunnel(&gateway, "/tunnel/lasting");
    let mut talks = tunnel(&gateway, "/tunnel/lasting");
    let mut endless = gateway.connect();
    assert_eq!(endless.send("GET /endless HTTP/1.1\r\nhost: a\r\n\r\n").head().status(), 200);
    let watched = || far.cable.connections().lines().filter(|line| line.contains("timer:(keepalive")).count();
    eventually("all three are watched", || watched() == 3);
    if !crate::drills::is_long() {
        return;
    }
    far.cable.cut();
    let cut = Instant::now();
    talks.send("are you there?");
    for (what, client) in [("talks", &mut talks), ("silent", &mut silent), ("endless", &mut endless)] {
        client.stream().set_read_timeout(Some(Duration::from_secs(90))).unwrap();
        client.rest();
        eprintln!("{what}: ended {:.1} s after the cut", cut.elapsed().as_secs_f64());
        assert!(cut.elapsed() < Duration::from_secs(80));
    }
    eventually("none is left", || known(&gateway, "lone", far.address())["connections"] == 0);
}
