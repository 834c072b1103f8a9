//! Counters that a worker writes without a locked instruction and anybody may read.
//!
//! Every counter of the data plane is an array with one cell per worker. A cell has one writer, its worker, so an increment
//! is a load and a store; a reader sums the cells. The price is that nobody but worker `w` may write cell `w`.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// The number of a data-plane thread, from 0: the index of its cells.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WorkerId(pub usize);

/// One worker's cell of a counter.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// Adds to the cell. Called by the cell's own worker only.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Replaces what it holds. Called by the cell's own worker only.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Its value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

// Two workers' cells never share a cache line (128 bytes: adjacent-line prefetch).
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded(Cell);

/// A counter with one cell per worker.
#[derive(Debug)]
pub struct Counter(Box<[Padded]>);

impl Counter {
    /// A counter at zero.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| Padded::default()).collect())
    }

    /// Adds to the calling worker's cell.
    pub fn add(&self, worker: WorkerId, n: u64) {
        if let Some(cell) = self.0.get(worker.0) {
            cell.0.add(n);
        }
    }

    /// The sum over all workers.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.0.iter().map(|cell| cell.0.get()).sum()
    }
}

/// Upper bounds of the latency buckets in seconds, 1 ms to 60 s; one more bucket has no bound.
pub const LATENCY_BOUNDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0];

const LATENCY_BOUNDS_MICROS: [u64; 14] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 10_000_000,
    30_000_000, 60_000_000,
];

/// One writer's histogram of latencies.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Cell; LATENCY_BOUNDS.len() + 1],
    sum_micros: Cell,
}

impl Histogram {
    /// Counts one latency. Called by the histogram's own writer only.
    pub fn observe(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let bucket = LATENCY_BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        if let Some(cell) = self.buckets.get(bucket) {
            cell.add(1);
        }
        self.sum_micros.add(micros);
    }

    /// Adds what it holds to a sum.
    pub fn add_to(&self, sum: &mut HistogramSum) {
        for (total, cell) in sum.buckets.iter_mut().zip(&self.buckets) {
            *total += cell.get();
        }
        sum.sum_micros += self.sum_micros.get();
    }
}

/// Histograms of several writers, summed. Buckets are not cumulative.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistogramSum {
    /// Counts by bucket: those of [`LATENCY_BOUNDS`], then the unbounded one.
    pub buckets: [u64; LATENCY_BOUNDS.len() + 1],
    /// The sum of all latencies, in microseconds.
    pub sum_micros: u64,
}
