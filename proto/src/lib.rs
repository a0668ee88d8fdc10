//! Wire types and services, generated from `proto/*.proto`. Rules about what may be said are not here.

/// Newest protocol that this version speaks.
pub const PROTOCOL_MAX: u32 = 1;
/// Oldest protocol that this version speaks.
pub const PROTOCOL_MIN: u32 = 1;

/// Descriptor set of all services, encoded.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

macro_rules! package {
    ($module:ident, $package:literal) => {
        #[allow(missing_docs, clippy::all)]
        pub mod $module {
            tonic::include_proto!($package);
        }
    };
}
package!(agents, "muster.agents.v1");
package!(control, "muster.control.v1");
package!(identity, "muster.identity.v1");
package!(raft, "muster.raft.v1");
