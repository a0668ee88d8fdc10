//! The list of secrets, and what is changed when an operator asks for new ones. Never a value.

use std::collections::BTreeMap;

use muster_model::ids::Name;
use muster_model::view::SecretView;

use crate::facts::kind_of;
use crate::kinds::Procedure;
use crate::kinds::rotate::{self, Rotation};
use crate::kinds::tls::{self, Tls};
use crate::state::{OperationKind, SecretRow, Service, State};

/// Secrets of the services, or of one, by name; values that come next or went before are not shown.
#[must_use]
pub fn list(state: &State, only: Option<&Name>) -> Vec<SecretView> {
    let services = state.services.iter().filter(|(name, _)| only.is_none_or(|only| only == *name));
    services.flat_map(|(name, service)| of_service(state, name, service)).collect()
}

fn of_service(state: &State, name: &Name, service: &Service) -> Vec<SecretView> {
    let view = |(secret, row): (&String, &SecretRow)| {
        let rotation = rotation(service, secret);
        SecretView {
            name: secret.clone(),
            service: name.clone(),
            version: row.version,
            changed: row.changed,
            stops: rotation.as_ref().is_ok_and(|rotation| rotation.stops),
            refused: rotation.is_err(),
            rotation: rotation.map_or_else(|why| why, |rotation| rotation.clients),
        }
    };
    rows(state, name).map(view).collect()
}

fn rows<'a>(state: &'a State, service: &Name) -> impl Iterator<Item = (&'a String, &'a SecretRow)> {
    let prefix = format!("{service}/");
    state.secrets.iter().filter(move |(name, _)| name.starts_with(&prefix) && !name.contains('@'))
}

fn rotation(service: &Service, secret: &str) -> Result<Rotation, String> {
    let kind = kind_of(service).ok_or("this version does not know its kind")?;
    if kind.tls(&service.spec) != Tls::None && rotate::what(secret) == tls::WHAT {
        return Ok(Rotation::smooth(
            "new sessions see a new certificate; open ones stay. It renews itself too",
        ));
    }
    kind.rotation(&service.spec, rotate::what(secret)).map_err(|wait| wait.0)
}

/// The operation that gives a service new passwords: the one of a user, or of the platform, that `which` names; if it is
/// empty, every one that stops nothing.
///
/// # Errors
/// Why there is nothing to change, or why it cannot be changed.
pub fn rotation_of(state: &State, service: &Name, which: &str) -> Result<OperationKind, String> {
    let row = state.services.get(service).ok_or_else(|| format!("there is no service `{service}`"))?;
    let mut wanted: BTreeMap<String, String> = BTreeMap::new();
    if which.is_empty() {
        let smooth = |name: &str| rotation(row, name).is_ok_and(|rotation| !rotation.stops);
        let found = rows(state, service).filter(|(name, _)| smooth(name));
        wanted.extend(found.map(|(name, secret)| (name.clone(), secret.version.to_string())));
        if wanted.is_empty() {
            let why = rows(state, service).find_map(|(name, _)| rotation(row, name).err());
            return Err(why.unwrap_or_else(|| format!("`{service}` has no passwords")));
        }
    } else {
        let names = [format!("{service}/user-{which}"), format!("{service}/{which}")];
        let found = names.into_iter().find_map(|name| Some((state.secrets.get(&name)?.version, name)));
        let (version, name) = found.filter(|_| !which.contains('@')).ok_or_else(|| {
            format!(
                "`{service}` has no user and no password `{which}`: `muster secret ls {service}` shows them"
            )
        })?;
        rotation(row, &name)?;
        wanted.insert(name, version.to_string());
    }
    let names: Vec<&str> = wanted.keys().map(String::as_str).collect();
    let why = format!("new passwords were asked for: {}", names.join(", "));
    let procedure = Procedure { name: rotate::NAME.to_owned(), why, can_wait: false, arguments: wanted };
    Ok(OperationKind::Procedure(procedure))
}
