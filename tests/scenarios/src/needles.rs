//! Secrets in every form in which they could lie about, and the search for all of them at once.

use std::collections::BTreeSet;
use std::io::Read;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

/// A shorter secret would be found by chance. Bytes.
const SHORTEST: usize = 12;
/// What begins the base64 of any private key in a PEM file says nothing about which key it is.
const KEY_PREFIX: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg";

/// Finds secrets, and says which; never prints one.
pub struct Needles {
    search: AhoCorasick,
    /// By number of the pattern: the secret's name and the form.
    of: Vec<(String, &'static str)>,
}

impl Needles {
    /// Named secrets; several may have one name (lines of a key).
    ///
    /// # Errors
    /// One is too short to be told from chance.
    pub fn new(secrets: &[(String, Vec<u8>)]) -> Result<Self> {
        let mut patterns = Vec::new();
        let mut of = Vec::new();
        for (name, secret) in secrets {
            ensure!(secret.len() >= SHORTEST, "{name} has only {} bytes", secret.len());
            for (form, bytes) in forms(secret) {
                patterns.push(bytes);
                of.push((name.clone(), form));
            }
        }
        let search = AhoCorasick::builder().kind(Some(AhoCorasickKind::DFA)).build(&patterns);
        Ok(Self { search: search.context("too many secrets")?, of })
    }

    /// How many forms of secrets are looked for.
    pub fn len(&self) -> usize {
        self.of.len()
    }

    /// What is in there, and how many bytes were read.
    ///
    /// # Errors
    /// It cannot be read to its end.
    pub fn within(&self, reader: impl Read) -> std::io::Result<(BTreeSet<(String, &'static str)>, u64)> {
        let mut counted = Counted { reader, bytes: 0 };
        let mut found = BTreeSet::new();
        for hit in self.search.stream_find_iter(&mut counted) {
            found.insert(self.of[hit?.pattern().as_usize()].clone());
        }
        Ok((found, counted.bytes))
    }
}

struct Counted<R> {
    reader: R,
    bytes: u64,
}

impl<R: Read> Read for &mut Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.bytes += count as u64;
        Ok(count)
    }
}

/// As it is, in hex, and in base64 at each of the three places that it can have in a longer text.
fn forms(secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut all = vec![
        ("plain", secret.to_vec()),
        ("hex", hex::encode(secret).into_bytes()),
        ("hex", hex::encode_upper(secret).into_bytes()),
    ];
    for before in 0..3 {
        let text = [&b"\0\0"[..before], secret].concat();
        // Characters that bits of a neighbour go into are left out at both ends.
        let (first, last) = ([0, 2, 3][before], text.len() * 8 / 6);
        for engine in [STANDARD, URL_SAFE] {
            all.push(("base64", engine.encode(&text).as_bytes()[first..last].to_vec()));
        }
    }
    all.sort();
    all.dedup();
    all
}

/// What of a stored secret is looked for: a password as it is; of PEM text each line of a private key, since what
/// stands around it (certificates) is no secret.
pub fn parts(stored: &[u8]) -> Vec<Vec<u8>> {
    let text = String::from_utf8_lossy(stored);
    if !text.contains("-----BEGIN") {
        return vec![stored.trim_ascii().to_vec()];
    }
    let mut lines = Vec::new();
    let mut private = false;
    for line in text.lines() {
        if line.starts_with("-----") {
            private = line.contains("BEGIN") && line.contains("PRIVATE KEY");
        } else if private {
            let own = line.strip_prefix(KEY_PREFIX).unwrap_or(line);
            if own.len() >= SHORTEST {
                lines.push(own.as_bytes().to_vec());
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"s3cr3t-of-the-house";

    fn found(text: &[u8]) -> Vec<&'static str> {
        let needles = Needles::new(&[("one".to_owned(), SECRET.to_vec())]).unwrap();
        needles.within(text).unwrap().0.into_iter().map(|(_, form)| form).collect()
    }

    #[test]
    fn every_form_is_found_wherever_it_stands() {
        assert_eq!(found(&[b"password=", SECRET, b"\n"].concat()), ["plain"]);
        assert_eq!(found(hex::encode(SECRET).as_bytes()), ["hex"]);
        for before in ["", "a", "ab", "abc", "user:"] {
            for after in ["", "x", "xy", "\n"] {
                let text = [before.as_bytes(), SECRET, after.as_bytes()].concat();
                for engine in [STANDARD, URL_SAFE] {
                    assert_eq!(found(engine.encode(&text).as_bytes()), ["base64"], "{before} {after}");
                }
            }
        }
        assert!(found(b"s3cr3t-of-the-hous").is_empty());
    }

    #[test]
    fn what_lies_across_two_reads_is_found() {
        struct Drops(Vec<u8>);
        impl Read for Drops {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                let Some(byte) = self.0.pop() else { return Ok(0) };
                buffer[0] = byte;
                Ok(1)
            }
        }
        let needles = Needles::new(&[("one".to_owned(), SECRET.to_vec())]).unwrap();
        let text = [b"before ", SECRET].concat().into_iter().rev().collect();
        let (found, bytes) = needles.within(Drops(text)).unwrap();
        assert_eq!((found.len(), bytes), (1, 7 + SECRET.len() as u64));
    }

    #[test]
    fn of_keys_only_what_is_their_own() {
        let pem = format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n{KEY_PREFIX}abcdefghijklmnop\nshort\n-----END PRIVATE KEY-----\n",
            "C".repeat(64)
        );
        assert_eq!(parts(pem.as_bytes()), [b"abcdefghijklmnop".to_vec()]);
        assert_eq!(parts(b"hunter2\n"), [b"hunter2".to_vec()]);
        assert!(Needles::new(&[("short".to_owned(), b"hunter2".to_vec())]).is_err());
    }
}
