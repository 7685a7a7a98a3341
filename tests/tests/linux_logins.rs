//! Every way to log in, with a client that nobody here wrote: pppd in a guest; and IPV6CP with it.
//!
//! Needs root and the packages that `cargo xtask test` installs.
#![allow(clippy::unwrap_used, reason = "a test says where it cannot go on")]

use std::time::Duration;

use serde_json::json;
use xtask::lab::inside::{End, Login, StockCall};
use xtask::lab::road::{self, ClientSide, Road};
use xtask::lab::server::{Configuration, Server};
use xtask::lab::stock::{self, Mppe, StockClient};

/// Words of pppd's log that show how it logged in.
const fn words(login: Login) -> &'static str {
    match login {
        Login::Pap => "rcvd [PAP AuthAck",
        Login::ChapMd5 => "<auth chap MD5>",
        Login::MsChapV1 => "<auth chap MS>",
        Login::MsChapV2 => "<auth chap MS-v2>",
    }
}

const fn name(login: Login) -> &'static str {
    match login {
        Login::Pap => "pap",
        Login::ChapMd5 => "chap-md5",
        Login::MsChapV1 => "ms-chap-v1",
        Login::MsChapV2 => "ms-chap-v2",
    }
}

/// A call that logs in by the last of the server's methods, since pppd refuses the others; or, with a wrong password, none.
fn call(login: Login, mppe: Option<Mppe>, right: bool) {
    let road = Road::build(ClientSide::Guest).unwrap();
    let mut configuration = Configuration::example("office", road.lab.directory()).unwrap();
    let mut methods = vec!["ms-chap-v2", "chap-md5"];
    methods.retain(|method| *method != name(login));
    methods.push(name(login));
    configuration.change("auth.methods", methods).unwrap();
    let policy = if mppe.is_some() { "require" } else { "allow" };
    configuration.change("auth.mppe", policy).unwrap();
    if mppe.is_some_and(|mppe| !mppe.stateless) {
        configuration.change("auth.mppe_stateful", "ask").unwrap();
    }
    let mut server = Server::start(&road.concentrator, &configuration).unwrap();
    let user = configuration.user().unwrap();
    let call = StockCall {
        server: road::SERVER.to_string(),
        user: user.name,
        password: if right {
            user.password
        } else {
            "not this one".to_owned()
        },
        login,
        options: match mppe {
            Some(Mppe { bits, stateless }) => {
                let stateful = (!stateless).then(|| "mppe-stateful".to_owned());
                let require = format!("require-mppe-{bits}");
                stateful.into_iter().chain([require]).collect()
            }
            None => vec!["nomppe".into()],
        },
        route: Some("default".into()),
        ping: Some(road::TARGET.to_string()),
        pings: 5,
        ping_before: false,
        moves: Vec::new(),
        end: End::Server,
    };
    let limit = Duration::from_secs(90);
    let mut client = StockClient::start(&road.client, "guest", 1500, &call, limit).unwrap();
    let report = client
        .wait_until(
            "pings, or the end",
            |_| (),
            |report| report.pinged.is_some() || report.failed.is_some(),
        )
        .unwrap_or_else(|error| panic!("{error:#}\nturnpike:\n{}", server.log()))
        .clone();
    let log = client.log();
    if !right {
        assert!(report.failed.is_some() && report.up.is_none(), "{log}");
        server.says(&["authentication_failed", "691"]).unwrap();
        return;
    }
    assert_eq!(
        report.pinged.map(|(_, answers, _)| answers),
        Some(5),
        "{log}"
    );
    assert!(log.contains(words(login)), "{log}");
    let session = server.sessions().unwrap().remove(0);
    let wanted = mppe.map(|mppe| json!({"bits": mppe.bits, "stateless": mppe.stateless}));
    for direction in ["mppe_receive", "mppe_transmit"] {
        assert_eq!(session[direction], json!(wanted), "{log}");
    }
    if mppe.is_some() {
        assert_eq!(stock::negotiated(&log), (mppe, mppe), "{log}");
    }
    server.ask(&["kill", "--all"]).unwrap();
    client.finish(|_| ()).unwrap();
    assert!(server.stop().unwrap().success(), "{}", server.log());
}

const KEYS: Mppe = Mppe {
    bits: 128,
    stateless: true,
};

/// The server as a link-local neighbour.
const ROUTER: &str = "fe80::1%ppp0";

#[test]
fn ipv6cp_beside_ipcp_and_both_carry_packets() {
    for target in [road::TARGET.to_string(), ROUTER.to_owned()] {
        call_with_ipv6(target);
    }
}

fn call_with_ipv6(target: String) {
    let road = Road::build(ClientSide::Guest).unwrap();
    road.concentrator.enable_ipv6().unwrap();
    let mut configuration = Configuration::example("office", road.lab.directory()).unwrap();
    configuration
        .change("network.ipv6_pool", "2001:db8:1::/48")
        .unwrap();
    let server = Server::start(&road.concentrator, &configuration).unwrap();
    let user = configuration.user().unwrap();
    let call = StockCall {
        server: road::SERVER.to_string(),
        user: user.name,
        password: user.password,
        login: Login::MsChapV2,
        options: vec!["require-mppe-128".into(), "+ipv6".into()],
        route: Some("default".into()),
        ping: Some(target),
        pings: 5,
        ping_before: false,
        moves: Vec::new(),
        end: End::Server,
    };
    let limit = Duration::from_secs(90);
    let mut client = StockClient::start(&road.client, "guest", 1500, &call, limit).unwrap();
    client
        .wait_until("pings", |_| (), |report| report.pinged.is_some())
        .unwrap_or_else(|error| panic!("{error:#}\nturnpike:\n{}", server.log()));
    let session = server.sessions().unwrap().remove(0);
    let log = client.log();
    assert_eq!(session["ipv6_prefix"], json!("2001:db8:1:1::/64"), "{log}");
    server.says(&["IPv6 up"]).unwrap();
    // pppd proposes an identifier, and both ends acknowledge: ours is 1.
    for line in [
        "rcvd [IPV6CP ConfAck",
        "sent [IPV6CP ConfAck",
        "fe80::0000:0000:0000:0001",
    ] {
        assert!(log.contains(line), "no {line}:\n{log}");
    }
    server.ask(&["kill", "--all"]).unwrap();
    let report = client.finish(|_| ()).unwrap();
    assert_eq!(report.pinged.map(|(_, answers, _)| answers), Some(5));
}

#[test]
fn pap() {
    call(Login::Pap, None, true);
}

#[test]
fn chap_with_md5() {
    call(Login::ChapMd5, None, true);
}

#[test]
fn ms_chap_v1_with_mppe_and_without() {
    call(Login::MsChapV1, Some(KEYS), true);
    // pppd has no 40 bits with this login: their keys come from a hash that it does not make.
    let stateful = Mppe {
        stateless: false,
        ..KEYS
    };
    call(Login::MsChapV1, Some(stateful), true);
    call(Login::MsChapV1, None, true);
}

#[test]
fn a_wrong_password_stays_out_by_every_method() {
    for login in Login::ALL {
        call(login, None, false);
    }
}
