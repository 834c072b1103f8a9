use std::{
    hash::{BuildHasher, RandomState},
    str,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use argon2::{Argon2, PasswordVerifier};
use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};
use dashmap::DashMap;
use http::{HeaderMap, header::AUTHORIZATION, request::Parts};
use zeroize::Zeroizing;

use super::{Answer, Denial, PasswordPool, hash::MAX_SECRET};
use crate::{
    base::{Name, Secret},
    config::plan::BasicUsers,
};

/// The users of an HTTP Basic auth, and the passwords that were found right in the last minutes.
pub(super) struct Basic {
    users: Arc<Users>,
    pool: PasswordPool,
}

/// A password that must be hashed to know whether it is right.
pub(in crate::layers) struct Verification {
    users: Arc<Users>,
    pool: PasswordPool,
    credentials: Credentials<Zeroizing<String>>,
    proof: Proof,
}

struct Users {
    // Sorted by name.
    users: Box<[(Name, Secret)]>,
    mac: hmac::Key,
    decoy: RandomState,
    verified: Verified,
    hashed: AtomicU64,
}

/// `user:password`, decoded.
struct Credentials<T> {
    text: T,
    colon: usize,
}

/// HMAC-SHA256 of user and password under a key that dies with the process.
type Proof = [u8; 32];

impl Basic {
    pub(super) fn new(basic: &BasicUsers, pool: PasswordPool) -> Self {
        let mac = hmac::Key::generate(hmac::HMAC_SHA256, &aws_lc_rs::rand::SystemRandom::new());
        let users = Users {
            users: basic.users.iter().map(|user| (user.name.clone(), user.hash.clone())).collect(),
            mac: mac.expect("the system has random numbers"),
            decoy: RandomState::new(),
            verified: Verified::default(),
            hashed: AtomicU64::new(0),
        };
        Self { users: Arc::new(users), pool }
    }

    /// Who sent this request, where that is known without hashing the password.
    pub(super) fn identify(&self, headers: &HeaderMap) -> Answer {
        let token = match token(headers) {
            Ok(token) => token,
            Err(denial) => return Answer::Deny(denial),
        };
        // On the stack, as the usual request needs no more than its proof.
        let mut buffer = Zeroizing::new([0; 2 * MAX_SECRET]);
        let Some(credentials) = decode(token, buffer.as_mut_slice()) else { return Answer::Deny(Denial::Malformed) };
        let proof = self.users.proof(&credentials);
        match self.users.verified.get(&proof, Instant::now()) {
            Some(user) => Answer::Admit(user),
            None => Answer::Verify(Verification {
                users: Arc::clone(&self.users),
                pool: self.pool.clone(),
                credentials: credentials.to_owned(),
                proof,
            }),
        }
    }

    /// Takes the password out of what is forwarded.
    pub(super) fn conceal(&self, head: &mut Parts) {
        if !matches!(token(&head.headers), Err(Denial::Missing)) {
            head.headers.remove(AUTHORIZATION);
        }
    }

    pub(super) fn hashed(&self) -> u64 {
        self.users.hashed.load(Relaxed)
    }
}

impl Verification {
    /// Waits until the pool has hashed the password.
    pub(in crate::layers) async fn run(self) -> Result<Name, Denial> {
        let Self { users, pool, credentials, proof } = self;
        let asked = pool.submit(move || users.verify(&credentials, &proof)).map_err(|_| Denial::Overloaded)?;
        // No answer: hashing panicked. Nobody is let in for that.
        asked.await.unwrap_or(Err(Denial::Overloaded))
    }
}

impl Users {
    fn proof<T: AsRef<str>>(&self, credentials: &Credentials<T>) -> Proof {
        // The text as it came is unambiguous: a user name has no colon.
        let tag = hmac::sign(&self.mac, credentials.text.as_ref().as_bytes());
        tag.as_ref().try_into().expect("HMAC-SHA256 has 32 bytes")
    }

    /// Hashes the password. An unknown user costs what a known one does, and fails with the same reason.
    fn verify<T: AsRef<str>>(&self, credentials: &Credentials<T>, proof: &Proof) -> Result<Name, Denial> {
        // Requests of one page come together: the first one's work serves those behind it in the queue.
        if let Some(user) = self.verified.get(proof, Instant::now()) {
            return Ok(user);
        }
        let known = self.users.binary_search_by(|(name, _)| name.as_str().cmp(credentials.user()));
        // An unknown user is hashed like some known one, always the same: even where costs differ, none stands out.
        let index =
            known.unwrap_or_else(|_| self.decoy.hash_one(credentials.user()) as usize % self.users.len().max(1));
        let (name, hash) = self.users.get(index).ok_or(Denial::BadPassword)?;
        self.hashed.fetch_add(1, Relaxed);
        if !is_right(credentials.password(), hash.expose()) || known.is_err() {
            return Err(Denial::BadPassword);
        }
        self.verified.insert(*proof, name.clone(), Instant::now());
        Ok(name.clone())
    }
}

impl<T: AsRef<str>> Credentials<T> {
    fn user(&self) -> &str {
        self.text.as_ref().get(..self.colon).unwrap_or_default()
    }

    fn password(&self) -> &str {
        self.text.as_ref().get(self.colon + 1..).unwrap_or_default()
    }

    fn to_owned(&self) -> Credentials<Zeroizing<String>> {
        Credentials { text: Zeroizing::new(self.text.as_ref().to_owned()), colon: self.colon }
    }
}

/// The part behind `Basic`. Another scheme is none of ours.
fn token(headers: &HeaderMap) -> Result<&[u8], Denial> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Denial::Missing)?.as_bytes();
    if values.next().is_some() {
        return Err(Denial::Repeated);
    }
    match value.split_at_checked(5) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(b"basic") => match rest {
            [] => Err(Denial::Malformed),
            [b' ', ..] => Ok(rest.trim_ascii_start()),
            _ => Err(Denial::Missing),
        },
        _ => Err(Denial::Missing),
    }
}

/// RFC 7617, section 2: base64 of `user:password`, in UTF-8 because our challenge says so, without control characters.
fn decode<'a>(token: &[u8], buffer: &'a mut [u8]) -> Option<Credentials<&'a str>> {
    let length = STANDARD.decode_slice(token, buffer).ok()?;
    let text = str::from_utf8(buffer.get(..length)?).ok()?;
    let colon = text.find(':')?;
    (!text.chars().any(char::is_control)).then_some(Credentials { text, colon })
}

/// Both libraries compare in constant time. A hash that neither can read is right for nobody.
fn is_right(password: &str, hash: &str) -> bool {
    if hash.starts_with("$argon2") {
        Argon2::default().verify_password(password.as_bytes(), hash).is_ok()
    } else {
        bcrypt::verify(password, hash).unwrap_or(false)
    }
}

/// Passwords that were right, by proof. Only right ones are in here, so that a client can fill it no further than its own
/// passwords go: bcrypt ignores all behind byte 72, which makes many texts right.
#[derive(Default)]
struct Verified(DashMap<Proof, (Name, Instant)>);

impl Verified {
    const LIFETIME: Duration = Duration::from_secs(300);
    const CAPACITY: usize = 10_000;

    fn get(&self, proof: &Proof, now: Instant) -> Option<Name> {
        let entry = self.0.get(proof)?;
        let (user, until) = entry.value();
        (now < *until).then(|| user.clone())
    }

    /// Called by the pool's threads, so it may overshoot by their number.
    fn insert(&self, proof: Proof, user: Name, now: Instant) {
        if self.0.len() >= Self::CAPACITY {
            self.0.retain(|_, (_, until)| now < *until);
        }
        if self.0.len() < Self::CAPACITY {
            self.0.insert(proof, (user, now + Self::LIFETIME));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proof(n: u32) -> Proof {
        let mut proof = [0; 32];
        proof[..4].copy_from_slice(&n.to_be_bytes());
        proof
    }

    #[test]
    fn a_right_password_is_remembered_for_five_minutes() {
        let (verified, now) = (Verified::default(), Instant::now());
        verified.insert(proof(1), Name::derived("ann"), now);
        assert_eq!(verified.get(&proof(1), now + Duration::from_secs(299)).as_deref(), Some("ann"));
        assert_eq!(verified.get(&proof(1), now + Duration::from_secs(300)), None);
        assert_eq!(verified.get(&proof(2), now), None);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_expired_entries_make_room() {
        let (verified, now) = (Verified::default(), Instant::now());
        for n in 0..10_001 {
            verified.insert(proof(n), Name::derived("ann"), now);
        }
        assert_eq!(verified.0.len(), 10_000);
        assert_eq!(verified.get(&proof(10_000), now), None);
        verified.insert(proof(10_000), Name::derived("ann"), now + Verified::LIFETIME);
        assert_eq!(verified.0.len(), 1);
    }

    #[test]
    fn hashes_that_nobody_can_read_are_right_for_nobody() {
        for hash in ["", "$", "$2y$", "$argon2id$", "plain", "{SHA}xyz", "$2y$10$äöü", &"ß".repeat(30)] {
            assert!(!is_right("plain", hash), "{hash}");
        }
    }

    #[test]
    fn a_password_beyond_ascii_is_hashed_as_utf8() {
        let hash = bcrypt::hash("pässwörd€", 4).unwrap();
        assert!(is_right("pässwörd€", &hash));
        assert!(!is_right("password", &hash));
    }
}
