//! Real servers: nginx, and a Flask app under gunicorn, as backends; dnsmasq for their names. `tests/setup` installs them.

use std::{
    ffi::OsStr,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU16, Ordering::Relaxed},
    },
};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use super::{Client, eventually, replace};

/// A server in a process group of its own, which is killed when this is dropped.
pub struct Server {
    address: SocketAddr,
    command: Command,
    child: Child,
    folder: TempDir,
}

impl Server {
    /// The app of `tests/apps`. What it says of itself holds this name.
    #[track_caller]
    pub fn flask(replica: &str) -> Self {
        let gunicorn = target().join("venv/bin/gunicorn");
        assert!(gunicorn.exists(), "Flask and gunicorn are not installed: run tests/setup, or `make test`");
        Self::start(|address, folder| {
            let mut command = Command::new(&gunicorn);
            // One process, or its replies about its own health would differ. Idle connections outlive the test.
            command.args(["--worker-class", "gthread", "--workers", "1", "--threads", "8", "--keep-alive", "300"]);
            command.arg("--no-control-socket");
            command.args(["--bind", &address.to_string(), "--chdir", "tests/apps", "app:app"]);
            command.args([OsStr::new("--worker-tmp-dir"), folder.as_os_str()]);
            command.env("REPLICA", replica).env("PYTHONDONTWRITEBYTECODE", "1");
            command
        })
    }

    /// nginx, which says the same as the app does at `/`, anywhere, and at `/health`, and at `/client` what `x-client` is.
    #[track_caller]
    pub fn nginx(replica: &str) -> Self {
        Self::start(|address, folder| {
            fs::write(folder.join("nginx.conf"), nginx_conf(address, replica)).unwrap();
            let mut command = Command::new("nginx");
            command.env("PATH", [std::env::var("PATH").unwrap_or_default().as_str(), "/usr/sbin"].join(":"));
            command.args([OsStr::new("-p"), folder.as_os_str(), OsStr::new("-c"), OsStr::new("nginx.conf")]);
            command.args(["-e", "error.log"]);
            command
        })
    }

    /// dnsmasq, which knows the names of [`Server::name`], with a TTL of one second, and no other of `.test`.
    #[track_caller]
    pub fn dns() -> Self {
        Self::start(|address, folder| {
            fs::write(folder.join("hosts"), "").unwrap();
            let mut command = Command::new("dnsmasq");
            command.env("PATH", [std::env::var("PATH").unwrap_or_default().as_str(), "/usr/sbin"].join(":"));
            // The user that it would become could not read the folder.
            command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=root"]);
            command.args(["--no-resolv", "--no-hosts", "--local=/test/", "--local-ttl=1", "--bind-interfaces"]);
            command.arg(format!("--listen-address={}", address.ip())).arg(format!("--port={}", address.port()));
            command.arg(format!("--addn-hosts={}", folder.join("hosts").display()));
            command
        })
    }

    /// Gives names their addresses, and takes away those of all others.
    #[track_caller]
    pub fn name(&self, names: &[(&str, &[SocketAddr])]) {
        let lines =
            names.iter().flat_map(|(name, all)| all.iter().map(move |address| format!("{} {name}\n", address.ip())));
        replace(&self.folder.path().join("hosts"), &lines.collect::<String>());
        kill_process_group(Pid::from_child(&self.child), Signal::HUP).unwrap();
    }

    /// A script of `tests/apps`, which is told where to listen.
    #[track_caller]
    pub fn python(script: &str, arguments: &[&str]) -> Self {
        Self::start(|address, _| {
            let mut command = python_command(script);
            command.arg(address.to_string()).args(arguments);
            command
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it as `kill -9` does, between two instructions, and waits until it is gone.
    pub fn kill(&mut self) {
        kill_process_group(Pid::from_child(&self.child), Signal::KILL).unwrap();
        self.child.wait().unwrap();
        eventually("nobody listens there any more", || !self.is_listening());
    }

    /// From now on it neither answers nor closes anything.
    pub fn pause(&self) {
        kill_process_group(Pid::from_child(&self.child), Signal::STOP).unwrap();
    }

    /// It is itself again.
    pub fn go_on(&self) {
        kill_process_group(Pid::from_child(&self.child), Signal::CONT).unwrap();
    }

    /// Starts it again, on the same port.
    #[track_caller]
    pub fn restart(&mut self) {
        self.child = self.command.spawn().unwrap();
        self.await_listening();
    }

    /// Posts to it, past any gateway.
    #[track_caller]
    pub fn post(&self, path: &str) {
        let request = format!("POST {path} HTTP/1.1\r\nhost: app\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        assert_eq!(Client::connect(self.address).send(request).response().status(), 200);
    }

    #[track_caller]
    fn start(command: impl FnOnce(SocketAddr, &Path) -> Command) -> Self {
        let (address, folder) = (spare_address(), tempfile::tempdir().unwrap());
        let mut command = command(address, folder.path());
        let log = fs::File::create(folder.path().join("output.log")).unwrap();
        command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let program = command.get_program().display().to_string();
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {program}: {error}; run tests/setup"));
        let mut server = Self { address, command, child, folder };
        server.await_listening();
        server
    }

    #[track_caller]
    fn await_listening(&mut self) {
        let has_ended = |child: &mut Child| child.try_wait().unwrap().is_some();
        eventually("the server listens or ends", || self.is_listening() || has_ended(&mut self.child));
        assert!(!has_ended(&mut self.child), "the server ended: {}", self.output());
    }

    fn is_listening(&self) -> bool {
        std::net::TcpStream::connect(self.address).is_ok()
    }

    fn output(&self) -> String {
        fs::read_to_string(self.folder.path().join("output.log")).unwrap_or_default()
    }
}

/// Runs a script of `tests/apps` to its end, and returns what it said.
#[track_caller]
pub fn python(script: &str, arguments: &[&str]) -> String {
    let output = python_command(script).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{script}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

fn python_command(script: &str) -> Command {
    let python = target().join("venv/bin/python");
    assert!(python.exists(), "the tests' Python packages are not installed: run tests/setup, or `make test`");
    let mut command = Command::new(python);
    command.arg(format!("tests/apps/{script}")).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Held by tests that use all of a small machine, where they share a process. nextest gives each its own: there they are
/// one test group.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn target() -> PathBuf {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    tmp.parent().expect("it is a folder in the target folder").to_owned()
}

/// Somewhere to listen, and to listen again after a kill: below the ports that the system gives to connections, which
/// could take it meanwhile.
pub fn spare_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    // Processes of tests that run beside this one start elsewhere.
    let start = u16::try_from(process::id() * 16 % u32::from(COUNT)).unwrap();
    loop {
        let port = FIRST + (start + NEXT.fetch_add(1, Relaxed)) % COUNT;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

fn nginx_conf(address: SocketAddr, replica: &str) -> String {
    format!(
        r#"
daemon off;
master_process off;
pid nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    default_type application/json;
    keepalive_timeout 300s;
    keepalive_requests 1000000000;
    server {{
        listen {address};
        location / {{ return 200 '{{"replica":"{replica}"}}\n'; }}
        location = /client {{ return 200 $http_x_client; }}
        location = /health {{ return 200 '{{"status":"healthy"}}\n'; }}
    }}
}}
"#
    )
}
