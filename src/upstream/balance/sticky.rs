//! Clients that stay with the backend that they were first sent to: what their cookies say.
//!
//! A cookie's value is a message authentication code of the backend's name, and nothing else: it tells nobody what the name is, nobody
//! without the key can make one, and to check it is to look it up among those of the upstream's backends. It is the same for all
//! clients of a backend, so it says nothing of them.

use std::{collections::HashMap, fmt, sync::Arc};

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::Draw;
use crate::{
    config::plan::{OnFailure, Sticky},
    upstream::{Member, NoPlace, Slot},
};

/// What the cookie of a backend says: half of a SHA-256 HMAC (RFC 2104, section 5), in 22 characters.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct Token([u8; Self::BYTES]);

impl Token {
    const BYTES: usize = 16;

    /// Reads the value of a cookie.
    #[must_use]
    pub fn read(value: &[u8]) -> Option<Self> {
        // As many as the decoder may want.
        let mut bytes = [0; Self::BYTES + 2];
        let length = URL_SAFE_NO_PAD.decode_slice(value, &mut bytes).ok()?;
        bytes.get(..length)?.try_into().ok().map(Self)
    }

    fn of(key: &hmac::Key, cookie: &str, backend: &str) -> Self {
        // The first part says what is signed; neither name can hold a zero.
        let message = format!("tidegate sticky 1\0{cookie}\0{backend}");
        let mac = hmac::sign(key, message.as_bytes());
        let half = mac.as_ref().first_chunk().expect("SHA-256 is longer");
        Self(*half)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// Whom a client may stay with.
#[derive(Debug)]
pub(in crate::upstream) struct Sessions {
    // Looked up by what a client sends, so with a keyed hash: how long that takes tells nothing of the tokens.
    by_token: HashMap<Token, Stuck>,
    by_slot: HashMap<Slot, Token>,
    on_failure: OnFailure,
}

#[derive(Debug)]
struct Stuck {
    member: Arc<Member>,
    may_have: bool,
}

impl Sessions {
    /// `chosen` are those of all that the slice is made of.
    pub(in crate::upstream) fn new(sticky: &Sticky, chosen: &[Arc<Member>], all: &[Member]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, sticky.key.expose().as_bytes());
        let in_slice: HashMap<Slot, &Arc<Member>> =
            chosen.iter().map(|member| (member.backend.slot(), member)).collect();
        let (mut by_token, mut by_slot) = (HashMap::new(), HashMap::new());
        for member in all {
            let (slot, token) = (member.backend.slot(), Token::of(&key, &sticky.cookie, &member.name));
            // A backup that has come to have clients keeps them, unless nobody is to have any requests.
            let keeps_them = || !chosen.is_empty() && member.backend.condition().is_eligible();
            let there = in_slice.get(&slot).copied();
            let stuck = Stuck {
                may_have: there.is_some() || keeps_them(),
                member: there.map_or_else(|| Arc::new(member.clone()), Arc::clone),
            };
            by_token.insert(token, stuck);
            by_slot.insert(slot, token);
        }
        Self { by_token, by_slot, on_failure: sticky.on_failure }
    }

    /// What the cookie of this one says.
    pub(in crate::upstream) fn token(&self, slot: Slot) -> Option<Token> {
        self.by_slot.get(&slot).copied()
    }

    /// The one that the client stays with; `None` if it stays with nobody.
    pub(in crate::upstream) fn pick(&self, draw: &Draw<'_>) -> Option<Result<&Arc<Member>, NoPlace>> {
        let stuck = self.by_token.get(&draw.ticket.token?)?;
        if stuck.may_have && draw.fits(&stuck.member) {
            return Some(Ok(&stuck.member));
        }
        match self.on_failure {
            OnFailure::Another => None,
            OnFailure::Fail if stuck.may_have && !draw.has_tried(&stuck.member) => Some(Err(NoPlace::Full)),
            OnFailure::Fail => Some(Err(NoPlace::Nobody)),
        }
    }
}
