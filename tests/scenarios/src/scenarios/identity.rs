//! Tokens and certificates that are expired, reused, forged or of the wrong role: refused, and said in the audit log.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use muster_testbed::Host;
use serde_json::{Value, json};

use crate::clock::wait;
use crate::platform::{Platform, exec};

/// Tries each from a host of the platform.
pub fn identity(platform: &Platform) -> Result<Value> {
    let host = platform.hosts()?.into_iter().next().context("no host")?;
    let good = token(platform, "host", "15m")?;
    let mut refused = Vec::new();
    let mut must_refuse = |what: &str, token: &str, says: &str| -> Result<()> {
        let error = join(platform, &host, token).err().with_context(|| format!("{what}: was accepted"))?;
        let text = format!("{error:#}");
        ensure!(text.contains(says), "{what}: refused, but without `{says}`: {text}");
        refused.push(what.to_owned());
        Ok(())
    };
    join(platform, &host, &good).context("a good token")?;
    must_refuse("reused", &good, "used already")?;
    must_refuse("forged secret", &forged(&good)?, "not known")?;
    must_refuse("another platform's CA", &other_ca(&good)?, "")?;
    must_refuse("malformed", "mt1.h.x", "token")?;
    must_refuse("of a coordinator", &token(platform, "coordinator", "15m")?, "coordinator")?;
    let short = token(platform, "host", "1s")?;
    std::thread::sleep(Duration::from_millis(1_500));
    must_refuse("expired", &short, "expired")?;
    let audit = wait("refusals in the audit log", Duration::from_secs(10), || {
        let audit = platform.cli.run(&["audit", "--tail", "60"])?;
        ensure!(audit.contains("used already") && audit.contains("expired"), "the audit log says {audit}");
        Ok(audit)
    })?;
    // An agent's certificate may not speak as an operator: the CLI with a host's identity.
    let wrong_role = wrong_role(platform, &host)?;
    Ok(json!({ "refused": refused, "audit_lines": audit.lines().count(), "wrong_role": wrong_role }))
}

fn token(platform: &Platform, role: &str, life: &str) -> Result<String> {
    let answer: Value = platform.cli.json(&["token", role, "--life", life])?;
    Ok(answer["token"].as_str().context("no token")?.to_owned())
}

/// Joins under a state directory of its own, which is thrown away.
fn join(platform: &Platform, host: &Host, token: &str) -> Result<()> {
    let dir = format!("/var/lib/muster/try-{}", crate::clock::now_ms());
    let coordinator = format!("{}:{}", host.address(), platform.settings.port);
    // A name per try: the first one stays a host that never connects, and a second one must not clash with it.
    let name = format!("try-{}", crate::clock::now_ms());
    let words = [
        "muster-agent",
        "join",
        "--state-dir",
        &dir,
        "--token",
        token,
        "--coordinator",
        &coordinator,
        "--advertise",
        "203.0.113.9",
        "--name",
        &name,
    ];
    let result = exec(host, &words).map(drop);
    host.exec(&["rm", "-rf", &dir])?;
    result
}

fn parts(token: &str) -> Result<Vec<&str>> {
    let parts: Vec<&str> = token.split('.').collect();
    ensure!(parts.len() == 4, "a token of another form");
    Ok(parts)
}

fn forged(token: &str) -> Result<String> {
    let parts = parts(token)?;
    Ok([parts[0], parts[1], parts[2], &"5".repeat(parts[3].len())].join("."))
}

fn other_ca(token: &str) -> Result<String> {
    let parts = parts(token)?;
    Ok([parts[0], parts[1], &"7".repeat(parts[2].len()), parts[3]].join("."))
}

/// The agent's own key and certificate, put into an operator's context.
fn wrong_role(platform: &Platform, host: &Host) -> Result<String> {
    let identity = "/var/lib/muster/agent";
    let find = |what: &str| {
        exec(host, &["sh", "-c", &format!("grep -rl '{what}' {identity} | head -n 1 | xargs cat")])
    };
    let (key, certificate) = (
        find("BEGIN PRIVATE KEY")?,
        exec(host, &["sh", "-c", &format!("cat {identity}/identity/certificate.pem")])?,
    );
    let dir = &platform.testbed.config().dir;
    let mut context: Value =
        serde_json::from_str(&std::fs::read_to_string(dir.join("operator.context.json"))?)?;
    context["key"] = json!(key);
    context["certificate"] = json!(certificate);
    let path = dir.join("agent-as-operator.json");
    std::fs::write(&path, serde_json::to_vec(&context)?)?;
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let program = platform.testbed.config().bin_dir.join("muster");
    let out = crate::cli::Cli::new(&program, &path).output(&["status"])?;
    std::fs::remove_file(&path)?;
    ensure!(!out.status.success(), "an agent's certificate read the platform's status");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    ensure!(said.contains("may not call"), "refused, but without a reason: {said}");
    Ok(said.lines().next().unwrap_or_default().to_owned())
}
