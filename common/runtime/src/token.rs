//! Join tokens: `mt1.<c|h>.<CA digest>.<secret>`. Only the hash of the secret is ever stored.

use std::fmt;
use std::str::FromStr;

use crate::identity::Role;
use crate::keys::{CaDigest, Sha256Hex};
use crate::secret::Secret;

const VERSION: &str = "mt1";

/// What a token lets its holder become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// A coordinator.
    Coordinator,
    /// A host with an agent.
    Host,
}

impl TokenKind {
    /// The role that the joiner gets.
    #[must_use]
    pub const fn role(self) -> Role {
        match self {
            Self::Coordinator => Role::Coordinator,
            Self::Host => Role::Agent,
        }
    }
}

/// Why a text is not a join token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not the four parts.
    #[error("not a join token: expected mt1.<c|h>.<CA digest>.<secret>, as `muster token` prints it")]
    Form,
    /// From another version.
    #[error("join token of a version this program does not know")]
    Version,
    /// Neither coordinator nor host.
    #[error("join token for neither a coordinator (c) nor a host (h)")]
    Kind,
    /// A digest is cut or mistyped.
    #[error("join token is damaged: its CA digest is not 64 hex digits")]
    Digest,
    /// The secret is cut or mistyped.
    #[error("join token is damaged: its secret is not 64 hex digits")]
    Secret,
    /// For the other kind of joiner.
    #[error("this token lets a {got} join, not a {wanted}")]
    WrongKind {
        /// What it is for.
        got: Role,
        /// What is being joined.
        wanted: Role,
    },
}

/// A join token. No `Debug`, no `Display`: printing it is [`Self::reveal`].
#[derive(Clone)]
pub struct JoinToken {
    kind: TokenKind,
    ca: CaDigest,
    secret: Secret<[u8; 32]>,
}

impl JoinToken {
    /// A new token with 256 random bits.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn generate(kind: TokenKind, ca: CaDigest) -> std::io::Result<Self> {
        Ok(Self::with_secret(kind, ca, Secret::random()?))
    }

    /// A token with this secret, which nobody may be able to guess.
    #[must_use]
    pub const fn with_secret(kind: TokenKind, ca: CaDigest, secret: Secret<[u8; 32]>) -> Self {
        Self { kind, ca, secret }
    }

    /// The text for the operator.
    #[must_use]
    pub fn reveal(&self) -> Secret<String> {
        let kind = match self.kind {
            TokenKind::Coordinator => 'c',
            TokenKind::Host => 'h',
        };
        Secret::new(format!("{VERSION}.{kind}.{}.{}", self.ca, hex::encode(self.secret.expose())))
    }

    /// What is stored and compared: SHA-256 of kind and secret.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        let mut bytes = Secret::new(self.kind.role().as_str().as_bytes().to_vec());
        bytes = Secret::new([bytes.expose().as_slice(), self.secret.expose()].concat());
        TokenHash(Sha256Hex::of(bytes.expose()))
    }

    /// What it lets its holder become.
    #[must_use]
    pub const fn kind(&self) -> TokenKind {
        self.kind
    }

    /// The CA that the joiner must meet.
    #[must_use]
    pub const fn ca(&self) -> &CaDigest {
        &self.ca
    }

    /// Checks that the token is for this kind of joiner, before anything is sent.
    ///
    /// # Errors
    /// It is for the other kind.
    pub fn expect(self, wanted: TokenKind) -> Result<Self, TokenError> {
        if self.kind == wanted {
            Ok(self)
        } else {
            Err(TokenError::WrongKind { got: self.kind.role(), wanted: wanted.role() })
        }
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let mut parts = text.trim().split('.');
        let (Some(version), Some(kind), Some(ca), Some(secret), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::Form);
        };
        if version != VERSION {
            return Err(TokenError::Version);
        }
        let kind = match kind {
            "c" => TokenKind::Coordinator,
            "h" => TokenKind::Host,
            _ => return Err(TokenError::Kind),
        };
        let ca = ca.parse().map_err(|_| TokenError::Digest)?;
        // The digest's form is the secret's too: 32 bytes in lower-case hex, one spelling only.
        secret.parse::<Sha256Hex>().map_err(|_| TokenError::Secret)?;
        let mut bytes = [0_u8; 32];
        hex::decode_to_slice(secret, &mut bytes).map_err(|_| TokenError::Secret)?;
        Ok(Self { kind, ca, secret: Secret::new(bytes) })
    }
}

/// The stored form of a token. A 256-bit random secret needs no salt and no slow hash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenHash(Sha256Hex);

impl TokenHash {
    /// The text to store.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> JoinToken {
        JoinToken::generate(TokenKind::Host, Sha256Hex::of(b"ca")).unwrap()
    }

    #[test]
    fn text_round_trip() {
        let token = token();
        let read: JoinToken = token.reveal().expose().parse().unwrap();
        assert_eq!((read.kind(), read.ca(), read.hash()), (token.kind(), token.ca(), token.hash()));
        assert_ne!(super::tests::token().hash(), token.hash());
    }

    #[test]
    fn each_kind_of_damage_is_named() {
        let good = token().reveal().expose().clone();
        let parse = |text: &str| text.parse::<JoinToken>().err();
        assert_eq!(parse(""), Some(TokenError::Form));
        assert_eq!(parse(&format!("{good}.x")), Some(TokenError::Form));
        assert_eq!(parse(&good.replacen("mt1", "mt2", 1)), Some(TokenError::Version));
        assert_eq!(parse(&good.replacen(".h.", ".a.", 1)), Some(TokenError::Kind));
        assert_eq!(parse(&good.replacen(".h.", ".h.0", 1)), Some(TokenError::Digest));
        assert_eq!(parse(&good[..good.len() - 1]), Some(TokenError::Secret));
        assert_eq!(parse(&good.to_uppercase().replacen("MT1.H", "mt1.h", 1)), Some(TokenError::Digest));
    }

    #[test]
    fn changing_the_kind_changes_the_hash() {
        let host = token();
        let forged: JoinToken = host.reveal().expose().replacen(".h.", ".c.", 1).parse().unwrap();
        assert_ne!(forged.hash(), host.hash());
        assert!(host.expect(TokenKind::Coordinator).is_err());
    }
}
