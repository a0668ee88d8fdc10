//! `muster explain` and `muster whatif`: why something is as it is, and what a loss would do.

use anyhow::Result;
use muster_model::ids::Name;
use muster_model::view::{ExplainView, WhatIfView};
use muster_proto::control::{ExplainRequest, WhatIfRequest};

use crate::app::App;
use crate::args::WhatIfCommand;
use crate::client::{Client, PATIENCE, decode};
use crate::exit::Exit;
use crate::pages;

pub async fn run(app: &App, about: &Name) -> Result<Exit> {
    let view = fetch(&app.client()?, about).await?;
    if app.console.is_json() {
        app.console.json(&view)?;
    } else {
        app.console.say(pages::explanation(&view, app.console.paint))?;
    }
    Ok(Exit::Ok)
}

/// What is known about a service or a host.
pub async fn fetch(client: &Client, about: &Name) -> Result<ExplainView> {
    let request = ExplainRequest { about: about.to_string() };
    let view = client.call(PATIENCE, async |mut control| control.explain(request.clone()).await).await?;
    decode(&view)
}

pub async fn what_if(app: &App, command: WhatIfCommand) -> Result<Exit> {
    let texts = |names: Vec<Name>| names.iter().map(Name::to_string).collect();
    let request = match command {
        WhatIfCommand::Host { event: _, hosts } => {
            WhatIfRequest { hosts: texts(hosts), ..WhatIfRequest::default() }
        }
        WhatIfCommand::Zone { event: _, zone } => WhatIfRequest { zone, ..WhatIfRequest::default() },
        WhatIfCommand::Coordinator { event: _, coordinators } => {
            WhatIfRequest { coordinators, ..WhatIfRequest::default() }
        }
    };
    let view =
        app.client()?.call(PATIENCE, async |mut control| control.what_if(request.clone()).await).await?;
    let view: WhatIfView = decode(&view)?;
    if app.console.is_json() {
        app.console.json(&view)?;
    } else {
        app.console.say(pages::losses(&view, app.console.paint))?;
    }
    Ok(Exit::Ok)
}
