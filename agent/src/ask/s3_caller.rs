//! Signed requests to one S3 server, as one of its users.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use muster_model::plan::S3Ask;
use muster_runtime::clock::SystemClock;
use muster_runtime::secret::Secret;

use super::Target;
use super::http::send;

/// What servers say that were told no region.
const REGION: &str = "us-east-1";
/// Largest answer that is read: the status of a large deployment.
const BODY_MAX: usize = 1 << 20;
/// Longest reason that is passed on, in characters.
const REASON_MAX: usize = 300;

/// Who asks which server.
pub(super) struct Caller {
    pub(super) address: SocketAddr,
    user: String,
    password: Secret<Vec<u8>>,
    limit: Duration,
}

impl Caller {
    pub(super) fn new(target: &Target, ask: &S3Ask, limit: Duration) -> Result<Self, String> {
        let password = match &ask.secret {
            Some(name) => {
                let secret =
                    target.secrets.get(name).ok_or_else(|| format!("secret {name} has not arrived"))?;
                Secret::new(secret.expose().clone())
            }
            None => Secret::new(ask.user.clone().into_bytes()),
        };
        Ok(Self { address: target.at(None, ask.port)?, user: ask.user.clone(), password, limit })
    }

    pub(super) async fn call(
        &self,
        method: &str,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(u16, Vec<u8>), String> {
        self.call_up_to(method, path, body, BODY_MAX).await
    }

    /// The same with another largest answer, in bytes.
    pub(super) async fn call_up_to(
        &self,
        method: &str,
        path: &str,
        body: Vec<u8>,
        answer_max: usize,
    ) -> Result<(u16, Vec<u8>), String> {
        let host = self.address.to_string();
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &host)
            .body(Full::new(Bytes::from(body.clone())))
            .map_err(|error| format!("request: {error}"))?;
        let password = String::from_utf8_lossy(self.password.expose()).into_owned();
        let identity = Credentials::new(self.user.as_str(), password, None, None, "muster").into();
        let mut settings = SigningSettings::default();
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(REGION)
            .name("s3")
            .time(now())
            .settings(settings)
            .build()
            .map_err(|error| error.to_string())?
            .into();
        let url = format!("http://{host}{path}");
        let headers = std::iter::once(("host", host.as_str()));
        let signable = SignableRequest::new(method, url, headers, SignableBody::Bytes(&body))
            .map_err(|error| error.to_string())?;
        let signed = sign(signable, &parameters).map_err(|error| error.to_string())?;
        signed.into_parts().0.apply_to_request_http1x(&mut request);
        send(self.address, request, self.limit, answer_max).await
    }

    /// The same, where anything but 2xx is an error that begins with what was tried.
    pub(super) async fn must(&self, method: &str, path: &str, body: Vec<u8>) -> Result<Vec<u8>, String> {
        match self.call(method, path, body).await {
            Ok((code, body)) if (200..300).contains(&code) => Ok(body),
            Ok((code, body)) => Err(format!("{method}: {code} {}", reason(&body))),
            Err(error) => Err(format!("{method}: {error}")),
        }
    }
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(SystemClock::shared().now_ms())
}

/// The code of an S3 error, or the beginning of whatever was answered.
pub(super) fn reason(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
    code.map_or(&*text, |(code, _)| code).chars().take(REASON_MAX).collect()
}
