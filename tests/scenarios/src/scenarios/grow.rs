//! PostgreSQL's day two: a parameter that needs a restart, declared extensions, a replica that cannot follow any more,
//! and an update that goes back by itself.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use muster_model::view::{MemberView, OperationState, OperationView};
use muster_testbed::Host;
use serde_json::{Value, json};

use super::network::container;
use super::postgres::spec_with;
use super::update::{judge_gaps, writer};
use crate::clock::wait;
use crate::platform::Platform;
use crate::run::Scenario;
use crate::specs;
use crate::writer::judge_losses;

const WHOLE: Duration = Duration::from_secs(180);

/// What this file shows.
pub const RESTART_ASKED: Scenario = Scenario {
    name: "postgres-restart-asked",
    what: "a parameter that needs a restart takes effect member by member; a declared extension is there",
    runs: 3,
    in_ci: false,
    medians: &[],
    act: restart_asked,
};

/// The log that a replica needs is gone.
pub const RECLONE: Scenario = Scenario {
    name: "postgres-reclone",
    what: "a replica whose log is gone on the leader copies it anew by itself",
    runs: 3,
    in_ci: false,
    medians: &[],
    act: reclone,
};

/// Nobody has to be there.
pub const ROLLS_BACK: Scenario = Scenario {
    name: "postgres-rolls-back",
    what: "with `on_failure: rollback` an image that never becomes healthy is taken back by itself",
    runs: 3,
    in_ci: false,
    medians: &[],
    act: rolls_back,
};

/// What the server itself answers, over its own socket.
fn ask(host: &Host, member: &MemberView, database: &str, query: &str) -> Result<String> {
    let id = container(host, member)?;
    let psql = "/usr/lib/postgresql/15/bin/psql";
    let words =
        ["exec", &id, psql, "-h", "/run/postgresql", "-U", "postgres", "-d", database, "-XtAc", query];
    Ok(host.docker(&words, Duration::from_secs(60))?.trim().to_owned())
}

fn judge(summary: &Value) -> Result<()> {
    judge_losses(summary, 200)?;
    judge_gaps(summary, 1)
}

/// Another number of connections each time; the engine says that it waits for a restart, and gets it.
fn restart_asked(platform: &Platform) -> Result<Value> {
    let service = platform.settings.service.as_str();
    let writer = writer(platform, "restart-asked")?;
    let (leader, host) = platform.leader(service)?;
    let before: u32 = ask(&host, &leader, "postgres", "show max_connections")?.parse()?;
    let wanted = before + 7;
    let more = format!(
        "    parameters: {{ max_connections: {wanted}, work_mem: 5MB }}\n    extensions: [{{ name: pg_trgm }}]\n"
    );
    let begin = Instant::now();
    platform.apply(&spec_with(platform, specs::IMAGE, &more)?)?;
    wait("the new number on every member", WHOLE, || {
        let now = platform.service(service)?;
        for member in &now.members {
            let host = platform.testbed.host(member.host.as_str())?;
            let number = ask(&host, member, "postgres", "show max_connections")?;
            ensure!(number == wanted.to_string(), "{number} on {}", member.host);
        }
        Ok(())
    })?;
    let took = begin.elapsed().as_secs_f64();
    platform.wait_healthy(service, WHOLE)?;
    let (leader, host) = platform.leader(service)?;
    let made = ask(&host, &leader, "app", "select count(*) from pg_extension where extname = 'pg_trgm'")?;
    ensure!(made == "1", "the extension is not there: {made}");
    ensure!(ask(&host, &leader, "app", "show work_mem")? == "5MB", "work_mem was not reloaded");
    sleep(Duration::from_secs(3));
    let summary = writer.finish()?;
    judge(&summary)?;
    Ok(json!({ "from": before, "to": wanted, "everywhere_after_s": took, "acked": summary["acked"],
        "acked_lost": summary["acked_lost_count"], "gaps": summary["gaps"] }))
}

/// Its host is away while the leader writes more than it keeps.
fn reclone(platform: &Platform) -> Result<Value> {
    let service = platform.settings.service.as_str();
    let more = "    parameters: { max_slot_wal_keep_size: 48MB, wal_keep_size: 16MB, max_wal_size: 64MB }\n";
    platform.apply(&spec_with(platform, specs::IMAGE, more)?)?;
    let now = platform.wait_healthy(service, WHOLE)?;
    let (leader, leaders) = platform.leader(service)?;
    let coordinator = platform.leading_coordinator()?;
    let away = |m: &&MemberView| m.slot != leader.slot && m.host.as_str() != coordinator.name();
    let lost = now.members.iter().find(away).context("this needs a replica on a host that leads nothing")?;
    let host = platform.testbed.host(lost.host.as_str())?;
    host.kill()?;
    let fill = "create table if not exists fill(x text); insert into fill select repeat(md5(i::text), 40) from generate_series(1, 60000) i; truncate fill; select pg_switch_wal(); checkpoint";
    let filled = (0..4).try_for_each(|_| {
        fill.split("; ").try_for_each(|query| ask(&leaders, &leader, "postgres", query).map(drop))
    });
    platform.testbed.start(host.name())?;
    filled?;
    let begin = Instant::now();
    let seen = wait("the replica copied anew", Duration::from_secs(420), || {
        let operations: Vec<OperationView> = platform.cli.json(&["op", "ls", "--all"])?;
        let found =
            operations.iter().find(|op| op.kind.contains("reclone") || op.step.contains("copies the leader"));
        found.cloned().context("no operation copies it anew")
    })?;
    let asked = begin.elapsed().as_secs_f64();
    platform.wait_healthy(service, WHOLE)?;
    platform.apply(&spec_with(platform, specs::IMAGE, "")?)?;
    platform.wait_healthy(service, WHOLE)?;
    Ok(json!({ "asked_after_s": asked, "healthy_after_s": begin.elapsed().as_secs_f64(), "said": seen.step }))
}

/// One member is touched, and it goes back to what it was.
fn rolls_back(platform: &Platform) -> Result<Value> {
    let service = platform.settings.service.as_str();
    let policy = |image| {
        let text = spec_with(platform, image, "")?;
        Ok::<_, anyhow::Error>(text.replace("update: {", "update: { on_failure: rollback,"))
    };
    platform.apply(&policy(specs::IMAGE)?)?;
    let writer = writer(platform, "rolls-back")?;
    let path = platform.write_spec("broken.yaml", &policy(specs::BROKEN)?)?;
    let begin = Instant::now();
    let out = platform.cli.output(&["--yes", "apply", &path.to_string_lossy()])?;
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    ensure!(out.status.code() == Some(4), "apply ended with {}: {said}", out.status);
    let operations: Vec<OperationView> = platform.cli.json(&["op", "ls", "--all"])?;
    let updates = operations.iter().filter(|op| op.service.as_str() == service && op.kind == "update");
    let last = updates.max_by_key(|op| op.id).context("no operation")?;
    ensure!(last.state == OperationState::RolledBack, "the operation is {:?}: {}", last.state, last.step);
    platform.wait_healthy(service, WHOLE)?;
    let took = begin.elapsed().as_secs_f64();
    sleep(Duration::from_secs(2));
    let summary = writer.finish()?;
    judge(&summary)?;
    platform.apply(&policy(specs::IMAGE)?)?;
    Ok(json!({ "back_after_s": took, "said": last.step, "exit": out.status.code(), "acked": summary["acked"],
        "acked_lost": summary["acked_lost_count"], "gaps": summary["gaps"] }))
}
