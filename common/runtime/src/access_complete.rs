//! Compares the access table with the compiled `.proto` files: each method has a row, each row a method.

use prost::Message;

use crate::access::AccessTable;

// Only the fields of google.protobuf.FileDescriptorSet that name methods; the others are skipped.
#[derive(Clone, PartialEq, Message)]
struct FileSet {
    #[prost(message, repeated, tag = "1")]
    files: Vec<File>,
}

#[derive(Clone, PartialEq, Message)]
struct File {
    #[prost(string, tag = "2")]
    package: String,
    #[prost(message, repeated, tag = "6")]
    services: Vec<ServiceEntry>,
}

#[derive(Clone, PartialEq, Message)]
struct ServiceEntry {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    methods: Vec<MethodEntry>,
}

#[derive(Clone, PartialEq, Message)]
struct MethodEntry {
    #[prost(string, tag = "1")]
    name: String,
}

/// Table and descriptors do not match.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Incomplete {
    /// The bytes are not a descriptor set.
    #[error("not a descriptor set: {0}")]
    Malformed(String),
    /// The lists differ.
    #[error("methods without a row: [{}]; rows without a method: [{}]", missing.join(", "), superfluous.join(", "))]
    Differs {
        /// Methods that the table forgot.
        missing: Vec<String>,
        /// Rows for methods that do not exist.
        superfluous: Vec<String>,
    },
}

/// Every method path in an encoded `FileDescriptorSet`, sorted.
///
/// # Errors
/// It is not one.
pub fn methods(descriptor_set: &[u8]) -> Result<Vec<String>, Incomplete> {
    let set = FileSet::decode(descriptor_set).map_err(|e| Incomplete::Malformed(e.to_string()))?;
    let mut paths = Vec::new();
    for file in &set.files {
        for service in &file.services {
            for method in &service.methods {
                paths.push(format!("/{}.{}/{}", file.package, service.name, method.name));
            }
        }
    }
    paths.sort();
    Ok(paths)
}

/// Checks that the table has exactly the methods of the descriptor set. For a test.
///
/// # Errors
/// Which ones are missing or superfluous.
pub fn assert_complete(table: &AccessTable, descriptor_set: &[u8]) -> Result<(), Incomplete> {
    let methods = methods(descriptor_set)?;
    let missing: Vec<_> =
        methods.iter().filter(|m| table.methods().all(|row| row != m.as_str())).cloned().collect();
    let superfluous: Vec<_> =
        table.methods().filter(|row| methods.iter().all(|m| m != row)).map(str::to_owned).collect();
    if missing.is_empty() && superfluous.is_empty() {
        Ok(())
    } else {
        Err(Incomplete::Differs { missing, superfluous })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Rule;

    fn descriptors() -> Vec<u8> {
        let method = |name: &str| MethodEntry { name: name.into() };
        let service = ServiceEntry { name: "Control".into(), methods: vec![method("Plan"), method("Apply")] };
        FileSet { files: vec![File { package: "muster.control.v1".into(), services: vec![service] }] }
            .encode_to_vec()
    }

    #[test]
    fn forgotten_and_invented_methods_are_named() {
        let apply = ("/muster.control.v1.Control/Apply", Rule::roles(&[]));
        let table = AccessTable::new(&[apply, ("/muster.control.v1.Control/Plans", Rule::anyone())]).unwrap();
        let error = assert_complete(&table, &descriptors()).unwrap_err().to_string();
        assert!(error.contains("row: [/muster.control.v1.Control/Plan]"), "{error}");
        assert!(error.contains("method: [/muster.control.v1.Control/Plans]"), "{error}");
        let good = AccessTable::new(&[apply, ("/muster.control.v1.Control/Plan", Rule::anyone())]).unwrap();
        assert_eq!(assert_complete(&good, &descriptors()), Ok(()));
        assert!(AccessTable::new(&[apply, apply]).is_err());
    }
}
