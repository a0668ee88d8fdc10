//! `node.json`: binds a log directory to one node of one platform, so that an empty directory
//! under a known certificate can never vote a second time. Must not hold any other state.

use serde::{Deserialize, Serialize};

use crate::disk::{Disk, read_all};
use crate::error::StartError;
use crate::history::NODE_FILE;
use crate::types::NodeId;

const NAME: &str = "node.json";
const TEMPORARY: &str = "node.json.tmp";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    format: u32,
    pub platform: String,
    pub node: NodeId,
    /// Random; every segment of the log carries it.
    pub log: String,
}

impl Identity {
    pub fn new(platform: &str, node: NodeId, log: [u8; 16]) -> Self {
        let log = format!("{:032x}", u128::from_be_bytes(log));
        Self { format: NODE_FILE, platform: platform.to_owned(), node, log }
    }

    /// The random id of the log.
    pub fn log_id(&self) -> Option<[u8; 16]> {
        u128::from_str_radix(&self.log, 16).ok().map(u128::to_be_bytes)
    }

    /// Reads the file; `None` when there is none.
    pub fn load(disk: &dyn Disk) -> Result<Option<Self>, StartError> {
        if !disk.list()?.iter().any(|name| name == NAME) {
            return Ok(None);
        }
        let bytes = read_all(&*disk.open(NAME)?)?;
        let corrupt = |what: String| StartError::Corrupt { file: disk.describe(NAME), offset: 0, what };
        let identity: Self = serde_json::from_slice(&bytes).map_err(|error| corrupt(error.to_string()))?;
        if identity.format != NODE_FILE {
            return Err(corrupt(format!("format {} is not known to this version", identity.format)));
        }
        if identity.log_id().is_none() {
            return Err(corrupt("log id is not hexadecimal".into()));
        }
        Ok(Some(identity))
    }

    /// Writes the file durably; the log must exist before it.
    pub fn store(&self, disk: &dyn Disk) -> Result<(), StartError> {
        let bytes = serde_json::to_vec_pretty(self).map_err(std::io::Error::other)?;
        let file = disk.create(TEMPORARY)?;
        file.write_at(&bytes, 0)?;
        file.sync()?;
        disk.rename(TEMPORARY, NAME)?;
        disk.sync_dir()?;
        Ok(())
    }

    pub fn check(&self, disk: &dyn Disk, platform: &str, node: NodeId) -> Result<(), StartError> {
        if self.platform == platform && self.node == node {
            return Ok(());
        }
        Err(StartError::Foreign {
            file: disk.describe(NAME),
            found: format!("node {} of platform {}", self.node, self.platform),
            expected: format!("node {node} of platform {platform}"),
        })
    }
}
