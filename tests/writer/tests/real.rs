//! The writer against a real PostgreSQL of this machine's packages; skipped, loudly, where there is none.
#![expect(clippy::unwrap_used, reason = "helpers of a test")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Where Debian's packages put the server.
fn server_programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    versions.flatten().map(|version| version.path().join("bin")).find(|bin| bin.join("initdb").exists())
}

/// A server on a free port, as the user that the package made; gone with this value.
struct Server {
    dir: tempfile::TempDir,
    programs: PathBuf,
    port: u16,
    process: Option<Child>,
}

impl Server {
    fn as_postgres(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
            .arg(self.programs.join(program));
        command.current_dir(self.dir.path()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn start(programs: PathBuf) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Self { dir, programs, port, process: None };
        let made = server.as_postgres("initdb").args(["-D", "data", "-A", "trust", "-N"]).status().unwrap();
        assert!(made.success(), "initdb");
        server.run();
        server
    }

    fn run(&mut self) {
        let mut command = self.as_postgres("postgres");
        command.args(["-D", "data", "-h", "127.0.0.1", "-k", ""]).arg("-p").arg(self.port.to_string());
        self.process = Some(command.spawn().unwrap());
        let until = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < until, "the server does not listen");
            sleep(Duration::from_millis(50));
        }
    }

    /// Dies with everything it had in memory.
    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn writer(verb: &str, config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_muster-writer"));
    command.arg(verb).arg("--config").arg(config);
    command
}

fn verified(config: &Path) -> Value {
    let output = writer("verify", config).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn acknowledged_rows_survive_a_crash_and_a_missing_one_is_found() {
    let root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n");
    let Some(programs) = server_programs().filter(|_| root) else {
        eprintln!("SKIPPED: needs root and Debian's postgresql-15");
        return;
    };
    let mut server = Server::start(programs);
    let config = server.dir.path().join("writer.json");
    let ledger = server.dir.path().join("ledger");
    let text = serde_json::json!({
        "engine": "postgres", "run": "real", "ledger": ledger, "writes_per_second": 100,
        "endpoints": [format!("postgresql://postgres@127.0.0.1:1,127.0.0.1:{}/postgres", server.port)],
    });
    fs::write(&config, text.to_string()).unwrap();
    let mut running = writer("run", &config).spawn().unwrap();
    sleep(Duration::from_secs(2));
    server.kill();
    sleep(Duration::from_millis(800));
    let acknowledged = || fs::read_to_string(&ledger).unwrap().matches("\"unknown\":null").count();
    let before = acknowledged();
    server.run();
    for _ in 0..300 {
        if acknowledged() > before + 20 {
            break;
        }
        sleep(Duration::from_millis(100));
    }
    Command::new("kill").arg(running.id().to_string()).status().unwrap();
    assert!(running.wait().unwrap().success(), "it ends well on SIGTERM");

    let result = verified(&config);
    assert!(result["acked"].as_u64().unwrap() > 100, "{result}");
    assert_eq!(result["lost"], 0, "{result}");
    assert!(result["gap_count"].as_u64().unwrap() >= 1, "{result}");
    // What the ledger says was acknowledged and is not there must be told.
    let forged = "{\"sent\":{\"seq\":900000,\"key\":\"k\",\"value\":\"h\",\"endpoint\":\"e\",\"at\":1}}\n\
                  {\"answer\":{\"seq\":900000,\"at\":2,\"unknown\":null}}\n";
    let before = fs::read_to_string(&ledger).unwrap();
    fs::write(&ledger, before + forged).unwrap();
    let result = verified(&config);
    assert_eq!((&result["lost"], &result["acked_lost"][0]), (&1.into(), &900_000.into()), "{result}");
}
