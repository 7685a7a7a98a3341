//! IPv6 inside calls.

use super::*;

fn net(text: &str) -> Ipv6Net {
    text.parse().unwrap()
}

#[test]
fn pools_and_servers_are_read() {
    assert_eq!(config(SMALL).network.ipv6, None);
    let one = config(&with("network", "ipv6_pool = \"2001:db8:1::/48\"")).network;
    let ipv6 = one.ipv6.unwrap();
    assert_eq!(
        ipv6,
        Ipv6 {
            pool: net("2001:db8:1::/48"),
            delegated: None,
            dns: [None; 2],
        }
    );
    assert_eq!(
        ipv6.server_address(),
        "2001:db8:1::1".parse::<Ipv6Addr>().unwrap()
    );
    assert_eq!(
        ipv6.prefixes().collect::<Vec<_>>(),
        [net("2001:db8:1::/48")]
    );
    let lines = "ipv6_pool = \"fd12:3456::/32\"\ndelegated_pool = \"2001:db8:8000::/40\"\n\
                 delegated_length = 60\ndns6 = [\"2001:db8::53\", \"fd12:3456::1\"]";
    let ipv6 = config(&with("network", lines)).network.ipv6.unwrap();
    assert_eq!(
        ipv6.delegated,
        Some(Delegated {
            pool: net("2001:db8:8000::/40"),
            length: 60
        })
    );
    assert_eq!(
        ipv6.dns.map(|server| server.unwrap().to_string()),
        ["2001:db8::53", "fd12:3456::1"]
    );
    assert_eq!(ipv6.prefixes().count(), 2);
    // A whole pool for one client, and the usual length.
    for (pool, length) in [("2001:db8:d::/56", 56), ("2001:db8:8000::/40", 56)] {
        let lines = format!("ipv6_pool = \"2001:db8:1::/63\"\ndelegated_pool = \"{pool}\"");
        let ipv6 = config(&with("network", &lines)).network.ipv6.unwrap();
        assert_eq!(ipv6.delegated.unwrap().length, length);
    }
}

#[test]
fn what_clients_cannot_have_is_refused() {
    let cases = [
        (
            "ipv6_pool = \"2001:db8:1::1/48\"",
            "the prefix is \"2001:db8:1::/48\"",
        ),
        ("ipv6_pool = \"2001:db8:1::/64\"", "at most 63 bits"),
        ("ipv6_pool = \"2000::/8\"", "at least 16 bits"),
        ("ipv6_pool = \"fe80::/48\"", "in 2000::/3, or in fd00::/8"),
        ("ipv6_pool = \"ff0e::/48\"", "in 2000::/3, or in fd00::/8"),
        ("ipv6_pool = \"10.0.0.0/8\"", "such as \"2001:db8:1::/48\""),
        ("ipv6_pool = [\"2001:db8:1::/48\"]", "not a string"),
        (
            "ipv6_pool = \"2001:db8:1::/48\"\nmtu = 1279",
            "at least 1280",
        ),
        (
            "ipv6_pool = \"2001:db8:1::/48\"\ndns6 = [\"ff02::53\"]",
            "an IPv6 address such as",
        ),
        (
            "ipv6_pool = \"2001:db8:1::/48\"\ndns6 = [\"2001::1\", \"2001::2\", \"2001::3\"]",
            "write one or two",
        ),
        (
            "ipv6_pool = \"2001:db8:1::/48\"\ndelegated_pool = \"2001:db8::/32\"",
            "overlap",
        ),
        (
            "ipv6_pool = \"2001:db8::/32\"\ndelegated_pool = \"2001:db8:d::/48\"",
            "overlap",
        ),
        (
            "ipv6_pool = \"2001:db8:1::/48\"\ndelegated_pool = \"2001:db8:d::/60\"",
            "write delegated_length = 60 or more",
        ),
        (
            "ipv6_pool = \"2001:db8:1::/48\"\ndelegated_pool = \"2001:db8:d::/48\"\ndelegated_length = 40",
            "write delegated_length = 48 or more",
        ),
        (
            "ipv6_pool = \"2001:db8:1::/48\"\ndelegated_pool = \"2001:db8:d::/48\"\ndelegated_length = 65",
            "56, or at most 64",
        ),
        (
            "ipv6_pool = \"2001:db8:1::/48\"\ndelegated_length = 56",
            "without `delegated_pool`",
        ),
        (
            "delegated_pool = \"2001:db8:d::/48\"",
            "without `ipv6_pool`",
        ),
        ("delegated_length = 56", "without `ipv6_pool`"),
        ("dns6 = [\"2001:db8::53\"]", "without `ipv6_pool`"),
    ];
    for (lines, expected) in cases {
        let text = fault("network", lines);
        assert!(text.contains(expected), "{lines}: {text}");
        // Every fault is told where it stands.
        assert!(text.starts_with("t.toml:"), "{text}");
    }
}

#[test]
fn the_keys_of_the_examples_are_right_once_they_are_used() {
    let office = include_str!("../../../../examples/office.toml");
    let mut text = office.to_owned();
    for key in ["ipv6_pool", "delegated_pool", "delegated_length", "dns6"] {
        let before = text.clone();
        text = text.replace(&format!("# {key} = "), &format!("{key} = "));
        assert_ne!(text, before, "{key} is not in the example");
    }
    let ipv6 = config(&text).network.ipv6.unwrap();
    assert_eq!(ipv6.delegated.unwrap().length, 56);
    assert!(ipv6.dns[0].is_some());
}
