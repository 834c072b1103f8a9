//! The schedule and the bookkeeping in virtual time, with backends that are closures.

use std::{
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc::{Receiver, sync_channel},
    },
    time::Duration,
};

use http::HeaderValue;
use tokio::time::Instant;

use super::*;
use crate::{
    base::{Name, Percent, Timestamp},
    config::plan::{Balance, Health, HealthCheck, Host, HostHeader, ProbeKind},
    health::{BackendView, Kind},
    telemetry::Event,
    upstream::{Backend, Eligible, Lease, Slot, Tier, Verdict},
};

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Behaviour {
    Pass,
    Degraded,
    Fail(&'static str),
    Late,
    Hang,
    Panic,
}
use Behaviour::{Degraded, Fail, Hang, Late, Panic, Pass};

const REFUSED: Behaviour = Fail("connect refused");

/// Backends by port. An unknown one passes.
#[derive(Default)]
struct World {
    behaviours: Mutex<HashMap<u16, Behaviour>>,
    probes: Mutex<Vec<(u16, Instant)>>,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
}

const LATENCY: Duration = Duration::from_millis(3);

fn port_of(address: &crate::net::Address) -> u16 {
    address.tcp().unwrap().port()
}

impl Ask for Arc<World> {
    async fn ask(&self, question: &Question) -> Outcome {
        struct Leave<'a>(&'a AtomicUsize);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, SeqCst);
            }
        }
        let port = port_of(&question.dial.address);
        self.probes.lock().unwrap().push((port, Instant::now()));
        self.most_under_way.fetch_max(self.under_way.fetch_add(1, SeqCst) + 1, SeqCst);
        let _leave = Leave(&self.under_way);
        let behaviour = self.behaviours.lock().unwrap().get(&port).copied().unwrap_or(Pass);
        tokio::time::sleep(if behaviour == Hang { question.check().timeout } else { LATENCY }).await;
        let (kind, reason, detail) = match behaviour {
            Pass => (Kind::Pass, "passed", "200 in 3 ms"),
            Degraded => (Kind::Degraded, "degraded", "200 in 3 ms, degraded"),
            Fail(detail) => (Kind::Fail, "connect_refused", detail),
            Hang => (Kind::Fail, "timeout", "no answer within 2s"),
            Late => (Kind::Inconclusive, "late", "this gateway was 3000 ms late"),
            Panic => panic!("a probe that panics"),
        };
        Outcome { kind, reason, detail: detail.to_owned(), ..Outcome::panicked() }
    }
}

pub(super) struct Bench {
    world: Arc<World>,
    pub(super) upstream: Arc<Upstream>,
    prober: Prober,
    events: Receiver<(Timestamp, Event)>,
    pub(super) monitor: Monitor,
    members: Vec<Member>,
}

impl Bench {
    pub(super) fn start(check: Option<HealthCheck>, members: &[Member], behaviours: &[(u16, Behaviour)]) -> Self {
        Self::start_capped(256, check, members, behaviours)
    }

    pub(super) fn start_capped(
        cap: usize,
        check: Option<HealthCheck>,
        members: &[Member],
        behaviours: &[(u16, Behaviour)],
    ) -> Self {
        Self::start_plan(cap, plan(check), members, behaviours)
    }

    pub(super) fn start_plan(
        cap: usize,
        plan: Arc<plan::Upstream>,
        members: &[Member],
        behaviours: &[(u16, Behaviour)],
    ) -> Self {
        let world = Arc::new(World::default());
        world.behaviours.lock().unwrap().extend(behaviours.iter().copied());
        let (queue, events) = sync_channel(4_096);
        let upstream = Arc::new(Upstream::new(
            Eligible::among(&[], &Health::default(), &Balance::default(), |_| Percent::whole(100)),
            1,
        ));
        let prober = Prober::new(Events::new(queue), cap);
        let (up, members) = (Arc::clone(&upstream), members.to_vec());
        let monitor = Monitor::start_with(Arc::clone(&world), &prober, up, plan, members.clone(), 1);
        Self { world, upstream, prober, events, monitor, members }
    }

    /// Another upstream of the same process.
    pub(super) fn another(&self, plan: Arc<plan::Upstream>, members: &[Member]) -> (Arc<Upstream>, Monitor) {
        let upstream = Arc::new(Upstream::new(
            Eligible::among(&[], &Health::default(), &Balance::default(), |_| Percent::whole(100)),
            1,
        ));
        let (up, members) = (Arc::clone(&upstream), members.to_vec());
        (upstream, Monitor::start_with(Arc::clone(&self.world), &self.prober, up, plan, members, 1))
    }

    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    pub(super) fn set(&self, port: u16, behaviour: Behaviour) {
        self.world.behaviours.lock().unwrap().insert(port, behaviour);
    }

    pub(super) async fn update(&self, check: Option<HealthCheck>, members: &[Member]) {
        self.update_plan(plan(check), members).await;
    }

    pub(super) async fn update_plan(&self, plan: Arc<plan::Upstream>, members: &[Member]) {
        self.monitor.update(plan, members.to_vec(), 2);
        tokio::task::yield_now().await;
    }

    pub(super) fn probes(&self, port: u16) -> Vec<Instant> {
        let probes = self.world.probes.lock().unwrap();
        probes.iter().filter(|(probed, _)| *probed == port).map(|(_, at)| *at).collect()
    }

    pub(super) fn gaps(&self, port: u16) -> Vec<Duration> {
        self.probes(port).windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    pub(super) fn eligible(&self) -> Vec<u16> {
        self.upstream.eligible().members().iter().map(|member| port_of(member.backend.address())).collect()
    }

    pub(super) fn backend(&self, name: &str) -> BackendView {
        self.monitor.view().backends.into_iter().find(|backend| &*backend.name == name).unwrap()
    }

    /// What became of backends since the last call, and which check has decided.
    pub(super) fn decided(&self) -> Vec<(&'static str, Option<String>)> {
        let of = |(_, event)| match event {
            Event::Backend { to, check, .. } => Some((to, check.map(|check| check.to_string()))),
            _ => None,
        };
        self.events.try_iter().filter_map(of).collect()
    }

    /// The events since the last call, as a line each.
    pub(super) fn told(&self) -> Vec<String> {
        let line = |(_, event)| match event {
            Event::Backend { backend, from, to, reason, detail, eligible, total, .. } => {
                format!("{backend}: {from} > {to}, {reason}, {detail}, {eligible} of {total}")
            }
            Event::Warning { what, .. } => what.to_owned(),
            other => format!("{other:?}"),
        };
        self.events.try_iter().map(line).collect()
    }
}

pub(super) fn member(port: u16) -> Member {
    let slot = Slot(u32::from(port));
    let backend = Arc::new(Backend::new(slot, SocketAddr::from(([127, 0, 0, 1], port)).into(), Verdict::Checking, 1));
    let name = Name::derived(format!("b{port}"));
    Member { backend, name, authority: HeaderValue::from_static("b"), weight: 1, tier: 0 }
}

pub(super) fn members<const N: usize>(ports: [u16; N]) -> [Member; N] {
    ports.map(member)
}

pub(super) fn check() -> HealthCheck {
    HealthCheck::new(ProbeKind::Tcp(plan::TcpProbe::default()))
}

fn plan(check: Option<HealthCheck>) -> Arc<plan::Upstream> {
    judged(Health { checks: check.into_iter().collect(), ..Health::default() }, Duration::ZERO)
}

pub(super) fn judged(health: Health, slow_start: Duration) -> Arc<plan::Upstream> {
    let backend = plan::Backend {
        name: Name::derived("b1"),
        host: Host::Dns(Name::derived("b1")),
        tls: false,
        port: 1,
        weight: 1,
        tier: 0,
    };
    Arc::new(plan::Upstream {
        tls: None,
        protocol: plan::Protocol::Http1,
        name: Name::derived("orders"),
        anonymous: false,
        backends: vec![backend],
        balance: Balance::default(),
        host: HostHeader::Preserve,
        slow_start,
        health,
        max_in_flight: None,
        max_connections: None,
        max_idle_connections: 256,
        idle: Duration::from_secs(60),
        max_connection_age: Duration::ZERO,
    })
}

pub(super) async fn seconds(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}

fn within(gap: Duration, shortest: f64, longest: f64) -> bool {
    (shortest - 0.002..=longest + 0.002).contains(&gap.as_secs_f64())
}

#[tokio::test(start_paused = true)]
async fn the_first_probe_decides_and_each_change_is_told_once() {
    let bench = Bench::start(Some(check()), &members([1, 2]), &[(2, REFUSED)]);
    assert_eq!((bench.eligible(), bench.upstream.eligible().tier()), (vec![1, 2], Tier::Checking));
    assert!(!bench.monitor.first_round_done());
    bench.monitor.first_round().await;
    assert!(bench.monitor.first_round_done());
    assert_eq!((bench.eligible(), bench.upstream.eligible().tier()), (vec![1], Tier::Primary));
    let mut told = bench.told();
    told.sort();
    assert_eq!(
        told,
        [
            "b1: checking > up, passed, probe 200 in 3 ms, 1 of 2",
            "b2: checking > down, connect_refused, connect refused, 1 of 2"
        ]
    );
    seconds(600.0).await;
    assert_eq!(bench.told(), Vec::<String>::new());
    assert_eq!(bench.backend("b1").record.recent().len(), 20);
    assert_eq!(bench.backend("b2").record.detail, format!("connect refused ×{}", bench.backend("b2").record.bad));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_backends_are_asked_within_a_second() {
    let ports: Vec<Member> = (1..=1_000).map(member).collect();
    let start = Instant::now();
    let bench = Bench::start(Some(check()), &ports, &[]);
    bench.monitor.first_round().await;
    assert!(start.elapsed() <= Duration::from_secs(1), "{:?}", start.elapsed());
    let mut offsets: Vec<Duration> = (1..=1_000).map(|port| bench.probes(port)[0] - start).collect();
    offsets.sort_unstable();
    assert!(offsets[250] > Duration::from_millis(50) && offsets[750] < Duration::from_millis(450), "{offsets:?}");
    assert_eq!(bench.eligible().len(), 1_000);
}

#[tokio::test(start_paused = true)]
async fn two_backends_are_asked_at_once() {
    let start = Instant::now();
    let bench = Bench::start(Some(check()), &members([1, 2]), &[]);
    bench.monitor.first_round().await;
    assert!(start.elapsed() < Duration::from_millis(10), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn backends_that_start_together_step_out_of_line() {
    let ports: Vec<Member> = (1..=50).map(member).collect();
    let bench = Bench::start(Some(check()), &ports, &[]);
    seconds(15.0).await;
    let second: Vec<Duration> = (1..=50).map(|port| bench.gaps(port)[0]).collect();
    assert!(second.iter().all(|gap| within(*gap, 1.0, 10.0)), "{second:?}");
    assert!(second.iter().any(|gap| gap.as_secs() < 5) && second.iter().any(|gap| gap.as_secs() > 5), "{second:?}");
}

#[tokio::test(start_paused = true)]
async fn steady_probes_keep_to_the_interval_and_its_jitter() {
    let bench = Bench::start(Some(check()), &members([1]), &[]);
    seconds(600.0).await;
    let gaps = bench.gaps(1);
    assert!(gaps.len() > 50);
    for gap in &gaps[1..] {
        assert!(within(*gap, 9.0, 11.0), "{gap:?}");
    }
    let (shortest, longest) = (gaps[1..].iter().min().unwrap(), gaps[1..].iter().max().unwrap());
    assert!(*longest - *shortest > Duration::from_millis(200), "no jitter: {gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn probes_are_faster_while_a_verdict_is_pending() {
    let bench = Bench::start(Some(check()), &members([1, 2]), &[]);
    seconds(30.0).await;
    bench.told();
    let before = bench.probes(1).len();
    bench.set(1, REFUSED);
    seconds(60.0).await;
    let gaps = bench.gaps(1);
    let (pending, down) = gaps[before..].split_at(2);
    assert!(pending.iter().all(|gap| within(*gap, 0.9, 1.1)), "{gaps:?}");
    assert!(down.iter().all(|gap| within(*gap, 9.0, 11.0)), "{gaps:?}");
    let told = bench.told();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("b1: up > down, connect_refused, 3 bad probes in "), "{told:?}");
    assert!(told[0].ends_with("s (connect refused), 1 of 2"), "{told:?}");
    bench.set(1, Pass);
    seconds(15.0).await;
    assert_eq!(bench.told(), ["b1: down > up, passed, 2 good probes, 2 of 2"]);
}

#[tokio::test(start_paused = true)]
async fn the_cap_holds_over_all_probes() {
    let ports: Vec<Member> = (1..=40).map(member).collect();
    let bench = Bench::start_capped(32, Some(check()), &ports, &[]);
    for port in 1..=40 {
        bench.set(port, Hang);
    }
    let mut most_waiting = 0;
    for _ in 0..1_200 {
        seconds(0.1).await;
        most_waiting = most_waiting.max(bench.monitor.view().probes_waiting);
    }
    assert_eq!(bench.world.most_under_way.load(SeqCst), 8);
    assert!((8..=32).contains(&most_waiting), "{most_waiting} of 40 wait for 8 places");
    (1..=40).for_each(|port| bench.set(port, Pass));
    seconds(30.0).await;
    assert_eq!(bench.monitor.view().probes_waiting, 0);
    (1..=40).for_each(|port| bench.set(port, Hang));
    seconds(120.0).await;
    assert!((1..=40).all(|port| bench.backend(&format!("b{port}")).verdict == Verdict::Down));
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_hangs_delays_nobody() {
    let bench = Bench::start(Some(check()), &members([1, 2]), &[(1, Hang)]);
    seconds(300.0).await;
    for port in [1, 2] {
        assert!(bench.gaps(port)[1..].iter().all(|gap| within(*gap, 9.0, 11.0)), "{:?}", bench.gaps(port));
    }
    assert_eq!(bench.backend("b1").verdict, Verdict::Down);
}

#[tokio::test(start_paused = true)]
async fn a_late_probe_moves_nothing_and_is_repeated() {
    let bench = Bench::start(Some(check()), &members([1]), &[]);
    seconds(30.0).await;
    let before = bench.probes(1).len();
    bench.set(1, Late);
    seconds(60.0).await;
    let gaps = &bench.gaps(1)[before..];
    assert!(gaps[0] <= LATENCY + Duration::from_millis(2), "at once: {gaps:?}");
    assert!(gaps[1..].iter().all(|gap| within(*gap, 0.9, 1.1)), "then with patience: {gaps:?}");
    let seen = bench.backend("b1");
    assert_eq!((seen.verdict, seen.record.bad, seen.record.detail.as_str()), (Verdict::Up, 0, "200 in 3 ms"));
    assert!(seen.record.probes[&(Kind::Inconclusive, "late")] > 10);
    assert_eq!(bench.told().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_panics_is_ours_and_the_schedule_goes_on() {
    let bench = Bench::start(Some(check()), &members([1]), &[(1, Panic)]);
    seconds(5.0).await;
    assert_eq!(bench.backend("b1").verdict, Verdict::Checking);
    bench.set(1, Pass);
    seconds(5.0).await;
    assert_eq!(bench.backend("b1").verdict, Verdict::Up);
}

#[tokio::test(start_paused = true)]
async fn a_degraded_backend_keeps_its_traffic() {
    let bench = Bench::start(Some(check()), &members([1]), &[]);
    seconds(30.0).await;
    bench.set(1, Degraded);
    seconds(30.0).await;
    assert_eq!(bench.eligible(), [1]);
    let told = bench.told();
    assert_eq!(told[1..], ["b1: up > degraded, degraded, 3 degraded probes (200 in 3 ms, degraded), 1 of 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_reload_that_changes_nothing_keeps_counters_and_schedule() {
    let members = members([1, 2]);
    let bench = Bench::start(Some(check()), &members, &[(2, REFUSED)]);
    seconds(40.0).await;
    let (before, asked) = (bench.backend("b1").record, bench.probes(1).len());
    bench.told();
    for _ in 0..20 {
        bench.update(Some(check()), &members).await;
        seconds(0.01).await;
    }
    assert!(bench.probes(1).len() <= asked + 1, "not asked anew");
    seconds(300.0).await;
    for port in [1, 2] {
        assert!(bench.gaps(port)[1..].iter().all(|gap| within(*gap, 9.0, 11.0)), "{:?}", bench.gaps(port));
    }
    let after = bench.backend("b1").record;
    assert_eq!(after.good as usize, bench.probes(1).len());
    assert!(after.good > before.good);
    assert_eq!(bench.told(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_changed_check_keeps_the_verdict_counts_anew_and_asks_at_once() {
    let members = members([1, 2]);
    let bench = Bench::start(Some(check()), &members, &[(2, REFUSED)]);
    seconds(40.0).await;
    bench.told();
    let edited = HealthCheck { port: Some(77), ..check() };
    bench.update(Some(edited), &members).await;
    assert_eq!(bench.eligible(), [1]);
    assert_eq!(bench.backend("b2").verdict, Verdict::Down);
    assert_eq!((bench.backend("b1").record.good, bench.backend("b2").record.bad), (0, 0));
    seconds(0.01).await;
    assert_eq!(bench.probes(77).len(), 1, "the new port is the same for both, and so is the question");
    let old = (bench.probes(1).len(), bench.probes(2).len());
    seconds(60.0).await;
    assert_eq!((bench.probes(1).len(), bench.probes(2).len()), old, "the old question is not asked any more");
    assert_eq!(bench.told(), ["b2: down > up, passed, 2 good probes, 2 of 2"]);
}

#[tokio::test(start_paused = true)]
async fn a_new_member_gets_no_traffic_before_its_first_pass() {
    let old = member(1);
    let new = member(2);
    let bench = Bench::start(Some(check()), std::slice::from_ref(&old), &[(2, REFUSED)]);
    seconds(1.0).await;
    bench.update(Some(check()), &[old, new]).await;
    assert_eq!((bench.eligible(), bench.backend("b2").shown), (vec![1], "checking"));
    assert!(bench.monitor.first_round_done(), "a reload does not take readiness back");
    seconds(0.1).await;
    assert_eq!((bench.eligible(), bench.backend("b2").shown), (vec![1], "down"));
    bench.set(2, Pass);
    seconds(30.0).await;
    assert_eq!(bench.eligible(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_removed_member_drains_and_is_asked_no_more() {
    let [stays, goes] = members([1, 2]);
    let bench = Bench::start(Some(check()), &[stays.clone(), goes.clone()], &[]);
    seconds(30.0).await;
    bench.told();
    let lease = Lease::take(&Arc::new(goes.clone()), None);
    bench.update(Some(check()), std::slice::from_ref(&stays)).await;
    let asked = bench.probes(2).len();
    assert_eq!((bench.eligible(), bench.backend("b2").shown), (vec![1], "draining"));
    assert_eq!(bench.told(), ["b2: up > draining, removed, removed from the configuration, 1 of 1"]);
    seconds(100.0).await;
    assert_eq!(bench.probes(2).len(), asked);
    assert_eq!(bench.monitor.view().backends.len(), 2, "listed while it has a request");
    drop(lease);
    seconds(1.1).await;
    assert_eq!(bench.monitor.view().backends.len(), 1);
    assert!(goes.backend.is_draining());
    assert_eq!(bench.told(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn where_all_are_exchanged_those_that_leave_stand_in_until_a_new_one_is_up() {
    let [a, b, c] = members([1, 2, 3]);
    let bench = Bench::start(Some(check()), &[a.clone(), b.clone()], &[(2, REFUSED), (3, REFUSED)]);
    seconds(1.0).await;
    bench.told();
    bench.update(Some(check()), std::slice::from_ref(&c)).await;
    let applied = tokio::spawn(bench.monitor.applied());
    assert_eq!((bench.eligible(), bench.backend("b1").shown), (vec![1], "up"));
    assert!(b.backend.is_draining(), "one that is down has nothing to offer");
    seconds(3.0).await;
    assert_eq!((bench.eligible(), bench.backend("b3").shown), (vec![1], "down"));
    assert!(!applied.is_finished());
    let told = bench.told();
    assert!(told[0].contains("`orders` keeps 1 removed backend until a new one is up, for 25s at most"), "{told:?}");
    assert_eq!(told[2], "b3: checking > down, connect_refused, connect refused, 1 of 2");
    bench.set(3, Pass);
    seconds(13.0).await;
    assert_eq!((bench.eligible(), a.backend.is_draining()), (vec![3], true));
    let told = bench.told();
    assert_eq!(
        told,
        [
            "b3: down > up, passed, 2 good probes, 1 of 1",
            "b1: up > draining, removed, removed from the configuration, 1 of 1"
        ]
    );
    assert!(applied.is_finished());
    assert_eq!(bench.monitor.view().backends.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_stands_in_for_ever_nor_when_it_is_down_itself() {
    let [a, b, c] = members([1, 2, 3]);
    let bench = Bench::start(Some(check()), &[a.clone(), b], &[(3, REFUSED)]);
    seconds(1.0).await;
    bench.update(Some(check()), std::slice::from_ref(&c)).await;
    assert_eq!(bench.eligible().len(), 2);
    bench.set(2, REFUSED);
    seconds(23.9).await;
    assert_eq!(bench.eligible(), [1], "it is asked as before");
    // An edit of something else does not make it longer.
    bench.update(Some(check()), std::slice::from_ref(&c)).await;
    seconds(2.5).await;
    assert_eq!((bench.eligible(), bench.upstream.eligible().tier()), (vec![], Tier::Nobody));
    assert!(a.backend.is_draining());
}

#[tokio::test(start_paused = true)]
async fn an_edit_that_is_taken_back_costs_those_nothing_that_stood_in() {
    let [a, b] = members([1, 2]);
    let bench = Bench::start(Some(check()), std::slice::from_ref(&a), &[(2, REFUSED)]);
    seconds(1.0).await;
    bench.update(Some(check()), std::slice::from_ref(&b)).await;
    seconds(1.0).await;
    bench.told();
    bench.update(Some(check()), std::slice::from_ref(&a)).await;
    assert_eq!(bench.eligible(), [1]);
    assert_eq!(bench.told(), ["b2: down > draining, removed, removed from the configuration, 1 of 1"]);
    seconds(60.0).await;
    assert_eq!((bench.eligible(), bench.backend("b1").shown), (vec![1], "up"));
    bench.monitor.applied().await;
}

#[tokio::test(start_paused = true)]
async fn where_nobody_comes_nobody_stands_in() {
    let [a, b] = members([1, 2]);
    let bench = Bench::start(Some(check()), &[a.clone(), b.clone()], &[(2, REFUSED)]);
    seconds(1.0).await;
    bench.update(Some(check()), std::slice::from_ref(&b)).await;
    assert_eq!((bench.eligible(), a.backend.is_draining()), (vec![], true));
}

#[tokio::test(start_paused = true)]
async fn a_member_that_comes_back_is_undrained_and_remembered() {
    let both = members([1, 2]);
    let bench = Bench::start(Some(check()), &both, &[]);
    seconds(30.0).await;
    let _lease = Lease::take(&Arc::new(both[1].clone()), None);
    bench.update(Some(check()), &both[..1]).await;
    seconds(5.0).await;
    bench.told();
    let asked = bench.probes(2).len();
    bench.update(Some(check()), &both).await;
    assert_eq!(bench.told(), ["b2: draining > up, returned, back in the configuration, 2 of 2"]);
    assert_eq!(bench.eligible(), [1, 2]);
    seconds(0.1).await;
    assert_eq!(bench.probes(2).len(), asked + 1, "asked at once");
    assert_eq!(bench.backend("b2").record.good as usize, asked + 1);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_comes_back_after_it_was_forgotten_starts_anew() {
    let both = members([1, 2]);
    let bench = Bench::start(Some(check()), &both, &[]);
    seconds(5.0).await;
    bench.update(Some(check()), &both[..1]).await;
    seconds(5.0).await;
    bench.set(2, REFUSED);
    bench.update(Some(check()), &both).await;
    assert_eq!((bench.eligible(), bench.backend("b2").shown), (vec![1], "checking"));
}

#[tokio::test(start_paused = true)]
async fn another_backend_in_the_same_slot_is_another_backend() {
    let bench = Bench::start(Some(check()), &members([1, 2]), &[(2, REFUSED)]);
    seconds(5.0).await;
    bench.update(Some(check()), &members([1, 2])).await;
    assert_eq!(bench.backend("b2").shown, "checking");
    assert_eq!(bench.backend("b2").record.bad, 0);
}

#[tokio::test(start_paused = true)]
async fn without_a_check_nobody_is_asked_and_everybody_gets_traffic() {
    let members = members([1, 2]);
    let bench = Bench::start(None, &members, &[]);
    assert_eq!(bench.eligible(), [1, 2]);
    assert!(bench.monitor.first_round_done());
    seconds(60.0).await;
    assert!(bench.world.probes.lock().unwrap().is_empty());
    assert_eq!(bench.backend("b1").shown, "unchecked");
    bench.update(None, &members[1..]).await;
    assert_eq!(bench.eligible(), [2]);
}

#[tokio::test(start_paused = true)]
async fn a_check_that_is_added_takes_no_traffic_away_before_it_knows() {
    let members = members([1, 2]);
    let bench = Bench::start(None, &members, &[(1, Hang)]);
    bench.update(Some(check()), &members).await;
    seconds(1.0).await;
    assert_eq!(bench.eligible(), [1, 2]);
    assert_eq!((bench.backend("b1").shown, bench.backend("b2").shown), ("unchecked", "up"));
    seconds(2.0).await;
    assert_eq!(bench.eligible(), [2]);
    assert_eq!(bench.told().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_check_that_is_removed_leaves_its_backends_unchecked() {
    let members = members([1, 2]);
    let bench = Bench::start(Some(check()), &members, &[(2, REFUSED)]);
    seconds(5.0).await;
    bench.told();
    bench.update(None, &members).await;
    let told = bench.told();
    assert_eq!(bench.eligible(), [1, 2]);
    assert_eq!(told[1], "b2: down > unchecked, check_removed, health check removed, 2 of 2");
    let asked = bench.world.probes.lock().unwrap().len();
    seconds(60.0).await;
    assert_eq!(bench.world.probes.lock().unwrap().len(), asked);
}

#[tokio::test(start_paused = true)]
async fn names_weights_and_roles_take_effect_without_a_probe() {
    let [mut first, second] = members([1, 2]);
    let bench = Bench::start(Some(check()), &[first.clone(), second.clone()], &[]);
    seconds(5.0).await;
    bench.told();
    first.name = Name::derived("big");
    first.weight = 7;
    let backup = Member { tier: 1, ..second };
    bench.update(Some(check()), &[first, backup]).await;
    assert_eq!((bench.eligible(), bench.backend("big").weight, bench.backend("b2").tier), (vec![1], 7, 1));
    assert_eq!(bench.told(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn when_nobody_passes_an_edited_check_the_check_is_suspect() {
    let members = members([1, 2]);
    let bench = Bench::start(Some(check()), &members, &[(77, REFUSED)]);
    seconds(30.0).await;
    bench.told();
    bench.update(Some(HealthCheck { port: Some(77), ..check() }), &members).await;
    seconds(100.0).await;
    let told = bench.told();
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(told[2], "suspect_check");
}

#[tokio::test(start_paused = true)]
async fn a_check_that_somebody_has_passed_is_not_suspect() {
    let members = members([1, 2]);
    let bench = Bench::start(Some(check()), &members, &[]);
    seconds(30.0).await;
    bench.update(Some(HealthCheck { timeout: Duration::from_secs(1), ..check() }), &members).await;
    seconds(30.0).await;
    bench.set(1, REFUSED);
    bench.set(2, REFUSED);
    seconds(60.0).await;
    assert_eq!(bench.upstream.eligible().tier(), Tier::Nobody);
    assert!(!bench.told().contains(&"suspect_check".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_check_that_an_edit_has_left_alone_is_not_suspect() {
    let members = members([1, 2]);
    let second = HealthCheck { name: Name::derived("second"), port: Some(77), ..check() };
    let with = |checks: &[HealthCheck]| judged(Health { checks: checks.to_vec(), ..Health::default() }, Duration::ZERO);
    let bench = Bench::start_plan(256, with(&[check(), second]), &members, &[]);
    seconds(30.0).await;
    bench.update_plan(with(&[check()]), &members).await;
    seconds(60.0).await;
    bench.set(1, REFUSED);
    bench.set(2, REFUSED);
    seconds(60.0).await;
    assert_eq!(bench.upstream.eligible().tier(), Tier::Nobody);
    assert!(!bench.told().contains(&"suspect_check".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_monitor_ends_its_probes() {
    let Bench { world, monitor, .. } = Bench::start(Some(check()), &members([1, 2]), &[(1, Hang)]);
    seconds(0.5).await;
    assert_eq!(world.under_way.load(SeqCst), 1);
    drop(monitor);
    seconds(0.001).await;
    assert_eq!(world.under_way.load(SeqCst), 0);
    let asked = world.probes.lock().unwrap().len();
    seconds(100.0).await;
    assert_eq!(world.probes.lock().unwrap().len(), asked);
}

#[tokio::test(start_paused = true)]
async fn every_probe_is_counted_by_kind_and_reason_and_measured() {
    let bench = Bench::start(Some(check()), &members([1]), &[(1, REFUSED)]);
    seconds(60.0).await;
    let asked = bench.probes(1).len() as u64;
    let view = bench.monitor.view();
    assert_eq!(view.backends[0].record.probes[&(Kind::Fail, "connect_refused")], asked);
    assert_eq!(view.backends[0].record.transitions[&("down", "connect_refused")], 1);
    assert_eq!(view.probe_durations.buckets.iter().sum::<u64>(), asked);
    assert_eq!(view.tier, Tier::Nobody);
}

#[tokio::test]
async fn real_sockets_are_asked() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ports = [&listener, &free].map(|listener| listener.local_addr().unwrap().port());
    drop(free);
    let (queue, events) = sync_channel(16);
    let upstream = Arc::new(Upstream::new(
        Eligible::among(&[], &Health::default(), &Balance::default(), |_| Percent::whole(100)),
        1,
    ));
    let check = HealthCheck { timeout: Duration::from_secs(30), ..check() };
    let prober = Prober::new(Events::new(queue), 1);
    let monitor = Monitor::start(&prober, Arc::clone(&upstream), plan(Some(check)), members(ports).to_vec(), 1);
    monitor.first_round().await;
    let shown = monitor.view().backends.iter().map(|backend| backend.shown).collect::<Vec<_>>();
    assert_eq!(shown, ["up", "down"]);
    assert_eq!(upstream.eligible().members().len(), 1);
    assert_eq!(events.try_iter().count(), 2);
}
