use crate::base::{Name, Timestamp};

/// An API in one version, and how far its life has come.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Api {
    /// Its name under `apis`.
    pub name: Name,
    /// Its version, as it is shown: up to 63 printable characters of ASCII.
    pub version: String,
    /// Its stage as written: that of now and later, until a date says more. Default stable.
    pub stage: Stage,
    /// From when on it is deprecated. An API whose stage is written as deprecated has it.
    pub deprecated: Option<Timestamp>,
    /// From when on it is retired; not before it is deprecated.
    pub sunset: Option<Timestamp>,
    /// An absolute URL of a page about it.
    pub link: Option<String>,
    /// What to use instead.
    pub successor: Option<Successor>,
}

/// How far the life of an API has come. It never goes back by itself.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Stage {
    /// It may still change.
    Beta,
    /// It is there to be used.
    Stable,
    /// It works, and should not be used any more.
    Deprecated,
    /// It is gone.
    Retired,
}

/// What an API is replaced by.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Successor {
    /// Another one of the plan.
    Api(Name),
    /// An absolute URL, or a path.
    Target(String),
}

impl Api {
    /// Its stage at a time: as written, or further where a date has come.
    #[must_use]
    pub fn stage_at(&self, now: Timestamp) -> Stage {
        let has_come = |date: Option<Timestamp>| date.is_some_and(|date| date <= now);
        let by_date = match () {
            () if has_come(self.sunset) => Stage::Retired,
            () if has_come(self.deprecated) => Stage::Deprecated,
            () => Stage::Beta,
        };
        self.stage.max(by_date)
    }

    /// The next stage that a date brings, and when.
    #[must_use]
    pub fn next(&self, now: Timestamp) -> Option<(Stage, Timestamp)> {
        let stage = self.stage_at(now);
        let dates = [(Stage::Deprecated, self.deprecated), (Stage::Retired, self.sunset)];
        let mut to_come = dates.into_iter().filter_map(|(next, date)| Some((next, date.filter(|date| *date > now)?)));
        to_come.find(|(next, _)| *next > stage)
    }
}

impl Stage {
    /// All of them, in the order in which a life goes.
    pub const ALL: [Self; 4] = [Self::Beta, Self::Stable, Self::Deprecated, Self::Retired];

    /// Their words, in the same order.
    pub const WORDS: [&'static str; 4] =
        [Self::Beta.as_str(), Self::Stable.as_str(), Self::Deprecated.as_str(), Self::Retired.as_str()];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Beta => "beta",
            Self::Stable => "stable",
            Self::Deprecated => "deprecated",
            Self::Retired => "retired",
        }
    }

    /// Its place in [`Stage::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn api(stage: Stage, deprecated: Option<u64>, sunset: Option<u64>) -> Api {
        let at = |date: Option<u64>| date.map(Timestamp::from_micros);
        let (deprecated, sunset) = (at(deprecated), at(sunset));
        let (name, version) = (Name::derived("orders"), "1".to_owned());
        Api { name, version, stage, deprecated, sunset, link: None, successor: None }
    }

    #[test]
    fn a_stage_begins_with_its_date() {
        let api = api(Stage::Beta, Some(10), Some(20));
        let at = |time| api.stage_at(Timestamp::from_micros(time));
        assert_eq!([at(0), at(9), at(10), at(19)], [Stage::Beta, Stage::Beta, Stage::Deprecated, Stage::Deprecated]);
        assert_eq!([at(20), at(u64::MAX)], [Stage::Retired; 2]);
    }

    #[test]
    fn words_are_in_the_order_of_the_stages() {
        for stage in Stage::ALL {
            assert_eq!((Stage::ALL[stage.index()], Stage::WORDS[stage.index()]), (stage, stage.as_str()));
        }
    }

    proptest! {
        #[test]
        fn a_stage_never_goes_back_and_what_comes_next_comes_when_it_says(
            stage in (0..Stage::ALL.len()).prop_map(|index| Stage::ALL[index]),
            deprecated in proptest::option::of(0..100u64),
            later in proptest::option::of(0..100u64),
            now in 0..250u64,
            then in 0..250u64,
        ) {
            let sunset = later.map(|later| deprecated.unwrap_or(0) + later);
            let api = api(stage, deprecated, sunset);
            let at = |time| api.stage_at(Timestamp::from_micros(time));
            prop_assert!(at(now) >= stage);
            prop_assert!(at(now.min(then)) <= at(now.max(then)));
            prop_assert_eq!(at(now) == Stage::Retired, stage == Stage::Retired || sunset.is_some_and(|date| date <= now));
            match api.next(Timestamp::from_micros(now)) {
                Some((next, date)) => {
                    let date = date.as_micros();
                    prop_assert!(date > now && next > at(now));
                    prop_assert_eq!(at(date - 1), at(now));
                    prop_assert!(at(date) >= next);
                }
                None => prop_assert_eq!(at(now), at(u64::MAX)),
            }
        }
    }
}
