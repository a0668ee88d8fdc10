//! The hardened profile in Docker's words: an allow-list. What is not set here cannot be asked for by a plan.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountBindOptions,
    MountBindOptionsPropagationEnum, MountType, NetworkingConfig, PortBinding, PortMap, RestartPolicy,
    RestartPolicyNameEnum,
};
use muster_model::ids::Name;
use muster_model::network::Protocol;

use super::docker::endpoint;
use super::{Bind, NewContainer};
pub(super) use crate::network::names::engine_network;

/// The request that makes the container of `image`, as resolved by the engine's list.
pub(super) fn body(container: &NewContainer, image: String) -> ContainerCreateBody {
    let first = container.addresses.first();
    let networking = first.map(|(network, address)| NetworkingConfig {
        endpoints_config: Some(HashMap::from([(engine_network(network), endpoint(*address))])),
    });
    let exposed: Vec<String> =
        container.ports.iter().map(|(port, protocol, _)| port_key(*port, *protocol)).collect();
    ContainerCreateBody {
        image: Some(image),
        cmd: (!container.command.is_empty()).then(|| container.command.clone()),
        env: Some(container.env.iter().map(|(key, value)| format!("{key}={value}")).collect()),
        user: Some(format!("{}:{}", container.user.uid, container.user.gid)),
        hostname: Some(container.hostname.clone()),
        labels: Some(container.labels.clone().into_iter().collect()),
        stop_signal: Some(container.stop.signal.clone()),
        exposed_ports: (!exposed.is_empty()).then_some(exposed),
        host_config: Some(host_config(container, first.map(|(network, _)| network))),
        networking_config: networking,
        ..ContainerCreateBody::default()
    }
}

fn host_config(container: &NewContainer, network: Option<&Name>) -> HostConfig {
    let limits = &container.limits;
    let bytes = |value: u64| Some(i64::try_from(value).unwrap_or(i64::MAX));
    let (uid, gid) = (container.user.uid, container.user.gid);
    let tmpfs = container.tmpfs.iter().map(|(path, size)| {
        (path.clone(), format!("rw,nosuid,nodev,noexec,size={size},uid={uid},gid={gid},mode=0755"))
    });
    HostConfig {
        memory: bytes(limits.memory_bytes),
        // The same as memory: no swap on top.
        memory_swap: bytes(limits.memory_bytes),
        nano_cpus: Some(i64::from(limits.cpu_millis) * 1_000_000),
        pids_limit: Some(i64::from(limits.pids)),
        shm_size: bytes(limits.shm_bytes),
        cap_drop: Some(vec!["ALL".to_owned()]),
        cap_add: Some(container.capabilities.clone()),
        security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
        readonly_rootfs: Some(true),
        privileged: Some(false),
        tmpfs: Some(tmpfs.collect()),
        mounts: Some(container.mounts.iter().map(mount).collect()),
        network_mode: Some(network.map_or_else(|| "none".to_owned(), engine_network)),
        port_bindings: Some(published(container)),
        // The agent alone restarts.
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([
                ("max-size".to_owned(), "10m".to_owned()),
                ("max-file".to_owned(), "3".to_owned()),
            ])),
        }),
        ..HostConfig::default()
    }
}

fn mount(bind: &Bind) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(bind.source.display().to_string()),
        target: Some(bind.target.clone()),
        read_only: Some(bind.read_only),
        bind_options: Some(MountBindOptions {
            propagation: Some(MountBindOptionsPropagationEnum::RPRIVATE),
            ..MountBindOptions::default()
        }),
        ..Mount::default()
    }
}

fn published(container: &NewContainer) -> PortMap {
    let mut map = PortMap::new();
    for (port, protocol, on) in &container.ports {
        let binding =
            PortBinding { host_ip: Some(on.ip().to_string()), host_port: Some(on.port().to_string()) };
        let bindings = map.entry(port_key(*port, *protocol)).or_default();
        bindings.get_or_insert_default().push(binding);
    }
    map
}

fn port_key(port: u16, protocol: Protocol) -> String {
    match protocol {
        Protocol::Tcp => format!("{port}/tcp"),
        Protocol::Udp => format!("{port}/udp"),
    }
}
