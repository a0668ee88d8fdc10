//! Spec files of the scenarios, made of the run's own names and subnets.

use crate::settings::Settings;

/// An application with a page, on two networks, published nowhere.
#[must_use]
pub fn app(settings: &Settings, replicas: u32, text: &str) -> String {
    let (name, network) = (&settings.app, "proxy");
    format!(
        "  {name}:
    kind: app
    image: muster/busybox:1.35
    command: [httpd, -f, -v, -p, \"8080\", -h, /www]
    networks: [{network}]
    replicas: {replicas}
    files:
      - path: /www/index.html
        content: \"{text}\\n\"
    ports:
      - port: 8080
        audience: network
    probe:
      http: {{ port: 8080, path: /index.html }}
      every: 1s
      timeout: 1s
    update: {{ soak: 1s }}
    stop: {{ timeout: 1s }}
"
    )
}

/// A client of the database in its network: stays up, so that scenarios can try things from inside.
#[must_use]
pub fn client(name: &str, settings: &Settings, network: &str, replicas: u32, uses: bool) -> String {
    let uses =
        if uses { format!("    uses: [{{ service: {} }}]\n", settings.service) } else { String::new() };
    format!(
        "  {name}:
    kind: app
    image: muster/busybox:1.35
    command: [sleep, \"1000000\"]
    networks: [{network}]
    replicas: {replicas}
    stop: {{ timeout: 1s }}
{uses}"
    )
}

/// The PostgreSQL service with this image tag.
#[must_use]
pub fn postgres(settings: &Settings, image: &str, etcd_image: &str) -> String {
    let name = &settings.service;
    format!(
        "  {name}:
    kind: postgres
    mode: ha
    image: {image}
    etcd_image: {etcd_image}
    resources: {{ memory: 512MiB }}
    update: {{ deadline: 90s, soak: 2s }}
"
    )
}

/// The S3 service with this image, on three hosts, replaced soon when one is lost.
#[must_use]
pub fn s3(settings: &Settings, image: &str) -> String {
    let name = &settings.s3;
    format!(
        "  {name}:
    kind: s3
    image: {image}
    replace_after: 60s
    update: {{ deadline: 90s, soak: 2s }}
"
    )
}

/// A whole file around some services.
#[must_use]
pub fn platform(settings: &Settings, services: &[String]) -> String {
    format!(
        "muster: 1
platform: {}
networks:
  dbnet: {{ subnet: {} }}
  stornet: {{ subnet: {} }}
  proxy: {{ subnet: {}, egress: allow }}
services:
{}",
        settings.platform,
        settings.dbnet,
        settings.stornet,
        settings.proxynet,
        services.concat()
    )
}

/// Image of PostgreSQL in everyday use.
pub const IMAGE: &str = "muster/postgres:15";
/// The same with another digest.
pub const NEXT: &str = "muster/postgres:15-next";
/// One that never becomes healthy.
pub const BROKEN: &str = "muster/postgres:15-broken";
/// S3 in everyday use.
pub const S3_IMAGE: &str = "muster/minio:2026-02-12";
/// The same with another checksum.
pub const S3_NEXT: &str = "muster/minio:2026-02-12-next";
/// One that ends at once.
pub const S3_BROKEN: &str = "muster/minio:2026-02-12-broken";
