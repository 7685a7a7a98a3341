//! What clients are told by DHCP.

use super::*;

fn nets(config: &Config) -> Vec<String> {
    config
        .network
        .routes
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn domain_and_routes_are_read() {
    let none = config(SMALL).network;
    assert_eq!((none.domain, none.routes), (None, vec![]));
    let lines = "domain = \"Office.Example.\"\nroutes = [\"10.0.0.0/8\", \"192.168.5.9\"]";
    let config = config(&with("network", lines));
    assert_eq!(config.network.domain.as_deref(), Some("office.example"));
    assert_eq!(nets(&config), ["10.0.0.0/8", "192.168.5.9/32"]);
    let inform = config.network.inform();
    assert_eq!(inform.server, address("10.20.0.1"));
    assert_eq!(inform.routes, config.network.routes);
    assert_eq!(inform.domain, config.network.domain);
    assert_eq!(
        (inform.dns, inform.nbns),
        (config.network.dns, config.network.nbns)
    );
}

#[test]
fn what_cannot_be_told_is_refused() {
    let cases = [
        ("domain = \"\"", "such as \"office.example\""),
        (
            "domain = \"office_1.example\"",
            "letters, digits and hyphens",
        ),
        ("domain = 7", "is a number, not a string"),
        (
            "routes = \"10.0.0.0/8\"",
            "write it in brackets: routes = [",
        ),
        ("routes = [\"ten\"]", "a network such as \"10.0.0.0/8\""),
        (
            "routes = [\"10.0.0.0/33\"]",
            "a network such as \"10.0.0.0/8\"",
        ),
        ("routes = [\"10.1.0.0/8\"]", "the prefix is \"10.0.0.0/8\""),
        ("routes = [\"0.0.0.0/0\"]", "a setting of the client"),
        ("routes = [\"224.0.0.0/4\"]", "not 0.x, 127.x or 224.x"),
        ("routes = [\"127.0.0.0/8\"]", "not 0.x, 127.x or 224.x"),
        ("routes = [\"0.0.0.0/1\"]", "not 0.x, 127.x or 224.x"),
        (
            "routes = [\"10.0.0.0/8\", \"10.9.0.0/16\"]",
            "holds 10.9.0.0/16 in 10.0.0.0/8 already",
        ),
        (
            "routes = [\"10.0.0.0/8\", \"10.0.0.0/8\"]",
            "write each network once",
        ),
    ];
    for (line, expected) in cases {
        let fault = fault("network", line);
        assert!(
            fault.starts_with("t.toml:7: ") && fault.contains(expected),
            "{line}: {fault}"
        );
    }
}

#[test]
fn the_tunnel_is_not_sent_into_itself() {
    let text = with("network", "routes = [\"192.0.2.0/29\", \"10.0.0.0/8\"]");
    let faults = faults(&format!("[server]\nlisten = [\"192.0.2.1\"]\n{text}"));
    assert_eq!(faults.len(), 1, "{faults:?}");
    for expected in [
        "holds 192.0.2.1, which clients dial",
        "leave it out: \"192.0.2.0/32\", \"192.0.2.2/31\", \"192.0.2.4/30\"",
    ] {
        assert!(faults[0].contains(expected), "{}", faults[0]);
    }
}

#[test]
fn what_is_told_fits_an_answer() {
    let routes = |count: u32| {
        let list: Vec<_> = (0..count).map(|n| format!("\"10.1.{n}.1\"")).collect();
        format!("routes = [{}]", list.join(", "))
    };
    // 28 single addresses of 9 octets each are 252.
    let most = config(&with("network", &routes(28)));
    assert_eq!(most.network.routes.len(), 28);
    let text = fault("network", &routes(29));
    assert!(
        text.contains("takes 261 octets, a DHCP option has 255"),
        "{text}"
    );
    // And a domain that leaves no room.
    let domain = ["a"; 16].join(".");
    let lines = |domain: &str| {
        format!(
            "{}\ndomain = \"{domain}\"\ndns = [\"9.9.9.9\", \"9.9.9.10\"]",
            routes(28)
        )
    };
    let config = config(&with("network", &lines(&domain)));
    assert_eq!(config.network.inform().octets(), 254 + 33 + 10);
    let domain = ["a"; 60].join(".");
    let text = fault("network", &lines(&domain));
    assert!(
        text.contains("take 385 octets, a DHCP answer has 298"),
        "{text}"
    );
}
