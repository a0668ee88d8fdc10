//! `muster token`: a single-use token, as the command that uses it.

use anyhow::Result;
use muster_model::spec::Span;
use muster_model::time::{Millis, Timestamp};
use muster_proto::control::{CreateTokenRequest, Token};
use serde_json::json;

use crate::age::utc;
use crate::app::App;
use crate::args::TokenRole;
use crate::client::PATIENCE;
use crate::exit::{Exit, Failure};

const PROGRAMS: &str = "/usr/local/lib/muster";

pub async fn run(app: &App, role: TokenRole, life: Span) -> Result<Exit> {
    let seconds = u32::try_from(life.0.0 / 1000).ok().filter(|seconds| *seconds > 0);
    let Some(life_seconds) = seconds else {
        return Err(Failure::new(Exit::Usage, format!("a token cannot live for {life}"))
            .hint("15m is usual")
            .into());
    };
    let client = app.client()?;
    let word = match role {
        TokenRole::Host => "host",
        TokenRole::Coordinator => "coordinator",
    };
    let request = CreateTokenRequest { caller: client.caller(), role: word.to_owned(), life_seconds };
    let token =
        client.call(PATIENCE, async |mut control| control.create_token(request.clone()).await).await?;
    let command = join_command(role, &token);
    if app.console.is_json() {
        let expires = Timestamp(token.expires_at_ms);
        app.console.json(&json!({ "token": token.token, "expires_at": expires, "command": command }))?;
        return Ok(Exit::Ok);
    }
    let left = Timestamp(token.expires_at_ms).since(Timestamp(client.now_ms()));
    let unit = if role == TokenRole::Host { "muster-mesh muster-agent" } else { "muster-coordinator" };
    app.console.say(format!(
        "On the new {word}, as root, with its own address for ADDRESS:\n\n  {command}\n  systemctl enable --now {unit}\n"
    ))?;
    app.console.note(format!(
        "Good for one {word} until {} UTC ({}).",
        utc(Timestamp(token.expires_at_ms)),
        Millis(left.0)
    ))?;
    Ok(Exit::Ok)
}

fn join_command(role: TokenRole, token: &Token) -> String {
    let (program, advertise) = match role {
        TokenRole::Host => ("muster-agent", "ADDRESS".to_owned()),
        TokenRole::Coordinator => ("muster-coordinator", format!("ADDRESS:{}", port(token))),
    };
    let coordinators: String = token.coordinators.iter().map(|one| format!(" --coordinator {one}")).collect();
    format!("{PROGRAMS}/{program} join{coordinators} --token {} --advertise {advertise}", token.token)
}

/// The port of the other coordinators, which is the new one's too.
fn port(token: &Token) -> &str {
    token.coordinators.first().and_then(|one| one.rsplit_once(':')).map_or("7400", |(_, port)| port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_names_every_coordinator() {
        let coordinators = vec!["10.0.0.1:7500".to_owned(), "10.0.0.2:7500".to_owned()];
        let token = Token { token: "mt1.h.x.y".to_owned(), expires_at_ms: 0, coordinators };
        assert_eq!(
            join_command(TokenRole::Host, &token),
            "/usr/local/lib/muster/muster-agent join --coordinator 10.0.0.1:7500 --coordinator 10.0.0.2:7500 --token \
             mt1.h.x.y --advertise ADDRESS"
        );
        assert!(join_command(TokenRole::Coordinator, &token).ends_with("--advertise ADDRESS:7500"));
    }
}
