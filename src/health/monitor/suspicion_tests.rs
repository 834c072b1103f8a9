//! Checks that fail everywhere at once although nothing was edited, in virtual time.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    super::Detection,
    tests::{
        Behaviour::{Fail, Hang, Pass},
        Bench, check, judged, members, seconds,
    },
    traffic_tests::{WORKER, fail, health, passive, start, succeed},
    *,
};
use crate::{
    config::plan::{Health, HealthCheck, SuspectCheck},
    upstream::{Tier, Verdict},
};

const REFUSED: super::tests::Behaviour = Fail("connect refused");

/// Requests that go well, ten a second for each backend that gets traffic; `look` sees every moment of it.
async fn served(bench: &Bench, lasts: f64, mut look: impl FnMut(&Bench)) {
    for _ in 0..(lasts * 10.0) as usize {
        let eligible = bench.upstream.eligible();
        eligible.members().iter().for_each(|member| succeed(member, 1));
        drop(eligible);
        seconds(0.1).await;
        look(bench);
    }
}

/// A request that each backend of them answers with 503, and that is told.
async fn broken(bench: &Bench, members: &[Member]) {
    for member in members {
        member.backend.metrics().record(WORKER, 503, Duration::from_millis(1));
        fail(bench, member, 1).await;
    }
    seconds(0.1).await;
}

fn nobody_is_out(bench: &Bench) {
    let down: Vec<&str> = bench.monitor.view().backends.iter().map(|backend| backend.shown).collect();
    assert!(!down.contains(&"down"), "{down:?}");
}

fn suspicion(bench: &Bench) -> Option<String> {
    Option::clone(&bench.monitor.view().suspicion)
}

async fn until_down(bench: &Bench, name: &str) -> Duration {
    let began = Instant::now();
    while bench.backend(name).verdict != Verdict::Down {
        served(bench, 0.1, |_| ()).await;
        assert!(began.elapsed() < Duration::from_secs(60), "{name} stays up");
    }
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_check_that_everybody_begins_to_fail_while_traffic_goes_well_is_suspect() {
    for phase in 0..12 {
        let bench = start(health(&[check()], passive()), &members([1, 2, 3]));
        served(&bench, 30.0 + f64::from(phase) * 0.9, nobody_is_out).await;
        bench.told();
        (1..=3).for_each(|port| bench.set(port, if phase % 2 == 0 { REFUSED } else { Hang }));
        served(&bench, 120.0, nobody_is_out).await;
        assert_eq!(bench.told(), ["suspect_check"]);
        let told = suspicion(&bench).unwrap();
        assert!(
            told.starts_with("every backend of `orders` that was up began to fail its health check within "),
            "{told}"
        );
        assert!(told.contains("nothing was edited") && told.ends_with("; nobody more is taken out"), "{told}");
        assert!((1..=3).all(|port| bench.backend(&format!("b{port}")).record.is_held));
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_detected_as_fast_as_ever() {
    let worst = Detection::of(&[check()]).unwrap();
    for phase in 0..12 {
        let three = members([1, 2, 3]);
        let bench = start(health(&[check()], passive()), &three);
        served(&bench, 30.0 + f64::from(phase) * 0.9, nobody_is_out).await;
        // They hang: no request comes to its end any more. Or they fail, requests and probes.
        let hangs = phase % 2 == 0;
        (1..=3).for_each(|port| bench.set(port, if hangs { Hang } else { REFUSED }));
        let died = Instant::now();
        while bench.upstream.eligible().tier() != Tier::Nobody {
            match hangs {
                true => {
                    // One that was nearly done ends well all the same.
                    let is_late = (died.elapsed().as_millis() / 100) % 80 == 60;
                    succeed(&three[0], u64::from(is_late));
                    seconds(0.1).await;
                }
                false => broken(&bench, &three).await,
            }
            let limit = if hangs { worst.out } else { Duration::from_secs(4) };
            assert!(died.elapsed() < limit + Duration::from_millis(150), "{:?} in phase {phase}", died.elapsed());
        }
        assert!(!bench.told().contains(&"suspect_check".to_owned()));
        assert_eq!(suspicion(&bench), None);
    }
}

#[tokio::test(start_paused = true)]
async fn the_hold_ends_when_traffic_fails_as_well() {
    let three = members([1, 2, 3]);
    let bench = start(health(&[check()], passive()), &three);
    served(&bench, 30.0, nobody_is_out).await;
    (1..=3).for_each(|port| bench.set(port, REFUSED));
    served(&bench, 60.0, nobody_is_out).await;
    assert!(suspicion(&bench).is_some());
    bench.told();
    let failed = Instant::now();
    while bench.upstream.eligible().tier() != Tier::Nobody {
        broken(&bench, &three).await;
    }
    assert!(failed.elapsed() < Duration::from_secs(4), "{:?}", failed.elapsed());
    seconds(1.0).await;
    assert_eq!(suspicion(&bench), None);
    let told = bench.told();
    assert!(told.iter().any(|line| line.contains("not suspect any more: traffic fails as well")), "{told:?}");
    // What is out stays out until it passes.
    seconds(60.0).await;
    assert_eq!(bench.upstream.eligible().tier(), Tier::Nobody);
    bench.set(2, Pass);
    seconds(30.0).await;
    assert_eq!(bench.eligible(), [2]);
}

#[tokio::test(start_paused = true)]
async fn a_pause_of_traffic_does_not_end_the_hold() {
    let bench = start(health(&[check()], passive()), &members([1, 2]));
    served(&bench, 30.0, nobody_is_out).await;
    [1, 2].into_iter().for_each(|port| bench.set(port, REFUSED));
    served(&bench, 30.0, nobody_is_out).await;
    seconds(3_600.0).await;
    served(&bench, 10.0, nobody_is_out).await;
    assert!(suspicion(&bench).is_some());
}

#[tokio::test(start_paused = true)]
async fn without_traffic_nothing_speaks_against_the_check() {
    let bench = start(health(&[check()], passive()), &members([1, 2]));
    served(&bench, 30.0, nobody_is_out).await;
    bench.told();
    [1, 2].into_iter().for_each(|port| bench.set(port, REFUSED));
    let worst = Detection::of(&[check()]).unwrap();
    seconds(worst.out.as_secs_f64()).await;
    assert_eq!(bench.upstream.eligible().tier(), Tier::Nobody);
    assert!(!bench.told().contains(&"suspect_check".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn backends_that_fail_one_after_the_other_are_taken_out_though_traffic_goes_well() {
    let bench = start(health(&[check()], passive()), &members([1, 2, 3]));
    served(&bench, 30.0, nobody_is_out).await;
    bench.told();
    let mut told = Vec::new();
    for port in 1..=3 {
        bench.set(port, REFUSED);
        served(&bench, 60.0, |_| ()).await;
        told.extend(bench.told());
    }
    assert_eq!(bench.upstream.eligible().tier(), Tier::Nobody);
    assert_eq!(told.len(), 3, "{told:?}");
    for (line, port) in told.iter().zip(1..) {
        let begins = format!("b{port}: up > down, connect_refused, 3 bad probes in ");
        assert!(line.starts_with(&begins), "{told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn that_others_pass_is_found_out_at_once() {
    for phase in 0..12 {
        let bench = start(health(&[check()], passive()), &members([1, 2]));
        served(&bench, 30.0 + f64::from(phase) * 0.9, nobody_is_out).await;
        bench.set(1, REFUSED);
        let failed = bench.probes(1).len();
        until_down(&bench, "b1").await;
        let probes = bench.probes(1);
        assert!(probes[failed..].len() == 3, "{:?}", &probes[failed..]);
        assert!(probes[failed + 2].elapsed() < Duration::from_millis(150), "{:?}", probes[failed + 2].elapsed());
        assert!(!bench.backend("b1").record.is_held);
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_alone_is_taken_out_by_its_check() {
    let bench = start(health(&[check()], passive()), &members([1]));
    served(&bench, 30.0, nobody_is_out).await;
    bench.set(1, REFUSED);
    assert!(until_down(&bench, "b1").await < Duration::from_secs(14));
    // So is the last one that is left, and a backup's word counts as well.
    let [first, mut second] = members([1, 2]);
    second.tier = 1;
    let bench = start(health(&[check()], passive()), &[first, second]);
    served(&bench, 30.0, nobody_is_out).await;
    bench.set(1, REFUSED);
    until_down(&bench, "b1").await;
    served(&bench, 30.0, |_| ()).await;
    assert_eq!(bench.eligible(), [2]);
    bench.set(2, REFUSED);
    until_down(&bench, "b2").await;
}

#[tokio::test(start_paused = true)]
async fn one_that_was_down_before_says_nothing() {
    let bench = start(health(&[check()], passive()), &members([1, 2, 3]));
    bench.set(1, REFUSED);
    served(&bench, 60.0, |_| ()).await;
    assert_eq!(bench.eligible(), [2, 3]);
    [2, 3].into_iter().for_each(|port| bench.set(port, REFUSED));
    served(&bench, 60.0, |bench| assert_eq!(bench.eligible(), [2, 3])).await;
    assert!(suspicion(&bench).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_recovery_lays_it_to_rest_and_takes_nobody_out() {
    for phase in 0..12 {
        let bench = start(health(&[check()], passive()), &members([1, 2, 3]));
        served(&bench, 30.0, nobody_is_out).await;
        (1..=3).for_each(|port| bench.set(port, REFUSED));
        served(&bench, 60.0 + f64::from(phase) * 0.9, nobody_is_out).await;
        bench.told();
        (1..=3).for_each(|port| bench.set(port, Pass));
        served(&bench, 30.0, nobody_is_out).await;
        assert_eq!(suspicion(&bench), None);
        assert!((1..=3).all(|port| !bench.backend(&format!("b{port}")).record.is_held));
        let told = bench.told();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("the health check of `orders` is not suspect any more: a backend passes"), "{told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn when_one_passes_the_others_are_asked_again_and_believed() {
    for phase in 0..12 {
        let bench = start(health(&[check()], passive()), &members([1, 2, 3]));
        served(&bench, 30.0, nobody_is_out).await;
        (1..=3).for_each(|port| bench.set(port, REFUSED));
        served(&bench, 60.0 + f64::from(phase) * 0.9, nobody_is_out).await;
        bench.set(2, Pass);
        while suspicion(&bench).is_some() {
            served(&bench, 0.1, |_| ()).await;
        }
        served(&bench, 0.2, |_| ()).await;
        assert_eq!(bench.eligible(), [2]);
        served(&bench, 60.0, |bench| assert_eq!(bench.eligible(), [2])).await;
    }
}

#[tokio::test(start_paused = true)]
async fn where_it_is_not_held_it_is_told() {
    let eject = Health { suspect_check: SuspectCheck::Eject, ..health(&[check()], passive()) };
    let bench = start(eject, &members([1, 2]));
    served(&bench, 30.0, nobody_is_out).await;
    bench.told();
    [1, 2].into_iter().for_each(|port| bench.set(port, REFUSED));
    served(&bench, 30.0, |_| ()).await;
    assert_eq!(bench.upstream.eligible().tier(), Tier::Nobody);
    assert!(bench.told().contains(&"suspect_check".to_owned()));
    assert!(suspicion(&bench).unwrap().ends_with("is the check right?"));
}

#[tokio::test(start_paused = true)]
async fn a_check_that_is_not_suspect_is_believed_beside_one_that_is() {
    let second = HealthCheck { name: Name::derived("second"), port: Some(77), ..check() };
    let bench = start(health(&[check(), second], passive()), &members([1, 2, 3]));
    served(&bench, 30.0, nobody_is_out).await;
    bench.set(77, REFUSED);
    served(&bench, 30.0, nobody_is_out).await;
    let told = suspicion(&bench).unwrap();
    assert!(told.contains("fail its health check `second` within"), "{told}");
    bench.set(1, REFUSED);
    served(&bench, 30.0, |_| ()).await;
    assert_eq!(bench.eligible(), [2, 3]);
}

#[tokio::test(start_paused = true)]
async fn an_edit_of_something_else_does_not_end_the_hold() {
    let two = members([1, 2]);
    let second = HealthCheck { name: Name::derived("second"), port: Some(77), ..check() };
    let bench = start(health(&[second.clone(), check()], passive()), &two);
    served(&bench, 30.0, nobody_is_out).await;
    [1, 2].into_iter().for_each(|port| bench.set(port, REFUSED));
    served(&bench, 30.0, nobody_is_out).await;
    bench.told();
    bench.update_plan(judged(health(&[check(), second], passive()), Duration::ZERO), &two).await;
    served(&bench, 60.0, nobody_is_out).await;
    assert!(suspicion(&bench).is_some());
    bench.update_plan(judged(health(&[check()], passive()), Duration::ZERO), &two).await;
    served(&bench, 60.0, nobody_is_out).await;
    assert_eq!(bench.told(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_thousand_backends_are_held_and_released() {
    let many: Vec<Member> = (1..=1_000).map(super::tests::member).collect();
    let bench = start(health(&[check()], passive()), &many);
    served(&bench, 30.0, |_| ()).await;
    (1..=1_000).for_each(|port| bench.set(port, REFUSED));
    served(&bench, 60.0, |_| ()).await;
    assert_eq!(bench.eligible().len(), 1_000);
    assert!(suspicion(&bench).is_some());
    (1..=1_000).for_each(|port| bench.set(port, Pass));
    served(&bench, 30.0, |bench| assert_eq!(bench.upstream.eligible().members().len(), 1_000)).await;
    assert_eq!(suspicion(&bench), None);
}
