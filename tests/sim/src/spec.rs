//! What is asked for in one seed: a subset of kinds, and specs that contain them. Decides nothing while it runs.

use muster_model::ids::Name;
use muster_model::spec::PlatformSpec;
use serde_json::{Map, Value, json};

use crate::engines::{MARIADB, POSTGRES};
use crate::rng::Rng;
use crate::world::name;

/// The kinds of one seed.
#[derive(Debug, Clone, Default)]
pub struct Platform {
    postgres: bool,
    mariadb: Option<&'static str>,
    /// Lost members are replaced late.
    patient: bool,
}

impl Platform {
    /// Of a seed: every fourth has PostgreSQL alone, the others a random subset of all.
    pub fn of(seed: u64, rng: &mut Rng) -> Self {
        let patient = rng.chance(500);
        if seed.is_multiple_of(4) {
            return Self { postgres: true, patient, ..Self::default() };
        }
        let ha = |rng: &mut Rng, other: &'static str, usual: &'static str| {
            if rng.chance(150) { other } else { usual }
        };
        loop {
            let postgres = rng.chance(400);
            let mariadb = rng.chance(450).then(|| ha(rng, "single", "ha"));
            if postgres || mariadb.is_some() {
                return Self { postgres, mariadb, patient };
            }
        }
    }

    /// The services that operators meddle with.
    #[must_use]
    pub fn services(&self) -> Vec<Name> {
        let mut names = Vec::new();
        if self.postgres {
            names.extend([POSTGRES, "pg-main-etcd"]);
        }
        if self.mariadb.is_some() {
            names.push(MARIADB);
        }
        names.into_iter().map(name).collect()
    }

    /// The spec with this tag on all images and this many replicas of the program without data.
    #[must_use]
    pub fn spec(&self, tag: &str, replicas: u32) -> PlatformSpec {
        let update = json!({ "deadline": "20s", "soak": "1s" });
        let mut services = Map::new();
        let mut put = |service: &str, mut value: Value| {
            value["update"] = update.clone();
            if value["kind"] != "app" {
                value["replace_after"] = json!(if self.patient { "15m" } else { "15s" });
            }
            services.insert(service.to_owned(), value);
        };
        put(
            "web",
            json!({ "kind": "app", "image": format!("demo/web:{tag}"), "replicas": replicas, "probe": { "tcp": { "port": 80 } } }),
        );
        if self.postgres {
            put(POSTGRES, json!({ "kind": "postgres", "image": format!("muster/postgres:{tag}") }));
        }
        if let Some(mode) = self.mariadb {
            put(
                MARIADB,
                json!({ "kind": "mariadb", "mode": mode, "image": format!("muster/mariadb:{tag}") }),
            );
        }
        let value = json!({ "muster": 1, "platform": "demo", "services": services });
        serde_json::from_value(value).expect("a literal spec")
    }
}
