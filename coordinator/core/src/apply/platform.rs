//! Commands about the whole platform: `init` and a new spec.

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_model::ids::{LogIndex, Name, Revision};
use muster_model::spec::{PlatformSpec, SPEC_FORMAT, ServiceSpec};

use super::{event, unfit};
use crate::command::{LogMeta, Rejected};
use crate::state::{PREVIOUS_KEPT, Platform, Service, State};
use crate::version;

pub fn init(state: &mut State, id: &str, name: &Name, meta: LogMeta) -> Result<(), Rejected> {
    if let Some(platform) = &state.platform {
        return Err(Rejected::Exists { what: "platform".to_owned(), name: platform.name.to_string() });
    }
    let spec = PlatformSpec {
        muster: SPEC_FORMAT,
        platform: name.clone(),
        detection: muster_model::spec::Detection::default(),
        mesh: muster_model::spec::MeshSpec::default(),
        networks: BTreeMap::new(),
        services: BTreeMap::new(),
    };
    state.format = version::STATE_FORMAT;
    state.platform = Some(Platform {
        id: id.to_owned(),
        name: name.clone(),
        incarnation: 1,
        spec: Arc::new(spec),
        yaml: Arc::from(""),
        spec_index: meta.index,
    });
    event(state, meta, "platform", format!("platform {name} was made"));
    Ok(())
}

pub fn apply_spec(
    state: &mut State,
    spec: &Arc<PlatformSpec>,
    yaml: &Arc<str>,
    at: Option<LogIndex>,
    meta: LogMeta,
) -> Result<(), Rejected> {
    let platform = state.platform.as_mut().ok_or(Rejected::NotInitialised)?;
    if spec.platform != platform.name {
        return Err(unfit(format!("the spec is for platform {}, this is {}", spec.platform, platform.name)));
    }
    if let Some(seen) = at.filter(|seen| platform.spec_index > *seen) {
        let now = platform.spec_index;
        return Err(Rejected::Stale { about: "the spec".to_owned(), seen, now });
    }
    let missing = state.services.iter().find(|(name, service)| {
        let written = service.parent.is_none() && service.internal.is_none() && service.removing.is_none();
        written && !spec.services.contains_key(*name)
    });
    if let Some((name, _)) = missing {
        return Err(unfit(format!(
            "service `{name}` is not in the spec; absence never deletes: `muster service remove {name} \
             --keep-data|--destroy-data` first"
        )));
    }
    let leaving = spec
        .services
        .keys()
        .find(|name| state.services.get(*name).is_some_and(|s| s.removing.is_some() || s.parent.is_some()));
    if let Some(name) = leaving {
        return Err(unfit(format!("service `{name}` is being removed, or belongs to another service")));
    }
    let unchanged = platform.spec == *spec;
    platform.spec = Arc::clone(spec);
    // A command changes the spec without a file: the last one stays, so that the next plan can tell the difference.
    if !yaml.is_empty() {
        platform.yaml = Arc::clone(yaml);
    }
    if unchanged {
        return Ok(());
    }
    platform.spec_index = meta.index;
    for (name, written) in &spec.services {
        match state.services.get_mut(name) {
            Some(service) => set_spec(service, written, meta.index),
            None => {
                state.services.insert(name.clone(), new_service(Arc::new(written.clone()), meta.index));
            }
        }
    }
    event(state, meta, "platform", format!("spec applied: {} services", spec.services.len()));
    Ok(())
}

/// A new revision, unless nothing changed.
pub fn set_spec(service: &mut Service, written: &ServiceSpec, index: LogIndex) {
    if *service.spec == *written {
        return;
    }
    let old = std::mem::replace(&mut service.spec, Arc::new(written.clone()));
    service.previous.insert(service.revision, old);
    while service.previous.len() > PREVIOUS_KEPT {
        service.previous.pop_first();
    }
    service.revision = service.revision.next();
    service.held = None;
    service.version = index;
}

pub fn new_service(spec: Arc<ServiceSpec>, index: LogIndex) -> Service {
    Service {
        spec,
        revision: Revision(1),
        previous: BTreeMap::new(),
        parent: None,
        internal: None,
        formed: false,
        held: None,
        rolled_back: None,
        removing: None,
        records: BTreeMap::new(),
        version: index,
    }
}
