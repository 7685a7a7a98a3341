//! `[[pool]]`, and what `[network]` says of all pools.

use super::*;

const BUSINESS: &str = "[[pool]]\nname = \"business\"\naddresses = [\"10.30.0.0/24\"]\n";

fn with_pools(text: &str) -> String {
    format!("{SMALL}{text}")
}

#[test]
fn pools_have_names_and_are_asked_in_order() {
    let text = with_pools(&format!(
        "exclude = [\"10.20.0.77\", \"10.20.0.240/28\"]\nquarantine = \"1m\"\nsticky = \"1d\"\n\
         {BUSINESS}exclude = [\"10.30.0.7\"]\nnext = \"last\"\n\
         [[pool]]\nname = \"last\"\naddresses = [\"10.31.0.1\"]\nnext = \"default\"\n"
    ));
    let network = config(&text).network;
    let pools: Vec<_> = network
        .pools
        .iter()
        .map(|pool| {
            let ranges: Vec<_> = pool.ranges.iter().map(ToString::to_string).collect();
            (&*pool.name, ranges.join(" "), pool.next)
        })
        .collect();
    assert_eq!(
        pools,
        [
            (
                "default",
                "10.20.0.10-10.20.0.76 10.20.0.78-10.20.0.239".to_owned(),
                None
            ),
            (
                "business",
                "10.30.0.1-10.30.0.6 10.30.0.8-10.30.0.254".to_owned(),
                Some(2)
            ),
            ("last", "10.31.0.1".to_owned(), Some(0)),
        ]
    );
    let seconds = Duration::from_secs;
    assert_eq!(
        (network.rest.quarantine, network.rest.sticky),
        (seconds(60), seconds(86_400))
    );
    // As many calls as addresses, of all pools.
    assert_eq!(config(&text).limits.calls, 67 + 162 + 6 + 247 + 1);
    assert!(
        network
            .prefixes
            .iter()
            .any(|net| net.to_string() == "10.31.0.1/32")
    );
}

#[test]
fn users_have_pools() {
    let user = |more: &str| {
        with_pools(&format!(
            "{BUSINESS}[[user]]\nname = \"alice\"\npassword = \"secret\"\n{more}\n"
        ))
    };
    let text = user("pool = \"business\"");
    let mut pools = config(&text).pools();
    let named = crate::aaa::Addresses::Named("business".into());
    let now = turnpike_protocol::Time::ZERO;
    let address = pools.allocate("alice", &named, now).unwrap();
    assert_eq!(address.to_string(), "10.30.0.1");
    for (more, expected) in [
        (
            "pool = \"gold\"",
            "t.toml:13: `pool` in [[user]] is \"gold\", which there is not",
        ),
        (
            "pool = \"business\"\naddress = \"10.9.0.1\"",
            "t.toml:13: `pool` in [[user]] stands beside an address",
        ),
    ] {
        let faults = faults(&user(more)).join("\n");
        assert!(faults.contains(expected), "{more}: {faults}");
    }
}

#[test]
fn pools_that_do_not_go_together_are_refused() {
    let pool = |name: &str, addresses: &str, more: &str| {
        format!("[[pool]]\nname = \"{name}\"\naddresses = [\"{addresses}\"]\n{more}\n")
    };
    let gold = |more: &str| pool("gold", "10.40.0.0/24", more);
    for (text, expected) in [
        (
            pool("gold", "10.20.0.0/25", ""),
            "the pools 10.20.0.1-10.20.0.126 and 10.20.0.10-10.20.0.250 overlap",
        ),
        (
            format!("{}{}", gold(""), pool("lead", "10.40.0.9", "")),
            "the pools 10.40.0.1-10.40.0.254 and 10.40.0.9 overlap",
        ),
        (
            format!("{}{}", gold(""), pool("gold", "10.41.0.9", "")),
            "the pool \"gold\" is there twice",
        ),
        (
            pool("default", "10.41.0.9", ""),
            "the pool \"default\" is there twice",
        ),
        (
            gold("next = \"lead\""),
            "names \"lead\", which there is not",
        ),
        (
            gold("next = \"gold\""),
            "the pools after \"gold\" lead round in a circle",
        ),
        (
            format!(
                "{}{}",
                gold("next = \"lead\""),
                pool("lead", "10.41.0.9", "next = \"gold\"")
            ),
            "the pools after \"gold\" lead round in a circle",
        ),
        (
            gold("exclude = [\"10.41.0.0/24\"]"),
            "which is not in this pool",
        ),
        (
            "[[pool]]\nname = \"gold\"\n".to_owned(),
            "`addresses` in [[pool]] is missing",
        ),
        (
            "[[pool]]\naddresses = [\"10.41.0.9\"]\n".to_owned(),
            "`name` in [[pool]] is missing",
        ),
        (
            pool("gold", "127.0.0.1-127.0.0.9", ""),
            "`addresses` in [[pool]] cannot be",
        ),
        (
            "[[pool]]\nname = \"gold\"\naddresses = []\n".to_owned(),
            "`addresses` in [[pool]] is empty",
        ),
        ("quarantine = \"2d\"\n".to_owned(), "quarantine"),
    ] {
        let faults = faults(&with_pools(&text)).join("\n");
        assert!(faults.contains(expected), "{text}: {faults}");
    }
    // What is excluded may lie in the way of others.
    assert!(
        faults(&with_pools(
            "exclude = [\"10.20.0.77\"]\n[server]\nlisten = [\"10.20.0.77\"]\n"
        ))
        .is_empty()
    );
}
