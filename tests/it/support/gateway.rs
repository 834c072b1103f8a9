use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::{Client, Response, eventually};

/// A gateway: the real program, in a process and a folder of its own. Killed when dropped.
pub struct Gateway {
    child: Child,
    folder: TempDir,
    out: Arc<Mutex<String>>,
    err: Arc<Mutex<String>>,
    address: Option<SocketAddr>,
}

/// How to start a [`Gateway`].
pub struct Launch {
    folder: TempDir,
    reads_stdout: bool,
    under: Vec<String>,
}

impl Gateway {
    /// Starts a gateway on this config and waits until it listens.
    ///
    /// What every test needs is added where the config does not say otherwise: one listener `main` on a free port, no
    /// admin, a quick reload.
    #[track_caller]
    pub fn start(yaml: impl AsRef<str>) -> Self {
        Launch::default().start(yaml)
    }

    /// Where the listener `main` is.
    pub fn address(&self) -> SocketAddr {
        self.address.expect("it has a listener `main`")
    }

    /// Where a listener is that was there at the start.
    #[track_caller]
    pub fn listener(&self, name: &str) -> SocketAddr {
        let details = self.process_details("listen");
        let address = details.iter().find_map(|detail| detail.strip_prefix(name)?.trim().parse().ok());
        address.unwrap_or_else(|| panic!("no listener {name}: {details:?}"))
    }

    /// Where the admin listener is.
    #[track_caller]
    pub fn admin(&self) -> SocketAddr {
        self.process_details("admin").first().expect("an admin listener").parse().unwrap()
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.address())
    }

    /// Asks on a connection of its own.
    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.connect().get(path)
    }

    /// Says these bytes on a connection of its own and reads one response.
    #[track_caller]
    pub fn send(&self, bytes: impl AsRef<[u8]>) -> Response {
        self.connect().send(bytes).response()
    }

    /// The folder of the config.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn config(&self) -> PathBuf {
        self.folder().join("tidegate.yaml")
    }

    /// Replaces the config, and returns the event that says what became of that: `reload` or `refused`.
    #[track_caller]
    pub fn edit(&self, yaml: impl AsRef<str>) -> Value {
        self.after_edit(|| replace(&self.config(), &completed(yaml.as_ref())))
    }

    /// Does what should lead to a reload, and returns the event that says what became of it.
    #[track_caller]
    pub fn after_edit(&self, edit: impl FnOnce()) -> Value {
        let edits = || self.events(|event| event["event"] == "reload" || event["event"] == "refused");
        let before = edits().len();
        edit();
        eventually("the edit is applied or refused", || edits().len() > before);
        edits().swap_remove(before)
    }

    /// The events so far that are meant.
    pub fn events(&self, is_meant: impl Fn(&Value) -> bool) -> Vec<Value> {
        json_lines(&self.err.lock().unwrap()).into_iter().filter(is_meant).collect()
    }

    /// Waits for an event.
    #[track_caller]
    pub fn await_event(&self, what: &str, is_meant: impl Fn(&Value) -> bool) -> Value {
        eventually(what, || !self.events(&is_meant).is_empty());
        self.events(is_meant).swap_remove(0)
    }

    /// Waits until a backend's state has become this.
    #[track_caller]
    pub fn await_backend(&self, backend: SocketAddr, state: &str) -> Value {
        self.await_event(&format!("{backend} is {state}"), |event| {
            event["event"] == "backend" && event["backend"] == backend.to_string() && event["to"] == state
        })
    }

    /// The lines that the access log has written to standard output.
    pub fn access_log(&self) -> Vec<Value> {
        json_lines(&self.out.lock().unwrap())
    }

    /// Waits until the access log has so many lines, and returns them in the order in which the requests came.
    #[track_caller]
    pub fn await_access_log(&self, lines: usize) -> Vec<Value> {
        eventually(&format!("{lines} lines in the access log"), || self.access_log().len() >= lines);
        let mut log = self.access_log();
        assert_eq!(log.len(), lines, "{log:#?}");
        log.sort_by_key(|line| line["ts"].to_string());
        log
    }

    /// Reads standard output after all, from [`Launch::unread_stdout`] on.
    pub fn read_stdout(&mut self) {
        self.out = collect(self.child.stdout.take().expect("nobody reads it yet"));
    }

    /// Asks the admin listener.
    #[track_caller]
    pub fn ask_admin(&self, path: &str) -> Response {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        Client::connect(self.admin()).send(request).response()
    }

    /// The value of a metric now, given with its labels; 0 where it is not there yet.
    #[track_caller]
    pub fn metric(&self, name: &str) -> usize {
        let response = self.ask_admin("/metrics");
        let line = response.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.trim().parse::<f64>().unwrap() as usize)
    }

    /// What its memory takes, in bytes.
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The time that it has computed for, in hundredths of a second.
    pub fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Asks it to stop, and returns its exit code.
    #[track_caller]
    pub fn stop(mut self) -> i32 {
        self.signal(Signal::TERM);
        self.exit_code()
    }

    /// Waits for its end and returns its exit code.
    #[track_caller]
    pub fn exit_code(&mut self) -> i32 {
        eventually("the process ends", || self.child.try_wait().unwrap().is_some());
        self.child.wait().unwrap().code().expect("an exit code, not a signal")
    }

    /// Waits for the end that a signal made.
    #[track_caller]
    pub fn await_end(&mut self) {
        eventually("the process ends", || self.child.try_wait().unwrap().is_some());
    }

    fn process_details(&self, stage: &str) -> Vec<String> {
        let events = self.events(|event| event["event"] == "process" && event["stage"] == stage);
        events.iter().filter_map(|event| event["detail"].as_str().map(str::to_owned)).collect()
    }
}

impl Default for Launch {
    fn default() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), reads_stdout: true, under: Vec::new() }
    }
}

impl Launch {
    /// Puts a file beside the config.
    pub fn file(self, name: &str, text: impl AsRef<str>) -> Self {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().expect("it is in the folder")).unwrap();
        fs::write(path, text.as_ref()).unwrap();
        self
    }

    /// Standard output is a pipe that nobody reads.
    pub fn unread_stdout(mut self) -> Self {
        self.reads_stdout = false;
        self
    }

    /// Starts it by way of another program, which becomes it.
    pub fn under(mut self, command: &[&str]) -> Self {
        self.under = command.iter().map(ToString::to_string).collect();
        self
    }

    /// Starts a gateway that does not come up, and returns its exit code and what it said.
    #[track_caller]
    pub fn refused(self, yaml: impl AsRef<str>) -> (i32, String) {
        replace(&self.folder.path().join("tidegate.yaml"), &completed(yaml.as_ref()));
        let output = self.command().output().unwrap();
        (output.status.code().expect("an exit code, not a signal"), String::from_utf8(output.stderr).unwrap())
    }

    fn command(&self) -> Command {
        let program = env!("CARGO_BIN_EXE_tidegate");
        let words: Vec<&str> = self.under.iter().map(String::as_str).chain([program]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).args(["run", "--log-format", "json", "-c"]);
        command.arg(self.folder.path().join("tidegate.yaml")).stdin(Stdio::null());
        command
    }

    #[track_caller]
    pub fn start(self, yaml: impl AsRef<str>) -> Gateway {
        replace(&self.folder.path().join("tidegate.yaml"), &completed(yaml.as_ref()));
        self.start_on_what_is_there()
    }

    /// Starts on a config that [`Launch::file`] or the test put there.
    #[track_caller]
    pub fn start_on_what_is_there(self) -> Gateway {
        let mut child = self.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = match self.reads_stdout {
            true => collect(child.stdout.take().expect("it is piped")),
            false => Arc::default(),
        };
        let err = collect(child.stderr.take().expect("it is piped"));
        let mut gateway = Gateway { child, folder: self.folder, out, err, address: None };
        let is_up = |gateway: &Gateway| !gateway.process_details("ready").is_empty();
        eventually("the gateway is up", || is_up(&gateway) || gateway.child.try_wait().unwrap().is_some());
        assert!(is_up(&gateway), "the gateway did not start");
        let listeners = gateway.process_details("listen");
        gateway.address = listeners.iter().find_map(|detail| detail.strip_prefix("main ")?.parse().ok());
        gateway
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- the gateway's stderr:\n{}", self.err.lock().unwrap());
            eprintln!("--- the gateway's stdout:\n{}", self.out.lock().unwrap());
        }
    }
}

/// Replaces a file as careful editors do: nobody ever sees half of it.
pub fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(&new, path).unwrap();
}

/// The config with what every test needs.
pub fn completed(yaml: &str) -> String {
    let says = |field: &str| yaml.lines().any(|line| line.starts_with(field));
    let mut text = String::new();
    if !says("listen:") && !says("listeners:") {
        text.push_str("listen: 127.0.0.1:0\n");
    }
    if !says("admin:") {
        text.push_str("admin: none\n");
    }
    if !says("reload:") {
        text.push_str("reload: { debounce: 10ms }\n");
    }
    text + yaml
}

fn collect(mut stream: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let collected = Arc::clone(&text);
    thread::spawn(move || {
        for line in BufReader::new(&mut stream).lines().map_while(Result::ok) {
            let mut text = collected.lock().unwrap();
            text.push_str(&line);
            text.push('\n');
        }
    });
    text
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}
