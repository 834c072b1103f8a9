//! What is promised of every mode, as properties.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use http::HeaderValue;
use proptest::prelude::*;

use super::*;
use crate::{
    base::{Name, Percent, Secret},
    config::plan::{Balance, HashAlgorithm, HashKey, Health, OnFailure, Placing, SameSite, Sticky},
    telemetry::cells::WorkerId,
    upstream::{Backend, Condition, Eligible, Lease, NoPlace, Tier, Upstream, Verdict},
};

const WORKER: WorkerId = WorkerId(0);

fn member(slot: usize, name: &str, weight: u16) -> Member {
    let slot = Slot(u32::try_from(slot).unwrap());
    let dial = SocketAddr::from(([127, 0, 0, 1], 9000)).into();
    let backend = Arc::new(Backend::new(slot, dial, Verdict::Up, 1));
    let authority = HeaderValue::from_static("b");
    Member { backend, name: Name::derived(name), authority, weight, tier: 0 }
}

/// Members of these weights, called `10.0.0.N:9001`.
fn members(weights: &[u16]) -> Vec<Member> {
    let called = |n: usize| format!("10.0.{}.{}:9001", n / 250, n % 250);
    weights.iter().enumerate().map(|(n, weight)| member(n, &called(n), *weight)).collect()
}

fn by_hash(algorithm: HashAlgorithm, bounded_load: Option<u16>) -> Balance {
    let mode = BalanceMode::Hash(Placing { by: HashKey::Ip, algorithm, bounded_load });
    Balance { mode, sticky: None }
}

fn plain(mode: BalanceMode) -> Balance {
    Balance { mode, sticky: None }
}

fn every_mode() -> Vec<Balance> {
    let hashes = [HashAlgorithm::Ring, HashAlgorithm::Maglev].map(|algorithm| by_hash(algorithm, None));
    let bounded = [HashAlgorithm::Ring, HashAlgorithm::Maglev].map(|algorithm| by_hash(algorithm, Some(125)));
    let plain = [BalanceMode::RoundRobin, BalanceMode::Random, BalanceMode::LeastRequests, BalanceMode::P2c].map(plain);
    hashes.into_iter().chain(bounded).chain(plain).collect()
}

fn eligible(members: &[Member], balance: &Balance) -> Eligible {
    Eligible::among(members, &Health::default(), balance, |_| Percent::whole(100))
}

fn keyed(key: u64) -> Draw<'static> {
    Draw { ticket: Ticket { key: Some(key), token: None }, ..Draw::default() }
}

/// Who has each of so many keys.
fn owners(eligible: &Eligible, keys: u64) -> Vec<Name> {
    (0..keys).map(|key| owner(eligible, hash::place(&key.to_le_bytes()))).collect()
}

fn owner(eligible: &Eligible, key: u64) -> Name {
    eligible.pick(&keyed(key)).unwrap().name.clone()
}

fn shares<T: std::hash::Hash + Eq>(all: impl IntoIterator<Item = T>) -> HashMap<T, usize> {
    all.into_iter().fold(HashMap::new(), |mut shares, one| {
        *shares.entry(one).or_default() += 1;
        shares
    })
}

/// The greatest deviation of a share from what its weight says, in parts of that.
fn deviation(members: &[Member], owners: &[Name]) -> f64 {
    let whole: f64 = members.iter().map(|member| f64::from(member.weight)).sum();
    let seen = shares(owners.iter().cloned());
    let off = |member: &Member| {
        let expected = f64::from(member.weight) / whole * owners.len() as f64;
        (seen.get(&member.name).copied().unwrap_or_default() as f64 / expected - 1.0).abs()
    };
    members.iter().map(off).fold(0.0, f64::max)
}

const KEYS: u64 = 20_000;

#[test]
fn placement_never_changes() {
    let members = members(&[1, 2, 1, 3]);
    let seen = [HashAlgorithm::Ring, HashAlgorithm::Maglev].map(|algorithm| {
        let eligible = eligible(&members, &by_hash(algorithm, None));
        let slots = [&b"amy"[..], b"bob", b"cat", b"dan", b"eve", b"fay", b"gus", b"hal"]
            .map(|user| eligible.pick(&keyed(hash::place(user))).unwrap().backend.slot().0.to_string());
        slots.concat()
    });
    assert_eq!(seen, ["12331323", "32133130"]);
}

#[test]
fn shares_on_a_ring_are_as_the_weights_within_a_fifth() {
    // With v points the standard deviation is 1 / sqrt(v), here 8 %; of ten the worst is seldom more than 2.5 of that.
    let members = members(&[1; 10]);
    let off = deviation(&members, &owners(&eligible(&members, &by_hash(HashAlgorithm::Ring, None)), KEYS));
    assert!(off < 0.2, "{off}");
}

#[test]
fn shares_of_a_table_are_as_the_weights_within_a_few_places() {
    for weights in [&[1; 10][..], &[1, 1000], &[5, 3, 2], &[7; 655]] {
        let members = members(weights);
        let shares: Vec<Share<'_>> = members
            .iter()
            .zip(0..)
            .map(|(member, index)| Share { name: &member.name, weight: u32::from(member.weight) * 100, index })
            .collect();
        let size = 65_537;
        let table = maglev::Maglev::sized(&shares, size);
        let seen = self::shares((0..size as u64).map(|place| table.find(place, |_| true).unwrap()));
        let whole: usize = weights.iter().copied().map(usize::from).sum();
        for (index, weight) in weights.iter().enumerate() {
            let expected = size * usize::from(*weight) / whole;
            assert!(seen[&index].abs_diff(expected) <= 2, "{} of {expected}", seen[&index]);
        }
    }
}

#[test]
fn no_mode_panics_at_ten_thousand_and_any_weight() {
    let weights: Vec<u16> = (0..10_000).map(|n| 1 + n % 1_000).collect();
    let members = members(&weights);
    for balance in every_mode() {
        let eligible = eligible(&members, &balance);
        for key in 0..100 {
            assert!(eligible.pick(&keyed(hash::place(&[key]))).is_ok(), "{balance:?}");
        }
        let all: Vec<Slot> = members.iter().map(|member| member.backend.slot()).collect();
        let but_one = Draw { tried: &all[1..], ..keyed(7) };
        assert_eq!(eligible.pick(&but_one).unwrap().backend.slot(), all[0], "{balance:?}");
    }
}

#[test]
fn a_request_that_says_nothing_is_sent_in_turn() {
    let members = members(&[1; 4]);
    let eligible = eligible(&members, &by_hash(HashAlgorithm::Ring, None));
    let picked = (0..8).map(|turn| eligible.pick(&Draw { turn, ..Draw::default() }).unwrap().name.clone());
    assert!(shares(picked).values().all(|share| *share == 2));
}

#[test]
fn those_that_have_the_least_to_do_are_chosen() {
    for count in [3, 100] {
        let members = members(&vec![1; count]);
        let upstream = Upstream::new(eligible(&members, &plain(BalanceMode::LeastRequests)), 1);
        let leases: Vec<Lease> =
            (0..count * 4).map(|_| upstream.lease(WORKER, Ticket::default(), &[], None).unwrap()).collect();
        let loads = members.iter().map(|member| member.backend.in_flight());
        let most = if count == 3 { 4 } else { 7 };
        assert!(loads.clone().max() <= Some(most), "{:?}", loads.collect::<Vec<_>>());
        drop(leases);
    }
}

#[test]
fn those_that_have_nothing_to_do_take_turns_by_weight() {
    let members = members(&[3, 1]);
    let eligible = eligible(&members, &plain(BalanceMode::LeastRequests));
    let picked = (0..400).map(|turn| eligible.pick(&Draw { turn, ..Draw::default() }).unwrap().weight);
    assert_eq!(shares(picked), HashMap::from([(3, 300), (1, 100)]));
}

#[test]
fn what_has_to_be_done_is_as_the_weights() {
    for mode in [BalanceMode::LeastRequests, BalanceMode::P2c] {
        let members = members(&[30, 10, 20]);
        let upstream = Upstream::new(eligible(&members, &plain(mode.clone())), 1);
        let leases: Vec<Lease> =
            (0..600).map(|_| upstream.lease(WORKER, Ticket::default(), &[], None).unwrap()).collect();
        let loads: Vec<u32> = members.iter().map(|member| member.backend.in_flight()).collect();
        for (load, expected) in loads.iter().zip([300, 100, 200]) {
            assert!(load.abs_diff(expected) <= 20, "{mode:?}: {loads:?}");
        }
        drop(leases);
    }
}

#[test]
fn a_slow_one_gets_little_and_is_asked_again_later() {
    let members = members(&[1, 1]);
    let (slow, fast) = (&members[0].backend, &members[1].backend);
    let now = Instant::now();
    slow.load_latency().answered(Duration::from_millis(500), now);
    fast.load_latency().answered(Duration::from_millis(5), now);
    let weights = [100, 100];
    let (turns, arcs) = (Turns::new(&weights), members.iter().cloned().map(Arc::new).collect::<Vec<_>>());
    let of_slow = |now| {
        let draw = Draw::default();
        let among = Candidates { members: &arcs, weights: &weights, mean_weight: 100.0, draw: &draw };
        (0..2_000).filter(|_| ewma::pick(&turns, now, &among) == Some(0)).count()
    };
    let at_once = of_slow(now);
    assert!((20..300).contains(&at_once), "{at_once}");
    let later = now + Duration::from_secs(50);
    fast.load_latency().answered(Duration::from_millis(5), later);
    assert!(of_slow(later) > 1_500, "what was seen long ago has faded");
}

#[test]
fn an_average_jumps_at_what_is_worse_and_forgets_it_slowly() {
    let latency = Latency::default();
    let (start, second) = (Instant::now(), Duration::from_secs(1));
    let millis = |at: Instant| latency.at(at).map(|micros| (micros / 1e3).round() as u32);
    assert_eq!(millis(start), None);
    latency.answered(Duration::from_millis(10), start);
    assert_eq!(millis(start), Some(10));
    latency.answered(Duration::from_millis(100), start);
    assert_eq!(millis(start), Some(100), "it jumps up");
    latency.answered(Duration::from_millis(10), start + second * 10);
    assert_eq!(millis(start + second * 10), Some(43), "10 + 90 / e");
    assert_eq!(millis(start + second * 20), Some(16), "43 / e");
    latency.failed(Duration::ZERO, start + second * 20);
    assert_eq!(millis(start + second * 20), Some(1_000), "who fails fast is not fast");
}

#[test]
fn a_slow_start_and_a_degraded_verdict_count_in_every_mode() {
    for balance in every_mode() {
        let members = members(&[1, 1, 1]);
        members[1].backend.set_condition(Condition::new(Verdict::Degraded));
        let ramp = |member: &Member| Percent::whole(if member.backend.slot() == Slot(2) { 10 } else { 100 });
        let eligible = Eligible::among(&members, &Health::default(), &balance, ramp);
        let picked = (0..8_000).map(|turn| {
            let ticket = Ticket { key: Some(hash::place(&[turn as u8, (turn >> 8) as u8])), token: None };
            eligible.pick(&Draw { turn, ticket, crowd: 100, ..Draw::default() }).unwrap().backend.slot().0
        });
        let seen = shares(picked);
        let [whole, half, little] = [0, 1, 2].map(|slot| seen[&slot]);
        assert!(whole > half && half > little && little > 0, "{balance:?}: {seen:?}");
    }
}

fn sticky(on_failure: OnFailure) -> Balance {
    let sticky = Sticky {
        cookie: "tg".to_owned(),
        key: Secret::new("0123456789abcdef".to_owned()),
        ttl: None,
        path: "/".to_owned(),
        same_site: SameSite::Lax,
        secure: None,
        http_only: true,
        on_failure,
    };
    Balance { mode: BalanceMode::RoundRobin, sticky: Some(sticky) }
}

fn stuck(token: Option<Token>) -> Draw<'static> {
    Draw { ticket: Ticket { key: None, token }, ..Draw::default() }
}

#[test]
fn a_cookie_leads_back_and_one_of_a_stranger_nowhere() {
    let members = members(&[1, 1, 1]);
    let eligible = eligible(&members, &sticky(OnFailure::Fail));
    for turn in 0..9 {
        let token = eligible.token(Slot(2));
        let read = Token::read(token.unwrap().to_string().as_bytes());
        assert_eq!(read, token);
        let draw = Draw { turn, ..stuck(read) };
        assert_eq!(eligible.pick(&draw).unwrap().backend.slot(), Slot(2));
    }
    let forged = Token::read(b"AAAAAAAAAAAAAAAAAAAAAA").unwrap();
    let picked = (0..3).map(|turn| eligible.pick(&Draw { turn, ..stuck(Some(forged)) }).unwrap().backend.slot());
    assert_eq!(shares(picked).len(), 3);
    for garbage in [&b""[..], b"AAAA", b"AAAAAAAAAAAAAAAAAAAAA=", b"\xff\xff", b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]
    {
        assert_eq!(Token::read(garbage), None);
    }
}

#[test]
fn what_cookies_say_never_changes() {
    let members = members(&[1]);
    let eligible = eligible(&members, &sticky(OnFailure::Fail));
    assert_eq!(eligible.token(Slot(0)).unwrap().to_string(), "ZMfLolaKh_DDYDUNBZ-imQ");
}

#[test]
fn a_client_whose_backend_is_out_gets_another_or_none() {
    let members = members(&[1, 1]);
    let token = eligible(&members, &sticky(OnFailure::Fail)).token(Slot(0));
    members[0].backend.set_condition(Condition::new(Verdict::Down));
    let slot = |eligible: &Eligible, draw: Draw<'_>| eligible.pick(&draw).map(|member| member.backend.slot());
    let fail = eligible(&members, &sticky(OnFailure::Fail));
    assert_eq!(slot(&fail, stuck(token)), Err(NoPlace::Nobody));
    assert_eq!(slot(&fail, stuck(None)), Ok(Slot(1)));
    let another = eligible(&members, &sticky(OnFailure::Another));
    assert_eq!(slot(&another, stuck(token)), Ok(Slot(1)));

    members[0].backend.set_condition(Condition::new(Verdict::Up));
    let fail = eligible(&members, &sticky(OnFailure::Fail));
    assert_eq!(slot(&fail, Draw { tried: &[Slot(0)], ..stuck(token) }), Err(NoPlace::Nobody));
    let lease = Lease::take(&fail.members()[0], Some(1));
    assert_eq!(slot(&fail, Draw { max: Some(1), ..stuck(token) }), Err(NoPlace::Full));
    let another = eligible(&members, &sticky(OnFailure::Another));
    assert_eq!(slot(&another, Draw { max: Some(1), ..stuck(token) }), Ok(Slot(1)));
    drop(lease);
}

#[test]
fn a_backup_keeps_its_clients_and_a_drained_backend_does_not() {
    let mut members = members(&[1, 1]);
    members[1].tier = 1;
    let eligible_now = |members: &[Member]| eligible(members, &sticky(OnFailure::Fail));
    let (primary, backup) = (eligible_now(&members).token(Slot(0)), eligible_now(&members).token(Slot(1)));
    let slice = eligible_now(&members);
    assert_eq!((slice.tier(), slice.members().len()), (Tier::Primary, 1));
    assert_eq!(slice.pick(&stuck(backup)).unwrap().backend.slot(), Slot(1));
    let drained = Condition { is_drained: true, ..Condition::new(Verdict::Up) };
    members[0].backend.set_condition(drained);
    assert_eq!(eligible_now(&members).pick(&stuck(primary)).err(), Some(NoPlace::Nobody));
}

#[test]
fn nobody_has_a_place_where_all_are_full_and_nobody_is_left_where_all_were_tried() {
    for balance in every_mode() {
        let members = members(&[1, 2, 3]);
        let upstream = Upstream::new(eligible(&members, &balance), 1);
        let ticket = Ticket { key: Some(42), token: None };
        let leases: Vec<Lease> = (0..6).map_while(|_| upstream.lease(WORKER, ticket, &[], Some(2)).ok()).collect();
        assert_eq!(leases.len(), 6, "{balance:?}");
        assert_eq!(upstream.lease(WORKER, ticket, &[], Some(2)).err(), Some(NoPlace::Full));
        let all = [0, 1, 2].map(Slot);
        assert_eq!(upstream.lease(WORKER, ticket, &all, None).err(), Some(NoPlace::Nobody));
        drop(leases);
        assert_eq!(upstream.crowd.0.load(std::sync::atomic::Ordering::Relaxed), 0);
    }
}

fn algorithms() -> impl Strategy<Value = HashAlgorithm> {
    prop::sample::select(vec![HashAlgorithm::Ring, HashAlgorithm::Maglev])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_order_of_the_file_means_nothing(
        weights in prop::collection::vec(1_u16..=20, 1..12),
        algorithm in algorithms(),
        turn in 0_usize..12,
    ) {
        let mut members = members(&weights);
        let before = owners(&eligible(&members, &by_hash(algorithm, None)), 500);
        members.reverse();
        let turn = turn % members.len();
        members.rotate_left(turn);
        prop_assert_eq!(owners(&eligible(&members, &by_hash(algorithm, None)), 500), before);
    }

    #[test]
    fn one_that_goes_moves_only_its_own(
        weights in prop::collection::vec(1_u16..=20, 2..20),
        gone in 0_usize..20,
        is_removed in any::<bool>(),
    ) {
        let mut members = members(&weights);
        let gone = gone % members.len();
        let name = members[gone].name.clone();
        let balance = by_hash(HashAlgorithm::Ring, None);
        let before = owners(&eligible(&members, &balance), 2_000);
        match is_removed {
            true => drop(members.remove(gone)),
            false => members[gone].backend.set_condition(Condition::new(Verdict::Down)),
        }
        let after = owners(&eligible(&members, &balance), 2_000);
        for (before, after) in before.iter().zip(&after) {
            prop_assert!(before == after || *before == name);
            prop_assert!(*after != name);
        }
    }

    #[test]
    fn one_that_grows_only_takes(weights in prop::collection::vec(1_u16..=20, 2..20), which in 0_usize..20) {
        let mut members = members(&weights);
        let which = which % members.len();
        let balance = by_hash(HashAlgorithm::Ring, None);
        let before = owners(&eligible(&members, &balance), 2_000);
        members[which].weight += 3;
        let name = members[which].name.clone();
        let after = owners(&eligible(&members, &balance), 2_000);
        prop_assert!(before.iter().zip(&after).all(|(before, after)| before == after || *after == name));
    }

    #[test]
    fn a_table_moves_few_others_when_one_goes(count in 2_usize..20, gone in 0_usize..20) {
        let members = members(&vec![1; count]);
        let gone = gone % members.len();
        let name = members[gone].name.clone();
        let balance = by_hash(HashAlgorithm::Maglev, None);
        let before = owners(&eligible(&members, &balance), 5_000);
        members[gone].backend.set_condition(Condition::new(Verdict::Down));
        let after = owners(&eligible(&members, &balance), 5_000);
        let others = before.iter().filter(|owner| **owner != name).count();
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after && **before != name).count();
        // The paper has 2 % where a table is a hundred times as large as what it is for; this one is larger by far.
        prop_assert!(moved * 25 <= others, "{moved} of {others}");
    }

    #[test]
    fn the_next_one_is_another_until_all_were_tried(
        weights in prop::collection::vec(1_u16..=1_000, 1..12),
        key in any::<u64>(),
        turn in any::<usize>(),
    ) {
        let members = members(&weights);
        for balance in every_mode() {
            let eligible = eligible(&members, &balance);
            let mut tried = Vec::new();
            while let Ok(member) = eligible.pick(&Draw { turn, tried: &tried, ..keyed(key) }) {
                prop_assert!(!tried.contains(&member.backend.slot()));
                tried.push(member.backend.slot());
            }
            prop_assert_eq!(tried.len(), weights.len());
        }
    }

    #[test]
    fn a_request_that_failed_goes_where_it_would_without_that_backend(
        weights in prop::collection::vec(1_u16..=3, 2..12),
        key in any::<u64>(),
    ) {
        let members = members(&weights);
        let balance = by_hash(HashAlgorithm::Ring, None);
        let first = eligible(&members, &balance);
        let own = first.pick(&keyed(key)).unwrap();
        let next = first.pick(&Draw { tried: &[own.backend.slot()], ..keyed(key) }).unwrap().name.clone();
        own.backend.set_condition(Condition::new(Verdict::Down));
        prop_assert_eq!(owner(&eligible(&members, &balance), key), next);
    }

    #[test]
    fn a_bound_is_kept_while_anybody_is_below_it(
        weights in prop::collection::vec(1_u16..=50, 1..12),
        algorithm in algorithms(),
        percent in 100_u16..=300,
        keys in prop::collection::vec(0_u64..4, 1..300),
        ends in prop::collection::vec(any::<prop::sample::Index>(), 0..100),
    ) {
        let members = members(&weights);
        let upstream = Upstream::new(eligible(&members, &by_hash(algorithm, Some(percent))), 1);
        let whole: u64 = weights.iter().copied().map(u64::from).sum();
        let mut leases: Vec<Lease> = Vec::new();
        let mut ends = ends.iter();
        for (turn, key) in keys.iter().enumerate() {
            let ticket = Ticket { key: Some(hash::place(&key.to_le_bytes())), token: None };
            let lease = upstream.lease(WORKER, ticket, &[], None).unwrap();
            leases.push(lease);
            let chosen = leases[leases.len() - 1].member();
            let most = (u64::from(percent) * leases.len() as u64 * u64::from(chosen.weight)).div_ceil(100 * whole);
            prop_assert!(u64::from(chosen.backend.in_flight()) <= most);
            if turn % 3 == 0 && let Some(end) = ends.next() {
                drop(leases.swap_remove(end.index(leases.len())));
            }
        }
    }

    #[test]
    fn no_weights_make_a_mode_panic(weights in prop::collection::vec(1_u16..=1_000, 0..40), key in any::<u64>()) {
        let members = members(&weights);
        for balance in every_mode() {
            prop_assert_eq!(eligible(&members, &balance).pick(&keyed(key)).is_ok(), !weights.is_empty());
        }
    }
}
