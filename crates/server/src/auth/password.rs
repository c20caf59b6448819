//! Passwords: argon2id, off the runtime, a few at a time.

use anyhow::Context as _;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Argon2, PasswordHash};
use tokio::sync::Semaphore;

use crate::error::{AppError, Result};

/// One hash takes 19 MiB and tens of milliseconds of a core: without a bound,
/// sign-in attempts would be a way to stop the server.
static HASHING: Semaphore = Semaphore::const_new(2);

const SHORTEST: usize = 12;
const LONGEST: usize = 200;

/// The hash of a new password, with the parameters inside.
///
/// # Errors
/// A password that is too short or long.
pub async fn hash_password(password: String) -> Result<String> {
    let length = password.chars().count();
    if length < SHORTEST {
        return Err(
            AppError::invalid(format!("a password has at least {SHORTEST} characters"))
                .code("short_password")
                .at("password"),
        );
    }
    if length > LONGEST {
        return Err(
            AppError::invalid(format!("a password has at most {LONGEST} characters"))
                .at("password"),
        );
    }
    run(move || {
        let hash = Argon2::default().hash_password(password.as_bytes());
        hash.map(|hash| hash.to_string())
            .map_err(|error| anyhow::anyhow!("hashing a password: {error}"))
    })
    .await
}

/// Whether the password belongs to the hash. Takes as long without a hash, so
/// that the time does not tell which accounts exist.
///
/// # Errors
/// The stored hash is damaged.
pub async fn verify_password(password: String, hash: Option<String>) -> Result<bool> {
    if password.chars().count() > LONGEST {
        return Ok(false);
    }
    run(move || {
        let Some(hash) = hash else {
            let _ = Argon2::default().hash_password(password.as_bytes());
            return Ok(false);
        };
        let parsed = PasswordHash::new(&hash)
            .map_err(|error| anyhow::anyhow!("a stored password hash: {error}"))?;
        Ok(Argon2::default()
            .verify_password(password.as_bytes(), &parsed)
            .is_ok())
    })
    .await
}

async fn run<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> Result<T> {
    let _permit = HASHING
        .acquire()
        .await
        .context("password hashing is closed")?;
    let result = tokio::task::spawn_blocking(work)
        .await
        .context("a password task ended early")?;
    Ok(result?)
}
