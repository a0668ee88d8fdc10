//! What is asked for in one seed: a subset of kinds, and specs that contain them. Decides nothing while it runs.

use muster_model::ids::Name;
use muster_model::spec::PlatformSpec;
use serde_json::{Map, Value, json};

use crate::engines::{MARIADB, POSTGRES, REDIS, REPLICATED, S3};
use crate::rng::Rng;
use crate::world::name;

/// The kinds of one seed.
#[derive(Debug, Clone, Default)]
pub struct Platform {
    postgres: bool,
    mariadb: Option<&'static str>,
    redis: Option<&'static str>,
    s3: Option<&'static str>,
    /// Replicas and `min_replicas` of a replicated Redis.
    replicated: Option<(u32, u32)>,
    hosts: usize,
    /// Lost members are replaced late.
    patient: bool,
}

impl Platform {
    /// Of a seed: every fourth has PostgreSQL alone, every eighth a replicated Redis alone and every sixteenth one beside others,
    /// the rest a random subset of all but that.
    pub fn of(seed: u64, hosts: usize, rng: &mut Rng) -> Self {
        let patient = rng.chance(500);
        // Not of the seed's own chance: all other seeds stay what they were without it.
        let mut own = Rng::new(!seed);
        if seed.is_multiple_of(4) {
            return Self { postgres: true, patient, hosts, ..Self::default() };
        }
        let with = seed % 8 == 2 || seed % 16 == 6;
        let replicated = with.then(|| (own.between(1, 2) as u32, u32::from(own.chance(200))));
        if seed % 8 == 2 {
            return Self { replicated, patient, hosts, ..Self::default() };
        }
        let ha = |rng: &mut Rng, other: &'static str, usual: &'static str| {
            if rng.chance(150) { other } else { usual }
        };
        loop {
            let postgres = rng.chance(400);
            let mariadb = rng.chance(450).then(|| ha(rng, "single", "ha"));
            let redis = rng.chance(400).then(|| ha(rng, "single", "cluster"));
            let s3 = rng.chance(450).then(|| ha(rng, "single", "distributed"));
            if postgres || mariadb.is_some() || redis.is_some() || s3.is_some() {
                return Self { postgres, mariadb, redis, s3, replicated, patient, hosts };
            }
        }
    }

    /// A host can leave. A new server of S3 beside others that wait for their update is not had yet.
    #[must_use]
    pub fn can_shrink(&self) -> bool {
        self.s3.is_none()
    }

    /// A Redis that may ask an operator for a word is there.
    #[must_use]
    pub fn has_redis(&self) -> bool {
        self.redis == Some("cluster") || self.replicated.is_some()
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
        if self.redis.is_some() {
            names.push(REDIS);
        }
        if self.replicated.is_some() {
            names.push(REPLICATED);
        }
        if self.s3.is_some() {
            names.push(S3);
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
        if let Some(mode) = self.redis {
            let mut cache = json!({ "kind": "redis", "mode": mode, "image": format!("muster/redis:{tag}") });
            if mode == "cluster" {
                // Masters never share a host.
                cache["shards"] = json!(if self.hosts > 3 && replicas == 3 { 4 } else { 3 });
                cache["node_timeout"] = json!("3s");
            }
            put(REDIS, cache);
        }
        if let Some((copies, least)) = self.replicated {
            // One member on each host.
            let more = u32::from(self.hosts > 3 && replicas == 3);
            let image = format!("muster/redis:{tag}");
            put(
                REPLICATED,
                json!({
                    "kind": "redis", "mode": "replicated", "image": image, "replicas": copies + more, "min_replicas": least,
                }),
            );
        }
        if let Some(mode) = self.s3 {
            put(S3, json!({ "kind": "s3", "mode": mode, "image": format!("muster/minio:{tag}") }));
        }
        let value = json!({ "muster": 1, "platform": "demo", "services": services });
        serde_json::from_value(value).expect("a literal spec")
    }
}
