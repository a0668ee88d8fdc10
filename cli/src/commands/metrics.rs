//! `muster metrics`: where Prometheus reads the metrics of members, also in the form of its own target files.

use anyhow::Result;
use muster_model::ids::Name;
use muster_model::view::{PlatformView, ServiceView};
use serde::Serialize;

use crate::app::App;
use crate::client::PATIENCE;
use crate::exit::{Exit, Failure};
use crate::output::{Table, Tone};

/// The kind of the services that serve metrics of others.
const KIND: &str = "exporter";

/// One group of a target file (`file_sd_configs`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Target {
    targets: Vec<String>,
    labels: Labels,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Labels {
    #[serde(rename = "__metrics_path__")]
    path: String,
    platform: String,
    engine: String,
    service: String,
    slot: String,
    host: String,
}

pub async fn run(app: &App, service: Option<&Name>) -> Result<Exit> {
    let view = app.client()?.status(PATIENCE).await?;
    let found = targets(&view, service);
    if app.console.is_json() {
        // An empty list too: a file of targets must be able to become empty.
        app.console.json(&found)?;
        return Ok(Exit::Ok);
    }
    if found.is_empty() {
        let message = "no member serves metrics";
        let hint = "write `metrics: true` in a service of the spec and apply it";
        return Err(Failure::new(Exit::Error, message).hint(hint).into());
    }
    let mut table = Table::new(&["SLOT", "HOST", "ENGINE", "TARGET", "PATH"]);
    for one in found {
        let Labels { slot, host, engine, path, .. } = one.labels;
        table.row(Tone::Plain, [slot, host, engine, one.targets.join(","), path]);
    }
    app.console.say(table.render(app.console.paint))?;
    Ok(Exit::Ok)
}

fn targets(view: &PlatformView, only: Option<&Name>) -> Vec<Target> {
    let exporters = view.services.iter().filter(|service| service.kind.as_str() == KIND);
    let wanted = exporters.filter_map(|exporter| {
        let owner = view.services.iter().find(|one| Some(&one.name) == exporter.owner.as_ref())?;
        only.is_none_or(|only| *only == owner.name).then_some((owner, exporter))
    });
    wanted.flat_map(|(owner, exporter)| of_service(view, owner, exporter)).collect()
}

fn of_service(view: &PlatformView, owner: &ServiceView, exporter: &ServiceView) -> Vec<Target> {
    let urls = exporter.endpoints.values().flatten();
    let target = |url: &String| {
        let (place, path) = url.strip_prefix("http://")?.split_once('/')?;
        let (address, _) = place.split_once(':')?;
        let serves = |one: &&muster_model::view::MemberView| one.addresses.values().any(|a| a == address);
        let member = exporter.members.iter().find(serves)?;
        let labels = Labels {
            path: format!("/{path}"),
            platform: view.platform.to_string(),
            engine: owner.kind.to_string(),
            service: owner.name.to_string(),
            slot: format!("{}/{}", owner.name, member.slot.index),
            host: member.host.to_string(),
        };
        Some(Target { targets: vec![place.to_owned()], labels })
    };
    urls.filter_map(target).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use muster_model::view::HealthWord;

    use super::*;
    use crate::pages::sample;

    fn view() -> PlatformView {
        let mut view = sample::platform();
        let mut exporter = sample::service("pg-main-metrics", KIND, 2, HealthWord::Healthy, 1);
        exporter.owner = Some(sample::name("pg-main"));
        let mut urls = Vec::new();
        for member in &mut exporter.members {
            let address = format!("172.31.50.{}", member.slot.index);
            urls.push(format!("http://{address}:9187/metrics"));
            member.addresses.insert(sample::name("monnet"), address);
        }
        exporter.endpoints = BTreeMap::from([("metrics".to_owned(), urls)]);
        view.services.push(exporter);
        view
    }

    #[test]
    fn targets_are_labelled_by_the_member_that_they_tell_of() {
        let found = targets(&view(), None);
        assert_eq!(
            serde_json::to_value(&found[1]).unwrap(),
            serde_json::json!({
                "targets": ["172.31.50.2:9187"],
                "labels": { "__metrics_path__": "/metrics", "platform": "shop", "engine": "postgres",
                    "service": "pg-main", "slot": "pg-main/2", "host": "h2" },
            })
        );
        assert_eq!(targets(&view(), Some(&sample::name("pg-main"))), found);
        assert!(targets(&view(), Some(&sample::name("web"))).is_empty());
    }
}
