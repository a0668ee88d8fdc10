//! S3: one object per item, its content made of the item's value and read back byte by byte. One request after the other.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail, ensure};
use async_trait::async_trait;
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use bytes::Bytes;
use futures::future::join_all;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use super::{Engine, Item, Outcome, Session};
use crate::config::Config;
use crate::secured;

const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_000);
const WRITE_TIMEOUT: Duration = Duration::from_millis(2_000);
const READ_TIMEOUT: Duration = Duration::from_secs(10);
const REGION: &str = "us-east-1";
/// Size of an object in bytes.
const OBJECT: usize = 16 * 1024;
/// Connections that read back.
const READERS: usize = 16;
/// A server that was just started may deny an object that is there: it is asked this often before that is believed.
const READS: usize = 5;
const BETWEEN_READS: Duration = Duration::from_secs(1);

/// The servers of all connection strings: `http://USER:KEY@HOST:PORT[,HOST:PORT...]/BUCKET`, or `https://` with
/// `ca_bundle=FILE`.
pub fn servers(config: &Config) -> anyhow::Result<Vec<Box<dyn Engine>>> {
    let mut servers: Vec<Box<dyn Engine>> = Vec::new();
    for url in &config.endpoints {
        let (url, ca) = secured::take(url, "ca_bundle");
        let (scheme, rest) = url.split_once("://").context("a connection string is no URL")?;
        let tls = match (scheme, ca) {
            ("http", None) => None,
            ("https", Some(ca)) => Some(TlsConnector::from(Arc::new(secured::believing(Path::new(&ca))?))),
            _ => bail!("TLS is spoken with https:// and ca_bundle, or not at all"),
        };
        let (login, rest) =
            rest.split_once('@').context("a connection string is not http://USER:KEY@HOSTS/BUCKET")?;
        let (user, key) = login.split_once(':').context("a connection string has no key")?;
        let (hosts, bucket) = rest.split_once('/').context("a connection string has no bucket")?;
        let bucket = bucket.trim_end_matches('?');
        for host in hosts.split(',') {
            let good = host
                .rsplit_once(':')
                .is_some_and(|(name, port)| !name.is_empty() && port.parse::<u16>().is_ok());
            ensure!(good, "a connection string has no host and port where one belongs");
            servers.push(Box::new(Server {
                address: host.to_owned(),
                user: user.to_owned(),
                key: key.to_owned(),
                bucket: bucket.to_owned(),
                tls: tls.clone(),
            }));
        }
    }
    Ok(servers)
}

/// One server, with a login and a bucket.
#[derive(Clone)]
struct Server {
    address: String,
    user: String,
    key: String,
    bucket: String,
    /// Absent = without TLS.
    tls: Option<TlsConnector>,
}

impl Server {
    async fn open(&self) -> Result<Connection, String> {
        let connect = async {
            let stream = TcpStream::connect(&self.address).await.map_err(|error| error.to_string())?;
            stream.set_nodelay(true).map_err(|error| error.to_string())?;
            match &self.tls {
                None => spoken(stream).await,
                Some(tls) => {
                    let host = self.address.rsplit_once(':').map_or("", |(host, _)| host).to_owned();
                    let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
                    spoken(tls.connect(name, stream).await.map_err(|error| error.to_string())?).await
                }
            }
        };
        let (sender, wire) = timeout(CONNECT_TIMEOUT, connect)
            .await
            .map_err(|_| format!("not connected within {CONNECT_TIMEOUT:?}"))??;
        Ok(Connection { server: self.clone(), sender, wire })
    }
}

/// HTTP on an open connection, over TLS or not; the task ends with it.
async fn spoken<S>(stream: S) -> Result<(SendRequest<Full<Bytes>>, JoinHandle<()>), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, wire) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    #[expect(clippy::disallowed_methods, reason = "lives as long as the connection that it moves")]
    let wire = tokio::spawn(async move { drop(wire.await) });
    Ok((sender, wire))
}

#[async_trait(?Send)]
impl Engine for Server {
    fn label(&self) -> &str {
        &self.address
    }

    async fn connect(&self) -> Result<Box<dyn Session>, String> {
        Ok(Box::new(self.open().await?))
    }
}

/// An open connection.
struct Connection {
    server: Server,
    sender: SendRequest<Full<Bytes>>,
    wire: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.wire.abort();
    }
}

impl Connection {
    async fn call(&mut self, method: &str, key: &str, body: Vec<u8>) -> Result<(u16, Vec<u8>), String> {
        let path = format!("/{}/{key}", self.server.bucket);
        let request = self.signed(method, &path, body)?;
        self.sender.ready().await.map_err(|error| error.to_string())?;
        let response = self.sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
        Ok((status, body.to_bytes().to_vec()))
    }

    fn signed(&self, method: &str, path: &str, body: Vec<u8>) -> Result<Request<Full<Bytes>>, String> {
        let Server { address, user, key, tls, .. } = &self.server;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let identity = Credentials::new(user, key, None, None, "writer").into();
        let mut settings = SigningSettings::default();
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(REGION)
            .name("s3")
            .time(SystemTime::now())
            .settings(settings)
            .build()
            .map_err(|error| error.to_string())?
            .into();
        let url = format!("{scheme}://{address}{path}");
        let headers = std::iter::once(("host", address.as_str()));
        let signable = SignableRequest::new(method, url, headers, SignableBody::Bytes(&body))
            .map_err(|error| error.to_string())?;
        let signed = sign(signable, &parameters).map_err(|error| error.to_string())?;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", address)
            .body(Full::new(Bytes::from(body.clone())))
            .map_err(|error| error.to_string())?;
        signed.into_parts().0.apply_to_request_http1x(&mut request);
        Ok(request)
    }
}

/// The content of an item's object.
fn content(item: &Item) -> Vec<u8> {
    item.value.bytes().cycle().take(OBJECT).collect()
}

/// One item as it is there now: its value, nothing, or why that is not known.
async fn read(server: &Server, item: &Item) -> Result<Option<String>, String> {
    let ask = async { server.open().await?.call("GET", &item.key, Vec::new()).await };
    match timeout(READ_TIMEOUT, ask).await {
        Ok(Ok((200, body))) if body == content(item) => Ok(Some(item.value.clone())),
        Ok(Ok((200, body))) => Ok(Some(format!("{} bytes of something else", body.len()))),
        Ok(Ok((404, _))) => Ok(None),
        Ok(Ok((status, body))) => Err(format!("{}: {}", item.key, told(status, &body))),
        Ok(Err(error)) => Err(format!("{}: {error}", item.key)),
        Err(_) => Err(format!("{}: not read within {READ_TIMEOUT:?}", item.key)),
    }
}

/// What is there of some items, by their sequence number; and those that are not, or not surely.
type Found = (BTreeMap<u64, String>, Vec<(Item, Option<String>)>);

/// All items once, over several connections.
async fn read_all(server: &Server, items: &[Item]) -> Found {
    let share = items.len().div_ceil(READERS).max(1);
    let reader = |items: &'_ [Item]| {
        let items = items.to_vec();
        async move {
            let (mut found, mut rest) = (BTreeMap::new(), Vec::new());
            for item in items {
                match read(server, &item).await {
                    Ok(Some(value)) => drop(found.insert(item.seq, value)),
                    Ok(None) => rest.push((item, None)),
                    Err(why) => rest.push((item, Some(why))),
                }
            }
            (found, rest)
        }
    };
    let mut all: Found = Default::default();
    for (found, rest) in join_all(items.chunks(share).map(reader)).await {
        all.0.extend(found);
        all.1.extend(rest);
    }
    all
}

#[async_trait(?Send)]
impl Session for Connection {
    async fn write(&mut self, _run: &str, item: &Item) -> Outcome {
        match timeout(WRITE_TIMEOUT, self.call("PUT", &item.key, content(item))).await {
            Err(_) => Outcome::Unknown(format!("no answer within {WRITE_TIMEOUT:?}")),
            Ok(Err(why)) => Outcome::Unknown(why),
            Ok(Ok((200, _))) => Outcome::Acked,
            Ok(Ok((status, body))) => Outcome::Unknown(told(status, &body)),
        }
    }

    /// All are asked for together and then again: one after the other, a thousand writes that never happened would take an hour.
    async fn present(&mut self, _run: &str, items: &[Item]) -> Result<BTreeMap<u64, String>, String> {
        let (mut present, mut rest) = read_all(&self.server, items).await;
        for _ in 1..READS {
            if rest.is_empty() {
                break;
            }
            sleep(BETWEEN_READS).await;
            let again: Vec<Item> = rest.into_iter().map(|(item, _)| item).collect();
            let (found, missing) = read_all(&self.server, &again).await;
            present.extend(found);
            rest = missing;
        }
        match rest.into_iter().find_map(|(_, why)| why) {
            Some(why) => Err(why),
            None => Ok(present),
        }
    }
}

/// Status and code of an S3 error.
fn told(status: u16, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
    let code = code.map_or_else(String::new, |(code, _)| code.chars().take(100).collect());
    format!("{status} {code}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_string_can_name_several_servers() {
        let config = |url: &str| Config {
            engine: "s3".to_owned(),
            endpoints: vec![url.to_owned()],
            run: "r".to_owned(),
            ledger: "/data/ledger".into(),
            listen: None,
            writes_per_second: 20,
            any_server: false,
        };
        let named = servers(&config("http://app:k@10.0.0.1:9000,10.0.0.2:9000/photos")).unwrap();
        let labels: Vec<&str> = named.iter().map(|server| server.label()).collect();
        assert_eq!(labels, ["10.0.0.1:9000", "10.0.0.2:9000"]);
        for wrong in [
            "http://10.0.0.1:9000/b",
            "http://app@10.0.0.1:9000/b",
            "http://a:k@10.0.0.1/b",
            "ftp://x",
            "https://a:k@10.0.0.1:1/b",
        ] {
            assert!(servers(&config(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn content_is_derived_from_the_item() {
        let item = |value: &str| Item { seq: 1, key: "r/1".to_owned(), value: value.to_owned() };
        assert_eq!(content(&item("ab")).len(), OBJECT);
        assert_ne!(content(&item("ab")), content(&item("ac")));
    }
}
