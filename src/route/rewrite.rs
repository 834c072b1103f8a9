//! What a path captures, and the path that is made of it.
//!
//! What comes out is in the same form as what is matched, and is refused where it cannot be: a gap may hold what a client likes.

use std::borrow::Cow;

use super::path::{PathError, normalise, spell};
use crate::config::plan::{PathPattern, Piece, Rewrite, Segment, Template, Text};

/// The longest path, in bytes: what a URL of the HTTP library may have.
const LONGEST: usize = u16::MAX as usize - 1;

/// What a pattern has captured of a path that it matches. Nothing is looked for before it is asked for.
#[derive(Debug)]
pub enum Captured<'r> {
    /// Nothing.
    Nothing,
    /// Segments.
    Template(&'r Template, &'r str),
    /// Groups.
    Regex(&'r regex::Regex, regex::Captures<'r>),
}

impl<'r> Captured<'r> {
    /// What a path has of a pattern's captures.
    #[must_use]
    pub fn of(pattern: &'r PathPattern, path: &'r str) -> Self {
        match pattern {
            PathPattern::Exact(_) | PathPattern::Prefix(_) => Self::Nothing,
            PathPattern::Template(template) => Self::Template(template, path),
            PathPattern::Regex(regex) => {
                let captures = regex.regex.captures(path);
                captures.map_or(Self::Nothing, |captures| Self::Regex(&regex.regex, captures))
            }
        }
    }

    /// The capture whose name is the pattern's so manieth; empty where it took no part in the match.
    #[must_use]
    pub fn get(&self, number: usize) -> &str {
        let found = match self {
            Self::Nothing => None,
            Self::Template(template, path) => {
                let segments = template.segments.iter().zip(path.split('/').skip(1));
                let mut captures = segments.filter(|(segment, _)| matches!(segment, Segment::Capture(_)));
                captures.nth(number).map(|(_, text)| text)
            }
            Self::Regex(regex, captures) => group(regex, captures, number),
        };
        found.unwrap_or_default()
    }

    fn fill(&self, text: &Text) -> String {
        text.filled(|out, piece| {
            if let Piece::Capture(number) = piece {
                out.push_str(self.get(*number));
            }
        })
    }
}

/// The named group with this number among those with a name.
fn group<'c>(regex: &regex::Regex, captures: &'c regex::Captures<'_>, number: usize) -> Option<&'c str> {
    let mut named = regex.capture_names().enumerate().filter(|(_, name)| name.is_some());
    let (place, _) = named.nth(number)?;
    Some(captures.get(place)?.as_str())
}

/// The new path of a request whose path, in its normal form, a pattern has matched.
///
/// # Errors
/// [`PathError`] where what comes out has dot segments, is too long, or may be read in two ways.
pub fn rewrite<'p>(rewrite: &Rewrite, pattern: &PathPattern, path: &'p str) -> Result<Cow<'p, str>, PathError> {
    let new = match rewrite {
        Rewrite::Strip(prefix) => {
            return Ok(Cow::Borrowed(match stripped(path, prefix) {
                None => path,
                Some("") => "/",
                Some(rest) => rest,
            }));
        }
        Rewrite::Path(text) => Captured::of(pattern, path).fill(text),
        Rewrite::Prefix { segments, with } => {
            let with = Captured::of(pattern, path).fill(with);
            // `/xyz/` and `/xyz` are the same prefix, and `/` is none.
            with.trim_end_matches('/').to_owned() + behind(path, *segments)
        }
        Rewrite::Regex { regex, with } => replaced(&regex.0, with, path)?,
    };
    normal(&new).map(Cow::Owned)
}

/// What is left of a path without this prefix of whole segments; `None` where it does not begin with it.
#[must_use]
pub fn stripped<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What stands behind the first so many segments.
fn behind(path: &str, segments: usize) -> &str {
    let end = path.match_indices('/').nth(segments).map_or(path.len(), |(slash, _)| slash);
    path.split_at(end).1
}

fn replaced(regex: &regex::Regex, with: &Text, path: &str) -> Result<String, PathError> {
    let (mut out, mut done) = (String::new(), 0);
    for captures in regex.captures_iter(path) {
        let Some(whole) = captures.get(0) else { continue };
        out.push_str(path.get(done..whole.start()).unwrap_or_default());
        out.push_str(&with.filled(|out, piece| {
            if let Piece::Capture(number) = piece {
                out.push_str(group(regex, &captures, *number).unwrap_or_default());
            }
        }));
        done = whole.end();
        if out.len() > LONGEST {
            return Err(PathError::TooLong);
        }
    }
    out.push_str(path.get(done..).unwrap_or_default());
    Ok(out)
}

/// A path that was put together, in its normal form.
fn normal(path: &str) -> Result<String, PathError> {
    let path = if path.is_empty() { "/" } else { path };
    if path.len() > LONGEST {
        return Err(PathError::TooLong);
    }
    let spelled = spell(path)?;
    // No path of a client has any, so the pieces have made one of their own. To follow it would lead who knows where.
    if spelled.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(PathError::Dots);
    }
    normalise(&spelled).map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::plan::{PathRegex, Regex};

    fn prefix(text: &str) -> PathPattern {
        PathPattern::Prefix(text.to_owned())
    }

    fn template(text: &str) -> PathPattern {
        let (text, is_prefix) = text.strip_suffix("/*").map_or((text, false), |text| (text, true));
        let segments = text.split('/').skip(1).map(|segment| match segment.strip_prefix('{') {
            Some(name) => Segment::Capture(name.trim_end_matches('}').to_owned()),
            None => Segment::Literal(segment.to_owned()),
        });
        PathPattern::Template(Template { segments: segments.collect(), is_prefix })
    }

    fn text(written: &str, pattern: &PathPattern) -> Text {
        Text::parse(written, &pattern.captures(), false).unwrap()
    }

    fn regex(expression: &str, with: &str) -> Rewrite {
        let regex = Regex::parse(expression).unwrap();
        let with = Text::parse(with, &regex.captures(), false).unwrap();
        Rewrite::Regex { regex, with }
    }

    #[test]
    fn a_prefix_is_replaced_with_the_slashes_that_belong_there() {
        // The table of Gateway API's ReplacePrefixMatch; a prefix of ours has no slash at its end.
        for (path, matched, with, expected) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "/", "/bar"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/foo/bar", "", "/xyz", "/xyz/foo/bar"),
            ("/", "", "/xyz", "/xyz/"),
            ("/a/b/c/d", "/a/b", "/x", "/x/c/d"),
        ] {
            let pattern = prefix(matched);
            let segments = matched.split('/').count() - 1;
            let new = Rewrite::Prefix { segments, with: text(with, &pattern) };
            assert_eq!(rewrite(&new, &pattern, path).as_deref(), Ok(expected), "{path} {matched} {with}");
        }
    }

    #[test]
    fn a_prefix_with_captures_is_replaced_by_what_they_hold() {
        let pattern = template("/u/{id}/f/*");
        let new = Rewrite::Prefix { segments: 3, with: text("/files-of-{id}", &pattern) };
        assert_eq!(rewrite(&new, &pattern, "/u/7/f/a/b").as_deref(), Ok("/files-of-7/a/b"));
    }

    #[test]
    fn a_prefix_is_taken_off_by_whole_segments() {
        for (path, expected) in [("/a/b/c", "/c"), ("/a/b", "/"), ("/a/b/", "/"), ("/a/bc", "/a/bc"), ("/", "/")] {
            let new = Rewrite::Strip("/a/b".to_owned());
            assert_eq!(rewrite(&new, &prefix(""), path).as_deref(), Ok(expected), "{path}");
        }
    }

    #[test]
    fn a_path_is_made_of_captures() {
        let pattern = template("/shops/{shop}/items/{id}");
        let path = |with: &str| Rewrite::Path(text(with, &pattern));
        let rewritten = |with: &str, of: &str| rewrite(&path(with), &pattern, of).map(Cow::into_owned);
        assert_eq!(rewritten("/i/{id}?{{", "/shops/a/items/9").as_deref(), Ok("/i/9%3F%7B"));
        assert_eq!(rewritten("/{id}/of/{shop}", "/shops/a%20b/items/9;v=1").as_deref(), Ok("/9;v=1/of/a%20b"));
        let pattern = PathPattern::Regex(PathRegex::parse("^/v(?<v>[0-9]+)/(?<rest>.*)").unwrap());
        let new = Rewrite::Path(text("/{rest}/{v}", &pattern));
        assert_eq!(rewrite(&new, &pattern, "/v2/a/b").as_deref(), Ok("/a/b/2"));
        assert_eq!(rewrite(&new, &pattern, "/v2/").as_deref(), Ok("/2"), "two slashes are one");
    }

    #[test]
    fn an_expression_is_replaced_wherever_it_matches() {
        for (expression, with, path, expected) in [
            ("^/v(?<v>[0-9]+)/", "/api/{v}/", "/v2/x", "/api/2/x"),
            ("-+", "_", "/a-b--c", "/a_b_c"),
            ("^/v[0-9]+", "", "/v2", "/"),
            ("^/v[0-9]+", "", "/v2/x", "/x"),
            ("/x", "/", "/x/x/y", "/y"),
            ("nothing", "/", "/a", "/a"),
        ] {
            let new = regex(expression, with);
            assert_eq!(rewrite(&new, &prefix(""), path).as_deref(), Ok(expected), "{expression}");
        }
    }

    #[test]
    fn what_the_pieces_make_is_no_path_of_their_own() {
        for (expression, with, path, error) in [
            ("x", ".", "/xx/a", PathError::Dots),
            ("^/a/(?<a>.)b", "/{a}.", "/a/.b/c", PathError::Dots),
            ("^/(?<a>%)25", "/{a}2e%2E", "/%25", PathError::Dots),
            ("2", "x", "/%20", PathError::Encoding),
            ("%20", "%2F", "/a%20b", PathError::Encoding),
            ("^/a", "", "/ab", PathError::Relative),
            ("a", "..;", "/a", PathError::AboveRoot),
        ] {
            assert_eq!(rewrite(&regex(expression, with), &prefix(""), path), Err(error), "{expression}");
        }
        let long = regex(".", &"x".repeat(1000));
        assert_eq!(rewrite(&long, &prefix(""), &format!("/{}", "a".repeat(100))), Err(PathError::TooLong));
    }

    proptest! {
        #[test]
        fn what_comes_out_is_normal(path in "(/[a.%25-]{0,4}){1,4}", with in "/?[a./%2e{}-]{0,6}") {
            let Ok(path) = normalise(&path) else { return Ok(()) };
            let expression = Regex::parse("(?<a>[a.%]+)-?").unwrap();
            let Ok(with) = Text::parse(&with.replace("{}", "{a}"), &expression.captures(), false) else { return Ok(()) };
            let new = Rewrite::Regex { regex: expression, with };
            if let Ok(new) = rewrite(&new, &prefix(""), &path) {
                let again = normalise(&new).map(Cow::into_owned);
                prop_assert_eq!(again.as_deref(), Ok(&*new));
                prop_assert!(new.starts_with('/') && !new.contains("//"));
            }
        }
    }
}
