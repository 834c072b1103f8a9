//! Every kind of finding, with what `tidegate explain-error` says about it. The examples are configs that a test loads: the
//! bad one gives the code, the good one gives nothing.

use std::fmt;

/// Whether a finding stops a config from being used.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// It does.
    Error,
    /// It does not, unless `--strict`.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// Lines of at most 100 characters, where words allow.
fn wrap(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + word.len() < 100 => line.extend([" ", word]),
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

macro_rules! codes {
    ($($name:ident $id:literal $title:literal { why: $why:literal, bad: $bad:literal, good: $good:literal $(,)? })*) => {
        /// The kind of a finding. Ids are never given to another kind.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum Code {
            $(#[doc = $title] $name,)*
        }

        impl Code {
            /// Every code, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// `E0201`
            #[must_use]
            pub const fn id(self) -> &'static str {
                match self { $(Self::$name => $id,)* }
            }

            /// What it is, in a few words.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }

            /// Why it is refused, and what to do.
            #[must_use]
            pub const fn explanation(self) -> &'static str {
                match self { $(Self::$name => $why,)* }
            }

            /// A config that has it.
            #[must_use]
            pub const fn bad(self) -> &'static str {
                match self { $(Self::$name => $bad,)* }
            }

            /// The same config without it.
            #[must_use]
            pub const fn good(self) -> &'static str {
                match self { $(Self::$name => $good,)* }
            }
        }
    };
}

impl Code {
    /// Whether it is an error or a warning.
    #[must_use]
    pub fn severity(self) -> Severity {
        if self.id().starts_with('W') { Severity::Warning } else { Severity::Error }
    }

    /// The whole page about it, for a terminal: what, why, a config that has it and one that has not.
    #[must_use]
    pub fn explain(self) -> String {
        let indented = |yaml: &str| yaml.lines().map(|line| format!("    {line}\n")).collect::<String>();
        format!(
            "{}: {}\n\n{}\n\nWrong:\n\n{}\nRight:\n\n{}",
            self.id(),
            self.title(),
            wrap(self.explanation()),
            indented(self.bad()),
            indented(self.good())
        )
    }

    /// The code with this id, in either case of letters.
    #[must_use]
    pub fn find(id: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.id().eq_ignore_ascii_case(id))
    }
}

codes! {
Tab "E0101" "A tab stands where YAML allows only spaces." {
why: "YAML does not allow tabs in indentation, because their width is not defined, nor after a `:` or a `-`. Replace each by spaces. \
What else is wrong with the file is told as if that were done.",
bad: "listen: 8080
routes:
\t- path: /*
",
good: "listen: 8080
routes:
  - path: /*
    to: 127.0.0.1:9001
    health: /healthz
",
}
Unclosed "E0102" "A bracket or a quote is never closed." {
why: "Reading went past the place where the closing bracket or quote was meant to be. The caret is at the opening one.",
bad: "listen: 8080
routes:
  - path: /*
    to: [127.0.0.1:9001, 127.0.0.1:9002
    health: /healthz
",
good: "listen: 8080
routes:
  - path: /*
    to: [127.0.0.1:9001, 127.0.0.1:9002]
    health: /healthz
",
}
UnquotedStar "E0103" "Text that starts with * is not quoted." {
why: "An unquoted * starts a YAML alias, which stands for an anchor (&name) above it. A wildcard host needs quotes.",
bad: "listen: 8080
routes:
  - host: *.example.com
    path: /*
    to: 127.0.0.1:9001
    health: /healthz
",
good: "listen: 8080
routes:
  - host: \"*.example.com\"
    path: /*
    to: 127.0.0.1:9001
    health: /healthz
",
}
UnquotedVariable "E0104" "${...} inside { } is not quoted." {
why: "Between { and } YAML takes every { and } for its own. Quote the text, or write the fields on lines of their own.",
bad: "listen: 8080
upstreams:
  api: { backends: [\"127.0.0.1:9001\"], health: ${HEALTH} }
routes:
  - { path: /*, to: api }
",
good: "listen: 8080
upstreams:
  api: { backends: [\"127.0.0.1:9001\"], health: \"${HEALTH:-/healthz}\" }
routes:
  - { path: /*, to: api }
",
}
Duplicate "E0105" "A field is given twice." {
why: "Many YAML readers let the last one win, silently. Here both places are shown; delete one.",
bad: "listen: 8080
routes:
  - path: /*
    to: 127.0.0.1:9001
    health: /healthz
    to: 127.0.0.1:9002
",
good: "listen: 8080
routes:
  - path: /*
    to: [127.0.0.1:9001, 127.0.0.1:9002]
    health: /healthz
",
}
NotYaml "E0106" "The text is not valid YAML, or uses what has no meaning here." {
why: "A config is one YAML 1.2 document of plain fields, at most 4 MiB. Tags, merge keys (<<) and a second document are refused, \
because readers disagree about them.",
bad: "listen: 8080
routes:
  - path: /*
      to: 127.0.0.1:9001
",
good: "listen: 8080
routes:
  - path: /*
    to: 127.0.0.1:9001
    health: /healthz
",
}
UnknownField "E0201" "There is no such field." {
why: "Every field must be known where it is written: a misspelt one would otherwise be ignored in silence. The fields of the block \
are listed. Keys that start with x- at the top level are free.",
bad: "listen: 8080
routes:
  - path: /*
    to: 127.0.0.1:9001
    healht: /healthz
",
good: "listen: 8080
routes:
  - path: /*
    to: 127.0.0.1:9001
    health: /healthz
",
}
Misplaced "E0202" "A field does not belong where it is written." {
why: "The field exists, in another block or for another kind of thing. The message says where it goes.",
bad: "listen: 8080
routes:
  - path: /*
    to: 127.0.0.1:9001
    health: { path: /healthz, interval: 5s }
",
good: "listen: 8080
routes:
  - path: /*
    to: 127.0.0.1:9001
    health: { active: { path: /healthz, interval: 5s } }
",
}
Duration "E0203" "A duration is not understood." {
why: "Durations carry their unit: 250ms, 5s, 1m30s, 2h, 1d. A bare number is refused, because it is seconds to some gateways and \
milliseconds to others.",
bad: "listen: 8080
defaults: { timeouts: { request: 10 } }
routes:
  - path: /*
    to: 127.0.0.1:9001
    health: /healthz
",
good: "listen: 8080
defaults: { timeouts: { request: 10s } }
routes:
  - path: /*
    to: 127.0.0.1:9001
    health: /healthz
",
}
Size "E0204" "A size is not understood." {
why: "Sizes are whole numbers with a unit: 512B, 64KiB, 10MiB, 1GiB (powers of 1,024) or 1kB, 1MB, 1GB (powers of 1,000).",
bad: "listen: 8080
routes:
  - path: /*
    to: 127.0.0.1:9001
    health: /healthz
    max_body: 1M
",
good: "listen: 8080
routes:
  - path: /*
    to: 127.0.0.1:9001
    health: /healthz
    max_body: 1MiB
",
}
Rate "E0205" "A rate is not understood." {
why: "A rate is a whole number per s, min, h or d: 10/s, 100/min. In a route it may say who shares it: 10/s per ip.",
bad: "listen: 8080
routes:
  - path: /*
    to: 127.0.0.1:9001
    health: /healthz
    limit: 10 per second
",
good: "listen: 8080
routes:
  - path: /*
    to: 127.0.0.1:9001
    health: /healthz
    limit: 10/s per ip
",
}
WrongType "E0206" "A value has the wrong type." {
why: "A list, fields, text, a number, or true and false: the message says which one is expected. Numbers are written without \
quotes; only true and false are truth values (YAML 1.2), not yes, no, on or off.",
bad: "listen: 8080
reload: { watch: on }
routes:
  - path: /*
    to: 127.0.0.1:9001
    health: /healthz
",
good: "listen: 8080
reload: { watch: true }
routes:
  - path: /*
    to: 127.0.0.1:9001
    health: /healthz
",
}
NotAChoice "E0207" "A value is not one of the choices." {
why: "The field takes one of a few words, which the message lists.",
bad: "listen: 8080
upstreams:
  api: { backends: [\"127.0.0.1:9001\"], health: /healthz, balance: roundrobin }
routes:
  - { path: /*, to: api }
",
good: "listen: 8080
upstreams:
  api: { backends: [\"127.0.0.1:9001\"], health: /healthz, balance: round_robin }
routes:
  - { path: /*, to: api }
",
}
OutOfRange "E0208" "A number is out of range." {
why: "The message names the limit.",
bad: "listen: 99003
routes:
  - path: /*
    to: 127.0.0.1:9001
    health: /healthz
",
good: "listen: 9003
routes:
  - path: /*
    to: 127.0.0.1:9001
    health: /healthz
",
}
Missing "E0209" "Something that is needed is missing." {
why: "The block cannot work without it, and there is no default that would be right for everybody.",
bad: "listen: 8080
routes:
  - path: /*
",
good: "listen: 8080
routes:
  - path: /*
    to: 127.0.0.1:9001
    health: /healthz
",
}
Invalid "E0210" "A value is not of the form that its field takes." {
why: "A name, a host, a path, a header or a percentage that could not work as written. The label says what would.",
bad: "listen: 8080
routes:
  - path: api
    to: 127.0.0.1:9001
    health: /healthz
",
good: "listen: 8080
routes:
  - path: /api
    to: 127.0.0.1:9001
    health: /healthz
",
}
UnknownUpstream "E0301" "A route sends to an upstream that is not defined." {
why: "A text in `to` made of a-z, 0-9 and - is the name of an upstream. One with a : is an address.",
bad: "listen: 8080
upstreams:
  orders: { backends: [\"127.0.0.1:9001\"], health: /healthz }
routes:
  - { path: /*, to: orders }
  - { name: api, path: /api/*, to: order }
",
good: "listen: 8080
upstreams:
  orders: { backends: [\"127.0.0.1:9001\"], health: /healthz }
routes:
  - { path: /*, to: orders }
  - { name: api, path: /api/*, to: orders }
",
}
UnknownName "E0302" "A name is not defined." {
why: "Names in a route's auth, limit, api and listeners must be defined under auth, limits, apis and listeners; so must one that is the \
successor of an API.",
bad: "listen: 8080
routes:
  - path: /*
    to: 127.0.0.1:9001
    health: /healthz
    limit: per-client
",
good: "listen: 8080
limits:
  per-client: { rate: 10/s }
routes:
  - path: /*
    to: 127.0.0.1:9001
    health: /healthz
    limit: per-client
",
}
Unreadable "E0303" "A file cannot be read." {
why: "Paths start from the folder of the config. The file must exist and be readable by the user that runs Tidegate.",
bad: "listen: 8080
auth:
  partners: { api_key: { header: x-api-key, keys_file: no/such/keys.yaml } }
routes:
  - { path: /*, to: 127.0.0.1:9001, health: /healthz, auth: partners }
",
good: "listen: 8080
auth:
  partners:
    api_key:
      header: x-api-key
      keys: { acme: \"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }
routes:
  - { path: /*, to: 127.0.0.1:9001, health: /healthz, auth: partners }
",
}
Unset "E0304" "A variable is not set." {
why: "${NAME} takes an environment variable of the gateway's process, ${NAME:-default} has a default, ${file:PATH} takes a file's \
content, $${ is a literal ${.",
bad: "listen: 8080
routes:
  - path: /*
    to: ${NO_SUCH_VARIABLE}
    health: /healthz
",
good: "listen: 8080
routes:
  - path: /*
    to: ${NO_SUCH_VARIABLE:-127.0.0.1:9001}
    health: /healthz
",
}
NotAnAddress "E0305" "An address is not understood." {
why: "A backend is HOST:PORT, http://HOST[:PORT], https://HOST[:PORT] or unix:PATH. It has no path and no credentials.",
bad: "listen: 8080
routes:
  - path: /*
    to: 127.0.0.1
    health: /healthz
",
good: "listen: 8080
routes:
  - path: /*
    to: 127.0.0.1:80
    health: /healthz
",
}
Unsupported "E0306" "This version cannot do that yet." {
why: "The field or value is right and means something that this version of Tidegate does not have. It is refused rather than ignored.",
bad: "listen: 8080
routes:
  - path: /*
    to: 127.0.0.1:9001
    cors: { origins: [\"https://app.example.com\"] }
    health: /healthz
",
good: "listen: 8080
routes:
  - path: /*
    to: 127.0.0.1:9001
    health: /healthz
",
}
BadHash "E0307" "A stored key or password cannot be used." {
why: "Keys are stored as sha256:HEX (`tidegate hash-key`), passwords as argon2 or bcrypt (`tidegate hash-password`, `htpasswd -B`). \
Fast or unsalted hashes (MD5, SHA-1, crypt) and plain text are refused: who reads the file could use them.",
bad: "listen: 8080
auth:
  ops: { basic: { users: { amy: \"$apr1$x7dZ3kQp$FhQ2nC6m9vDq3mJc1m0xw/\" } } }
routes:
  - { path: /*, to: 127.0.0.1:9001, health: /healthz, auth: ops }
",
good: "listen: 8080
auth:
  ops: { basic: { users: { amy: \"$2y$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW\" } } }
routes:
  - { path: /*, to: 127.0.0.1:9001, health: /healthz, auth: ops }
",
}
SameRequests "E0401" "Two routes match the same requests." {
why: "The most specific route wins, whatever the order in the file. Two that are equally specific would be a matter of chance: give \
one another host or path, let it ask for one thing more (a method, a header field, a parameter), or delete it.",
bad: "listen: 8080
routes:
  - { name: a, path: /x, to: 127.0.0.1:9001, health: /healthz }
  - { name: b, path: /x, to: 127.0.0.1:9002, health: /healthz }
",
good: "listen: 8080
routes:
  - { name: a, path: /x, to: 127.0.0.1:9001, health: /healthz }
  - { name: b, path: /y, to: 127.0.0.1:9002, health: /healthz }
",
}
Shadowed "E0402" "A route can never match." {
why: "Every request that it matches is another route's, which is looked at before it. Regular expressions come behind all other paths \
but /*: below a prefix that takes everything there is nothing left for one.",
bad: "listen: 8080
routes:
  - { name: api, path: /api/*, to: 127.0.0.1:9001, health: /healthz }
  - { name: versions, path: \"~ ^/api/v[0-9]+/\", to: 127.0.0.1:9002, health: /healthz }
",
good: "listen: 8080
routes:
  - { name: api, path: /api/*, to: 127.0.0.1:9001, health: /healthz }
  - { name: versions, path: \"/api/{version}/*\", to: 127.0.0.1:9002, health: /healthz }
",
}
Contradiction "E0403" "Two values contradict each other." {
why: "One of the two could never take effect, or would do harm: a probe that outlasts its interval overlaps the next one.",
bad: "listen: 8080
routes:
  - path: /*
    to: 127.0.0.1:9001
    health: { active: { interval: 10s, timeout: 12s } }
",
good: "listen: 8080
routes:
  - path: /*
    to: 127.0.0.1:9001
    health: { active: { interval: 10s, timeout: 2s } }
",
}
BadCertificate "E0404" "A certificate cannot be used." {
why: "The certificate, its key and the time must fit: the first certificate of the file is the one that the key was made for, and it is \
valid now. While it is not, the edit is refused and what is in force stays.",
bad: "listeners:
  web:
    bind: \"0.0.0.0:8443\"
    tls: { certs: [{ cert: \"${WEB_CERT}\", key: \"${OTHER_KEY}\" }] }
routes:
  - { path: /*, to: 127.0.0.1:9001, health: /healthz }
",
good: "listeners:
  web:
    bind: \"0.0.0.0:8443\"
    tls: { certs: [{ cert: \"${WEB_CERT}\", key: \"${WEB_KEY}\" }] }
routes:
  - { path: /*, to: 127.0.0.1:9001, health: /healthz }
",
}
SameBind "E0405" "Two listeners bind the same address." {
why: "A client's connection could go to either. 0.0.0.0 and [::] stand for every address of the machine.",
bad: "listeners:
  web: { bind: \"0.0.0.0:8080\" }
  alt: { bind: \"0.0.0.0:8080\" }
routes:
  - { path: /*, to: 127.0.0.1:9001, health: /healthz }
",
good: "listeners:
  web: { bind: \"0.0.0.0:8080\" }
  alt: { bind: \"0.0.0.0:8081\" }
routes:
  - { path: /*, to: 127.0.0.1:9001, health: /healthz }
",
}
OpenAdmin "E0406" "The admin address is open to the network." {
why: "Whoever reaches it can drain backends. This version has no auth for it: bind a loopback address or a Unix socket.",
bad: "listen: 8080
admin: { bind: \"0.0.0.0:9901\" }
routes:
  - { path: /*, to: 127.0.0.1:9001, health: /healthz }
",
good: "listen: 8080
admin: { bind: \"127.0.0.1:9901\" }
routes:
  - { path: /*, to: 127.0.0.1:9001, health: /healthz }
",
}
Loop "E0407" "A backend is this gateway's own listener." {
why: "A request would be sent to the gateway again and again until something runs out.",
bad: "listen: 8080
routes:
  - { path: /*, to: 127.0.0.1:8080, health: /healthz }
",
good: "listen: 8080
routes:
  - { path: /*, to: 127.0.0.1:9001, health: /healthz }
",
}
SameName "E0408" "Two things have the same name." {
why: "Names identify things in logs, metrics and commands. What is not named is named by its host and path, a backend by its \
address: give one of them a `name`.",
bad: "listeners:
  web: { bind: \"0.0.0.0:8080\" }
  alt: { bind: \"0.0.0.0:8081\" }
routes:
  - { path: /*, listeners: [web], to: 127.0.0.1:9001, health: /healthz }
  - { path: /*, listeners: [alt], to: 127.0.0.1:9002, health: /healthz }
",
good: "listeners:
  web: { bind: \"0.0.0.0:8080\" }
  alt: { bind: \"0.0.0.0:8081\" }
routes:
  - { name: web, path: /*, listeners: [web], to: 127.0.0.1:9001, health: /healthz }
  - { name: alt, path: /*, listeners: [alt], to: 127.0.0.1:9002, health: /healthz }
",
}
NobodyKnown "E0409" "A limit by key on a route without auth." {
why: "A limit `by: key` gives everybody whom auth knows a bucket. Without auth nobody is known, and all would share one.",
bad: "listen: 8080
routes:
  - { path: /*, to: 127.0.0.1:9001, health: /healthz, limit: 10/s per key }
",
good: "listen: 8080
routes:
  - { path: /*, to: 127.0.0.1:9001, health: /healthz, limit: 10/s per ip }
",
}
TooFewFit "E0410" "An edit would leave too few backends fit." {
why: "With `reload.min_healthy` an edit goes live only if, in every upstream whose backends or health checks it changes, so many of the \
backends are fit, or no fewer than before. The new ones were asked just now; the message says what they answered. What is in force stays, \
and the edit is tried again as long as the file stays as it is. Only a running gateway finds this: see `tidegate check --probe` before an \
edit. These are wrong and right where 127.0.0.1:9002 does not answer:",
bad: "listen: 8080
reload: { min_healthy: 100% }
routes:
  - { path: /*, to: [127.0.0.1:9001, 127.0.0.1:9002], health: /healthz }
",
good: "listen: 8080
reload: { min_healthy: 50% }
routes:
  - { path: /*, to: [127.0.0.1:9001, 127.0.0.1:9002], health: /healthz }
",
}
PlainSecret "W0501" "A secret is written in plain text." {
why: "Configs end up in repositories and tickets. Write ${NAME} or ${file:PATH}; such values are masked wherever they are shown.",
bad: "listen: 8080
routes:
  - path: /*
    to: 127.0.0.1:9001
    health: { active: { headers: { authorization: Bearer 123 } } }
",
good: "listen: 8080
routes:
  - path: /*
    to: 127.0.0.1:9001
    health: { active: { headers: { authorization: \"${PROBE_TOKEN:-none}\" } } }
",
}
NoHealth "W0502" "An upstream has no health check." {
why: "A replica that is down keeps its share of the traffic. `health: /path` probes it, `health: tcp` tries to connect, `health: none` \
says that this is meant.",
bad: "listen: 8080
routes:
  - { path: /*, to: 127.0.0.1:9001 }
",
good: "listen: 8080
routes:
  - { path: /*, to: 127.0.0.1:9001, health: tcp }
",
}
RetriesPost "W0503" "Retries include a method that may not be safe to repeat." {
why: "A backend may have done the work of a POST or PATCH before the connection broke; a retry does it twice. Right only where it \
recognises repeats.",
bad: "listen: 8080
routes:
  - { path: /*, to: 127.0.0.1:9001, health: tcp, retries: { methods: [GET, POST] } }
",
good: "listen: 8080
routes:
  - { path: /*, to: 127.0.0.1:9001, health: tcp, retries: { methods: [GET, PUT] } }
",
}
ExpiresSoon "W0507" "A certificate expires soon." {
why: "Clients refuse an expired certificate. Files of certificates are watched: write the renewed one over the old one, and new connections \
get it.",
bad: "listeners:
  web:
    bind: \"0.0.0.0:8443\"
    tls: { certs: [{ cert: \"${OLD_CERT}\", key: \"${OLD_KEY}\" }] }
routes:
  - { path: /*, to: 127.0.0.1:9001, health: /healthz }
",
good: "listeners:
  web:
    bind: \"0.0.0.0:8443\"
    tls: { certs: [{ cert: \"${WEB_CERT}\", key: \"${WEB_KEY}\" }] }
routes:
  - { path: /*, to: 127.0.0.1:9001, health: /healthz }
",
}
ProbeBudget "W0508" "Health checks send very many probes." {
why: "Every probe is a connection and a request, on both sides, and each gateway sends its own. `interval_with_traffic` asks less often \
where live traffic goes well.",
bad: "listen: 8080
upstreams:
  orders:
    backends: [127.0.0.1:9001, 127.0.0.1:9002, 127.0.0.1:9003]
    health: { active: { path: /healthz, interval: 50ms } }
routes:
  - { path: /*, to: orders }
",
good: "listen: 8080
upstreams:
  orders:
    backends: [127.0.0.1:9001, 127.0.0.1:9002, 127.0.0.1:9003]
    health: { active: { path: /healthz, interval: 5s, interval_changing: 500ms } }
routes:
  - { path: /*, to: orders }
",
}
Unused "W0509" "Nothing uses it." {
why: "An upstream, auth, limit or API that no route names is often the rest of an edit, or the sign of a misspelt name elsewhere.",
bad: "listen: 8080
limits:
  per-client: { rate: 10/s }
routes:
  - { path: /*, to: 127.0.0.1:9001, health: tcp }
",
good: "listen: 8080
limits:
  per-client: { rate: 10/s }
routes:
  - { path: /*, to: 127.0.0.1:9001, health: tcp, limit: per-client }
",
}
Uncovered "W0510" "No certificate covers the host of a route." {
why: "Clients compare the name that they asked for with the names in the certificate and refuse another one.",
bad: "listeners:
  web:
    bind: \"0.0.0.0:8443\"
    tls: { certs: [{ cert: \"${WEB_CERT}\", key: \"${WEB_KEY}\" }] }
routes:
  - { host: shop.example.com, path: /*, to: 127.0.0.1:9001, health: /healthz }
",
good: "listeners:
  web:
    bind: \"0.0.0.0:8443\"
    tls: { certs: [{ cert: \"${WEB_CERT}\", key: \"${WEB_KEY}\" }] }
routes:
  - { host: www.example.com, path: /*, to: 127.0.0.1:9001, health: /healthz }
",
}
Unverified "W0511" "Backends are not verified." {
why: "Whoever can get between the gateway and a backend can be that backend, read everything and answer anything. A `ca` costs one file.",
bad: "listen: 8080
upstreams:
  orders: { backends: [\"https://127.0.0.1:9001\"], tls: { verify: false }, health: tcp }
routes:
  - { path: /*, to: orders }
",
good: "listen: 8080
upstreams:
  orders: { backends: [\"https://127.0.0.1:9001\"], tls: { ca: \"${WEB_CERT}\" }, health: tcp }
routes:
  - { path: /*, to: orders }
",
}
FewEjected "W0512" "Live traffic can eject nobody, or just one." {
why: "`max_ejected` is a part of the backends, rounded down. Where that is none, passive health does nothing; where it is one of two, the \
first ejection uses it up.",
bad: "listen: 8080
upstreams:
  orders:
    backends: [127.0.0.1:9001, 127.0.0.1:9002, 127.0.0.1:9003]
    health: { active: { path: /healthz }, passive: { max_ejected: 20% } }
routes:
  - { path: /*, to: orders }
",
good: "listen: 8080
upstreams:
  orders:
    backends: [127.0.0.1:9001, 127.0.0.1:9002, 127.0.0.1:9003]
    health: { active: { path: /healthz }, passive: { max_ejected: 40% } }
routes:
  - { path: /*, to: orders }
",
}
TurnedAway "W0513" "A health check passes where the probe is turned away." {
why: "A service that sends everybody to a login page, or refuses everybody, answers such a probe whatever else is wrong with it. Probes go to \
the backend itself, around the auth of routes: what refuses them is the service. Probe a path that it answers without auth, or bring \
credentials in `headers`. Where a header, a body or a field is expected as well, nothing is said.",
bad: "listen: 8080
routes:
  - path: /*
    to: 127.0.0.1:9001
    health: { active: { path: /, expect: { status: 302 } } }
",
good: "listen: 8080
routes:
  - path: /*
    to: 127.0.0.1:9001
    health: { active: { path: /healthz, expect: { status: 200 } } }
",
}
NoBackups "W0514" "min_capacity without a backup." {
why: "Below `min_capacity` backups join. Where there is none, `when_all_down` decides, and unless that says something else every request is \
refused while there are healthy backends. `when_all_down: fail` says that this is meant.",
bad: "listen: 8080
upstreams:
  orders:
    backends: [127.0.0.1:9001, 127.0.0.1:9002]
    health: { active: { path: /healthz }, min_capacity: 60% }
routes:
  - { path: /*, to: orders }
",
good: "listen: 8080
upstreams:
  orders:
    backends: [127.0.0.1:9001, 127.0.0.1:9002, { url: \"http://127.0.0.1:9003\", backup: true }]
    health: { active: { path: /healthz }, min_capacity: 60% }
routes:
  - { path: /*, to: orders }
",
}
}
