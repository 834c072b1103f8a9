//! The TCP probe: a backend that accepts a connection is fit.

use super::{Attempt, Failure, Question};

pub(super) async fn probe(attempt: &mut Attempt, question: &Question) -> Result<(), Failure> {
    attempt.connect(&question.dial.address).await.map(drop)
}
