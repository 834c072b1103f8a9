//! The leaves and the sum types of the spec: values kept as written.
//!
//! A leaf never fails to read: the check parses it and can then name its field, quote it and point at it. What fails here is
//! the shape alone (a list where text belongs), with an operator's words for what was expected.

use std::{borrow::Cow, collections::BTreeMap, fmt, marker::PhantomData};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};

/// What a leaf is meant to be. Only names and describes; the check parses.
pub(in crate::config) trait Form {
    /// With its article, for "expected …".
    const EXPECTED: &'static str;
    /// Its JSON Schema.
    fn schema() -> Schema;
}

/// One scalar as text, meant as a `F`.
pub(in crate::config) struct Written<F> {
    pub(in crate::config) text: String,
    form: PhantomData<fn() -> F>,
}

impl<F> fmt::Debug for Written<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Written")
    }
}

struct Text<F>(PhantomData<F>);

impl<F: Form> Visitor<'_> for Text<F> {
    type Value = Written<F>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(F::EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Written<F>, E> {
        Ok(Written { text: text.to_owned(), form: PhantomData })
    }
}

impl<'de, F: Form> Deserialize<'de> for Written<F> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Text(PhantomData))
    }
}

impl<F: Form> JsonSchema for Written<F> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        F::EXPECTED.into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        F::schema()
    }
}

/// Declares forms: a name, its words, its schema.
macro_rules! forms {
    ($($(#[$doc:meta])* $name:ident: $expected:literal, $schema:tt;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub(in crate::config) enum $name {}

        impl Form for $name {
            const EXPECTED: &'static str = $expected;

            fn schema() -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}

forms! {
    /// `HOST:PORT` or a URL of a backend.
    Address: "an address like `127.0.0.1:9001`", { "type": "string" };
    /// An address to listen on.
    Bind: "an address like `0.0.0.0:8080`", { "type": "string" };
    /// Who shares a bucket.
    By: "`ip`, `header NAME`, `key` or `global`", { "type": "string", "pattern": r"^(ip|key|global|header \S+)$|\$\{" };
    /// A network or one address.
    Cidr: "a network like `10.0.0.0/8`", { "type": "string" };
    /// A whole number.
    Count: "a whole number", { "anyOf": [{ "type": "integer", "minimum": 0 }, { "type": "string", "pattern": r"\$\{" }] };
    /// A DNS server.
    DnsServer: "an address like `10.0.0.2` or `10.0.0.2:53`", { "type": "string" };
    /// A length of time.
    Duration: "a duration like `5s`", { "type": "string", "pattern": r"^([0-9]+(ms|s|m|h|d))+$|\$\{" };
    /// Kinds of addresses.
    Family: "`any`, `ipv4` or `ipv6`", { "enum": ["any", "ipv4", "ipv6"] };
    /// A path in the file system.
    File: "a path to a file", { "type": "string" };
    /// True or false.
    Flag: "true or false", { "anyOf": [{ "type": "boolean" }, { "type": "string", "pattern": r"\$\{" }] };
    /// A host pattern.
    HostPattern: "a host like `api.example.com`", { "type": "string" };
    /// SHA-256 of an API key.
    KeyHash: "a hash like `sha256:…`", { "type": "string", "pattern": "^sha256:[0-9a-fA-F]{64}$" };
    /// A limit by name, or inline.
    LimitRef: "the name of a limit, or a rate like `10/s per ip`", { "type": "string" };
    /// What `listen` takes.
    Listen: "a port or an address", { "anyOf": [{ "type": "integer", "minimum": 0, "maximum": 65535 }, { "type": "string" }] };
    /// An HTTP method.
    Method: "a method like `GET`", { "type": "string", "pattern": r"^[A-Z]+$|\$\{" };
    /// A day, or a moment.
    Moment: "a date like `2027-01-01`", { "type": "string", "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ].+)?$|\$\{" };
    /// A name.
    Name: "a name", { "type": "string", "pattern": r"^[a-z][a-z0-9-]{0,62}$|\$\{" };
    /// A hashed password.
    PasswordHash: "a hash like `$argon2id$…`", { "type": "string" };
    /// A path pattern.
    PathPattern: "a path like `/orders/*`", { "type": "string", "pattern": r"^[/~]|\$\{" };
    /// A share.
    Percent: "a percentage like `10%`", { "type": "string", "pattern": r"^[0-9]+(\.[0-9]{1,2})?%$|\$\{" };
    /// `none`, or versions of the PROXY protocol.
    ProxyProtocol: "`none`, `v1`, `v2` or `any`", { "enum": ["none", "v1", "v2", "any"] };
    /// How many per period.
    Rate: "a rate like `10/s`", { "type": "string", "pattern": r"^[0-9]+/(s|min|h|d)$|\$\{" };
    /// A number of bytes, or none.
    SizeOrNone: "a size like `10MiB`, or none", { "type": "string", "pattern": r"^([0-9]+(B|kB|KB|KiB|MB|MiB|GB|GiB)|none)$|\$\{" };
    /// Permissions of a socket's file.
    SocketMode: "permissions like `\"0660\"`", { "type": "string", "pattern": r"^0[0-7]{3}$|\$\{" };
    /// A stage of an API's life.
    Stage: "`beta`, `stable`, `deprecated` or `retired`", { "enum": ["beta", "stable", "deprecated", "retired"] };
    /// A status or a range.
    Status: "a status or range like `200-399`", { "anyOf": [{ "type": "integer", "minimum": 200, "maximum": 599 }, { "type": "string" }] };
    /// Anything.
    Any: "text", { "type": ["string", "number", "boolean"] };
    /// A health check in short.
    HealthShort: "a path like `/healthz`, `tcp`, `none`, or fields", { "type": "string" };
    /// `none`.
    AdminShort: "`none`, or the field `bind`", { "const": "none" };
    /// The format number.
    Version: "the number 1", { "const": 1 };
    /// How many workers.
    Workers: "`auto` or a number", { "anyOf": [{ "const": "auto" }, { "type": "integer", "minimum": 1, "maximum": 1024 }, { "type": "string", "pattern": r"\$\{" }] };
    /// How a backend is chosen.
    Balance: "a balance mode", { "type": "string", "pattern": r"^(round_robin|random|least_requests|p2c|hash (ip|(header|cookie|query) \S+))$|\$\{" };
    /// How a hash leads to a backend.
    Algorithm: "`ring` or `maglev`", { "enum": ["ring", "maglev"] };
    /// A share that may be above the whole.
    OverPercent: "a percentage like `125%`", { "type": "string", "pattern": r"^[0-9]+%$|\$\{" };
    /// `lax`, `strict` or `none`.
    SameSite: "`lax`, `strict` or `none`", { "enum": ["lax", "strict", "none"] };
    /// `another` or `fail`.
    OnFailure: "`another` or `fail`", { "enum": ["another", "fail"] };
    /// The `Host` of a request to a backend.
    HostHeader: "`preserve`, `backend` or a host", { "type": "string" };
    /// An IP address.
    Ip: "an IP address", { "type": "string" };
    /// A kind of probe.
    ProbeType: "`http`, `tcp`, `tls` or `grpc`", { "enum": ["http", "tcp", "tls", "grpc"] };
    /// `none`.
    ProbeTlsShort: "`none`, or the fields of tls", { "const": "none" };
    /// `read` or `ignore`.
    DocumentUse: "`read` or `ignore`", { "enum": ["read", "ignore"] };
    /// A text, or a regular expression.
    Wanted: "text, or a regular expression like `\"~ ^ok\"`", { "type": ["string", "number", "boolean"] };
    /// What backends speak.
    Protocol: "a protocol", { "enum": ["http1", "http2", "auto"] };
    /// `fail` or `try_all`.
    WhenAllDown: "`fail` or `try_all`", { "enum": ["fail", "try_all"] };
    /// `hold` or `eject`.
    SuspectCheck: "`hold` or `eject`", { "enum": ["hold", "eject"] };
    /// A kind of event.
    EventKind: "a kind of event", { "enum": ["backend", "api", "reload", "refused", "process", "warning"] };
    /// `keep` or `close`.
    WhenOut: "`keep` or `close`", { "enum": ["keep", "close"] };
    /// `none`.
    PassiveShort: "`none`, or fields", { "const": "none" };
    /// A failure that allows a retry.
    RetryOn: "`connect`, `reset`, `timeout`, a status or a status of gRPC", { "anyOf": [
        { "enum": [
            "connect", "reset", "timeout",
            "grpc_cancelled", "grpc_deadline_exceeded", "grpc_internal", "grpc_resource_exhausted", "grpc_unavailable"
        ] },
        { "type": "integer", "minimum": 400, "maximum": 599 },
        { "type": "string", "pattern": r"^[45][0-9]{2}-[45][0-9]{2}$|\$\{" }
    ] };
    /// `json`.
    AccessFormat: "`json`", { "enum": ["json"] };
    /// `required` or `optional`.
    ClientAuth: "`required` or `optional`", { "enum": ["required", "optional"] };
    /// A version of TLS.
    TlsVersion: "a version of TLS", { "enum": ["1.2", "1.3"] };
    /// A protocol to upgrade to.
    Upgrade: "a protocol like `websocket`, or `none`", { "type": "string" };
    /// Whose request it is.
    Sticky: "`header NAME` or `cookie NAME`", { "type": "string", "pattern": r"^(header|cookie) \S+$|\$\{" };
    /// `stay` or `other`.
    WhenDown: "`stay` or `other`", { "enum": ["stay", "other"] };
    /// A status of a redirect.
    RedirectStatus: "301, 302, 303, 307 or 308", { "enum": [301, 302, 303, 307, 308] };
    /// A status of a response.
    OneStatus: "a status like `200`", { "anyOf": [{ "type": "integer", "minimum": 200, "maximum": 599 }, { "type": "string", "pattern": r"\$\{" }] };
    /// A scheme.
    Scheme: "`http` or `https`", { "enum": ["http", "https"] };
    /// A host.
    Host: "a host like `api.example.com`", { "type": "string" };
    /// A path with captures.
    NewPath: "a path like `/u/{id}`", { "type": "string", "pattern": r"^/|\$\{" };
    /// A path, or a URL.
    NewUrl: "a path like `/u/{id}`, or a URL", { "type": "string", "pattern": r"^(/|https?://)|\$\{" };
    /// A regular expression.
    Regex: "a regular expression", { "type": "string" };
    /// A content coding.
    Coding: "`zstd`, `br` or `gzip`", { "enum": ["zstd", "br", "gzip"] };
    /// A log level.
    LogLevel: "a log level", { "enum": ["debug", "info", "warn", "error"] };
    /// A log format.
    LogFormat: "a log format", { "enum": ["auto", "text", "json"] };
}

/// Items in order. An empty one is `None`: the check says so.
#[derive(Debug)]
pub(in crate::config) struct List<T>(pub(in crate::config) Vec<Option<T>>);

struct Items<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
    type Value = List<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<List<T>, A::Error> {
        let mut list = vec![];
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(List(list))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Items(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for List<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("List_of_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "array", "items": generator.subschema_for::<T>() })
    }
}

/// Named entries. Their order carries no meaning.
#[derive(Debug)]
pub(in crate::config) struct Named<T>(pub(in crate::config) BTreeMap<String, T>);

struct Entries<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
    type Value = Named<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("entries of the form `name: …`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named<T>, A::Error> {
        let mut entries = BTreeMap::new();
        while let Some((name, value)) = map.next_entry()? {
            entries.insert(name, value);
        }
        Ok(Named(entries))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Entries(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Named<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Map_of_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "additionalProperties": generator.subschema_for::<T>() })
    }
}

/// One text, or a list of them.
#[derive(Debug)]
pub(in crate::config) enum OneOrMany<F> {
    Many(List<Written<F>>),
    One(Written<F>),
}

struct OneOrItems<F>(PhantomData<F>);

impl<'de, F: Form> Visitor<'de> for OneOrItems<F> {
    type Value = OneOrMany<F>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, or a list", F::EXPECTED)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<OneOrMany<F>, A::Error> {
        Items(PhantomData).visit_seq(items).map(OneOrMany::Many)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<OneOrMany<F>, E> {
        Text(PhantomData).visit_str(text).map(OneOrMany::One)
    }
}

impl<'de, F: Form> Deserialize<'de> for OneOrMany<F> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrItems(PhantomData))
    }
}

impl<F: Form> JsonSchema for OneOrMany<F> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany_{}", F::EXPECTED).into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [F::schema(), { "type": "array", "items": F::schema() }] })
    }
}

/// Where a route sends: one, a list of them, or several with the weight of each.
#[derive(Debug)]
pub(in crate::config) enum To {
    Many(List<Written<Address>>),
    One(Written<Address>),
    Split(Named<Written<Count>>),
}

struct Targets;

impl<'de> Visitor<'de> for Targets {
    type Value = To;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, a list, or upstreams with weights", Address::EXPECTED)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<To, A::Error> {
        Entries(PhantomData).visit_map(map).map(To::Split)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<To, A::Error> {
        Items(PhantomData).visit_seq(items).map(To::Many)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<To, E> {
        Text(PhantomData).visit_str(text).map(To::One)
    }
}

impl<'de> Deserialize<'de> for To {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Targets)
    }
}

impl JsonSchema for To {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "To".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (one, weight) = (Address::schema(), generator.subschema_for::<Written<Count>>());
        json_schema!({ "anyOf": [
            one,
            { "type": "array", "items": one },
            { "type": "object", "additionalProperties": weight },
        ] })
    }
}

/// One block, or a list of them.
#[derive(Debug)]
pub(in crate::config) enum Blocks<T> {
    Many(List<T>),
    One(Box<T>),
}

struct BlockOrItems<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for BlockOrItems<T> {
    type Value = Blocks<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fields, or a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Blocks<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(|one| Blocks::One(Box::new(one)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Blocks<T>, A::Error> {
        Items(PhantomData).visit_seq(items).map(Blocks::Many)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Blocks<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BlockOrItems(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Blocks<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Blocks_of_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}

/// A short form, or fields.
#[derive(Debug)]
pub(in crate::config) enum ShortOr<F, T> {
    Fields(T),
    Short(Written<F>),
}

struct ShortOrFields<F, T>(PhantomData<(F, T)>);

impl<'de, F: Form, T: Deserialize<'de>> Visitor<'de> for ShortOrFields<F, T> {
    type Value = ShortOr<F, T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(F::EXPECTED)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ShortOr<F, T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(ShortOr::Fields)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<ShortOr<F, T>, E> {
        Text(PhantomData).visit_str(text).map(ShortOr::Short)
    }
}

impl<'de, F: Form, T: Deserialize<'de>> Deserialize<'de> for ShortOr<F, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ShortOrFields(PhantomData))
    }
}

impl<F: Form, T: JsonSchema> JsonSchema for ShortOr<F, T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("ShortOr_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [F::schema(), generator.subschema_for::<T>()] })
    }
}
