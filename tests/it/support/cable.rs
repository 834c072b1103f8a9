//! A machine of its own, at the other end of a cable that can be cut.
//!
//! Both ends are network namespaces: the test goes on in one, with nothing but a loopback and the cable, and the machine is the
//! other. Both end with the processes that are in them, whatever happens; nothing of the machine that the tests run on is changed.

use std::{
    any::type_name,
    env,
    fs::{self, File},
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::fd::AsFd as _,
    process::{Child, Command, Output, Stdio},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{Backend, Peer, Received, eventually};

/// The cable, and the machine behind it, which is gone with this.
pub struct Cable {
    // Keeps the machine's network as long as it lives.
    machine: Child,
}

// Of a range that is for documentation (RFC 5737).
const HERE: End = End { device: "near", address: "198.51.100.1", hardware: "02:00:00:00:00:01" };
const THERE: End = End { device: "far", address: "198.51.100.2", hardware: "02:00:00:00:00:02" };
const NOBODY: &str = "02:00:00:00:00:ff";

struct End {
    device: &'static str,
    address: &'static str,
    hardware: &'static str,
}

/// Set for the process in which a test goes on.
const IS_APART: &str = "TIDEGATE_IS_APART";
/// Set by `tests/run` where this machine allows no namespaces.
const NO_NAMESPACES: &str = "TIDEGATE_NO_NAMESPACES";

/// How a process gets a network of its own: as root, and as anybody else.
const WAYS: [&[&str]; 2] = [&["--net"], &["--user", "--map-root-user", "--net"]];

impl Cable {
    /// Runs the test once more in a network of its own, and there returns a cable; here `None`, when it has passed. Where the machine
    /// allows no such networks, that is said, and it is `None`, too.
    #[track_caller]
    pub fn of<T: Fn()>(_: T) -> Option<Self> {
        if env::var_os(IS_APART).is_some() {
            return Some(Self::lay());
        }
        let allowed = WAYS.into_iter().find(|way| {
            let mut attempt = apart(way);
            attempt.args(["ip", "link", "add", HERE.device, "type", "veth", "peer", "name", THERE.device]);
            attempt.stdin(Stdio::null()).output().is_ok_and(|tried| tried.status.success())
        });
        let Some(way) = allowed else {
            assert!(
                env::var_os(NO_NAMESPACES).is_some(),
                "no namespaces here, or no iproute2: run tests/setup; to leave this test out, set {NO_NAMESPACES}"
            );
            eprintln!("SKIPPED: this machine allows no network namespaces");
            return None;
        };
        let (_, test) = type_name::<T>().split_once("::").expect("it is in a module");
        let mut again = apart(way);
        again.arg(env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]);
        let Output { status, stdout, stderr } = again.env(IS_APART, "1").stdin(Stdio::null()).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert!(status.success() && out.contains("1 passed"), "in a network of its own: {out}{err}");
        eprintln!("{err}");
        None
    }

    /// A backend on that machine, which does what its script says.
    pub fn backend(&self, script: impl Fn(&mut Peer, &Received) -> io::Result<()> + Send + Sync + 'static) -> Backend {
        let there = self.network();
        // A socket is of the network that its maker was in.
        let listening = thread::spawn(move || {
            move_into_link_name_space(there.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            TcpListener::bind(SocketAddr::from((THERE.address.parse::<Ipv4Addr>().unwrap(), 8080))).unwrap()
        });
        Backend::on(listening.join().unwrap(), script)
    }

    /// From now on nothing reaches the machine, and nothing comes from it: whatever is sent is lost without a word.
    pub fn cut(&self) {
        ip(&neighbour(&HERE, &THERE, NOBODY));
        self.ip_there(&neighbour(&THERE, &HERE, NOBODY));
    }

    /// The same, and the network notices: nobody answers any more to the question who has the address (ARP).
    pub fn vanish(&self) {
        self.cut();
        self.ip_there("link set far arp off");
        ip("neigh del 198.51.100.2 dev near");
    }

    /// All is as it was.
    pub fn mend(&self) {
        self.ip_there("link set far arp on");
        self.ip_there(&neighbour(&THERE, &HERE, HERE.hardware));
        ip(&neighbour(&HERE, &THERE, THERE.hardware));
    }

    /// What `ss` says of our connections to the machine, with their timers.
    pub fn connections(&self) -> String {
        let said = Command::new("ss").args(["-tnoH", "dst", THERE.address]).output().unwrap();
        String::from_utf8(said.stdout).unwrap()
    }

    fn lay() -> Self {
        ip("link set lo up");
        // It ends with this process, which ends what it reads.
        let mut machine = Command::new("unshare");
        machine.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let machine = machine.spawn().unwrap();
        let cable = Self { machine };
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        eventually("the machine has a network of its own", || {
            fs::read_link(cable.network_path()).is_ok_and(|network| network != own)
        });
        let (here, there) = (HERE.hardware, THERE.hardware);
        ip(&format!(
            "link add near address {here} type veth peer name far address {there} netns {}",
            cable.machine.id()
        ));
        ip("addr add 198.51.100.1/24 dev near");
        ip("link set near up");
        cable.ip_there("addr add 198.51.100.2/24 dev far");
        cable.ip_there("link set far up");
        // A machine that is not there is noticed after 150 ms instead of 3 s.
        ip("ntable change name arp_cache dev near retrans 50");
        cable.mend();
        cable
    }

    fn network(&self) -> File {
        File::open(self.network_path()).unwrap()
    }

    fn network_path(&self) -> String {
        format!("/proc/{}/ns/net", self.machine.id())
    }

    #[track_caller]
    fn ip_there(&self, words: &str) {
        let path = format!("--net={}", self.network_path());
        succeed(Command::new("nsenter").args([&path, "ip"]).args(words.split(' ')));
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        // The machine's sockets keep its network alive: nobody is to wait for it.
        let _ = Command::new("ip").args(["link", "del", HERE.device]).output();
        let _ = self.machine.kill();
        let _ = self.machine.wait();
    }
}

fn apart(way: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(way).arg("--");
    command
}

/// Where one end sends what is for the other. Permanent: that it is not answered changes nothing.
fn neighbour(of: &End, other: &End, hardware: &str) -> String {
    format!("neigh replace {} lladdr {hardware} nud permanent dev {}", other.address, of.device)
}

#[track_caller]
fn ip(words: &str) {
    succeed(Command::new("ip").args(words.split(' ')));
}

#[track_caller]
fn succeed(command: &mut Command) {
    let said = command.stdin(Stdio::null()).output().unwrap();
    assert!(said.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said.stderr));
}
