//! `muster status SERVICE`: everything about one service on one page, and `muster ps`.

use muster_model::time::Timestamp;
use muster_model::view::{MemberView, PlatformView, ServiceView};

use super::{operation_word, section, tone_of};
use crate::age::age;
use crate::output::{Paint, Table, Tone, clean};

/// The page of one service; its child services' members follow its own.
#[must_use]
pub fn service(view: &PlatformView, one: &ServiceView, paint: Paint) -> String {
    let mut text = format!(
        "{}   {}   {}   revision {}\n",
        paint.tone(Tone::Strong, &format!("service {}", one.name)),
        one.kind,
        paint.tone(tone_of(one.health.word), &one.health.word.to_string()),
        one.revision
    );
    for reason in &one.health.reasons {
        text.push_str(&format!("  {}\n", paint.tone(Tone::Warn, &clean(reason))));
    }
    text.push('\n');
    text.push_str(&members(&one.members, view.at, paint));
    for child in view.services.iter().filter(|child| child.owner.as_ref() == Some(&one.name)) {
        let word = paint.tone(tone_of(child.health.word), &child.health.word.to_string());
        text.push_str(&format!(
            "\n{}   {}   {word}\n",
            paint.tone(Tone::Strong, child.name.as_str()),
            child.kind
        ));
        text.push_str(&members(&child.members, view.at, paint));
    }
    section(&mut text, paint, "State", one.details.iter().map(|line| clean(line)));
    let endpoints = one.endpoints.iter().flat_map(|(role, all)| {
        let head = format!("{role:<6} ");
        all.iter().map(move |url| format!("{head}{}", without_password(url)))
    });
    section(
        &mut text,
        paint,
        "Endpoints (`muster conn` prints them with passwords)",
        endpoints.collect::<Vec<_>>(),
    );
    section(&mut text, paint, "Promises", one.promises.iter().map(|promise| clean(promise)));
    let operation = one.operation.and_then(|id| view.operations.iter().find(|operation| operation.id == id));
    if let Some(running) = operation {
        let mut lines = vec![format!(
            "{} {} {}: {}",
            running.kind,
            running.id,
            operation_word(running.state),
            clean(&running.step)
        )];
        lines.extend(running.remedy.as_ref().map(|remedy| format!("to do: {}", clean(remedy))));
        section(&mut text, paint, "Operation", lines);
    }
    text
}

/// `${secret:NAME}` stands where a password goes.
fn without_password(url: &str) -> String {
    let mut parts = url.split("${secret:");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str("***");
        text.push_str(part.split_once('}').map_or("", |(_, rest)| rest));
    }
    clean(&text)
}

/// A table of members.
#[must_use]
pub fn members(all: &[MemberView], now: Timestamp, paint: Paint) -> String {
    let mut table =
        Table::new(&["SLOT", "HOST", "STATE", "ROLE", "READY", "LAG/DETAIL", "REV", "RESTARTS", "SINCE"]);
    for member in all {
        let tone = if member.ready { Tone::Plain } else { Tone::Warn };
        table.row(
            tone,
            [
                member.slot.to_string(),
                member.host.to_string(),
                member.state.clone(),
                member.role.clone().unwrap_or_default(),
                if member.ready { "yes" } else { "no" }.to_owned(),
                member.detail.clone(),
                member.revision.to_string(),
                member.restarts.to_string(),
                member.running_since.map(|since| age(now, since)).unwrap_or_default(),
            ],
        );
    }
    table.render(paint)
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        let url = "postgresql://app:${secret:pg-main.app}@10.0.0.1:5000/app";
        assert_eq!(without_password(url), "postgresql://app:***@10.0.0.1:5000/app");
    }

    #[test]
    fn the_page_of_a_database() {
        let view = sample::platform();
        let expected = "\
service pg-main   postgres   degraded   revision 4
  pg-main/3 on h3: host is down

SLOT        HOST   STATE     ROLE           READY   LAG/DETAIL   REV   RESTARTS   SINCE
pg-main/1   h1     running   leader         yes     timeline 3   4     0          5m
pg-main/2   h2     running   sync_standby   yes     -            4     1          5m
pg-main/3   h3     unknown   -              no      -            4     0          -

pg-main-etcd   etcd   degraded
SLOT             HOST   STATE     ROLE   READY   LAG/DETAIL   REV   RESTARTS   SINCE
pg-main-etcd/1   h1     running   -      yes     -            1     0          5m
pg-main-etcd/2   h2     running   -      yes     -            1     0          5m
pg-main-etcd/3   h3     unknown   -      no      -            1     0          -

State
  version 15.20
  backup: none yet

Endpoints (`muster conn` prints them with passwords)
  read   postgresql://app@172.31.10.9:5001/app
  write  postgresql://app@172.31.10.9:5000/app

Promises
  survives the loss of any one host

Operation
  update 9 needs operator: pg-main/2 is not ready after 5m
  to do: muster op continue 9, or muster op cancel 9
";
        assert_eq!(service(&view, &view.services[0], Paint::new(false)), expected);
    }
}
