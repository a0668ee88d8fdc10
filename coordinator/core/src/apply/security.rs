//! Commands about secrets, tokens and certificates.

use muster_model::ids::Name;
use muster_model::plan::{next_secret, previous_secret};
use muster_model::time::Timestamp;

use super::{event, unfit, unknown};
use crate::command::{LogMeta, Rejected};
use crate::state::{Certificate, CertificateNote, SecretRow, State, TokenRole, TokenRow};

/// Most join tokens that are neither used nor expired.
const TOKENS_MAX: usize = 1_000;
/// Most secrets.
const SECRETS_MAX: usize = 10_000;
/// Longest sealed secret, in bytes of base64.
const SEALED_LEN_MAX: usize = 64 * 1024;
/// Most names and addresses in one certificate.
const NAMES_MAX: usize = 1_000;

pub fn put_secret(
    state: &mut State,
    name: &str,
    sealed: &str,
    replaces: u64,
    certificate: Option<&CertificateNote>,
    meta: LogMeta,
) -> Result<(), Rejected> {
    let present = state.secrets.get(name).map_or(0, |row| row.version);
    if present != replaces {
        return Err(unfit(format!("secret `{name}` has version {present}, not {replaces}")));
    }
    if sealed.len() > SEALED_LEN_MAX || (present == 0 && state.secrets.len() >= SECRETS_MAX) {
        return Err(unfit(format!("secret `{name}` is too long, or there are too many secrets")));
    }
    if certificate.is_some_and(|note| note.names.len() > NAMES_MAX) {
        return Err(unfit(format!("certificate `{name}` has more than {NAMES_MAX} names")));
    }
    let (version, certificate) = (present + 1, certificate.cloned());
    let row = SecretRow { sealed: sealed.to_owned(), version, changed: meta.at, certificate };
    state.secrets.insert(name.to_owned(), row);
    event(state, meta, name, "secret stored");
    Ok(())
}

/// The next value becomes the present one; the one before is kept until [`forget_previous`].
pub fn promote_secret(state: &mut State, service: &Name, name: &str, meta: LogMeta) -> Result<(), Rejected> {
    let own = name.split_once('/').is_some_and(|(owner, _)| owner == service.as_str());
    let next = state.secrets.get(&next_secret(name)).filter(|_| own).cloned();
    let next = next.ok_or_else(|| unfit(format!("`{name}` has no next value")))?;
    let present = state.secrets.get_mut(name).ok_or_else(|| unknown("secret", name))?;
    let version = present.version + 1;
    let previous = std::mem::replace(present, SecretRow { version, changed: meta.at, ..next });
    state.secrets.insert(previous_secret(name), previous);
    state.secrets.remove(&next_secret(name));
    event(state, meta, name, format!("changed: version {version}"));
    Ok(())
}

/// The value before the present one is no longer given to anybody.
pub fn forget_previous(state: &mut State, name: &str) {
    state.secrets.remove(&previous_secret(name));
}

pub fn create_token(
    state: &mut State,
    hash: &str,
    role: TokenRole,
    expires: Timestamp,
    meta: LogMeta,
) -> Result<(), Rejected> {
    state.tokens.retain(|_, token| token.expires > meta.at);
    if state.tokens.len() >= TOKENS_MAX {
        return Err(unfit(format!("there are {TOKENS_MAX} join tokens already: let them expire")));
    }
    if state.tokens.contains_key(hash) {
        return Err(Rejected::Exists { what: "token".to_owned(), name: hash.chars().take(8).collect() });
    }
    state.tokens.insert(hash.to_owned(), TokenRow { role, expires, used_by: None });
    Ok(())
}

pub fn use_token(
    state: &mut State,
    hash: &str,
    role: TokenRole,
    user: &str,
    meta: LogMeta,
) -> Result<(), Rejected> {
    let refused = |why: &str| Rejected::Token { why: why.to_owned() };
    let token = state.tokens.get_mut(hash).ok_or_else(|| refused("is not known"))?;
    if token.role != role {
        return Err(refused(match token.role {
            TokenRole::Host => "is for a host",
            TokenRole::Coordinator => "is for a coordinator",
        }));
    }
    if token.expires <= meta.at {
        return Err(refused("has expired"));
    }
    match &token.used_by {
        Some(first) if first != user => Err(refused("was used already")),
        Some(_) => Ok(()),
        None => {
            token.used_by = Some(user.to_owned());
            Ok(())
        }
    }
}

pub fn record_certificate(
    state: &mut State,
    serial: &str,
    subject: &str,
    key_digest: &str,
    expires: Timestamp,
    meta: LogMeta,
) -> Result<(), Rejected> {
    // Revoked ones are kept a while longer than they are valid: an expired certificate may still renew itself.
    state
        .certificates
        .retain(|_, c| c.revoked.is_some() || c.expires.0.saturating_add(RENEWABLE_MS) > meta.at.0);
    if state.certificates.contains_key(serial) {
        return Err(Rejected::Exists { what: "certificate".to_owned(), name: serial.to_owned() });
    }
    let row = Certificate {
        subject: subject.to_owned(),
        key_digest: key_digest.to_owned(),
        expires,
        revoked: None,
    };
    state.certificates.insert(serial.to_owned(), row);
    Ok(())
}

/// How long after its end a certificate may renew itself: a year.
const RENEWABLE_MS: u64 = 365 * 86_400_000;

pub fn revoke(state: &mut State, serial: &str, why: &str, meta: LogMeta) -> Result<(), Rejected> {
    let row = state.certificates.get_mut(serial).ok_or_else(|| unknown("certificate", serial))?;
    row.revoked = Some(why.to_owned());
    let subject = row.subject.clone();
    event(state, meta, &subject, format!("certificate {serial} revoked: {why}"));
    Ok(())
}
