//! Requests that are divided over several upstreams.

use std::collections::BTreeMap;

use crate::support::{Backend, Client, Gateway};

fn config(sides: &[(&str, &Backend, u32)], fields: &str) -> String {
    let upstreams: String = sides
        .iter()
        .map(|(name, backend, _)| format!("  {name}: {{ backends: [\"{}\"], health: none }}\n", backend.address()))
        .collect();
    let weights: Vec<String> = sides.iter().map(|(name, _, weight)| format!("{name}: {weight}")).collect();
    let weights = weights.join(", ");
    format!(
        "telemetry: {{ access_log: {{}} }}\nupstreams:\n{upstreams}routes: [{{ path: /*, to: {{ {weights} }}, {fields} }}]\n"
    )
}

fn shares(client: &mut Client, count: usize) -> BTreeMap<String, usize> {
    (0..count).fold(BTreeMap::new(), |mut shares, _| {
        *shares.entry(client.get("/").text().to_owned()).or_default() += 1;
        shares
    })
}

fn of_user(client: &mut Client, field: &str) -> String {
    client.send(format!("GET / HTTP/1.1\r\nhost: a\r\n{field}\r\n\r\n")).response().text().to_owned()
}

#[test]
fn each_side_gets_its_weight() {
    let [a, b, c] = ["a", "b", "c"].map(Backend::named);
    let gateway = Gateway::start(config(&[("a", &a, 70), ("b", &b, 30), ("c", &c, 0)], ""));
    let shares = shares(&mut gateway.connect(), 1000);
    // Five times the deviation that chance has of 300.
    assert!((228..=372).contains(&shares["b"]), "{shares:?}");
    assert_eq!(shares["a"] + shares["b"], 1000, "a weight of 0 is none: {shares:?}");
    let log = gateway.await_access_log(1000);
    let logged = log.iter().filter(|line| line["upstream"] == "b").count();
    assert_eq!(logged, shares["b"]);
}

#[test]
fn a_user_stays_on_a_side_and_no_more_move_than_must() {
    let [a, b] = ["a", "b"].map(Backend::named);
    for (sticky, field) in [("header x-user", "x-user: {}"), ("cookie sid", "cookie: other=1; sid={}; x=sid=9")] {
        let fields = format!("split: {{ sticky: \"{sticky}\" }}");
        let gateway = Gateway::start(config(&[("a", &a, 90), ("b", &b, 10)], &fields));
        let mut client = gateway.connect();
        let mut sides = || -> Vec<String> {
            (0..400).map(|user| of_user(&mut client, &field.replace("{}", &format!("user-{user}")))).collect()
        };
        let before = sides();
        assert_eq!(sides(), before, "{sticky}");
        let on_b = before.iter().filter(|side| *side == "b").count();
        assert!((15..=75).contains(&on_b), "{on_b} of 400, {sticky}");
        gateway.edit(config(&[("a", &a, 70), ("b", &b, 30)], &fields));
        let after = sides();
        let moved: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
        assert!(moved.iter().all(|(before, _)| *before == "a"), "nobody goes back: {sticky}");
        assert!((40..=120).contains(&moved.len()), "{} of 400 moved, {sticky}", moved.len());
        let nobody = shares(&mut gateway.connect(), 200);
        assert!(nobody.len() == 2, "without a value chance decides: {nobody:?}");
    }
}

#[test]
fn a_side_that_is_down_keeps_its_share_unless_the_config_says_otherwise() {
    for (when_down, expected) in [("stay", None), ("other", Some("a"))] {
        let (a, b) = (Backend::named("a"), Backend::named("b"));
        let config = config(&[("a", &a, 50), ("b", &b, 50)], &format!("split: {{ when_down: {when_down} }}"))
            .replace("health: none", "health: { active: { path: /healthz, interval: 1s, timeout: 200ms } }");
        b.feel(false);
        let gateway = Gateway::start(config);
        gateway.await_backend(b.address(), "down");
        gateway.await_backend(a.address(), "up");
        let mut client = gateway.connect();
        let answers: Vec<_> = (0..60).map(|_| client.get("/")).collect();
        let refused = answers.iter().filter(|answer| answer.status() == 503).count();
        match expected {
            None => assert!((8..=52).contains(&refused), "{refused}"),
            Some(side) => assert!(answers.iter().all(|answer| answer.text() == side)),
        }
        assert_eq!(b.hits(), 0);
    }
}
