//! `muster net check`: the mesh as a matrix, host by host.

use std::collections::BTreeSet;

use anyhow::Result;
use muster_model::ids::Name;
use muster_model::link::{CellView, NetView};
use muster_proto::control::NetRequest;

use crate::app::App;
use crate::args::NetCommand;
use crate::client::{PATIENCE, decode};
use crate::exit::Exit;
use crate::output::{Paint, Table, Tone, clean};

pub async fn run(app: &App, command: NetCommand) -> Result<Exit> {
    let NetCommand::Check = command;
    let client = app.client()?;
    let reply = client.call(PATIENCE, async |mut c| c.net(NetRequest {}).await).await?;
    let net: NetView = decode(&reply)?;
    if app.console.is_json() {
        app.console.json(&net)?;
    } else {
        app.console.say(page(&net, app.console.paint))?;
    }
    Ok(if net.is_good() { Exit::Ok } else { Exit::Error })
}

/// A row for each host that measured, a column for each that was asked, and what is wrong below.
fn page(net: &NetView, paint: Paint) -> String {
    let cells = net.cells.iter().flat_map(|cell| [&cell.from, &cell.to]);
    let hosts: BTreeSet<&Name> = cells.chain(net.hosts.iter().map(|host| &host.host)).collect();
    let heads: Vec<&str> = ["FROM \\ TO"].into_iter().chain(hosts.iter().map(|name| name.as_str())).collect();
    let mut table = Table::new(&heads);
    for from in &hosts {
        let row: Vec<Option<&CellView>> = hosts
            .iter()
            .map(|to| net.cells.iter().find(|cell| cell.from == **from && cell.to == **to))
            .collect();
        let bad = row.iter().flatten().any(|cell| !cell.wrong.is_empty());
        let tone = if bad { Tone::Bad } else { Tone::Plain };
        table.row(tone, [from.to_string()].into_iter().chain(row.into_iter().map(word)));
    }
    let mut lines = vec![table.render(paint)];
    let mut wrong = |who: String, what: &str| {
        lines.push(paint.tone(Tone::Warn, &format!("{who}: {}", clean(what))));
    };
    for host in &net.hosts {
        wrong(host.host.to_string(), &host.wrong);
    }
    for cell in net.cells.iter().filter(|cell| !cell.wrong.is_empty()) {
        wrong(format!("{} -> {}", cell.from, cell.to), &cell.wrong);
    }
    if net.is_good() {
        lines.push("every host reaches every other one with full packets".to_owned());
    }
    lines.join("\n")
}

fn word(cell: Option<&CellView>) -> String {
    let Some(cell) = cell else { return "-".to_owned() };
    let Some(took) = cell.round_trip_us else { return "NO ANSWER".to_owned() };
    let mark = if cell.wrong.is_empty() { "" } else { " !" };
    format!("{}.{:02} ms{mark}", took / 1_000, took % 1_000 / 10)
}

#[cfg(test)]
mod tests {
    use muster_model::link::HostWrong;

    use super::*;

    fn cell(from: &str, to: &str, took: Option<u64>, wrong: &str) -> CellView {
        let name = |text: &str| Name::new(text).unwrap();
        let packet = took.map(|_| 1_370);
        CellView { from: name(from), to: name(to), round_trip_us: took, packet, wrong: wrong.to_owned() }
    }

    #[test]
    fn every_pair_has_its_cell_and_what_is_wrong_stands_below() {
        let host = HostWrong { host: Name::new("h2").unwrap(), wrong: "ip_forward".to_owned() };
        let net = NetView {
            cells: vec![cell("h1", "h2", Some(1_234), ""), cell("h2", "h1", None, "no answer")],
            hosts: vec![host],
        };
        let page = page(&net, Paint::new(false));
        let lines: Vec<String> =
            page.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            lines,
            [
                "FROM \\ TO h1 h2",
                "h1 - 1.23 ms",
                "h2 NO ANSWER -",
                "",
                "h2: ip_forward",
                "h2 -> h1: no answer"
            ]
        );
    }

    #[test]
    fn a_cell_that_answers_and_is_wrong_is_marked() {
        assert_eq!(word(Some(&cell("h1", "h2", Some(999), "slow"))), "0.99 ms !");
        assert_eq!(word(None), "-");
    }
}
