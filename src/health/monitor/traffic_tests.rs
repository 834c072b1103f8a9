//! Live traffic, operators and several checks beside the probes, in virtual time.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    super::{Detection, Thresholds, Trial},
    tests::{
        Behaviour::{self, Fail, Hang, Pass},
        Bench, check, judged, members, seconds,
    },
    *,
};
use crate::{
    base::{Percent, Timestamp},
    config::plan::{FailureRatio, Health, HealthCheck, Passive, WhenOut},
    health::Source,
    telemetry::WorkerId,
    upstream::{Draw, Evidence, Tier, Verdict},
};

pub(super) const WORKER: WorkerId = WorkerId(0);
const REFUSED: Behaviour = Fail("connect refused");

pub(super) fn health(checks: &[HealthCheck], passive: Passive) -> Health {
    Health { checks: checks.to_vec(), passive: Some(passive), ..Health::default() }
}

pub(super) fn passive() -> Passive {
    Passive { failures: 3, ..Passive::default() }
}

pub(super) fn start(health: Health, members: &[Member]) -> Bench {
    Bench::start_plan(256, judged(health, Duration::ZERO), members, &[])
}

/// Requests that fail by the backend's doing, and are told.
pub(super) async fn fail(bench: &Bench, member: &Member, times: usize) {
    fail_asking(bench, member, times, None).await;
}

async fn fail_asking(bench: &Bench, member: &Member, times: usize, retry_after: Option<Duration>) {
    for _ in 0..times {
        member.backend.failed(WORKER, true);
        let slot = member.backend.slot();
        bench.upstream.report(Evidence::Failed { slot, reason: "status", status: Some(503), retry_after });
    }
    seconds(0.001).await;
}

pub(super) fn succeed(member: &Member, times: u64) {
    for _ in 0..times {
        member.backend.metrics().record(WORKER, 200, Duration::from_millis(1));
        member.backend.succeeded();
    }
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_eject_for_a_while_that_doubles() {
    let both = members([1, 2]);
    let bench = start(health(&[check()], passive()), &both);
    bench.monitor.first_round().await;
    bench.told();
    fail(&bench, &both[0], 2).await;
    succeed(&both[0], 1);
    fail(&bench, &both[0], 2).await;
    assert_eq!(bench.eligible(), [1, 2], "a success in between starts the row anew");
    fail(&bench, &both[0], 1).await;
    assert_eq!((bench.eligible(), bench.backend("b1").shown), (vec![2], "ejected"));
    let told = bench.told();
    assert_eq!(told.len(), 1);
    assert!(told[0].starts_with("b1: up > ejected, failures, 3 failed requests in a row (503), for 1"), "{told:?}");
    seconds(9.9).await;
    assert_eq!(bench.eligible(), [2]);
    seconds(1.2).await;
    assert_eq!(bench.eligible(), [1, 2]);
    assert_eq!(bench.told(), ["b1: ejected > up, time_over, back after its ejection, 2 of 2"]);
    fail(&bench, &both[0], 3).await;
    seconds(19.0).await;
    assert_eq!(bench.eligible(), [2], "twice as long");
    let ejected = bench.backend("b1").record.ejected.unwrap();
    assert_eq!(ejected.times, 2);
    seconds(3.1).await;
    assert_eq!(bench.eligible(), [1, 2]);
    assert!(bench.backend("b1").record.ejected.is_none());
}

#[tokio::test(start_paused = true)]
async fn the_last_one_stays_and_no_more_than_the_share_goes() {
    let five = members([1, 2, 3, 4, 5]);
    let bench = start(health(&[check()], Passive { max_ejected: Percent::whole(40), ..passive() }), &five);
    bench.monitor.first_round().await;
    for member in &five {
        fail(&bench, member, 3).await;
    }
    assert_eq!(bench.eligible(), [3, 4, 5]);
    let spared = bench.backend("b3").record.spared.clone().unwrap();
    assert_eq!(spared, "3 failed requests in a row (503); it stays: max_ejected is 40%");

    let bench = start(health(&[check()], passive()), &members([1]));
    bench.monitor.first_round().await;
    fail(&bench, &bench.members()[0], 9).await;
    assert_eq!(bench.eligible(), [1]);
}

#[tokio::test(start_paused = true)]
async fn what_checks_take_out_does_not_count_against_the_share() {
    let four = members([1, 2, 3, 4]);
    let bench = start(health(&[check()], passive()), &four);
    bench.set(1, REFUSED);
    bench.set(2, REFUSED);
    seconds(30.0).await;
    assert_eq!(bench.eligible(), [3, 4]);
    fail(&bench, &four[2], 3).await;
    assert_eq!(bench.eligible(), [4]);
}

#[tokio::test(start_paused = true)]
async fn both_must_agree_to_let_a_backend_back() {
    let both = members([1, 2]);
    let bench = start(health(&[check()], passive()), &both);
    bench.monitor.first_round().await;
    bench.told();
    fail(&bench, &both[0], 3).await;
    bench.set(1, REFUSED);
    seconds(12.0).await;
    assert_eq!((bench.eligible(), bench.backend("b1").shown), (vec![2], "down"), "its time is over, its check says no");
    bench.set(1, Pass);
    fail(&bench, &both[0], 3).await;
    seconds(30.0).await;
    assert_eq!(bench.eligible(), [1, 2]);
    let told = bench.told();
    assert_eq!(told[1], "b1: ejected > down, connect_refused, connect refused, 1 of 2");
    assert_eq!(told[2], "b1: down > up, passed, 2 good probes, 2 of 2");
}

#[tokio::test(start_paused = true)]
async fn without_a_check_the_time_alone_brings_it_back() {
    let both = members([1, 2]);
    let bench = start(health(&[], passive()), &both);
    fail(&bench, &both[1], 3).await;
    assert_eq!((bench.eligible(), bench.backend("b2").shown), (vec![1], "ejected"));
    seconds(11.1).await;
    assert_eq!((bench.eligible(), bench.backend("b2").shown), (vec![1, 2], "unchecked"));
}

#[tokio::test(start_paused = true)]
async fn the_backend_may_ask_for_longer() {
    let both = members([1, 2]);
    let bench = start(health(&[], passive()), &both);
    fail_asking(&bench, &both[0], 3, Some(Duration::from_secs(60))).await;
    seconds(59.0).await;
    assert_eq!(bench.eligible(), [2]);
    seconds(1.1).await;
    assert_eq!(bench.eligible(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn too_many_failures_in_the_window_eject() {
    let both = members([1, 2]);
    let ratio = FailureRatio { limit: Percent::whole(50), window: Duration::from_secs(10), min_requests: 20 };
    let bench = start(health(&[], Passive { failures: 1_000, ratio: Some(ratio), ..passive() }), &both);
    seconds(2.0).await;
    for _ in 0..12 {
        succeed(&both[0], 1);
        both[0].backend.failed(WORKER, false);
    }
    seconds(2.0).await;
    assert_eq!(bench.backend("b1").shown, "ejected");
    assert_eq!(
        bench.told(),
        ["b1: unchecked > ejected, failure_ratio, 12 of 24 requests failed, 1 of 2"].map(|told| {
            let lasts = bench.backend("b1").record.changes.back().unwrap().detail.clone();
            told.replace("12 of 24 requests failed", &lasts)
        })
    );
    assert!(bench.backend("b1").record.changes.back().unwrap().detail.starts_with("12 of 24 requests failed, for 1"));
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_ejections_and_one_without_passive_health_ends_them() {
    let both = members([1, 2]);
    let bench = start(health(&[check()], passive()), &both);
    bench.monitor.first_round().await;
    fail(&bench, &both[0], 3).await;
    bench.update_plan(judged(health(&[check()], passive()), Duration::ZERO), &both).await;
    assert_eq!(bench.eligible(), [2]);
    let none = Health { checks: vec![check()], passive: None, ..Health::default() };
    bench.update_plan(judged(none, Duration::ZERO), &both).await;
    assert_eq!(bench.eligible(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_request_is_a_reason_to_probe_at_once() {
    let both = members([1, 2]);
    let bench = start(health(&[check()], passive()), &both);
    seconds(30.0).await;
    bench.set(1, REFUSED);
    let before = bench.probes(1).len();
    let doubted = Instant::now();
    fail(&bench, &both[0], 1).await;
    seconds(2.5).await;
    let probes = &bench.probes(1)[before..];
    assert!(probes[0] - doubted <= Duration::from_millis(1_100), "{probes:?}");
    assert_eq!(bench.backend("b1").verdict, Verdict::Down);

    let lazy = HealthCheck { interval_with_traffic: Some(Duration::from_secs(600)), ..check() };
    let bench = start(health(&[lazy], passive()), &both);
    for _ in 0..30 {
        succeed(&both[0], 1);
        seconds(1.0).await;
    }
    let (before, doubted) = (bench.probes(1).len(), Instant::now());
    fail(&bench, &both[0], 1).await;
    seconds(1.0).await;
    assert!(bench.probes(1)[before] - doubted <= Duration::from_millis(10), "traffic had put it off");
    // Others go well meanwhile, and failures keep coming: the probe is neither put off nor called off again.
    bench.set(1, Hang);
    let before = bench.probes(1).len();
    for _ in 0..120 {
        succeed(&both[0], 3);
        fail(&bench, &both[0], 1).await;
        seconds(0.05).await;
    }
    assert!((2..=7).contains(&(bench.probes(1).len() - before)), "{:?}", bench.probes(1).len() - before);
    assert!(bench.backend("b1").record.bad >= 2, "{}", bench.backend("b1").record.bad);

    let quiet = HealthCheck { probe_on_doubt: false, ..check() };
    let bench = start(health(&[quiet], passive()), &both);
    seconds(30.0).await;
    let before = bench.probes(1).len();
    fail(&bench, &both[0], 2).await;
    seconds(1.0).await;
    assert!(bench.probes(1).len() <= before + 1);
}

#[tokio::test(start_paused = true)]
async fn good_traffic_lengthens_the_interval_and_a_failure_ends_that() {
    let only = members([1]);
    let lazy = HealthCheck { interval_with_traffic: Some(Duration::from_secs(60)), probe_on_doubt: false, ..check() };
    let bench = start(health(&[lazy], passive()), &only);
    seconds(30.0).await;
    let before = bench.probes(1).len();
    for _ in 0..120 {
        succeed(&only[0], 1);
        seconds(1.0).await;
    }
    let asked = bench.probes(1).len() - before;
    assert!((2..=3).contains(&asked), "{asked}");
    let before = bench.probes(1).len();
    for _ in 0..60 {
        succeed(&only[0], 1);
        only[0].backend.failed(WORKER, true);
        seconds(1.0).await;
    }
    assert!(bench.probes(1).len() - before >= 5, "{}", bench.probes(1).len() - before);
}

#[tokio::test(start_paused = true)]
async fn an_operator_drains_and_undrains_over_reloads() {
    let both = members([1, 2]);
    let bench = start(health(&[check()], passive()), &both);
    bench.monitor.first_round().await;
    bench.told();
    let drain = Drain {
        by: "ann".to_owned(),
        reason: "deploy 142".to_owned(),
        since: Timestamp::now(),
        lasts: None,
        deadline: None,
    };
    let b1 = Name::derived("b1");
    bench.monitor.drain(b1.clone(), drain.clone()).await.unwrap();
    assert_eq!((bench.eligible(), bench.backend("b1").shown), (vec![2], "draining"));
    assert_eq!(bench.told(), ["b1: up > draining, drained, drained by ann: deploy 142, 1 of 2"]);
    let before = bench.probes(1).len();
    bench.update_plan(judged(health(&[check()], passive()), Duration::ZERO), &both).await;
    seconds(60.0).await;
    assert_eq!(bench.eligible(), [2]);
    assert_eq!(bench.backend("b1").record.drain, Some(drain.clone()));
    assert!(bench.probes(1).len() > before, "a drained backend is still asked");
    bench.monitor.undrain(b1.clone(), "bob".to_owned()).await.unwrap();
    assert_eq!(bench.eligible(), [1, 2]);
    assert_eq!(bench.told(), ["b1: draining > up, undrained, undrained by bob, 2 of 2"]);
    let (lasts, deadline) = (Some(Duration::from_secs(5)), Some(Duration::from_secs(2)));
    bench.monitor.drain(b1, Drain { lasts, deadline, ..drain.clone() }).await.unwrap();
    seconds(1.9).await;
    assert!(!both[0].backend.condition().is_cut);
    seconds(0.2).await;
    assert!(both[0].backend.condition().is_cut);
    seconds(2.8).await;
    assert_eq!(bench.eligible(), [2]);
    seconds(0.2).await;
    assert!(!both[0].backend.condition().is_cut);
    assert_eq!(bench.eligible(), [1, 2]);
    assert!(bench.backend("b1").record.drain.is_none());
    let nobody = bench.monitor.drain(Name::derived("b9"), drain).await;
    assert_eq!(nobody, Err(NoSuchBackend));
}

#[tokio::test(start_paused = true)]
async fn a_backend_drains_itself_unless_it_is_the_last() {
    let both = members([1, 2]);
    let bench = start(health(&[check()], passive()), &both);
    bench.monitor.first_round().await;
    let ask = |member: &Member| {
        let (slot, lasts) = (member.backend.slot(), Duration::from_secs(30));
        bench.upstream.report(Evidence::AsksToDrain { slot, lasts });
    };
    ask(&both[0]);
    ask(&both[1]);
    seconds(0.001).await;
    assert_eq!(bench.eligible(), [2]);
    assert_eq!(bench.backend("b1").record.changes.back().unwrap().source, Source::Backend);
    assert!(bench.backend("b2").record.spared.as_deref().unwrap().starts_with("it asks to be drained"));
    seconds(20.0).await;
    ask(&both[0]);
    seconds(20.0).await;
    assert_eq!(bench.eligible(), [2], "it has asked again");
    seconds(11.0).await;
    assert_eq!(bench.eligible(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_comes_back_starts_slowly_and_one_at_the_start_does_not() {
    let both = members([1, 2]);
    let plan = judged(health(&[check()], passive()), Duration::from_secs(10));
    let bench = Bench::start_plan(256, plan, &both, &[]);
    bench.monitor.first_round().await;
    let shares = || {
        let eligible = bench.upstream.eligible();
        let turns = (0..1_100).map(|turn| eligible.pick(&Draw { turn, ..Draw::default() }).unwrap().backend.slot());
        turns.filter(|slot| *slot == both[0].backend.slot()).count()
    };
    assert_eq!(shares(), 550);
    bench.set(1, REFUSED);
    seconds(30.0).await;
    assert_eq!(shares(), 0);
    bench.set(1, Pass);
    while bench.backend("b1").shown != "up" {
        seconds(0.05).await;
    }
    assert_eq!(shares(), 100, "a tenth of the other's");
    seconds(5.0).await;
    assert!((300..500).contains(&shares()), "{}", shares());
    seconds(7.0).await;
    assert_eq!(shares(), 550);
}

#[tokio::test(start_paused = true)]
async fn all_checks_must_pass() {
    let both = members([1, 2]);
    let second = HealthCheck { name: Name::derived("second"), port: Some(77), ..check() };
    let bench = start(health(&[check(), second.clone()], passive()), &both);
    bench.monitor.first_round().await;
    assert_eq!(bench.eligible(), [1, 2]);
    assert_eq!(bench.probes(77).len(), 1);
    bench.set(77, REFUSED);
    seconds(30.0).await;
    assert_eq!(bench.upstream.eligible().tier(), Tier::Nobody);
    let b1 = bench.backend("b1");
    assert_eq!(b1.record.of_check(&second.name).map(|probed| probed.last_failed.is_some()), Some(true));
    assert_eq!(b1.record.of_check(&check().name).map(|probed| probed.last_failed.is_some()), Some(false));
    assert!(b1.record.detail.starts_with("second: connect refused"), "{}", b1.record.detail);
    // The check that fails is taken away: what is left says that both are fit.
    bench.update_plan(judged(health(&[check()], passive()), Duration::ZERO), &both).await;
    assert_eq!(bench.eligible(), [1, 2]);
    let asked = bench.probes(77).len();
    seconds(60.0).await;
    assert_eq!(bench.probes(77).len(), asked);
}

#[tokio::test(start_paused = true)]
async fn equal_checks_of_several_upstreams_are_put_once() {
    let bench = start(health(&[check()], passive()), &members([1]));
    let other = bench.another(judged(health(&[check()], passive()), Duration::ZERO), &members([1]));
    bench.monitor.first_round().await;
    other.1.first_round().await;
    seconds(600.0).await;
    let probes = bench.probes(1).len();
    assert!((60..=70).contains(&probes), "{probes} probes in 600 s at 10 s");
    bench.set(1, REFUSED);
    seconds(15.0).await;
    let verdicts = [&bench.monitor, &other.1].map(|monitor| monitor.view().backends[0].verdict);
    assert_eq!(verdicts, [Verdict::Down; 2]);
    drop(other);
    bench.set(1, Pass);
    seconds(30.0).await;
    assert_eq!(bench.backend("b1").verdict, Verdict::Up, "the other one had asked last, perhaps");
}

#[tokio::test(start_paused = true)]
async fn probes_are_as_many_as_the_check_says() {
    let steady = HealthCheck { jitter: Percent::whole(0), interval_down: Duration::from_secs(30), ..check() };
    let bench = start(health(&[steady], passive()), &members([1]));
    seconds(101.0).await;
    let up = bench.probes(1).len();
    // The first at once, the second somewhere within the interval, then one in ten seconds.
    assert!((10..=12).contains(&up), "{up}");
    bench.set(1, REFUSED);
    while bench.backend("b1").verdict != Verdict::Down {
        seconds(0.1).await;
    }
    let gaps = bench.gaps(1);
    let pending = &gaps[gaps.len() - 2..];
    assert!(pending.iter().all(|gap| gap.as_millis() / 10 == 100), "three failures, a second apart: {pending:?}");
    let before = bench.probes(1).len();
    seconds(90.0).await;
    assert_eq!(bench.probes(1).len(), before + 3, "one in thirty seconds while it is down");
    bench.set(1, Pass);
    while bench.backend("b1").verdict != Verdict::Up {
        seconds(0.1).await;
    }
    assert_eq!(bench.probes(1).len(), before + 5, "two to bring it back");
}

#[tokio::test(start_paused = true)]
async fn a_suspect_check_takes_nobody_out_while_traffic_goes_well() {
    let both = members([1, 2]);
    let bench = start(health(&[check()], passive()), &both);
    seconds(30.0).await;
    bench.told();
    bench.set(77, REFUSED);
    let edited = HealthCheck { port: Some(77), ..check() };
    bench.update_plan(judged(health(std::slice::from_ref(&edited), passive()), Duration::ZERO), &both).await;
    for _ in 0..20 {
        both.iter().for_each(|member| succeed(member, 3));
        seconds(1.0).await;
    }
    assert_eq!((bench.eligible(), bench.told()), (vec![1, 2], vec!["suspect_check".to_owned()]));
    assert!(bench.backend("b1").record.is_held && bench.monitor.view().suspicion.is_some());
    // A reload that leaves the check alone does not end the hold.
    bench.update_plan(judged(health(std::slice::from_ref(&edited), passive()), Duration::ZERO), &both).await;
    assert_eq!(bench.eligible(), [1, 2]);
    // Traffic has gone, and nothing has changed. When it comes back and fails, the check is right.
    seconds(40.0).await;
    assert_eq!(bench.eligible(), [1, 2]);
    for _ in 0..20 {
        both.iter().for_each(|member| member.backend.metrics().record(WORKER, 500, Duration::from_millis(1)));
        seconds(1.0).await;
    }
    assert_eq!(bench.upstream.eligible().tier(), Tier::Nobody);
    bench.set(77, Pass);
    seconds(30.0).await;
    assert_eq!(bench.eligible(), [1, 2]);
    assert!(!bench.backend("b1").record.is_held && bench.monitor.view().suspicion.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_suspect_check_is_believed_once_somebody_passes_it() {
    let both = members([1, 2]);
    let bench = start(health(&[check()], passive()), &both);
    seconds(30.0).await;
    bench.set(1, REFUSED);
    bench.set(2, REFUSED);
    let edited = HealthCheck { timeout: Duration::from_secs(1), ..check() };
    bench.update_plan(judged(health(&[edited], passive()), Duration::ZERO), &both).await;
    for _ in 0..20 {
        both.iter().for_each(|member| succeed(member, 3));
        seconds(1.0).await;
    }
    assert_eq!(bench.eligible(), [1, 2]);
    bench.set(2, Pass);
    for _ in 0..400 {
        both.iter().for_each(|member| succeed(member, 3));
        assert!(bench.eligible().contains(&2), "it is not taken out for having failed before");
        seconds(0.05).await;
    }
    assert_eq!((bench.eligible(), bench.backend("b1").shown), (vec![2], "down"));
}

#[tokio::test(start_paused = true)]
async fn a_suspect_check_may_be_meant() {
    let both = members([1, 2]);
    let bench = start(health(&[check()], passive()), &both);
    seconds(30.0).await;
    bench.set(77, REFUSED);
    let edited = HealthCheck { port: Some(77), ..check() };
    let eject = Health { suspect_check: plan::SuspectCheck::Eject, ..health(&[edited], passive()) };
    bench.update_plan(judged(eject, Duration::ZERO), &both).await;
    for _ in 0..20 {
        both.iter().for_each(|member| succeed(member, 3));
        seconds(1.0).await;
    }
    assert_eq!(bench.upstream.eligible().tier(), Tier::Nobody);
    assert!(bench.told().contains(&"suspect_check".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn connections_to_a_backend_that_is_out_end_where_that_is_said() {
    let both = members([1, 2]);
    let close = Health { when_out: WhenOut::Close, ..health(&[check()], passive()) };
    for (health, is_cut) in [(close, true), (health(&[check()], passive()), false)] {
        let bench = start(health, &both);
        seconds(1.0).await;
        fail(&bench, &both[1], 3).await;
        let cut = || both.each_ref().map(|member| member.backend.condition().is_cut);
        assert_eq!((bench.backend("b2").shown, cut()), ("ejected", [false, is_cut]));
        seconds(12.0).await;
        bench.set(1, REFUSED);
        seconds(15.0).await;
        assert_eq!((bench.backend("b1").shown, bench.backend("b2").shown, cut()), ("down", "up", [is_cut, false]));
        bench.set(1, Pass);
        seconds(15.0).await;
        assert_eq!((bench.backend("b1").shown, cut()), ("up", [false; 2]));
    }
}

#[tokio::test(start_paused = true)]
async fn no_detection_takes_longer_than_the_arithmetic_says() {
    let checks = [
        check(),
        HealthCheck { timeout: Duration::from_secs(5), jitter: Percent::whole(50), ..check() },
        HealthCheck { interval_down: Duration::from_secs(25), healthy_after: 1, unhealthy_after: 1, ..check() },
    ];
    for check in checks {
        let worst = Detection::of(std::slice::from_ref(&check)).unwrap();
        let bench = start(health(&[check], passive()), &members([1]));
        for phase in 0..12 {
            seconds(40.0 + f64::from(phase) * 0.9).await;
            bench.set(1, Hang);
            let died = Instant::now();
            while bench.backend("b1").verdict != Verdict::Down {
                seconds(0.02).await;
            }
            assert!(died.elapsed() <= worst.out + Duration::from_millis(50), "{:?} > {:?}", died.elapsed(), worst.out);
            seconds(40.0 + f64::from(phase) * 1.7).await;
            bench.set(1, Pass);
            let back = Instant::now();
            while bench.backend("b1").verdict != Verdict::Up {
                seconds(0.02).await;
            }
            assert!(
                back.elapsed() <= worst.back + Duration::from_millis(50),
                "{:?} > {:?}",
                back.elapsed(),
                worst.back
            );
        }
    }
    let worst = Detection::of(&[check()]).unwrap();
    // 11 s until the next probe, two more failures each 2 s after the one before, and the last one's 2 s.
    assert_eq!((worst.out.as_millis(), worst.back.as_millis()), (17_000, 15_000));
    assert_eq!(Detection::of(&[]), None);
}

#[tokio::test(start_paused = true)]
async fn the_history_of_probes_is_there_for_a_backtest() {
    let bench = start(health(&[check()], passive()), &members([1]));
    seconds(30.0).await;
    bench.set(1, REFUSED);
    seconds(30.0).await;
    bench.set(1, Pass);
    seconds(30.0).await;
    let backend = bench.backend("b1");
    let present = Thresholds { healthy_after: 2, unhealthy_after: 3 };
    let hasty = Trial { thresholds: Thresholds { unhealthy_after: 1, ..present }, timeout: None };
    let found = backend.timeline.backtest("tcp", present, hasty).unwrap();
    assert_eq!((found.present.times, found.trial.times), (1, 1));
    assert!(found.trial.lasted > found.present.lasted);
    assert_eq!(backend.timeline.backtest("other", present, hasty), None);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_hangs_leaves_others_their_schedule() {
    let hanging: Vec<Member> = (100..400).map(super::tests::member).collect();
    let slow = HealthCheck { interval: Duration::from_secs(11), timeout: Duration::from_secs(10), ..check() };
    let bench = Bench::start_plan(64, judged(health(&[slow], passive()), Duration::ZERO), &hanging, &[]);
    (100..400).for_each(|port| bench.set(port, Hang));
    let quick = HealthCheck { interval: Duration::from_millis(500), timeout: Duration::from_millis(200), ..check() };
    let other = bench.another(judged(health(&[quick], passive()), Duration::ZERO), &members([1]));
    seconds(60.0).await;
    assert!(bench.probes(1).len() > 100, "{}", bench.probes(1).len());
    drop(other);
}

#[tokio::test(start_paused = true)]
async fn a_check_that_was_left_alone_says_nothing_of_the_one_that_was_edited() {
    let both = members([1, 2]);
    let second = |port| HealthCheck { name: Name::derived("second"), port: Some(port), ..check() };
    let bench = start(health(&[check(), second(76)], passive()), &both);
    seconds(30.0).await;
    bench.set(77, REFUSED);
    bench.update_plan(judged(health(&[check(), second(77)], passive()), Duration::ZERO), &both).await;
    for _ in 0..20 {
        both.iter().for_each(|member| succeed(member, 3));
        seconds(1.0).await;
    }
    assert_eq!(bench.eligible(), [1, 2]);
    assert!(bench.monitor.view().suspicion.is_some());
}

#[tokio::test(start_paused = true)]
async fn what_failed_is_remembered_beside_a_check_that_passes_often() {
    let often =
        HealthCheck { name: Name::derived("often"), port: Some(77), interval: Duration::from_secs(1), ..check() };
    let bench = start(health(&[often.clone(), check()], passive()), &members([1]));
    seconds(60.0).await;
    bench.set(1, REFUSED);
    seconds(30.0).await;
    let record = bench.backend("b1").record;
    let of = |check: &HealthCheck| record.of_check(&check.name).unwrap().clone();
    assert_eq!(of(&often).recent.len(), 20);
    assert!(of(&check()).recent.len() >= 8, "the failures of the other are not pushed out");
    assert_eq!(record.recent().len(), 20 + of(&check()).recent.len());
    let times: Vec<Timestamp> = record.recent().iter().map(|probe| probe.outcome.at).collect();
    assert!(times.is_sorted());
    let (failed, none) = (of(&check()).last_failed.unwrap(), of(&often).last_failed);
    assert_eq!((failed.outcome.detail.as_str(), none), ("connect refused", None));
    // Hours later it is still there. A drain that ends is explained by the check that decides.
    bench.set(1, Pass);
    seconds(4.0 * 3_600.0).await;
    let record = bench.backend("b1").record;
    let later = record.of_check(&check().name).unwrap();
    assert!(later.recent.iter().all(|probe| probe.outcome.kind.is_fit()));
    assert!(later.last_failed.as_ref().is_some_and(|last| last.outcome.kind == crate::health::Kind::Fail));
    // An edit of the other check leaves it alone, an edit of its own does not.
    let edited = HealthCheck { timeout: Duration::from_secs(1), ..often };
    bench.update_plan(judged(health(&[edited.clone(), check()], passive()), Duration::ZERO), bench.members()).await;
    assert!(bench.backend("b1").record.of_check(&check().name).unwrap().last_failed.is_some());
    let other = HealthCheck { timeout: Duration::from_secs(1), ..check() };
    bench.update_plan(judged(health(&[edited, other], passive()), Duration::ZERO), bench.members()).await;
    assert!(bench.backend("b1").record.of_check(&check().name).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_ends_is_explained_by_the_check_that_decides() {
    let often =
        HealthCheck { name: Name::derived("often"), port: Some(77), interval: Duration::from_secs(1), ..check() };
    let bench = start(health(&[often, check()], passive()), &members([1]));
    bench.set(1, REFUSED);
    seconds(60.0).await;
    let drain = Drain::of_its_own(Duration::from_secs(60));
    bench.monitor.drain(Name::derived("b1"), drain).await.unwrap();
    seconds(5.0).await;
    bench.monitor.undrain(Name::derived("b1"), "ann".into()).await.unwrap();
    assert_eq!(bench.backend("b1").record.detail, "tcp: connect refused");
}

#[tokio::test(start_paused = true)]
async fn an_event_names_the_check_that_has_decided() {
    let second = HealthCheck { name: Name::derived("second"), port: Some(77), ..check() };
    let both = members([1, 2]);
    let bench = start(health(&[check(), second], passive()), &both);
    bench.set(77, REFUSED);
    bench.monitor.first_round().await;
    bench.decided();
    let check = |name: &str| Some(name.to_owned());
    bench.set(77, Pass);
    seconds(30.0).await;
    assert_eq!(bench.decided(), [("up", check("second")), ("up", check("second"))]);
    bench.set(1, REFUSED);
    seconds(30.0).await;
    assert_eq!(bench.decided(), [("down", check("tcp"))]);
    assert_eq!(bench.backend("b1").record.changes.back().unwrap().check.as_deref(), Some("tcp"));
    // Live traffic and operators have no check to name.
    fail(&bench, &both[1], 3).await;
    let drain = Drain::of_its_own(Duration::from_secs(60));
    bench.monitor.drain(Name::derived("b2"), drain).await.unwrap();
    assert_eq!(bench.decided(), [("draining", None)]);
}
