//! What the reader of unit files accepts and refuses.

use std::path::Path;

use super::*;

const FULL: &str = r#"
[Unit]
Description=An example
# a comment
After=network-online.target docker.service
After=other.service
ConditionPathExists=/a/b
ConditionPathExists=!/c
StartLimitIntervalSec=0

[Service]
Type=exec
Environment=A=1 "B=two words" PATH=/x:/y
EnvironmentFile=-/etc/muster/env
ExecStartPre=-/bin/rm -f /run/x
ExecStart=/usr/bin/prog run \
    --flag 'a b' 100%%
Restart=always
RestartSec=500ms
RestartPreventExitStatus=78 79
StateDirectory=muster/x
StateDirectoryMode=0700
RuntimeDirectory=x
RuntimeDirectoryPreserve=yes
UMask=0077
KillSignal=SIGINT
KillMode=process
TimeoutStopSec=1min 5s
CapabilityBoundingSet=CAP_NET_ADMIN
NoNewPrivileges=yes
ProtectSystem=strict

[Install]
WantedBy=multi-user.target
"#;

fn service(lines: &str) -> Result<Unit> {
    Unit::parse("t", &format!("[Service]\nExecStart=/bin/true\n{lines}"))
}

#[test]
fn every_directive_arrives() {
    let unit = Unit::parse("example", FULL).unwrap();
    assert_eq!(unit.after, ["network-online.target", "docker", "other"]);
    assert_eq!(unit.conditions.len(), 2);
    assert!(unit.conditions[0].wanted && !unit.conditions[1].wanted);
    assert_eq!(unit.start_limit, None);
    assert_eq!(unit.start.words, ["/usr/bin/prog", "run", "--flag", "a b", "100%"]);
    assert_eq!(
        unit.start_pre,
        [Exec { words: vec!["/bin/rm".into(), "-f".into(), "/run/x".into()], may_fail: true }]
    );
    assert_eq!(unit.environment[1], ("B".to_owned(), "two words".to_owned()));
    assert!(unit.environment_files[0].may_miss);
    assert_eq!((unit.restart, unit.restart_delay), (Restart::Always, Duration::from_millis(500)));
    assert_eq!(unit.restart_not_after, [78, 79]);
    assert_eq!(unit.state, Directories { names: vec!["muster/x".into()], mode: 0o700 });
    assert!(unit.runtime_preserved && unit.kill_main_only);
    assert_eq!((unit.umask, unit.kill_signal), (0o077, Signal::INT));
    assert_eq!(unit.stop_timeout, Some(Duration::from_secs(65)));
    assert!(unit.privileges.no_new_privileges);
}

#[test]
fn what_is_not_said_is_as_systemd_has_it() {
    let unit = service("").unwrap();
    assert_eq!(unit.restart, Restart::No);
    assert_eq!(unit.start_limit, Some(StartLimit { burst: 5, interval: Duration::from_secs(10) }));
    assert_eq!(unit.stop_timeout, Some(Duration::from_secs(90)));
    assert_eq!(unit.umask, 0o022);
}

#[test]
fn what_would_be_done_wrongly_is_refused_with_its_line() {
    for line in [
        "User=nobody",
        "ExecStop=/bin/x",
        "Type=oneshot",
        "Restart=sometimes",
        "ExecStart=/bin/second",
        "ExecStartPre=relative",
        "ExecStartPre=/bin/x $HOME",
        "ExecStartPre=/bin/x %i",
        "ExecStartPre=/bin/x 'open",
        "StateDirectory=../x",
        "StateDirectory=/x",
        "UMask=9",
        "KillSignal=SIGWHAT",
        "EnvironmentFile=relative",
        "Environment=novalue",
        "no equals sign",
        "CapabilityBoundingSet=CAP_net",
        "RestartSec=infinity",
    ] {
        let error = format!("{:#}", service(line).unwrap_err());
        assert!(error.contains("line 3") && error.contains(line), "{error}");
    }
    assert!(Unit::parse("t", "[Service]\nRestart=always\n").is_err());
}

#[test]
fn no_input_makes_it_panic() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let alphabet: Vec<char> = FULL.chars().chain("é\\\"'%$=[]\n#;~-!".chars()).collect();
    for _ in 0..2_000 {
        let mut text: Vec<char> = FULL.chars().collect();
        for _ in 0..4 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let at = usize::try_from(state % 1_000_000).unwrap();
            let (place, new) = (at % text.len(), alphabet[at % alphabet.len()]);
            text[place] = new;
        }
        let _ = Unit::parse("fuzzed", &text.into_iter().collect::<String>());
    }
}

#[test]
fn environment_files_know_comments_and_quotes() {
    let pairs = parse_environment_lines("# c\n\nA=1\nB=\"x y\"\nC='z'\n").unwrap();
    assert_eq!(pairs, [("A".into(), "1".into()), ("B".into(), "x y".into()), ("C".into(), "z".into())]);
    assert!(parse_environment_lines("nothing").is_err());
}

#[test]
fn the_shipped_units_are_understood_and_wait_for_an_identity() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/systemd");
    for name in ["muster-coordinator", "muster-agent", "muster-mesh"] {
        let text = std::fs::read_to_string(dir.join(format!("{name}.service"))).unwrap();
        let unit = Unit::parse(name, &text).unwrap();
        assert_eq!(unit.restart, Restart::Always, "{name}");
        assert_eq!(unit.start_limit, None, "{name} must never be given up");
        assert!(!unit.conditions.is_empty(), "{name}");
        assert!(unit.start.words[0].starts_with("/usr/local/lib/muster/"), "{name}");
    }
}

#[test]
fn the_agents_mounts_are_visible_to_the_engine() {
    // Each of these gives a service a mount namespace of its own; the engine would see no tmpfs of the agent.
    let hides = [
        "PrivateTmp",
        "PrivateMounts",
        "PrivateDevices",
        "ProtectSystem",
        "ProtectHome",
        "ProtectKernel",
        "ProtectControlGroups",
        "ProtectProc",
        "ProcSubset",
        "ReadOnlyPaths",
        "ReadWritePaths",
        "InaccessiblePaths",
        "RootDirectory",
        "BindPaths",
        "TemporaryFileSystem",
        "DynamicUser",
        "MountFlags",
        "PrivateNetwork",
        "PrivateUsers",
    ];
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/systemd/muster-agent.service");
    let text = std::fs::read_to_string(path).unwrap();
    for line in text.lines() {
        assert!(!hides.iter().any(|word| line.starts_with(word)), "{line}");
    }
}
