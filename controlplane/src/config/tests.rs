//! What is read, and how every kind of fault is told.

mod accounting;
mod inform;
mod ipv6;
mod limits;
mod login;
mod pools;
mod radius;
mod users;

use std::path::Path;

use encoding_rs::{UTF_8, WINDOWS_1251};

use super::*;
use crate::aaa::{Case, Part};

const SMALL: &str = r#"
[access]
interface = "eth0"
[network]
server_address = "10.20.0.1"
pool = ["10.20.0.10-10.20.0.250"]
"#;

pub(super) fn config(text: &str) -> Config {
    match parse(text, "t.toml") {
        Ok(loaded) => loaded.config,
        Err(faults) => panic!("{faults}"),
    }
}

fn faults(text: &str) -> Vec<String> {
    match parse(text, "t.toml") {
        Ok(_) => Vec::new(),
        Err(Faults(faults)) => faults.iter().map(ToString::to_string).collect(),
    }
}

/// The small configuration with `line` added to `section`, which then stands on line 8.
pub(super) fn with(section: &str, line: &str) -> String {
    match SMALL.split_once(&format!("[{section}]\n")) {
        // The sections that are there get the line at their end.
        Some(_) if section == "network" => format!("{SMALL}{line}\n"),
        Some((before, after)) => format!("{before}[{section}]\n{line}\n{after}"),
        None => format!("{SMALL}[{section}]\n{line}\n"),
    }
}

/// The only fault of the small configuration with `line` in `section`.
#[track_caller]
pub(super) fn fault(section: &str, line: &str) -> String {
    let mut faults = faults(&with(section, line));
    assert_eq!(faults.len(), 1, "{line}: {faults:#?}");
    faults.remove(0)
}

fn address(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

#[test]
fn little_is_enough() {
    let config = config(SMALL);
    assert_eq!(config.server.name, "turnpike");
    assert_eq!(config.server.listen, Listen::EveryAddress);
    assert_eq!(
        config.server.socket(),
        Path::new("/run/turnpike/turnpike.sock")
    );
    assert_eq!(config.server.workers, None);
    assert_eq!(&*config.access.interface, "eth0");
    assert_eq!(config.access.mode, XdpMode::Auto);
    assert_eq!(config.access.source_check, SourceCheck::Strict);
    assert!(config.uplink.is_none());
    assert_eq!(&*config.host.interface, "turnpike0");
    assert_eq!(config.network.mtu, 1400);
    assert_eq!(config.network.dns, [None; 2]);
    assert_eq!(config.auth.mppe, Policy::Require);
    assert_eq!(config.auth.login, Login::default());
    assert_eq!(config.gre.reordering, Reordering::default());
    assert_eq!(config.limits.calls, 241);
    assert_eq!(config.limits.connections_per_source, 64);
    assert_eq!(config.limits.unauthenticated_per_source, 60);
    assert_eq!(config.limits.setting_up, 1000);
    assert_eq!(config.limits.setting_up_wait, Duration::from_secs(10));
    assert_eq!(config.limits.same_user, SameUser::Allow);
    assert_eq!(config.limits.setup_time, Duration::from_secs(60));
    assert_eq!(config.log.format, LogFormat::Human);
    assert_eq!(config.log.level, tracing::Level::INFO);
    assert!(config.users.is_empty());
    assert_eq!(config.auth.users_file, None);
    assert!(config.auth.retry);
    assert_eq!(config.auth.names, Names::default());
    assert_eq!(config.auth.passwords.min_length, 8);
    assert_eq!(config.auth.passwords.lifetime_days, None);
    assert!(!config.roster.has_files());
}

#[test]
fn every_key_is_read() {
    let config = config(
        r#"
[server]
name = "edge1"
listen = ["192.0.2.1", "192.0.2.2"]
run_dir = "/run/edge"
workers = 2
cpus = [1, 3]
busy_poll = 64
[access]
interface = "eth0"
mode = "native"
source_check = "relaxed"
[uplink]
interface = "eth1"
next_hop = "198.51.100.1"
mode = "generic"
[host]
interface = "tp0"
[network]
server_address = "10.20.0.1"
pool = ["10.21.0.0/24", "10.20.0.10-10.20.0.13"]
dns = ["10.20.0.1", "9.9.9.9"]
nbns = ["10.20.0.2"]
domain = "office.example"
routes = ["10.20.0.0/22"]
mtu = 1300
[gre]
reorder_packets = 16
reorder_time = "20ms"
reorder_total = 100
[auth]
mppe = "prefer"
chap_secrets = "chap-secrets"
users_file = "users.toml"
retry = false
[auth.names]
domain = "keep"
realm = "strip"
case = "lower"
encoding = "utf-8"
second_encoding = "cp1251"
[auth.passwords]
min_length = 10
lifetime = "30days"
[[user]]
name = "alice"
password = "correct \"horse\""
address = "10.20.0.9"
[[user]]
name = "bob"
password = "x"
[limits]
calls = 1000
connections_per_source = 3
unauthenticated_per_source = 5
setting_up = 40
setting_up_wait = "0s"
same_user = "replace"
setup_time = "1m 30s"
echo_interval = "10s"
[log]
format = "json"
level = "debug"
"#,
    );
    assert_eq!(config.server.name, "edge1");
    assert_eq!(
        config.server.listen,
        Listen::Addresses(vec![address("192.0.2.1"), address("192.0.2.2")])
    );
    assert_eq!(
        (config.server.workers, &*config.server.cpus),
        (Some(2), &[1, 3][..])
    );
    assert_eq!(config.server.busy_poll, 64);
    assert_eq!(config.access.mode, XdpMode::Native);
    assert_eq!(config.access.source_check, SourceCheck::Relaxed);
    let uplink = config.uplink.unwrap();
    assert_eq!(&*uplink.interface, "eth1");
    assert_eq!(uplink.next_hop, Some(address("198.51.100.1")));
    assert_eq!(uplink.mode, XdpMode::Generic);
    assert_eq!(&*config.host.interface, "tp0");
    // Sorted, and without the prefix's own two addresses.
    let pool: Vec<_> = config.network.pools[0]
        .ranges
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(pool, ["10.20.0.10-10.20.0.13", "10.21.0.1-10.21.0.254"]);
    let prefixes: Vec<_> = config
        .network
        .prefixes
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        prefixes,
        [
            "10.20.0.9/32",
            "10.20.0.10/31",
            "10.20.0.12/31",
            "10.21.0.0/24"
        ]
    );
    assert_eq!(
        config.network.dns,
        [Some(address("10.20.0.1")), Some(address("9.9.9.9"))]
    );
    assert_eq!(config.network.nbns, [Some(address("10.20.0.2")), None]);
    assert_eq!(config.network.domain.as_deref(), Some("office.example"));
    assert_eq!(config.network.routes, ["10.20.0.0/22".parse().unwrap()]);
    assert_eq!(config.network.mtu, 1300);
    let reordering = Reordering {
        packets: 16,
        time: Duration::from_millis(20),
        total: 100,
    };
    assert_eq!(config.gre.reordering, reordering);
    assert_eq!(config.auth.mppe, Policy::Prefer);
    assert_eq!(
        config.auth.chap_secrets.as_deref(),
        Some(Path::new("chap-secrets"))
    );
    assert_eq!(
        config.auth.users_file.as_deref(),
        Some(Path::new("users.toml"))
    );
    assert!(!config.auth.retry);
    let names = Names {
        domain: Part::Keep,
        realm: Part::Strip,
        case: Case::Lower,
        encoding: UTF_8,
        second_encoding: Some(WINDOWS_1251),
    };
    assert_eq!(config.auth.names, names);
    assert_eq!(*config.users.names(), names);
    assert_eq!(config.auth.passwords.min_length, 10);
    assert_eq!(config.auth.passwords.lifetime_days, Some(30));
    assert_eq!(config.users.len(), 2);
    assert_eq!(config.limits.calls, 1000);
    assert_eq!(config.limits.connections_per_source, 3);
    assert_eq!(config.limits.unauthenticated_per_source, 5);
    assert_eq!(config.limits.setting_up, 40);
    assert_eq!(config.limits.setting_up_wait, Duration::ZERO);
    assert_eq!(config.limits.same_user, SameUser::Replace);
    assert_eq!(config.limits.setup_time, Duration::from_secs(90));
    assert_eq!(config.limits.echo_interval, Duration::from_secs(10));
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.log.level, tracing::Level::DEBUG);
}

#[test]
fn all_faults_are_told_at_once_with_line_and_remedy() {
    let faults = faults(
        r#"[server]
nmae = "x"
workers = 0
[acces]
interface = "eth0"
[network]
server_address = "10.20.0.10"
pool = ["10.20.0.0/24", "nonsense"]
mtu = 1500
[auth]
mppe = "yes"
[[user]]
name = "alice"
password = 12
[[user]]
password = "x"
[limits]
setup_time = 30
"#,
    );
    let expected = [
        "t.toml: there is no [access] section; add [access]",
        "t.toml:2: unknown key `nmae` in [server]; did you mean `name`?",
        "t.toml:3: `workers` in [server] is 0, outside 1 to 128; ",
        "t.toml:4: unknown section `acces`; did you mean `access`?",
        "t.toml:8: `pool` in [network] cannot be \"nonsense\"; a range \"",
        "t.toml:8: the pool 10.20.0.1-10.20.0.254 holds server_address 10.20.0.10; leave it out: \"10.20.0.1-10.20.0.9\", \"10.20.0.11-10.20.0.254\"",
        "t.toml:9: `mtu` in [network] is 1500, outside 576 to 1456; write 1400",
        "t.toml:11: `mppe` in [auth] cannot be \"yes\"; write one of \"deny\", \"allow\", \"prefer\", \"require\"",
        "t.toml:14: `password` in [[user]] is not a string; ",
        "t.toml:15: `name` in [[user]] is missing; ",
        "t.toml:18: `setup_time` in [limits] is a number, not a string; write a number with a unit: setup_time = \"60s\"",
    ];
    assert_eq!(faults.len(), expected.len(), "{faults:#?}");
    for (fault, expected) in faults.iter().zip(expected) {
        assert!(fault.starts_with(expected), "{fault}\n{expected}");
    }
}

#[test]
fn the_reorder_queue_has_bounds() {
    let off = config(&with("gre", "reorder_packets = 0")).gre.reordering;
    assert_eq!((off.packets, off.chunks()), (0, 0));
    for (line, expected) in [
        (
            "reorder_packets = 65",
            "`reorder_packets` in [gre] is 65, outside 0 to 64; write how many",
        ),
        (
            "reorder_time = \"101ms\"",
            "`reorder_time` in [gre] is 101ms; write something from 1ms to 100ms, such as \"50ms\"",
        ),
        (
            "reorder_time = \"0s\"",
            "`reorder_time` in [gre] is 0s; write something from 1ms",
        ),
        ("reorder_time = 50", "`reorder_time` in [gre] is a number"),
        (
            "reorder_total = 0",
            "`reorder_total` in [gre] is 0, outside 1 to 65535; write how many",
        ),
        (
            "reorder = 32",
            "unknown key `reorder` in [gre]; known here: reorder_packets, reorder_time, reorder_total",
        ),
    ] {
        let fault = fault("gre", line);
        assert!(
            fault.starts_with(&format!("t.toml:8: {expected}")),
            "{fault}"
        );
    }
}

#[test]
fn broken_syntax_does_not_hide_other_faults() {
    let text = "[server]\nname = \"x\nworkers = 0\n[access]\ninterface = \"eth0\"\n[network]\nserver_address = \"10.20.0.1\"\npool = [\"10.20.0.9\"]\nmtu = 9000\n";
    let faults = faults(text);
    assert!(faults[0].starts_with("t.toml:2: "), "{faults:#?}");
    assert!(
        faults
            .iter()
            .any(|fault| fault.starts_with("t.toml:9: `mtu`")),
        "{faults:#?}"
    );
    // Nothing is said of keys that may only be unreadable.
    assert!(!faults.iter().any(|fault| fault.contains("missing")));
}

#[test]
fn a_key_that_is_there_twice_is_a_fault() {
    let faults = faults(&with("access", "interface = \"eth1\""));
    assert!(faults[0].contains("duplicate key"), "{faults:#?}");
}

#[test]
fn names_of_interfaces_are_those_of_linux() {
    for name in ["eth0", "enp3s0f1np1", "br-lan", "wan.100", "turnpike0", "a"] {
        assert!(Interface::new(name).is_some(), "{name}");
    }
    for name in [
        "",
        ".",
        "..",
        "eth 0",
        "eth/0",
        "eth0:1",
        "sixteen-letters0",
        "é",
    ] {
        assert!(Interface::new(name).is_none(), "{name}");
    }
    assert!(fault("host", "interface = \"eth0\"").contains("which is a NIC"));
    // The host port's other end has a longer name.
    let host = |name: &str| with("host", &format!("interface = \"{name}\""));
    assert_eq!(
        &*config(&host("thirteen-char")).host.interface,
        "thirteen-char"
    );
    for name in ["fourteen-chars", "fifteen-letters"] {
        let fault = faults(&host(name)).join("\n");
        assert!(fault.contains("at most 13 characters"), "{fault}");
    }
    let fault_of_pair = faults(&host("tp0").replace("\"eth0\"", "\"tp0-x\"")).join("\n");
    assert!(fault_of_pair.contains("which is a NIC"), "{fault_of_pair}");
    assert!(
        fault("uplink", "next_hop = \"192.0.2.1\"").contains("`interface` in [uplink] is missing")
    );
    assert!(fault("uplink", "interface = \"/\"").contains("as `ip link` shows it"));
}

#[test]
fn one_nic_has_one_mode() {
    let uplink = config(&with("uplink", "interface = \"eth0\""))
        .uplink
        .unwrap();
    assert_eq!(uplink.mode, XdpMode::Auto);
    assert!(fault("uplink", "interface = \"eth0\"\nmode = \"native\"").contains("the same NIC"));
}

#[test]
fn clients_choose_from_the_pool() {
    let with_choice = |choice: &str| {
        let pool = "\"10.20.0.10-10.20.0.250\"]";
        SMALL.replace(pool, &format!("{pool}\nclient_choice = [{choice}"))
    };
    assert!(config(SMALL).network.client_choice.is_empty());
    let good = config(&with_choice("\"10.20.0.64/28\", \"10.20.0.99\"]"));
    let choice = good.network.client_choice.iter().map(ToString::to_string);
    assert_eq!(
        choice.collect::<Vec<_>>(),
        ["10.20.0.65-10.20.0.78", "10.20.0.99"]
    );
    let fault = faults(&with_choice("\"10.20.0.240-10.20.0.251\"]")).join("\n");
    assert!(fault.contains("names 10.20.0.240-10.20.0.251, which is not in one part of the pool"));
    assert!(!faults(&with_choice("\"10.20.0.5-10.20.0.2\"]")).is_empty());
}

#[test]
fn pools_are_what_clients_can_have() {
    let pool = |pool: &str| faults(&SMALL.replace("\"10.20.0.10-10.20.0.250\"", pool)).join("\n");
    assert_eq!(pool("\"10.20.0.10\""), "");
    assert_eq!(pool("\"10.20.0.10/31\", \"10.20.0.12/32\""), "");
    for (text, expected) in [
        ("", "is empty; write a range"),
        (
            "\"10.20.0.5-10.20.0.2\"",
            "the lower address stands first: \"10.20.0.2-10.20.0.5\"",
        ),
        ("\"10.20.5.1/24\"", "the prefix is \"10.20.5.0/24\""),
        ("\"10.20.0.0/33\"", "cannot be \"10.20.0.0/33\""),
        (
            "\"10.20.0.20-10.20.0.30\", \"10.20.0.30/32\"",
            "the pools 10.20.0.20-10.20.0.30 and 10.20.0.30 overlap",
        ),
        (
            "\"10.21.0.0/16\", \"10.21.7.0/24\", \"10.21.9.0/24\"",
            "the pools 10.21.0.1-10.21.255.254 and 10.21.9.1-10.21.9.254 overlap",
        ),
        (
            "\"127.0.0.8-127.0.0.9\"",
            "use addresses that hosts can have",
        ),
        ("\"224.0.0.0/24\"", "use addresses that hosts can have"),
        (
            "\"126.0.0.1-128.0.0.1\"",
            "use addresses that hosts can have",
        ),
        ("\"10.0.0.0/11\"", "have 2097150 addresses"),
        (
            "\"10.20.0.0/24\"",
            "leave it out: \"10.20.0.2-10.20.0.254\"",
        ),
        ("\"10.20.0.1\"", "leave it out: write another range"),
        ("\"fd00::/64\"", "cannot be \"fd00::/64\""),
    ] {
        let faults = pool(text);
        assert!(faults.contains(expected), "{text}: {faults}");
    }
    assert!(
        fault("server", "listen = [\"10.20.0.77\"]")
            .contains("the pool 10.20.0.10-10.20.0.250 holds it")
    );
    assert!(
        fault("uplink", "interface = \"eth1\"\nnext_hop = \"10.20.0.77\"").contains("the pool")
    );
}

#[test]
fn lists_are_checked_entry_by_entry() {
    assert!(fault("network", "dns = \"10.0.0.1\"").contains("write it in brackets: dns = ["));
    assert!(
        fault(
            "network",
            "dns = [\"10.0.0.1\", \"10.0.0.2\", \"10.0.0.3\"]"
        )
        .contains("PPP carries two")
    );
    assert!(fault("network", "nbns = [\"0.0.0.0\"]").contains("cannot be \"0.0.0.0\""));
    assert!(fault("server", "listen = []").contains("leave the key out"));
    assert!(fault("server", "listen = [7]").contains("is a number, not a string"));
    assert!(fault("server", "listen = [\"192.0.2.1\", \"192.0.2.1\"]").contains("twice"));
    assert!(fault("server", "workers = 3\ncpus = [0, 1]").contains("names 2 cores for 3 workers"));
    assert!(fault("server", "cpus = [1, 1]").contains("twice"));
    assert!(fault("server", "cpus = []").contains("0 cores"));
    assert_eq!(
        config(&with("server", "cpus = [4, 2]")).server.workers,
        Some(2)
    );
}

#[test]
fn numbers_and_durations_have_bounds() {
    assert_eq!(config(&with("server", "busy_poll = 0")).server.busy_poll, 0);
    assert!(fault("server", "busy_poll = 1025").contains("outside 0 to 1024"));
    assert!(fault("server", "busy_poll = true").contains("`busy_poll` in [server] is"));
    assert!(fault("network", "mtu = 575").contains("outside 576 to 1456"));
    assert!(fault("network", "mtu = -1").contains("not a whole number"));
    assert!(fault("network", "mtu = 1400.5").contains("not a whole number"));
    assert_eq!(config(&with("network", "mtu = 0x400")).network.mtu, 1024);
}

#[test]
fn names_and_paths_fit_where_they_go() {
    assert!(fault("server", "name = \"\"").contains("visible ASCII"));
    assert!(fault("server", &format!("name = \"{}\"", "x".repeat(64))).contains("1 to 63"));
    assert!(fault("server", "run_dir = \"run\"").contains("absolute"));
    assert!(fault("server", &format!("run_dir = \"/{}\"", "x".repeat(93))).contains("at most 93"));
    config(&with(
        "server",
        &format!("run_dir = \"/{}\"", "x".repeat(92)),
    ));
}

#[test]
fn anything_is_read_without_panic() {
    // Every prefix of a full file, and every file with one octet replaced by one that means something.
    let text = include_str!("../../../examples/office.toml");
    for end in (0..text.len())
        .filter(|end| text.is_char_boundary(*end))
        .step_by(3)
    {
        let _ = parse(&text[..end], "t.toml");
    }
    for (at, _) in text.char_indices().step_by(7) {
        for new in ["", "\"", "[", "=", "\n", "9"] {
            let after = text[at..].chars().next().map_or(0, char::len_utf8);
            let _ = parse(
                &format!("{}{new}{}", &text[..at], &text[at + after..]),
                "t.toml",
            );
        }
    }
    for text in [
        "",
        "\0",
        "a.b.c=1",
        "[[[[",
        "user=[1]",
        "user={}",
        "network=3",
        "[network]\npool=[[]]",
    ] {
        assert!(!faults(text).is_empty(), "{text}");
    }
}

#[test]
fn the_examples_are_right_as_they_stand() {
    for example in ["office.toml", "edge.toml"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../examples")
            .join(example);
        match load(&path) {
            Ok(loaded) => assert!(!loaded.config.users.is_empty(), "{example}"),
            Err(faults) => panic!("{faults}"),
        }
    }
}

#[test]
fn this_machine_has_no_such_interface() {
    let config = config(&with("server", "cpus = [100000]").replace("eth0", "no-such-nic0"));
    let warnings: Vec<_> = machine(&config, "t.toml")
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("no-such-nic0"));
    assert!(warnings[1].contains("core 100000"));
}
