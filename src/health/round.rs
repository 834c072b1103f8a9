//! Many backends asked once, outside of any schedule: before an edit goes live, or before a gateway runs at all.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Semaphore, task::JoinSet, time::timeout};

use super::{
    Kind, Outcome,
    probe::{self, Prepared, Question},
};
use crate::{config::plan::HealthCheck, upstream::Member};

/// Questions that are to be put once, in their order.
#[derive(Debug, Default)]
pub struct Round(Vec<Question>);

/// Questions under way at once.
const PARALLEL: usize = 256;

impl Round {
    /// Adds every check of every one of these members: all checks of the first, then those of the second, and so on.
    pub fn add<'a>(&mut self, members: impl IntoIterator<Item = &'a Member>, checks: &[HealthCheck]) {
        let checks: Vec<Arc<Prepared>> = checks.iter().map(Prepared::new).collect();
        let of_one = |member| checks.iter().map(move |check| Question::new(member, check));
        self.0.extend(members.into_iter().flat_map(of_one));
    }

    /// Puts the questions, many at once, and returns the outcomes in their order; `None` where the time was over before, or
    /// the probe panicked. One that is inconclusive is put again, once.
    pub async fn ask(self, limit: Duration) -> Vec<Option<Outcome>> {
        let permits = Arc::new(Semaphore::new(PARALLEL));
        let mut outcomes = vec![None; self.0.len()];
        let mut probes = JoinSet::new();
        for (place, question) in self.0.into_iter().enumerate() {
            let permits = Arc::clone(&permits);
            probes.spawn(async move {
                let _permit = permits.acquire().await;
                (place, ask(&question).await)
            });
        }
        let all = async {
            while let Some(asked) = probes.join_next().await {
                if let Ok((place, outcome)) = asked
                    && let Some(answer) = outcomes.get_mut(place)
                {
                    *answer = Some(outcome);
                }
            }
        };
        // Those that are still under way are called off.
        let _ = timeout(limit, all).await;
        outcomes
    }
}

async fn ask(question: &Question) -> Outcome {
    let first = probe::ask(question).await;
    if first.kind == Kind::Inconclusive { probe::ask(question).await } else { first }
}
