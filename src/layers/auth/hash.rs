use std::fmt::Write as _;

use argon2::{Argon2, PasswordHasher};
use aws_lc_rs::digest::{SHA256, digest};

/// Why a key or a password is not hashed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HashError {
    /// RFC 7617 forbids them in passwords, HTTP in header values.
    #[error("has control characters, which HTTP cannot carry")]
    Control,
    /// Nothing to hash.
    #[error("is empty")]
    Empty,
    /// The system gave no random salt.
    #[error("cannot be hashed: the system has no random numbers")]
    Salt,
    /// Longer than what is accepted from clients.
    #[error("is longer than {MAX_SECRET} bytes")]
    TooLong,
}

/// The longest key or password in bytes that can be used.
pub const MAX_SECRET: usize = 512;

/// The form in which the config holds an API key: `sha256:` and 64 lower-case hexadecimal digits.
///
/// A plain hash is enough for keys, which are random and long; passwords are neither.
///
/// # Errors
/// [`HashError`] where no client could send this key.
pub fn hash_key(key: &str) -> Result<String, HashError> {
    usable(key)?;
    let mut text = String::from("sha256:");
    for byte in digest(&SHA256, key.as_bytes()).as_ref() {
        write!(text, "{byte:02x}").expect("a String takes any text");
    }
    Ok(text)
}

/// The form in which the config holds a password: an argon2id hash as a PHC string, with a random salt.
///
/// # Errors
/// [`HashError`] where no client could send this password, or there is no salt.
pub fn hash_password(password: &str) -> Result<String, HashError> {
    usable(password)?;
    let hash = Argon2::default().hash_password(password.as_bytes()).map_err(|_| HashError::Salt)?;
    Ok(hash.to_string())
}

fn usable(secret: &str) -> Result<(), HashError> {
    match secret {
        "" => Err(HashError::Empty),
        secret if secret.chars().any(char::is_control) => Err(HashError::Control),
        secret if secret.len() > MAX_SECRET => Err(HashError::TooLong),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_becomes_the_digest_of_the_config() {
        // The example of FIPS 180-2, appendix B.1.
        let hash = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash_key("abc").as_deref(), Ok(hash));
    }

    #[test]
    fn a_password_becomes_a_salted_argon2id_hash() {
        let (one, two) = (hash_password("hunter2").unwrap(), hash_password("hunter2").unwrap());
        assert!(one.starts_with("$argon2id$v=19$"), "{one}");
        assert_ne!(one, two);
    }

    #[test]
    fn what_no_client_can_send_is_not_hashed() {
        assert_eq!(hash_key(""), Err(HashError::Empty));
        assert_eq!(hash_password("a\nb"), Err(HashError::Control));
        assert_eq!(hash_password(&"x".repeat(MAX_SECRET + 1)), Err(HashError::TooLong));
    }
}
