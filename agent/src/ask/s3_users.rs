//! The archive in which an S3 server takes users with their policies. It holds their secret keys, so it exists in memory only.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};

use muster_model::plan::S3User;
use serde_json::{Value, json};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::files::SecretMap;

/// What the server wants to read as the time of a mapping; it keeps it and decides nothing by it.
const UPDATED_AT: &str = "2026-01-01T00:00:00Z";

/// Users and what they may do. Policies themselves are made beforehand.
pub(super) fn archive(users: &[S3User], secrets: &SecretMap) -> Result<Vec<u8>, String> {
    let mut logins: BTreeMap<&str, Value> = BTreeMap::new();
    let mut mappings: BTreeMap<&str, Value> = BTreeMap::new();
    for user in users {
        let missing = || format!("secret {} has not arrived", user.secret);
        let secret = secrets.get(&user.secret).ok_or_else(missing)?;
        let key = String::from_utf8_lossy(secret.expose());
        logins.insert(&user.name, json!({ "secretKey": key, "status": "enabled" }));
        let mapping = json!({ "version": 0, "policy": user.policy, "updatedAt": UPDATED_AT });
        mappings.insert(&user.name, mapping);
    }
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in [("users.json", json!(logins)), ("user_mappings.json", json!(mappings))] {
        let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        archive.start_file(format!("iam-assets/{name}"), options).map_err(|error| error.to_string())?;
        archive.write_all(content.to_string().as_bytes()).map_err(|error| error.to_string())?;
    }
    archive.finish().map(Cursor::into_inner).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use muster_runtime::secret::Secret;

    use super::*;

    #[test]
    fn keys_come_from_secrets_and_a_missing_one_is_named() {
        let user =
            S3User { name: "app".to_owned(), secret: "s3/user-app".to_owned(), policy: "p".to_owned() };
        let secrets = SecretMap::from([("s3/user-app".to_owned(), Secret::new(b"key".to_vec()))]);
        let text =
            String::from_utf8_lossy(&archive(std::slice::from_ref(&user), &secrets).unwrap()).into_owned();
        assert!(text.contains(r#"{"app":{"secretKey":"key","status":"enabled"}}"#), "{text}");
        assert!(text.contains("iam-assets/user_mappings.json"));
        assert!(archive(&[user], &SecretMap::new()).unwrap_err().contains("s3/user-app"));
    }
}
