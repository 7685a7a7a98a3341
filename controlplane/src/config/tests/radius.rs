use super::*;
use crate::aaa::{Backend, UnknownFilter};

/// A configuration with these lines from line 7 on.
fn text(lines: &str) -> String {
    format!("{}\n{lines}\n", with("log", "level = \"info\""))
}

fn radius(lines: &str) -> Radius {
    let loaded = parse(&text(lines), "t.toml");
    loaded
        .unwrap_or_else(|faults| panic!("{faults}"))
        .config
        .radius
        .unwrap()
}

fn all_faults(lines: &str) -> Vec<String> {
    let Err(Faults(faults)) = parse(&text(lines), "t.toml") else {
        panic!("no fault: {lines}");
    };
    let faults = faults.iter();
    faults
        .map(|fault| format!("{}; {}", fault.what, fault.instead))
        .collect()
}

#[test]
fn a_server_needs_little() {
    let radius =
        radius("[[radius.server]]\naddress = \"192.0.2.9\"\nsecret = \"a long enough secret\"");
    assert_eq!(radius.nas_identifier, "turnpike");
    assert_eq!(radius.unknown_filter, UnknownFilter::Refuse);
    let [server] = &radius.servers[..] else {
        panic!("one server");
    };
    assert_eq!((server.port, server.accounting_port), (1812, 1813));
    assert_eq!((server.tries, server.priority, server.weight), (3, 1, 1));
    assert!(server.require_message_authenticator && server.status_server);
    let loaded = parse(
        &text("[radius]\n[[radius.server]]\naddress = \"::1\"\nsecret = \"x\""),
        "t.toml",
    );
    let backends = loaded.ok().unwrap().config.auth.backends;
    assert_eq!(backends, [Backend::Local, Backend::Radius]);
}

#[test]
fn everything_can_be_said() {
    let radius = radius(
        "[radius]\nnas_identifier = \"edge1\"\nnas_ip_address = \"192.0.2.1\"\nunknown_filter = \"warn\"\nrequire_keys = true\n\
         [[radius.server]]\nname = \"old\"\naddress = \"2001:db8::9\"\nport = 1645\naccounting_port = 1646\nsource = \"2001:db8::1\"\n\
         secret = \"s\"\ntimeout = \"500ms\"\ntries = 5\npriority = 2\nweight = 10\nmessage_authenticator = \"accept_missing\"\n\
         status_server = false\ndead_time = \"1m\"",
    );
    assert_eq!(radius.nas_ip_address, Some([192, 0, 2, 1].into()));
    assert!(radius.require_keys && radius.unknown_filter == UnknownFilter::Warn);
    let server = &radius.servers[0];
    assert_eq!(
        (server.name.as_str(), server.port, server.accounting_port),
        ("old", 1645, 1646)
    );
    assert_eq!((server.tries, server.priority, server.weight), (5, 2, 10));
    assert_eq!(server.timeout, Duration::from_millis(500));
    assert_eq!(server.dead_time, Duration::from_secs(60));
    assert!(!server.require_message_authenticator && !server.status_server);
}

#[test]
fn every_fault_is_named_and_no_secret_shown() {
    let long = "s3cr3t".repeat(30);
    for (lines, expected) in [
        ("[radius]".to_owned(), "[radius] has no server; add [[radius.server]]"),
        ("[[radius.server]]\nsecret = \"x\"".to_owned(), "`address` in [[radius.server]] is missing; write the server's"),
        ("[[radius.server]]\naddress = \"radius.example\"\nsecret = \"x\"".to_owned(), "`address` in [[radius.server]] cannot be \"radius.example\"; write the IPv4 or IPv6 address"),
        ("[[radius.server]]\naddress = \"192.0.2.9:1812\"\nsecret = \"x\"".to_owned(), "without its port"),
        ("[[radius.server]]\naddress = \"192.0.2.9\"".to_owned(), "`secret` in [[radius.server]] is missing; write what the server has"),
        ("[[radius.server]]\naddress = \"192.0.2.9\"\nsecret = \"\"".to_owned(), "`secret` in [[radius.server]] is empty or longer than 128 octets"),
        (format!("[[radius.server]]\naddress = \"192.0.2.9\"\nsecret = \"{long}\""), "`secret` in [[radius.server]] is empty or longer than 128 octets"),
        ("[[radius.server]]\naddress = \"192.0.2.9\"\nsecret = \"x\"\nsource = \"::1\"".to_owned(), "one is IPv4, the other IPv6"),
        ("[[radius.server]]\naddress = \"192.0.2.9\"\nsecret = \"x\"\ntries = 0".to_owned(), "`tries` in [[radius.server]] is 0, outside 1 to 10"),
        ("[[radius.server]]\naddress = \"192.0.2.9\"\nsecret = \"x\"\nmessage_authenticator = \"no\"".to_owned(), "write one of \"require\", \"accept_missing\""),
        ("[[radius.server]]\naddress = \"192.0.2.9\"\nsecret = \"x\"\n[[radius.server]]\naddress = \"192.0.2.9\"\nsecret = \"y\"".to_owned(), "stands there twice; write each server once"),
        ("[radius]\nunknown_filters = \"warn\"\n[[radius.server]]\naddress = \"192.0.2.9\"\nsecret = \"x\"".to_owned(), "unknown key `unknown_filters` in [radius]; did you mean `unknown_filter`?"),
    ] {
        let faults = all_faults(&lines).join("\n");
        assert!(faults.contains(expected), "{lines}\n{faults}");
        assert!(!faults.contains("s3cr3t"), "{faults}");
    }
}

#[test]
fn back_ends_are_those_that_there_are() {
    let faults = |lines: &str| match parse(&with("auth", lines), "t.toml") {
        Err(Faults(faults)) => faults[0].to_string(),
        Ok(_) => panic!("no fault: {lines}"),
    };
    assert!(
        faults("backends = [\"radius\"]")
            .contains("there is no [radius] section; add [[radius.server]]")
    );
    assert!(faults("backends = []").contains("nobody could log in"));
    assert!(faults("backends = [\"local\", \"local\"]").contains("twice"));
    assert!(faults("backends = [\"ldap\"]").contains("cannot be \"ldap\""));
}
