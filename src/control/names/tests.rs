//! Schedules and their effects, in virtual time: look-ups are scripted, nothing is asked of a network.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::{Mutex, mpsc},
};

use tokio::time::advance;

use super::*;
use crate::{base::Timestamp, config, config::plan::Family, health::Looking};

/// What comes of a look-up; nothing, ever, where it is `None`.
type Said = Option<Result<Answer, ResolveError>>;

/// Says what it is told to, name by name; the last thing again and again.
#[derive(Clone, Debug, Default)]
struct Script {
    said: Arc<Mutex<HashMap<String, VecDeque<Said>>>>,
    asked: Arc<Mutex<Vec<(String, Instant)>>>,
    renewed: Arc<Mutex<Vec<Dns>>>,
}

impl LookUp for Script {
    fn look_up(&self, name: &Name) -> Looking {
        self.asked.lock().unwrap().push((name.to_string(), Instant::now()));
        let mut said = self.said.lock().unwrap();
        let script = said.get_mut(name.as_str()).expect("a name of the test");
        let next = if script.len() > 1 { script.pop_front().unwrap() } else { script[0].clone() };
        Box::pin(async move {
            match next {
                Some(said) => said,
                None => std::future::pending().await,
            }
        })
    }

    fn renewed(&self, plan: &Dns) -> Arc<dyn LookUp> {
        self.renewed.lock().unwrap().push(plan.clone());
        Arc::new(self.clone())
    }
}

impl Script {
    fn says(self, name: &str, said: &[Said]) -> Self {
        self.said.lock().unwrap().insert(name.to_owned(), said.to_vec().into());
        self
    }

    async fn start(&self, plan: &Plan) -> (Names, mpsc::Receiver<(Timestamp, Event)>) {
        let (queue, events) = mpsc::sync_channel(100);
        (Names::start(Arc::new(self.clone()), plan, Events::new(queue)).await, events)
    }

    /// Seconds between the times that a name was asked for, rounded down.
    fn waits(&self, name: &str) -> Vec<u64> {
        let asked = self.asked.lock().unwrap();
        let times: Vec<Instant> = asked.iter().filter(|(asked, _)| asked == name).map(|(_, at)| *at).collect();
        times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect()
    }
}

fn ok(addresses: &[&str], ttl: u64) -> Said {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Some(Ok(Answer { addresses, ttl: Some(Duration::from_secs(ttl)), unknown: None }))
}

fn failed() -> Said {
    Some(Err(ResolveError::Failed("no server answers".to_owned())))
}

fn gone() -> Said {
    Some(Err(ResolveError::NoSuchName))
}

fn plan(backends: &str, dns: &str) -> Arc<Plan> {
    let text = format!(
        "listen: 8080\ndns: {{ {dns} }}\nupstreams: {{ api: {{ backends: [{backends}], health: none }} }}\n\
         routes: [{{ path: /*, to: api }}]\n"
    );
    config::load(&config::Source { path: "tidegate.yaml".into(), text }, &|_| None).unwrap().plan
}

/// What a name of the plan on port 80 stands for.
fn addresses(names: &Names, plan: &Plan, name: &str) -> Result<Vec<IpAddr>, String> {
    let resolved = names.resolved(plan);
    let result = resolved.get(&(Name::derived(name), 80)).expect("a name of the plan").clone();
    result.map(|all| all.iter().map(SocketAddr::ip).collect()).map_err(|unresolved| unresolved.why)
}

fn all(addresses: &[&str]) -> Result<Vec<IpAddr>, String> {
    Ok(addresses.iter().map(|address| address.parse().unwrap()).collect())
}

/// Lets a time pass in which names are looked up, and counts the changes.
async fn pass(names: &mut Names, time: Duration) -> usize {
    let end = Instant::now() + time;
    let mut changes = 0;
    while tokio::time::timeout_at(end, names.changed()).await.is_ok() {
        changes += 1;
    }
    changes
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_name_is_looked_up_again_when_its_time_is_over() {
    let script = Script::default()
        .says("long.test", &[ok(&["192.0.2.1"], 86_400)])
        .says("mid.test", &[ok(&["192.0.2.1"], 60)])
        .says("none.test", &[ok(&["192.0.2.1"], 0)])
        .says("untold.test", &[Some(Ok(Answer { addresses: vec![], ttl: None, unknown: None }))]);
    let plan = plan("long.test:80, mid.test:80, none.test:80, untold.test:80", "");
    let (mut names, _events) = script.start(&plan).await;
    assert_eq!(pass(&mut names, SECOND * 1_000).await, 0);
    let waited = |name: &str, least: u64, most: u64| {
        let waits = script.waits(name);
        assert!(!waits.is_empty() && waits.iter().all(|wait| (least..=most).contains(wait)), "{name}: {waits:?}");
    };
    waited("long.test", 300, 315);
    waited("mid.test", 60, 63);
    waited("none.test", 1, 1);
    waited("untold.test", 30, 31);
}

#[tokio::test(start_paused = true)]
async fn failures_are_repeated_less_and_less_often() {
    let script = Script::default().says("api.test", &[failed()]);
    let (mut names, events) = script.start(&plan("api.test:80", "")).await;
    pass(&mut names, SECOND * 130).await;
    let waits = script.waits("api.test");
    assert!(waits.starts_with(&[1, 2, 4, 8, 16]), "{waits:?}");
    assert!(waits[5..].iter().all(|wait| [30, 31].contains(wait)) && waits.len() > 6, "{waits:?}");
    let Event::Warning { what: "dns", detail } = events.try_recv().unwrap().1 else { panic!("a warning") };
    assert_eq!(detail, "api.test cannot be looked up: no server answers; its backends are down");
    assert!(events.try_recv().is_err(), "it is said once");
}

#[tokio::test(start_paused = true)]
async fn the_order_of_an_answer_is_no_change_and_what_comes_together_is_one() {
    let (first, second) = (["192.0.2.1", "192.0.2.2"], ["192.0.2.2", "192.0.2.1"]);
    let script = Script::default()
        .says("turns.test", &[ok(&first, 10), ok(&second, 10), ok(&first, 10)])
        .says("a.test", &[ok(&["192.0.2.1"], 30), ok(&["192.0.2.3"], 86_400)])
        .says("b.test", &[failed(), ok(&["192.0.2.4"], 86_400)]);
    let plan = plan("turns.test:80, a.test:80, b.test:80", "min_ttl: 10s");
    let (mut names, _events) = script.start(&plan).await;
    assert_eq!(pass(&mut names, SECOND * 29).await, 1, "b.test");
    names.known.values_mut().for_each(|known| known.due = Some(Instant::now()));
    script.said.lock().unwrap().insert("b.test".to_owned(), [ok(&["192.0.2.5"], 60)].into());
    assert_eq!(pass(&mut names, SECOND).await, 1, "a.test and b.test");
    assert_eq!(addresses(&names, &plan, "turns.test"), all(&["192.0.2.1", "192.0.2.2"]));
    assert_eq!(addresses(&names, &plan, "a.test"), all(&["192.0.2.3"]));
    assert_eq!(addresses(&names, &plan, "b.test"), all(&["192.0.2.5"]));
}

#[tokio::test(start_paused = true)]
async fn addresses_are_held_and_dropped_when_dns_says_that_there_are_none() {
    let script = Script::default().says("api.test", &[ok(&["192.0.2.1"], 1), gone(), failed()]);
    let plan = plan("api.test:80", "hold: 10s");
    let (mut names, events) = script.start(&plan).await;
    assert_eq!(pass(&mut names, SECOND * 10).await, 0);
    assert_eq!(addresses(&names, &plan, "api.test"), all(&["192.0.2.1"]));
    let record = names.records().remove("api.test").unwrap();
    assert_eq!((record.now().addresses, record.now().trouble.is_some()), (1, true));
    // That nobody can say meanwhile changes nothing of it.
    assert_eq!(pass(&mut names, SECOND * 2).await, 1);
    let why = "api.test cannot be looked up: no server answers".to_owned();
    assert_eq!(addresses(&names, &plan, "api.test"), Err(why));
    script.said.lock().unwrap().insert("api.test".to_owned(), [ok(&["192.0.2.9"], 60)].into());
    assert_eq!(pass(&mut names, SECOND * 40).await, 1);
    assert_eq!(addresses(&names, &plan, "api.test"), all(&["192.0.2.9"]));
    let said: Vec<String> = events.try_iter().map(|(_, event)| detail(event)).collect();
    assert_eq!(
        said,
        [
            "api.test does not exist; its addresses (1) stay in use for 10s",
            "the addresses of api.test are dropped, its backends are down",
            "api.test resolves again",
        ]
    );
    let results = record.results();
    assert_eq!((results[0], results[1]), (("ok", 2), ("no_such_name", 1)));
    assert!(results[3].1 > 1, "{results:?}");
}

#[tokio::test(start_paused = true)]
async fn addresses_stay_for_as_long_as_nobody_can_say() {
    let script = Script::default().says("api.test", &[ok(&["192.0.2.1"], 1), failed(), None]);
    let plan = plan("api.test:80", "hold: 0s");
    let (mut names, events) = script.start(&plan).await;
    assert_eq!(pass(&mut names, SECOND * 3_600).await, 0);
    assert_eq!(addresses(&names, &plan, "api.test"), all(&["192.0.2.1"]));
    let results = names.records()["api.test"].results();
    assert!(results[2].1 > 100 && results[3].1 == 1, "{results:?}");
    script.said.lock().unwrap().insert("api.test".to_owned(), [ok(&["192.0.2.1"], 60)].into());
    assert_eq!(pass(&mut names, SECOND * 40).await, 0, "nothing has changed");
    let said: Vec<String> = events.try_iter().map(|(_, event)| detail(event)).collect();
    assert_eq!(
        said,
        [
            "api.test cannot be looked up: no server answers; its addresses (1) stay in use meanwhile",
            "api.test resolves again"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn addresses_of_a_family_that_failed_stay() {
    let half =
        Answer { addresses: vec!["192.0.2.2".parse().unwrap()], ttl: Some(SECOND * 300), unknown: Some(Family::Ipv6) };
    let script = Script::default().says("api.test", &[ok(&["192.0.2.1", "2001:db8::1"], 1), Some(Ok(half))]);
    let plan = plan("api.test:80", "");
    let (mut names, _events) = script.start(&plan).await;
    pass(&mut names, SECOND * 100).await;
    assert_eq!(addresses(&names, &plan, "api.test"), all(&["192.0.2.2", "2001:db8::1"]));
    assert!(script.waits("api.test")[1..].iter().all(|wait| *wait <= 31), "not only in five minutes");
}

#[tokio::test(start_paused = true)]
async fn an_edit_asks_for_new_names_only_and_waits_for_them_within_bounds() {
    let script = Script::default()
        .says("old.test", &[ok(&["192.0.2.1"], 300)])
        .says("new.test", &[ok(&["192.0.2.2"], 300)])
        .says("slow.test", &[None]);
    let before = plan("old.test:80", "timeout: 1m");
    let (mut names, _events) = script.start(&before).await;
    let after = plan("old.test:80, new.test:80, slow.test:80", "timeout: 1m");
    let began = Instant::now();
    let prepared = names.prepare(&after).await;
    assert_eq!(began.elapsed(), LOOKUP);
    assert_eq!(script.asked.lock().unwrap().iter().filter(|(name, _)| name == "old.test").count(), 1);
    // Nothing is in force yet.
    assert_eq!(names.resolved(&after).len(), 1);
    assert_eq!(prepared.resolved.len(), 3);
    names.adopt(&after, prepared);
    assert_eq!(addresses(&names, &after, "new.test"), all(&["192.0.2.2"]));
    assert_eq!(addresses(&names, &after, "slow.test"), Err("slow.test was not resolved within 2s".to_owned()));
    // A name that has left is not looked up any more, whatever is still on its way.
    let prepared = names.prepare(&before).await;
    names.adopt(&before, prepared);
    script.asked.lock().unwrap().clear();
    pass(&mut names, SECOND * 200).await;
    assert!(script.asked.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn another_dns_block_asks_all_names_again_and_keeps_what_is_known() {
    let script = Script::default().says("api.test", &[ok(&["192.0.2.1"], 300), None, ok(&["192.0.2.2"], 300)]);
    let before = plan("api.test:80", "");
    let (mut names, _events) = script.start(&before).await;
    names.known.values_mut().for_each(|known| known.due = Some(Instant::now()));
    pass(&mut names, SECOND).await;
    let after = plan("api.test:80", "family: ipv4");
    let prepared = names.prepare(&after).await;
    names.adopt(&after, prepared);
    assert_eq!(*script.renewed.lock().unwrap(), vec![after.dns.clone()]);
    assert_eq!(addresses(&names, &after, "api.test"), all(&["192.0.2.1"]));
    assert_eq!(pass(&mut names, SECOND).await, 1);
    assert_eq!(addresses(&names, &after, "api.test"), all(&["192.0.2.2"]));
}

#[tokio::test(start_paused = true)]
async fn look_ups_are_bounded_and_so_are_addresses() {
    let many: Vec<String> = (0..1_000).map(|i| format!("10.0.{}.{}", i / 250, i % 250)).collect();
    let many: Vec<&str> = many.iter().rev().map(String::as_str).collect();
    let mut script = Script::default().says("many.test", &[ok(&many, 300)]);
    let hung: Vec<String> = (0..PARALLEL + 8).map(|i| format!("n{i}.test")).collect();
    for name in &hung {
        script = script.says(name, &[ok(&["192.0.2.1"], 300), None]);
    }
    let backends: Vec<String> = hung.iter().chain([&"many.test".to_owned()]).map(|name| format!("{name}:80")).collect();
    let plan = plan(&backends.join(", "), "");
    let (mut names, _events) = script.start(&plan).await;
    let all = addresses(&names, &plan, "many.test").unwrap();
    assert_eq!((all.len(), all[255].to_string().as_str()), (256, "10.0.1.5"));
    names.known.values_mut().for_each(|known| known.due = Some(Instant::now()));
    script.asked.lock().unwrap().clear();
    advance(Duration::from_millis(1)).await;
    pass(&mut names, SECOND).await;
    let asked = script.asked.lock().unwrap().iter().filter(|(name, _)| name != "many.test").count();
    assert_eq!(asked, PARALLEL, "the others wait for their turn");
}

fn detail(event: Event) -> String {
    match event {
        Event::Warning { detail, .. } | Event::Process { detail, .. } => detail,
        other => panic!("{other:?}"),
    }
}
