//! A scrape, from plain values to text.
//!
//! The admin plane opens the families of the [catalogue](super::catalogue) that it has values for, gives each its samples
//! and takes the text. `prometheus-client` does the encoding: escaping, suffixes, cumulative buckets. Its own encoder speaks
//! OpenMetrics only; the older text format differs in that a counter's family is named with its `_total`, an info is a gauge,
//! and there are neither units nor an end mark, so for that format families are described to the encoder in those terms.
//!
//! Families come out in the order in which they were first opened; one without samples is left out.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::{Registry, Unit},
};

use super::{
    catalogue::{self, Metric},
    cells::{HistogramSum, LATENCY_BOUNDS},
};

/// What a metric's values are. Implemented by [`Counter`], [`Gauge`], [`Histogram`] and [`Info`].
pub trait Kind {
    /// The type as Prometheus names it.
    const NAME: &'static str;
    /// What a sample takes.
    type Value: Into<Value>;
}

/// A count that only grows.
#[derive(Debug)]
pub enum Counter {}

/// A number that goes up and down.
#[derive(Debug)]
pub enum Gauge {}

/// Latencies by bucket.
#[derive(Debug)]
pub enum Histogram {}

/// A constant 1 whose labels say something.
#[derive(Debug)]
pub enum Info {}

impl Kind for Counter {
    const NAME: &'static str = "counter";
    type Value = Number;
}

impl Kind for Gauge {
    const NAME: &'static str = "gauge";
    type Value = Number;
}

impl Kind for Histogram {
    const NAME: &'static str = "histogram";
    type Value = HistogramSum;
}

impl Kind for Info {
    const NAME: &'static str = "info";
    type Value = ();
}

/// The value of a counter or gauge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// Things counted.
    Count(u64),
    /// Seconds and the like.
    Real(f64),
}

impl From<u64> for Number {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<f64> for Number {
    fn from(real: f64) -> Self {
        Self::Real(real)
    }
}

impl From<bool> for Number {
    fn from(holds: bool) -> Self {
        Self::Count(u64::from(holds))
    }
}

/// The value of a sample of any kind.
#[derive(Debug)]
pub enum Value {
    /// Of a histogram.
    Latencies(Box<HistogramSum>),
    /// Of a counter or a gauge.
    Number(Number),
    /// Of an info.
    One,
}

impl From<Number> for Value {
    fn from(number: Number) -> Self {
        Self::Number(number)
    }
}

impl From<HistogramSum> for Value {
    fn from(sum: HistogramSum) -> Self {
        Self::Latencies(Box::new(sum))
    }
}

impl From<()> for Value {
    fn from((): ()) -> Self {
        Self::One
    }
}

/// In which form a scrape is answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The Prometheus text format 0.0.4.
    Text,
}

impl Format {
    /// The `Content-Type` of the answer.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The form that a scraper asks for with its `Accept` header: OpenMetrics where it likes that at least as much as text.
#[must_use]
pub fn format_for(accept: Option<&str>) -> Format {
    let quality_of = |wanted: &str| {
        accept.into_iter().flat_map(|list| list.split(',')).filter_map(|range| quality(range, wanted)).max()
    };
    match (quality_of("application/openmetrics-text"), quality_of("text/plain")) {
        (Some(open), text) if open > 0 && open >= text.unwrap_or(0) => Format::OpenMetrics,
        _ => Format::Text,
    }
}

// The `q` of a media range in thousandths if it names this type; wildcards are no reason to prefer the newer format.
fn quality(range: &str, wanted: &str) -> Option<u32> {
    let mut parts = range.split(';').map(str::trim);
    parts.next().filter(|name| name.eq_ignore_ascii_case(wanted))?;
    let written = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    let Some(q) = written.and_then(|q| q.parse::<f32>().ok()) else { return Some(1000) };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 1000")]
    Some((q.clamp(0.0, 1.0) * 1000.0) as u32)
}

/// A scrape being assembled.
#[derive(Debug)]
pub struct Exposition {
    format: Format,
    families: Vec<Samples>,
}

impl Exposition {
    /// An empty one.
    #[must_use]
    pub const fn new(format: Format) -> Self {
        Self { format, families: Vec::new() }
    }

    /// Opens a family, or opens it again.
    pub fn family<K: Kind, const N: usize>(&mut self, metric: &'static Metric<K, N>) -> Family<'_, K, N> {
        let known = self.families.iter().position(|family| family.name == metric.name);
        let index = known.unwrap_or_else(|| {
            self.families.push(Samples::new(metric, self.format));
            self.families.len() - 1
        });
        Family { samples: &mut self.families[index], kind: std::marker::PhantomData }
    }

    /// The text.
    #[must_use]
    pub fn finish(self) -> String {
        let format = self.format;
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut out = String::new();
        let encoded = match format {
            Format::OpenMetrics => text::encode(&mut out, &registry),
            Format::Text => text::encode_registry(&mut out, &registry),
        };
        encoded.expect("writing to a String does not fail");
        out
    }
}

impl Collector for Exposition {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.families
            .iter()
            .filter(|family| !family.values.is_empty())
            .try_for_each(|family| family.encode(&mut encoder))
    }
}

/// An open family.
#[derive(Debug)]
pub struct Family<'a, K, const N: usize> {
    samples: &'a mut Samples,
    kind: std::marker::PhantomData<K>,
}

impl<K: Kind, const N: usize> Family<'_, K, N> {
    /// Adds a sample; the labels' values are in the order of the definition.
    pub fn sample(&mut self, labels: [&str; N], value: impl Into<K::Value>) -> &mut Self {
        for label in labels {
            self.samples.text.push_str(label);
            self.samples.ends.push(self.samples.text.len());
        }
        self.samples.values.push(value.into().into());
        self
    }
}

// The label values of all samples stand in one text: a scrape of 10,000 backends is not a million small strings.
#[derive(Debug)]
struct Samples {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    shape: Shape,
    text: String,
    ends: Vec<usize>,
    values: Vec<Value>,
}

// How a family is described to the encoder, which adds unit and suffix to the stem by itself.
#[derive(Debug)]
struct Shape {
    stem: &'static str,
    unit: Option<Unit>,
    described_as: MetricType,
    // By which of the encoder's forms a number is written: only `encode_counter` appends `_total`.
    written_as: MetricType,
}

impl Shape {
    fn new(name: &'static str, kind: &str, format: Format) -> Self {
        use MetricType::{Counter, Gauge, Histogram, Info};
        let described_as = match kind {
            "counter" => Counter,
            "histogram" => Histogram,
            "info" if format == Format::OpenMetrics => Info,
            _ => Gauge,
        };
        if format == Format::Text {
            let written_as = if kind == "histogram" { Histogram } else { Gauge };
            return Self { stem: name, unit: None, described_as, written_as };
        }
        let stem = name.strip_suffix("_total").or_else(|| name.strip_suffix("_info")).unwrap_or(name);
        let unit = catalogue::unit(name);
        let stem = unit.and_then(|unit| stem.strip_suffix(unit)?.strip_suffix('_')).unwrap_or(stem);
        let unit = unit.map(|unit| if unit == "bytes" { Unit::Bytes } else { Unit::Seconds });
        Self { stem, unit, described_as, written_as: described_as }
    }
}

impl Samples {
    fn new<K: Kind, const N: usize>(metric: &'static Metric<K, N>, format: Format) -> Self {
        Self {
            name: metric.name,
            help: metric.help,
            labels: &metric.labels,
            shape: Shape::new(metric.name, K::NAME, format),
            text: String::new(),
            ends: Vec::new(),
            values: Vec::new(),
        }
    }

    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Shape { stem, unit, described_as, written_as } = &self.shape;
        let mut metric = encoder.encode_descriptor(stem, self.help, unit.as_ref(), *described_as)?;
        for (index, value) in self.values.iter().enumerate() {
            let labels = LabelsOf { family: self, index };
            match (value, written_as) {
                (Value::One, MetricType::Info) => metric.encode_info(&labels)?,
                _ if self.labels.is_empty() => encode_value(&mut metric, *written_as, value)?,
                _ => encode_value(&mut metric.encode_family(&labels)?, *written_as, value)?,
            }
        }
        Ok(())
    }
}

fn encode_value(metric: &mut MetricEncoder<'_>, written_as: MetricType, value: &Value) -> fmt::Result {
    match (value, written_as) {
        (Value::Latencies(sum), _) => {
            let bounds = LATENCY_BOUNDS.into_iter().chain([f64::INFINITY]);
            let buckets: Vec<_> = bounds.zip(sum.buckets).collect();
            let count = sum.buckets.iter().sum();
            metric.encode_histogram::<NoLabelSet>(seconds(sum.sum_micros), count, &buckets, None)
        }
        (Value::Number(Number::Count(n)), MetricType::Counter) => metric.encode_counter::<NoLabelSet, _, f64>(n, None),
        (Value::Number(Number::Real(x)), MetricType::Counter) => metric.encode_counter::<NoLabelSet, _, f64>(x, None),
        (Value::Number(Number::Count(n)), _) => metric.encode_gauge(n),
        (Value::Number(Number::Real(x)), _) => metric.encode_gauge(x),
        (Value::One, _) => metric.encode_gauge(&1u64),
    }
}

/// Microseconds as Prometheus has them. Exact to the microsecond for 285 years.
#[expect(clippy::cast_precision_loss, reason = "a metric is a float")]
pub(super) fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[derive(Debug)]
struct LabelsOf<'a> {
    family: &'a Samples,
    index: usize,
}

impl EncodeLabelSet for LabelsOf<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let Samples { labels, text, ends, .. } = self.family;
        let first = self.index * labels.len();
        let mut start = first.checked_sub(1).map_or(0, |before| ends[before]);
        for (label, end) in labels.iter().zip(&ends[first..]) {
            prometheus_client::encoding::EncodeLabel::encode(&(*label, &text[start..*end]), encoder.encode_label())?;
            start = *end;
        }
        Ok(())
    }
}
