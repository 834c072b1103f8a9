//! Texts that each request fills.

/// A text with gaps that a request fills: `/u/{id}`. A brace that is meant as one is written twice.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Text {
    /// Its pieces, in their order. No two literal ones follow one another.
    pub pieces: Vec<Piece>,
}

/// A piece of a text.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Piece {
    /// This.
    Literal(String),
    /// What a pattern has captured, by the place of its name among the pattern's.
    Capture(usize),
    /// A fact of the request.
    Fact(Fact),
}

/// What is known of every request.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Fact {
    /// `{client_ip}`: the client's address, behind the proxies that are trusted.
    ClientIp,
    /// `{host}`: the host that it names, in lower case and without a port.
    Host,
    /// `{request_id}`
    RequestId,
    /// `{route}`: the name of its route.
    Route,
}

impl Fact {
    /// All of them, with their names.
    pub const NAMED: [(&'static str, Self); 4] =
        [("client_ip", Self::ClientIp), ("host", Self::Host), ("request_id", Self::RequestId), ("route", Self::Route)];
}

/// Why a text is none.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TextError {
    /// A brace that is neither one of a pair around a name nor written twice.
    Brace,
    /// Nothing has this name.
    Unknown(String),
}

impl Text {
    /// Reads a text in which these captures may stand, and facts where `has_facts`. A capture hides a fact of the same name.
    ///
    /// # Errors
    /// A brace that stands alone, or a name that is not known.
    pub fn parse(written: &str, captures: &[&str], has_facts: bool) -> Result<Self, TextError> {
        let mut text = Self::default();
        let mut rest = written;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            text.push(before);
            rest = match (from.get(..2), from.strip_prefix('{').and_then(|inside| inside.split_once('}'))) {
                (Some(twice @ ("{{" | "}}")), _) => {
                    text.push(&twice[1..]);
                    &from[2..]
                }
                (_, Some((name, rest))) => {
                    let capture = captures.iter().position(|capture| *capture == name).map(Piece::Capture);
                    let fact = || Fact::NAMED.iter().find(|(known, _)| has_facts && *known == name);
                    let piece = capture.or_else(|| fact().map(|(_, fact)| Piece::Fact(*fact)));
                    text.pieces.push(piece.ok_or_else(|| TextError::Unknown(name.to_owned()))?);
                    rest
                }
                (_, None) => return Err(TextError::Brace),
            };
        }
        text.push(rest);
        Ok(text)
    }

    fn push(&mut self, literal: &str) {
        match self.pieces.last_mut() {
            _ if literal.is_empty() => {}
            Some(Piece::Literal(last)) => last.push_str(literal),
            _ => self.pieces.push(Piece::Literal(literal.to_owned())),
        }
    }

    /// The text, where it has no gaps.
    #[must_use]
    pub fn literal(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [] => Some(""),
            [Piece::Literal(literal)] => Some(literal),
            _ => None,
        }
    }

    /// The text with its gaps filled: `fill` adds what belongs in one.
    #[must_use]
    pub fn filled(&self, mut fill: impl FnMut(&mut String, &Piece)) -> String {
        let mut out = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(literal) => out.push_str(literal),
                Piece::Capture(_) | Piece::Fact(_) => fill(&mut out, piece),
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(text: &str) -> Piece {
        Piece::Literal(text.to_owned())
    }

    #[test]
    fn gaps_are_names_in_braces_and_braces_are_written_twice() {
        let parse = |text: &str| Text::parse(text, &["id", "host"], true).map(|text| text.pieces);
        assert_eq!(parse("/u/{id}/x"), Ok(vec![literal("/u/"), Piece::Capture(0), literal("/x")]));
        assert_eq!(parse("{host}"), Ok(vec![Piece::Capture(1)]), "a capture hides a fact");
        assert_eq!(parse("{client_ip}"), Ok(vec![Piece::Fact(Fact::ClientIp)]));
        assert_eq!(parse("a{{b}}{{{id}}}"), Ok(vec![literal("a{b}{"), Piece::Capture(0), literal("}")]));
        assert_eq!(parse(""), Ok(vec![]));
        for wrong in ["{id", "id}", "a{", "}"] {
            assert_eq!(parse(wrong), Err(TextError::Brace), "{wrong}");
        }
        for (wrong, name) in [("{}", ""), ("{it}", "it"), ("{ id }", " id ")] {
            assert_eq!(parse(wrong), Err(TextError::Unknown(name.to_owned())), "{wrong}");
        }
        assert_eq!(Text::parse("{route}", &[], false), Err(TextError::Unknown("route".to_owned())));
    }
}
