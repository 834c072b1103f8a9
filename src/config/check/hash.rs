//! Stored keys and passwords: which are good enough, and why the others are not. Nothing here repeats what it was given.

use std::str::FromStr;

use argon2::password_hash::phc::PasswordHash;

/// SHA-256 of a key, from `sha256:HEX`.
pub(super) fn key_digest(text: &str) -> Result<[u8; 32], &'static str> {
    let hex = text.strip_prefix("sha256:").ok_or("is not a SHA-256 hash")?;
    if hex.len() != 64 {
        return Err("is not a whole SHA-256 hash");
    }
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(hex.as_bytes().chunks(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| "is not hexadecimal")?;
        let digits = pair.bytes().all(|digit| digit.is_ascii_hexdigit());
        *byte = u8::from_str_radix(pair, 16).ok().filter(|_| digits).ok_or("is not hexadecimal")?;
    }
    Ok(digest)
}

/// Whether a password's hash is one that may be stored and can be verified in reasonable time.
pub(super) fn password(hash: &str) -> Result<(), &'static str> {
    if hash.starts_with("$argon2") {
        return argon2(hash);
    }
    if ["$2a$", "$2b$", "$2x$", "$2y$"].iter().any(|prefix| hash.starts_with(prefix)) {
        return bcrypt(hash);
    }
    Err(if hash.starts_with("$apr1$") || hash.starts_with("$1$") {
        "is hashed with MD5, which is broken"
    } else if hash.starts_with("{SHA}") || hash.starts_with("{SSHA}") {
        "is hashed with SHA-1, which is too fast to be safe"
    } else if hash.starts_with("$5$") || hash.starts_with("$6$") {
        "is hashed with SHA-crypt, which is not supported"
    } else if hash.len() == 13 && hash.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/')) {
        "is hashed with crypt, or is plain text"
    } else {
        "is not a hash; it may be plain text"
    })
}

fn argon2(hash: &str) -> Result<(), &'static str> {
    let parsed = PasswordHash::new(hash).map_err(|_| "is not a whole argon2 hash")?;
    let params = argon2::Params::try_from(&parsed).map_err(|_| "is an argon2 hash with wrong parameters")?;
    if parsed.salt.is_none() || parsed.hash.is_none() {
        return Err("is not a whole argon2 hash");
    }
    // One login must not take the memory or the seconds of a thousand requests.
    match params.m_cost() > 1 << 20 || params.t_cost() > 64 || params.p_cost() > 16 {
        true => Err("is an argon2 hash above 1 GiB, 64 passes or 16 lanes"),
        false => Ok(()),
    }
}

fn bcrypt(hash: &str) -> Result<(), &'static str> {
    let parts = bcrypt::HashParts::from_str(hash).map_err(|_| "is not a whole bcrypt hash")?;
    match parts.get_cost() {
        4..=16 => Ok(()),
        _ => Err("is a bcrypt hash with a cost outside 4 to 16"),
    }
}

/// Whether a text can name a person in a log line.
pub(super) fn is_person(name: &str) -> Result<(), &'static str> {
    match name {
        "" => Err("has no name"),
        name if name.len() > 255 => Err("has a name longer than 255 bytes"),
        name if name.chars().any(char::is_control) => Err("has a control character in its name"),
        name if name.contains(':') => Err("has a `:` in its name"),
        _ => Ok(()),
    }
}
