//! One HTTP/1.1 request over a connection of its own, from the host. Reads no more than it may answer.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use muster_model::observed::Answer;
use muster_model::plan::HttpAsk;
use muster_runtime::net;
use muster_runtime::secret::Secret;

use super::Target;
use crate::files::fill_in;

/// Longest body that is read; a guard may look further than what is reported.
const BODY_MAX: usize = 256 * 1024;

/// Asks as the plan says.
pub(super) async fn ask(target: &Target, ask: &HttpAsk, limit: Duration) -> Result<Answer, String> {
    let address = target.at(ask.address, ask.port)?;
    let missing = |name: String| format!("secret {name} has not arrived");
    let body = fill_in(ask.body.as_deref().unwrap_or_default(), &target.secrets).map_err(missing)?;
    let request = |login: Option<&Secret<String>>| {
        let mut request = Request::builder().method(ask.method.as_str()).uri(&ask.path);
        request = request.header("host", address.to_string());
        if ask.body.is_some() {
            request = request.header("content-type", "application/json");
        }
        if let Some(login) = login {
            request = request.header("authorization", login.expose());
        }
        let body = Full::new(Bytes::copy_from_slice(body.expose()));
        request.body(body).map_err(|error| format!("request: {error}"))
    };
    let (present, previous) = match &ask.basic_auth {
        Some((user, secret)) => {
            let password = target.secrets.get(secret).ok_or_else(|| missing(secret.clone()))?;
            (Some(login(user, password)), target.previous(secret).map(|password| login(user, password)))
        }
        None => (None, None),
    };
    let (mut code, mut body) = send(address, request(present.as_ref())?, limit, BODY_MAX).await?;
    // The server has not been given the new password yet.
    if let (401, Some(previous)) = (code, &previous) {
        (code, body) = send(address, request(Some(previous))?, limit, BODY_MAX).await?;
    }
    Ok(Answer {
        ok: (200..300).contains(&code),
        code: Some(i32::from(code)),
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}

fn login(user: &str, password: &Secret<Vec<u8>>) -> Secret<String> {
    let both = Secret::new([user.as_bytes(), b":", password.expose()].concat());
    Secret::new(format!("Basic {}", STANDARD.encode(both.expose())))
}

/// Sends one request; status, and at most `max` bytes of the body.
pub(super) async fn send(
    address: SocketAddr,
    request: Request<Full<Bytes>>,
    limit: Duration,
    max: usize,
) -> Result<(u16, Vec<u8>), String> {
    let stream = net::connect(&address.to_string(), limit).await.map_err(|e| format!("{address}: {e}"))?;
    let handshake = hyper::client::conn::http1::Builder::new()
        .max_buf_size(16 * 1024)
        .handshake(TokioIo::new(stream))
        .await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let code = response.status().as_u16();
        let mut body = response.into_body();
        let mut kept = Vec::new();
        while kept.len() < max {
            let Some(frame) = body.frame().await else { break };
            let frame = frame.map_err(|error| error.to_string())?;
            if let Some(data) = frame.data_ref() {
                kept.extend_from_slice(&data[..data.len().min(max - kept.len())]);
            }
        }
        Ok((code, kept))
    };
    tokio::pin!(exchange);
    // The connection makes the exchange progress; when it ends first, the exchange says why.
    tokio::select! {
        done = &mut exchange => done,
        _ = connection => exchange.await,
    }
}
