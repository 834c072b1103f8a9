use std::time::Duration;

use proptest::prelude::*;

use super::{Name, NameError, Percent, Period, Rate, Secret, Size, Timestamp, duration};

#[test]
fn durations_are_read_with_their_units() {
    let cases = [
        ("0s", 0),
        ("250ms", 250),
        ("5s", 5_000),
        ("1m30s", 90_000),
        ("2h", 7_200_000),
        ("1d", 86_400_000),
        ("1d2h3m4s5ms", 93_784_005),
    ];
    for (text, millis) in cases {
        assert_eq!(duration::parse(text), Ok(Duration::from_millis(millis)), "{text}");
    }
}

#[test]
fn durations_say_why_they_are_not() {
    use duration::DurationError::{Malformed, NoUnit, TooLong};
    let cases = [
        ("", Malformed),
        ("5", NoUnit),
        ("5x", Malformed),
        ("s", Malformed),
        ("-5s", Malformed),
        ("1.5s", Malformed),
        ("5 s", Malformed),
        ("5s6", Malformed),
        ("5S", Malformed),
        ("٥s", Malformed),
        ("3651d", TooLong),
        ("99999999999999999999s", TooLong),
        ("18446744073709551615d", TooLong),
    ];
    for (text, why) in cases {
        assert_eq!(duration::parse(text), Err(why), "{text}");
    }
}

#[test]
fn what_something_takes_shows_tenths_below_a_minute() {
    let shown = [0, 49, 1_250, 59_949, 59_960, 61_000, 7_384_000, 273_600_000];
    let shown = shown.map(|millis| duration::Took(Duration::from_millis(millis)).to_string());
    assert_eq!(shown, ["0.0s", "0.0s", "1.3s", "59.9s", "1m00s", "1m01s", "2h03m", "3d4h"]);
}

#[test]
fn elapsed_shows_two_units() {
    let cases =
        [(0, "0ms"), (999, "999ms"), (1_000, "1s"), (161_000, "2m41s"), (3_660_000, "1h01m"), (273_600_000, "3d4h")];
    for (millis, text) in cases {
        assert_eq!(duration::Elapsed(Duration::from_millis(millis)).to_string(), text);
    }
}

#[test]
fn sizes_carry_units() {
    let cases = [
        ("0B", 0),
        ("512B", 512),
        ("1kB", 1_000),
        ("1KB", 1_000),
        ("64KiB", 65_536),
        ("1MB", 1_000_000),
        ("10MiB", 10 << 20),
        ("2GiB", 2 << 30),
        ("3GB", 3_000_000_000),
    ];
    for (text, bytes) in cases {
        assert_eq!(Size::parse(text), Ok(Size(bytes)), "{text}");
    }
    for text in
        ["", "1", "1M", "MiB", "1.5MiB", "-1B", "1 MiB", "1mib", "18446744073709551616B", "18446744073709551615GiB"]
    {
        assert!(Size::parse(text).is_err(), "{text}");
    }
}

#[test]
fn rates_are_a_count_per_period() {
    let rate = Rate::parse("100/min").unwrap();
    assert_eq!((rate.count.get(), rate.per, rate.per.duration().as_secs()), (100, Period::Minute, 60));
    for text in ["", "10", "/s", "0/s", "-1/s", "+1/s", "1/m", "1/ s", "10 /s", "1.5/s", "4294967296/s", "1/s/s"] {
        assert!(Rate::parse(text).is_err(), "{text}");
    }
}

#[test]
fn percentages_have_at_most_two_decimals() {
    let cases = [("0%", 0), ("20%", 2_000), ("0.5%", 50), ("0.05%", 5), ("99.99%", 9_999), ("100%", 10_000)];
    for (text, points) in cases {
        assert_eq!(Percent::parse(text).map(Percent::basis_points), Ok(points), "{text}");
    }
    for text in ["", "%", "20", "100.01%", "101%", "-1%", ".5%", "5.%", "0.001%", "1e1%", "99999999999%"] {
        assert!(Percent::parse(text).is_err(), "{text}");
    }
    assert_eq!(Percent::whole(200), Percent::whole(100));
}

#[test]
fn names_are_lower_case_words() {
    assert_eq!(&*Name::parse("orders-v2").unwrap(), "orders-v2");
    assert!(Name::parse(&"a".repeat(63)).is_ok());
    let cases = [
        ("", NameError::Empty),
        ("2a", NameError::Charset),
        ("-a", NameError::Charset),
        ("A", NameError::Charset),
        ("a_b", NameError::Charset),
        ("ä", NameError::Charset),
    ];
    for (text, why) in cases {
        assert_eq!(Name::parse(text), Err(why), "{text}");
    }
    assert_eq!(Name::parse(&"a".repeat(64)), Err(NameError::TooLong));
}

#[test]
fn secrets_print_nothing() {
    let secret = Secret::new("hunter2".to_owned());
    assert_eq!(format!("{secret} {secret:?}"), "[secret] [secret]");
    assert_eq!(secret.expose(), "hunter2");
}

#[test]
fn time_stamps_are_rfc_3339() {
    let moment = Timestamp::from_micros(1_700_000_000_123_456);
    assert_eq!(moment.to_string(), "2023-11-14T22:13:20.123456Z");
    assert_eq!(moment.clock_time(), "22:13:20");
    assert_eq!(Timestamp::from_micros(u64::MAX).elapsed(), Duration::ZERO);
    assert!(!Timestamp::from_micros(u64::MAX).to_string().is_empty());
}

#[test]
fn a_moment_is_read_as_it_is_written_or_with_another_offset() {
    let moment = Timestamp::from_micros(1_795_349_071_500_000);
    assert_eq!(moment.to_string().parse(), Ok(moment));
    assert_eq!("2026-11-22T13:04:31.5+01:00".parse(), Ok(moment));
    for wrong in ["", "yesterday", "2026-11-22", "1969-01-01T00:00:00Z"] {
        assert!(wrong.parse::<Timestamp>().is_err(), "{wrong}");
    }
}

proptest! {
    #[test]
    fn a_printed_duration_reads_again(millis in 0_u64..=10 * 365 * 86_400_000) {
        let value = Duration::from_millis(millis);
        prop_assert_eq!(duration::parse(&duration::Written(value).to_string()), Ok(value));
    }

    #[test]
    fn a_printed_size_reads_again(bytes: u64) {
        prop_assert_eq!(Size::parse(&Size(bytes).to_string()), Ok(Size(bytes)));
    }

    #[test]
    fn a_printed_rate_reads_again(count in 1_u32.., unit in prop::sample::select(vec!["s", "min", "h", "d"])) {
        let text = format!("{count}/{unit}");
        prop_assert_eq!(Rate::parse(&text).unwrap().to_string(), text);
    }

    #[test]
    fn a_printed_percentage_reads_again(points in 0_u16..=10_000) {
        let text = format!("{}.{:02}%", points / 100, points % 100);
        let percent = Percent::parse(&text).unwrap();
        prop_assert_eq!(percent.basis_points(), points);
        prop_assert_eq!(Percent::parse(&percent.to_string()), Ok(percent));
    }

    #[test]
    fn no_text_makes_a_parser_panic(text in "[0-9a-zA-Z%./ µ-]{0,12}") {
        let _ = (duration::parse(&text), Size::parse(&text), Rate::parse(&text), Percent::parse(&text), Name::parse(&text));
    }
}

#[test]
fn a_date_is_a_day_in_utc_or_a_moment() {
    let seconds = |text: &str| Timestamp::of_date(text).map(Timestamp::as_seconds).ok();
    assert_eq!(seconds("1970-01-02"), Some(86_400));
    assert_eq!(seconds("2023-06-30T23:59:59Z"), Some(1_688_169_599));
    assert_eq!(seconds("2023-07-01T01:59:59+02:00"), Some(1_688_169_599));
    assert_eq!(seconds("2024-02-29"), Some(1_709_164_800));
    for wrong in ["", "2023", "2023-02-29", "2023-13-01", "1969-12-31", "2023-06-30T23:59:59", "30.06.2023", "tomorrow"]
    {
        assert_eq!(seconds(wrong), None, "{wrong}");
    }
    // The example of RFC 8594, section 3, and the ends of time.
    let http = |text: &str| Timestamp::of_date(text).unwrap().http_date();
    assert_eq!(http("2018-12-31T23:59:59.999Z"), "Mon, 31 Dec 2018 23:59:59 GMT");
    assert_eq!(http("9999-12-30"), "Thu, 30 Dec 9999 00:00:00 GMT");
    assert_eq!(Timestamp::from_micros(u64::MAX).http_date().len(), "Thu, 30 Dec 9999 00:00:00 GMT".len());
}
