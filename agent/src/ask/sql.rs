//! One SQL statement over a connection of its own. No TLS yet: it never leaves the host's bridge.

use std::time::Duration;

use muster_model::observed::Answer;
use muster_model::plan::{SqlAsk, SqlEngine};
use muster_runtime::net;
use muster_runtime::secret::Secret;
use tokio_postgres::error::SqlState;
use tokio_postgres::{NoTls, SimpleQueryMessage};

use super::Target;

/// Asks; the first row comes back as a JSON array of texts.
pub(super) async fn ask(target: &Target, ask: &SqlAsk, limit: Duration) -> Result<Answer, String> {
    match ask.engine {
        SqlEngine::Postgres => postgres(target, ask, limit).await,
    }
}

async fn postgres(target: &Target, ask: &SqlAsk, limit: Duration) -> Result<Answer, String> {
    let missing = || format!("secret {} has not arrived", ask.secret);
    let password = target.secrets.get(&ask.secret).ok_or_else(missing)?;
    let address = target.at(None, ask.port)?;
    let login = async |password: &Secret<Vec<u8>>| {
        let mut config = tokio_postgres::Config::new();
        config.user(&ask.user).dbname(&ask.database).application_name("muster-agent");
        let stream =
            net::connect(&address.to_string(), limit).await.map_err(|e| format!("{address}: {e}"))?;
        match config.password(password.expose()).connect_raw(stream, NoTls).await {
            Ok(connected) => Ok(Ok(connected)),
            Err(error) if error.code() == Some(&SqlState::INVALID_PASSWORD) => Ok(Err(text(&error))),
            Err(error) => Err(text(&error)),
        }
    };
    let (client, connection) = match (login(password).await?, target.previous(&ask.secret)) {
        (Ok(connected), _) => connected,
        // The server has not been given the new one yet.
        (Err(_), Some(previous)) => login(previous).await??,
        (Err(refused), None) => return Err(refused),
    };
    let query = async {
        let rows = client.simple_query(&ask.statement).await.map_err(|error| text(&error))?;
        let row = rows.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let values = row.map(|row| (0..row.len()).map(|at| row.get(at)).collect::<Vec<_>>());
        Ok(Answer {
            ok: values.is_some(),
            code: None,
            body: values.map(|values| serde_json::json!(values).to_string()).unwrap_or_default(),
        })
    };
    tokio::pin!(query);
    tokio::select! {
        done = &mut query => done,
        _ = connection => query.await,
    }
}

/// The server's own words: the driver's `Display` is only "db error".
fn text(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(
        || {
            std::error::Error::source(error)
                .map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
        },
        |error| format!("{} {}", error.code().code(), error.message()),
    )
}
