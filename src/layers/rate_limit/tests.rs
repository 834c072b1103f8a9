use std::{collections::HashMap, net::Ipv4Addr, thread, time::Duration};

use governor::clock::FakeRelativeClock;
use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;

const SOMEBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

fn limit(rate: &str, burst: u32, by: LimitKey, max_keys: u32) -> Limit {
    Limit { name: Name::derived("lim"), rate: Rate::parse(rate).unwrap(), burst, by, max_keys }
}

fn limiter(rate: &str, burst: u32, by: LimitKey, max_keys: u32) -> (RateLimiter<FakeRelativeClock>, FakeRelativeClock) {
    let clock = FakeRelativeClock::default();
    (RateLimiter::with_clock(&limit(rate, burst, by, max_keys), clock.clone()), clock)
}

fn ask(limiter: &RateLimiter<impl Clock>, client: IpAddr) -> Decision {
    limiter.check(client, &HeaderMap::new(), None)
}

fn is_admitted(limiter: &RateLimiter<impl Clock>, client: IpAddr) -> bool {
    matches!(ask(limiter, client), Decision::Admit { .. })
}

fn admitted(limiter: &RateLimiter<impl Clock>, client: IpAddr, requests: u32) -> u32 {
    (0..requests).map(|_| u32::from(is_admitted(limiter, client))).sum()
}

fn client(n: u32) -> IpAddr {
    Ipv4Addr::from(n).into()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn admits_the_burst_at_once_and_then_the_rate_to_the_nanosecond() {
    let (limiter, clock) = limiter("10/s", 5, LimitKey::Ip, 10);
    assert_eq!(admitted(&limiter, SOMEBODY, 100), 5);
    for _ in 0..50 {
        clock.advance(Duration::from_nanos(99_999_999));
        assert!(!is_admitted(&limiter, SOMEBODY));
        clock.advance(Duration::from_nanos(1));
        assert_eq!(admitted(&limiter, SOMEBODY, 3), 1);
    }
    clock.advance(Duration::from_secs(3_600));
    assert_eq!(admitted(&limiter, SOMEBODY, 100), 5, "an idle bucket holds the burst and no more");
}

#[test]
fn a_rate_that_divides_into_no_whole_nanoseconds_is_not_exceeded() {
    let (limiter, clock) = limiter("7/s", 2, LimitKey::Global, 1);
    let mut total = 0;
    for _ in 0..7_000 {
        clock.advance(Duration::from_millis(100));
        total += admitted(&limiter, SOMEBODY, 3);
    }
    assert!((4_899..=4_902).contains(&total), "{total} in 700 s");
    clock.advance(Duration::from_secs(60));
    assert_eq!(admitted(&limiter, SOMEBODY, 5), 2);
    clock.advance(Duration::from_nanos(1_000_000_000 / 7));
    assert!(!is_admitted(&limiter, SOMEBODY), "a seventh of a second is not yet over");
}

#[test]
fn the_longest_rate_with_the_largest_burst_works() {
    let (limiter, clock) = limiter("1/d", u32::MAX, LimitKey::Ip, 1);
    assert_eq!(ask(&limiter, SOMEBODY), Decision::Admit { remaining: 36_499, reset_s: 86_400 });
    clock.advance(Duration::from_secs(10 * 365 * 86_400));
    assert_eq!(ask(&limiter, SOMEBODY), Decision::Admit { remaining: 36_499, reset_s: 86_400 });
    let (limiter, _) = self::limiter("4294967295/s", u32::MAX, LimitKey::Ip, 1);
    assert!(is_admitted(&limiter, SOMEBODY));
}

#[test]
fn a_refusal_says_when_to_come_back_in_whole_seconds_from_one() {
    let (limiter, clock) = limiter("1000/s", 1, LimitKey::Ip, 10);
    assert_eq!(ask(&limiter, SOMEBODY), Decision::Admit { remaining: 0, reset_s: 1 });
    assert_eq!(ask(&limiter, SOMEBODY), Decision::Refuse { retry_after_s: 1 });
    clock.advance(Duration::from_millis(1));
    assert!(is_admitted(&limiter, SOMEBODY));

    let (limiter, clock) = self::limiter("2/min", 1, LimitKey::Ip, 10);
    assert!(is_admitted(&limiter, SOMEBODY));
    clock.advance(Duration::from_millis(3_500));
    assert_eq!(ask(&limiter, SOMEBODY), Decision::Refuse { retry_after_s: 27 }, "26.5 s, rounded up");
    clock.advance(Duration::from_secs(27));
    assert!(is_admitted(&limiter, SOMEBODY), "who waits as told is admitted");
}

#[test]
fn a_refusal_spends_nothing() {
    let (limiter, clock) = limiter("1/s", 1, LimitKey::Ip, 10);
    assert_eq!(admitted(&limiter, SOMEBODY, 1_000), 1);
    clock.advance(Duration::from_secs(1));
    assert!(is_admitted(&limiter, SOMEBODY));
}

#[test]
fn clients_are_told_apart_by_v4_address_and_by_v6_network() {
    let (limiter, _) = limiter("1/d", 1, LimitKey::Ip, 100);
    assert!(is_admitted(&limiter, ip("192.0.2.1")));
    assert!(is_admitted(&limiter, ip("192.0.2.2")));
    assert!(!is_admitted(&limiter, ip("::ffff:192.0.2.1")), "a mapped address is its IPv4 address");
    assert!(is_admitted(&limiter, ip("2001:db8:0:1::1")));
    assert!(!is_admitted(&limiter, ip("2001:db8:0:1:ffff::2")), "the same /64");
    assert!(is_admitted(&limiter, ip("2001:db8:0:2::1")));
    assert_eq!(limiter.keys(), 4);
}

#[test]
fn header_values_share_a_bucket_and_so_do_requests_without_the_header() {
    let (limiter, _) = limiter("1/d", 1, LimitKey::Header(HeaderName::from_static("x-tenant")), 100);
    let check = |values: &[&'static str]| {
        let values = values.iter().map(|v| (HeaderName::from_static("x-tenant"), HeaderValue::from_static(v)));
        let mut headers = HeaderMap::new();
        values.for_each(|(name, value)| _ = headers.append(name, value));
        matches!(limiter.check(SOMEBODY, &headers, None), Decision::Admit { .. })
    };
    for values in [&["a"][..], &["b"], &[], &[""], &["a", "b"], &["ab"]] {
        assert!(check(values), "{values:?} has a bucket of its own");
        assert!(!check(values), "{values:?} keeps its bucket");
    }
}

#[test]
fn consumers_are_told_apart_and_those_without_identity_share() {
    let (limiter, _) = limiter("1/d", 1, LimitKey::Key, 100);
    let check = |consumer: Option<&str>| {
        let consumer = consumer.map(Name::derived);
        matches!(limiter.check(SOMEBODY, &HeaderMap::new(), consumer.as_ref()), Decision::Admit { .. })
    };
    assert!(check(Some("ann")) && check(Some("bob")) && check(None));
    assert!(!check(Some("ann")) && !check(Some("bob")) && !check(None));
}

#[test]
fn a_global_limit_is_one_bucket_without_keys() {
    let (limiter, _) = limiter("1/d", 3, LimitKey::Global, 100);
    let total: u32 = (0..10).map(|n| admitted(&limiter, client(n), 1)).sum();
    assert_eq!((total, limiter.keys(), limiter.overflows()), (3, 0, 0));
}

#[test]
fn a_flood_of_keys_is_bounded_and_shares_one_bucket() {
    let (limiter, clock) = limiter("10/s", 10, LimitKey::Ip, 1_000);
    for n in 0..1_000 {
        assert!(is_admitted(&limiter, client(n)));
    }
    let late: u32 = (1_000..100_000).map(|n| admitted(&limiter, client(n), 1)).sum();
    assert_eq!(late, 10, "all of them together get one burst");
    assert_eq!((limiter.keys(), limiter.buckets.own.len()), (1_000, 1_000));
    assert_eq!(limiter.overflows(), 99_000);
    assert_eq!(admitted(&limiter, client(7), 100), 9, "an active key is never evicted");
    clock.advance(Duration::from_secs(1));
    let later: u32 = (200_000..300_000).map(|n| admitted(&limiter, client(n), 1)).sum();
    assert_eq!(later, 10);
}

#[test]
fn a_sweep_forgets_full_buckets_only_and_gives_memory_back() {
    let (limiter, clock) = limiter("10/s", 10, LimitKey::Ip, 200_000);
    for n in 0..100_000 {
        assert!(is_admitted(&limiter, client(n)));
    }
    let before = limiter.buckets.own.capacity();
    clock.advance(Duration::from_millis(150));
    assert_eq!(admitted(&limiter, client(5), 5), 5);
    clock.advance(Duration::from_millis(100));
    limiter.sweep();
    assert_eq!((limiter.keys(), limiter.buckets.own.len()), (1, 1));
    assert!(limiter.buckets.own.capacity() < before / 10);
    assert_eq!(admitted(&limiter, client(5), 100), 6, "5 of 10 spent, 1 earned");
}

#[test]
fn a_key_cannot_take_the_shared_burst_and_then_one_of_its_own() {
    let (limiter, clock) = limiter("1/s", 5, LimitKey::Ip, 1);
    assert!(is_admitted(&limiter, client(1)));
    assert_eq!(admitted(&limiter, client(2), 100), 5, "from the shared bucket");
    clock.advance(Duration::from_secs(2));
    limiter.sweep();
    assert_eq!(limiter.keys(), 0);
    assert_eq!(admitted(&limiter, client(2), 100), 2, "its own bucket starts where the shared one stands");
    assert_eq!(limiter.keys(), 1);
}

#[test]
fn a_key_refused_by_its_first_bucket_stays_refused() {
    let (limiter, clock) = limiter("1/min", 2, LimitKey::Ip, 1);
    assert!(is_admitted(&limiter, client(1)));
    clock.advance(Duration::from_secs(60));
    assert_eq!(admitted(&limiter, client(2), 100), 2);
    clock.advance(Duration::from_secs(1));
    limiter.sweep();
    assert_eq!(admitted(&limiter, client(2), 100), 0);
}

#[test]
fn threads_together_get_no_more_than_one_of_them_would() {
    const THREADS: u32 = 8;
    let (limiter, clock) = limiter("10/s", 20, LimitKey::Ip, 500);
    let round = || {
        let mut total: HashMap<u32, u32> = HashMap::new();
        let counts = thread::scope(|scope| {
            let one = || (0..2_000).map(|n| (n, admitted(&limiter, client(n), 7))).collect::<Vec<_>>();
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(one)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        counts.into_iter().for_each(|(n, count)| *total.entry(n).or_default() += count);
        total
    };
    for (earned, wait) in [(20, 0), (10, 1), (20, 60)] {
        clock.advance(Duration::from_secs(wait));
        limiter.sweep();
        let total = round();
        assert!(limiter.keys() <= 500 && limiter.buckets.own.len() == limiter.keys());
        assert!(total.values().all(|count| *count <= earned), "{total:?}");
        assert_eq!(total.values().sum::<u32>(), 501 * earned, "500 buckets and the shared one, each emptied");
    }
}

#[test]
fn sweeping_while_threads_ask_loses_no_charge() {
    let (limiter, clock) = limiter("1/h", 3, LimitKey::Ip, 50);
    let counts = thread::scope(|scope| {
        let one = || (0..5_000).map(|n| (n % 100, admitted(&limiter, client(n % 100), 1))).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
        let sweeper = scope.spawn(|| (0..200).for_each(|_| limiter.sweep()));
        sweeper.join().unwrap();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let mut total: HashMap<u32, u32> = HashMap::new();
    counts.into_iter().for_each(|(n, count)| *total.entry(n).or_default() += count);
    assert!(total.values().all(|count| *count <= 3), "{total:?}");
    drop(clock);
}

#[test]
fn policies_are_structured_fields() {
    let policy = |name: &str, rate: &str, burst| {
        RateLimiter::new(&Limit { name: Name::derived(name), ..limit(rate, burst, LimitKey::Ip, 1) }).policy
    };
    assert_eq!(policy("per-client", "100/s", 100), r#""per-client";q=100;w=1"#);
    assert_eq!(policy("per-client", "100/min", 20), r#""per-client";q=100;w=60;tidegate-burst=20"#);
    assert_eq!(policy("x/\"\\é*#1", "5/h", 5), r#""x/\"\\%C3%A9*#1";q=5;w=3600"#);
}

#[test]
fn a_decision_becomes_a_structured_field() {
    let (limiter, _) = limiter("2/min", 2, LimitKey::Ip, 1);
    let statuses: Vec<String> = (0..3).map(|_| limiter.status(ask(&limiter, SOMEBODY))).collect();
    assert_eq!(statuses, [r#""lim";r=1;t=30"#, r#""lim";r=0;t=30"#, r#""lim";r=0;t=30"#]);
}

#[test]
fn debug_shows_no_key() {
    let (limiter, _) = limiter("2/min", 2, LimitKey::Ip, 1);
    ask(&limiter, SOMEBODY);
    insta::assert_snapshot!(
        format!("{limiter:?}"),
        @r#"RateLimiter { policy: "\"lim\";q=2;w=60", buckets: Buckets { len: 1, max: 1, .. } }"#
    );
}

proptest! {
    /// In any stretch of time, a key is admitted no more often than `burst + rate * t`, whatever else happens: other keys,
    /// too few buckets, sweeps.
    #[test]
    fn no_key_is_ever_admitted_above_its_rate(
        count in 1..2_000_u32,
        burst in 1..50_u32,
        max_keys in 1..4_u32,
        steps in prop::collection::vec((0..6_u32, 1..30_u32, 0..2_000_000_000_u64, prop::bool::weighted(0.2)), 1..80),
    ) {
        let (limiter, clock) = limiter(&format!("{count}/min"), burst, LimitKey::Ip, max_keys);
        let mut now = 0_u64;
        let mut admissions: HashMap<u32, Vec<u64>> = HashMap::new();
        for (key, requests, wait, sweep) in steps {
            let count = admitted(&limiter, client(key), requests);
            admissions.entry(key).or_default().extend((0..count).map(|_| now));
            if sweep {
                limiter.sweep();
            }
            clock.advance(Duration::from_nanos(wait));
            now += wait;
            prop_assert!(limiter.keys() <= max_keys as usize);
        }
        for times in admissions.values() {
            for (first, from) in times.iter().enumerate() {
                for (last, to) in times.iter().enumerate().skip(first) {
                    let earned = u128::from(to - from) * u128::from(count) / 60_000_000_000;
                    prop_assert!((last - first + 1) as u128 <= u128::from(burst) + earned);
                }
            }
        }
    }
}
