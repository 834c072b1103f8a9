//! Which of the eligible members a request gets.
//!
//! All that can be worked out beforehand is made with the slice, by the control plane: the order of turns, the circle or the table of
//! hashes, the tokens of cookies. A choice is then a few loads; it takes no lock, allocates nothing, and is made anew where the member
//! that was chosen cannot have the request. Who is eligible is settled before (`eligible.rs`).

mod ewma;
mod hash;
mod least;
mod maglev;
mod placement;
mod ring;
mod sticky;
#[cfg(test)]
mod tests;
mod turns;
mod two;

use std::{sync::Arc, time::Instant};

pub(super) use ewma::Latency;
pub use hash::{place, place_for, place_ip};
use placement::{Everybody, Placement};
pub(super) use sticky::Sessions;
pub use sticky::Token;
use turns::Turns;

use super::{Member, Slot};
use crate::config::plan::BalanceMode;

/// Steps on a circle or through a table after which a backend that can have the request is looked for in another way. More than one
/// is seldom taken, and a request costs no more by a long walk where nearly everybody is full.
const PROBES: usize = 64;

/// What a request brings to the choice of its backend.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ticket {
    /// Where it lies among all, where that decides and it says it.
    pub key: Option<u64>,
    /// What its cookie says, where clients stay with their backends.
    pub token: Option<Token>,
}

/// One choice.
#[derive(Clone, Copy, Debug, Default)]
pub struct Draw<'a> {
    /// The request's.
    pub ticket: Ticket,
    /// Whose turn it is. Counts up forever.
    pub turn: usize,
    /// Who has had the request already.
    pub tried: &'a [Slot],
    /// Requests in flight that a backend may have; `None` is unlimited.
    pub max: Option<u32>,
    /// Requests in flight at all of the upstream's backends, where loads are bounded.
    pub crowd: u32,
}

impl Draw<'_> {
    pub(super) fn has_tried(&self, member: &Member) -> bool {
        self.tried.contains(&member.backend.slot())
    }

    pub(super) fn fits(&self, member: &Member) -> bool {
        !self.has_tried(member) && self.max.is_none_or(|max| member.backend.in_flight() < max)
    }
}

/// The members of a slice, as one choice sees them.
struct Candidates<'a> {
    members: &'a [Arc<Member>],
    weights: &'a [u32],
    mean_weight: f32,
    draw: &'a Draw<'a>,
}

impl Candidates<'_> {
    fn fits(&self, index: usize) -> bool {
        self.members.get(index).is_some_and(|member| self.draw.fits(member))
    }

    fn weight(&self, index: usize) -> u32 {
        self.weights.get(index).copied().unwrap_or(1)
    }

    fn in_flight(&self, index: usize) -> u32 {
        self.members.get(index).map_or(u32::MAX, |member| member.backend.in_flight())
    }

    fn latency(&self, index: usize, now: Instant) -> Option<f32> {
        self.members.get(index)?.backend.latency(now)
    }

    /// What it has to do with the next request, of what all would have if each had one, for its weight; at least that one.
    fn relative_load(&self, index: usize) -> f32 {
        match self.in_flight(index) {
            0 => 1.0,
            busy => ((busy as f32 + 1.0) * self.mean_weight / self.weight(index) as f32).max(1.0),
        }
    }
}

/// A member as it is placed by its name.
struct Share<'a> {
    name: &'a str,
    // In percent of one.
    weight: u32,
    index: u16,
}

/// How one of the members of a slice is chosen. Immutable.
#[derive(Debug)]
pub(super) struct Chooser {
    weights: Box<[u32]>,
    mean_weight: f32,
    turns: Turns,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Hash(Placement),
    LeastRequests,
    P2c,
    Random,
    RoundRobin,
}

impl Chooser {
    /// For members of these weights, in percent of one. `all` are the members of the upstream, eligible or not.
    pub(super) fn new(mode: &BalanceMode, chosen: &[&Member], weights: Vec<u32>, all: &[Member]) -> Self {
        let way = match mode {
            BalanceMode::Hash(placing) => {
                let members = chosen.iter().zip(&weights).zip(0_u16..);
                let shares =
                    members.map(|((member, weight), index)| Share { name: &member.name, weight: *weight, index });
                let shares: Vec<Share<'_>> = shares.collect();
                let whole = all.iter().map(|member| 100 * u64::from(member.weight)).sum();
                let everybody = Everybody { count: all.len(), weight: whole };
                Way::Hash(Placement::new(placing, &shares, everybody))
            }
            BalanceMode::LeastRequests => Way::LeastRequests,
            BalanceMode::P2c => Way::P2c,
            BalanceMode::Random => Way::Random,
            BalanceMode::RoundRobin => Way::RoundRobin,
        };
        let mean_weight = weights.iter().map(|weight| *weight as f32).sum::<f32>() / weights.len().max(1) as f32;
        Self { turns: Turns::new(&weights), weights: weights.into(), mean_weight, way }
    }

    /// Turns after which all begins anew.
    #[cfg(test)]
    pub(super) fn round(&self) -> usize {
        self.turns.len()
    }

    /// Whether it has to know how many requests are in flight.
    pub(super) const fn is_bounded(&self) -> bool {
        matches!(&self.way, Way::Hash(placement) if placement.is_bounded())
    }

    /// One of them that fits.
    pub(super) fn pick<'a>(&self, members: &'a [Arc<Member>], draw: &Draw<'_>) -> Option<&'a Arc<Member>> {
        let (weights, turns) = (&*self.weights, &self.turns);
        let among = Candidates { members, weights, mean_weight: self.mean_weight, draw };
        let index = match (&self.way, draw.ticket.key) {
            (Way::Hash(placement), Some(key)) => placement.pick(key, draw.crowd, &among),
            // One that does not say where it belongs.
            (Way::Hash(_), None) | (Way::RoundRobin, _) => turns.pick(draw.turn, &among),
            (Way::LeastRequests, _) => least::pick(turns, draw.turn, &among),
            (Way::P2c, _) => ewma::pick(turns, Instant::now(), &among),
            (Way::Random, _) => two::random(turns, &among),
        };
        members.get(index?)
    }
}
