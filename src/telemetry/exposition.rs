//! A scrape, from plain values to text.
//!
//! The admin plane opens the families of the [catalogue] that it has values for, gives each its samples
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
use crate::base::Timestamp;

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

impl From<u32> for Number {
    fn from(count: u32) -> Self {
        Self::Count(count.into())
    }
}

impl From<usize> for Number {
    fn from(count: usize) -> Self {
        Self::Count(count as u64)
    }
}

impl From<Timestamp> for Number {
    fn from(moment: Timestamp) -> Self {
        Self::Real(seconds(moment.as_micros()))
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

// Microseconds as Prometheus has them. Exact to the microsecond for 285 years.
#[expect(clippy::cast_precision_loss, reason = "a metric is a float")]
fn seconds(micros: u64) -> f64 {
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

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use proptest::prelude::*;

    use super::*;

    fn latencies(millis: &[u64]) -> HistogramSum {
        let histogram = crate::telemetry::cells::Histogram::default();
        millis.iter().for_each(|ms| histogram.observe(Duration::from_millis(*ms)));
        let mut sum = HistogramSum::default();
        histogram.add_to(&mut sum);
        sum
    }

    // One family of each shape: counter with and without unit and labels, gauge, real numbers, histogram, info.
    fn every_shape(format: Format) -> String {
        let mut out = Exposition::new(format);
        out.family(&catalogue::HTTP_REQUESTS)
            .sample(["web", "orders", "GET", "200"], 212u64)
            .sample(["web", "a \"b\"\\c\nd", "other", "5xx"], 1u64);
        out.family(&catalogue::HTTP_REQUEST_DURATION).sample(["orders"], latencies(&[1, 3, 3, 70_000]));
        out.family(&catalogue::HTTP_REQUEST_BODY_BYTES).sample(["orders"], 1u64 << 60);
        out.family(&catalogue::BACKEND_UP).sample(["orders", "big"], false).sample(["orders", "10.0.1.11:9001"], true);
        out.family(&catalogue::BACKEND_STATE_SINCE)
            .sample(["orders", "big"], Timestamp::from_micros(1_795_349_071_000_042));
        out.family(&catalogue::HEALTH_PROBES);
        out.family(&catalogue::CONFIG_INFO).sample(["3f9c1e2", "file"], ());
        out.family(&catalogue::CONFIG_GENERATION).sample([], 7u64);
        out.family(&catalogue::PANICS).sample([], 0u64);
        out.family(&catalogue::PROCESS_CPU).sample([], 12.34);
        out.family(&catalogue::HTTP_REQUEST_BODY_BYTES).sample(["web"], 0u64);
        out.finish()
    }

    #[test]
    fn every_shape_as_openmetrics() {
        insta::assert_snapshot!(every_shape(Format::OpenMetrics));
    }

    #[test]
    fn every_shape_as_text() {
        insta::assert_snapshot!(every_shape(Format::Text));
    }

    #[test]
    fn every_series_has_the_catalogues_name_in_both_formats() {
        for format in [Format::OpenMetrics, Format::Text] {
            let text = every_shape(format);
            for line in text.lines().filter(|line| !line.starts_with('#')) {
                let name = line.split(['{', ' ']).next().unwrap();
                let of_a_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
                assert!(catalogue::all().iter().any(|row| row.name == of_a_histogram.unwrap_or(name)), "{line}");
            }
        }
    }

    #[test]
    fn an_empty_exposition_is_one() {
        assert_eq!(Exposition::new(Format::OpenMetrics).finish(), "# EOF\n");
        assert_eq!(Exposition::new(Format::Text).finish(), "");
    }

    #[test]
    fn the_scraper_chooses_the_format() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, format) in [
            (Some(prometheus), Format::OpenMetrics),
            (Some("Application/OpenMetrics-Text; version=1.0.0"), Format::OpenMetrics),
            (Some("application/openmetrics-text;q=0.3, text/plain;q=0.7"), Format::Text),
            (Some("application/openmetrics-text;q=0"), Format::Text),
            (Some("text/plain"), Format::Text),
            (Some("*/*"), Format::Text),
            (Some(";;q=,,"), Format::Text),
            (Some("application/openmetrics-text;q=nonsense"), Format::OpenMetrics),
            (Some("application/openmetrics-text;q=NaN"), Format::Text),
            (None, Format::Text),
        ] {
            assert_eq!(format_for(accept), format, "{accept:?}");
        }
    }

    type Series = BTreeMap<Vec<(String, String)>, f64>;

    // The samples of one family, read as the OpenMetrics grammar says.
    fn parse(text: &str, name: &str) -> Series {
        let mut rest = text;
        let mut series = Series::new();
        while let Some(at) = rest.find(&format!("\n{name}{{")) {
            rest = &rest[at + name.len() + 2..];
            let mut labels = Vec::new();
            while !rest.starts_with('}') {
                let (label, value) = rest.trim_start_matches(',').split_once("=\"").unwrap();
                let mut text = String::new();
                let mut chars = value.char_indices();
                rest = loop {
                    match chars.next().unwrap() {
                        (end, '"') => break &value[end + 1..],
                        (_, '\\') => text.push(match chars.next().unwrap().1 {
                            'n' => '\n',
                            c => c,
                        }),
                        (_, c) => text.push(c),
                    }
                };
                labels.push((label.to_owned(), text));
            }
            let (value, after) = rest[2..].split_once('\n').unwrap();
            series.insert(labels, value.parse().unwrap());
            rest = &rest[rest.len() - after.len() - 1..];
        }
        series
    }

    proptest! {
        #[test]
        fn whatever_a_label_holds_reads_back(
            samples in prop::collection::btree_map(("[a\\\\\"\n,{}= ü]{0,6}", "[b\\\\\"\n,{}= ]{0,6}"), 0u64..1 << 50, 1..8),
        ) {
            for format in [Format::OpenMetrics, Format::Text] {
                let mut out = Exposition::new(format);
                let mut family = out.family(&catalogue::GATEWAY_ERRORS);
                let mut expected = Series::new();
                for ((route, reason), value) in &samples {
                    family.sample([route, reason], *value);
                    let labels = vec![("route".to_owned(), route.clone()), ("reason".to_owned(), reason.clone())];
                    #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
                    expected.insert(labels, *value as f64);
                }
                prop_assert_eq!(parse(&out.finish(), catalogue::GATEWAY_ERRORS.name), expected);
            }
        }
    }
}
