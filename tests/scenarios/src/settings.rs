//! Names, counts and subnets of a run, from the environment only: nothing may depend on the names in an example.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use muster_model::ids::Name;

/// What a run is called and how large it is.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The platform. `MUSTER_SHOW_PLATFORM`.
    pub platform: Name,
    /// The PostgreSQL service. `MUSTER_SHOW_SERVICE`.
    pub service: Name,
    /// The S3 service. `MUSTER_SHOW_S3`.
    pub s3: Name,
    /// The application. `MUSTER_SHOW_APP`.
    pub app: Name,
    /// The MariaDB service. `MUSTER_SHOW_MARIADB`.
    pub mariadb: Name,
    /// Emulated hosts. `MUSTER_SHOW_HOSTS`.
    pub hosts: usize,
    /// Subnet of the databases' network. `MUSTER_SHOW_DBNET`.
    pub dbnet: String,
    /// Subnet of the S3 services' network. `MUSTER_SHOW_STORNET`.
    pub stornet: String,
    /// Subnet of the applications' other network. `MUSTER_SHOW_PROXYNET`.
    pub proxynet: String,
    /// Port of the coordinators. `MUSTER_SHOW_PORT`.
    pub port: u16,
    /// Images and host programs built before. `MUSTER_CACHE`.
    pub cache: PathBuf,
}

impl Settings {
    /// # Errors
    /// A variable that is set to something unusable, with its name.
    pub fn from_env() -> Result<Self> {
        let text = |key: &str, default: &str| env::var(key).unwrap_or_else(|_| default.to_owned());
        let name = |key: &str, default: &str| {
            Name::new(text(key, default)).with_context(|| format!("{key} is not a name"))
        };
        let hosts = text("MUSTER_SHOW_HOSTS", "3").parse().context("MUSTER_SHOW_HOSTS is not a number")?;
        ensure!((1..=9).contains(&hosts), "MUSTER_SHOW_HOSTS must be 1 to 9");
        Ok(Self {
            platform: name("MUSTER_SHOW_PLATFORM", "demo")?,
            service: name("MUSTER_SHOW_SERVICE", "pg-main")?,
            s3: name("MUSTER_SHOW_S3", "files")?,
            app: name("MUSTER_SHOW_APP", "hello")?,
            mariadb: name("MUSTER_SHOW_MARIADB", "shop")?,
            hosts,
            dbnet: text("MUSTER_SHOW_DBNET", "172.31.10.0/24"),
            stornet: text("MUSTER_SHOW_STORNET", "172.31.30.0/24"),
            proxynet: text("MUSTER_SHOW_PROXYNET", "172.30.0.0/24"),
            port: text("MUSTER_SHOW_PORT", "7400").parse().context("MUSTER_SHOW_PORT is not a port")?,
            cache: PathBuf::from(text("MUSTER_CACHE", "/var/cache/muster")),
        })
    }
}
