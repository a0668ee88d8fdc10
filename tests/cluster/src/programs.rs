//! Where the programs under test are: in `MUSTER_BIN_DIR`, or built now, once, in the profile of the tests.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// `muster-coordinator`.
#[must_use]
pub fn coordinator() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| find("muster-coordinator", "muster-coordinator"))
}

/// `muster`.
#[must_use]
pub fn cli() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| find("muster-cli", "muster"))
}

/// The library that moves a program's clock, if it is installed.
#[must_use]
pub fn faketime() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?;
    let libraries = folders.flatten().map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    libraries.into_iter().find(|library| library.exists())
}

fn find(package: &str, program: &str) -> PathBuf {
    if let Some(folder) = std::env::var_os("MUSTER_BIN_DIR") {
        return Path::new(&folder).join(program);
    }
    // <target>/<profile>/deps/<test>
    let test = std::env::current_exe().expect("a program knows where it is");
    let folder = test.ancestors().nth(2).expect("cargo puts tests two folders deep");
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(other) => other,
    };
    let target = folder.parent().expect("the profile's folder is in the target folder");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", package, "--profile", profile, "--target-dir"])
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(built.is_ok_and(|status| status.success()), "{package} cannot be built");
    folder.join(program)
}
