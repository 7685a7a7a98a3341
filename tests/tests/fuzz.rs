//! Every parser under the fuzzer, `TURNPIKE_FUZZ_SECONDS` each (default 1), from `TURNPIKE_FUZZ_SEED` (default: the
//! time); and every input that once broke something, replayed.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by panicking and say how far they got"
)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use turnpike_tests::fuzz::{TARGETS, fuzz, regressions, replay, target};

fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name}={value}: not a number")),
    )
}

fn run(name: &str) {
    let seconds: f64 = setting("TURNPIKE_FUZZ_SECONDS").unwrap_or(1.0);
    let seed = setting("TURNPIKE_FUZZ_SEED").unwrap_or_else(|| {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_nanos() as u64
    });
    match fuzz(
        target(name).unwrap(),
        Duration::from_secs_f64(seconds),
        seed,
    ) {
        Ok(report) => {
            println!("{report}");
            // A whole call takes milliseconds.
            let least = if name == "whole_call" { 20 } else { 100 };
            assert!(report.executions > least, "{report}: that is no test");
        }
        Err(error) => panic!("{error:#}"),
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            run(stringify!($name));
        })*

        #[test]
        fn every_target_is_here() {
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

targets! {
    pptp_decoder
    pptp_server
    pptp_caller
    gre_header
    gre_receiver
    gre_reorder
    ethernet_ip
    tcp_mss
    icmp
    ppp_frame
    ppp_server_link
    ppp_client_link
    whole_call
    mppe
    mschap
    dhcp_inform
    dhcpv6
    radius_packet
    radius_hidden
    router
    chap_secrets
    configuration
    operator_request
}

#[test]
fn regressions_stay_fixed() {
    let found = regressions().unwrap();
    for (target, path) in &found {
        replay(*target, path).unwrap_or_else(|error| panic!("{error:#}"));
    }
    println!("{} inputs replayed", found.len());
}
