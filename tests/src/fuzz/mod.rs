//! A fuzzer for everything that reads what strangers send, on the stable toolchain.
//!
//! Inputs are mutated from seeds: the vectors, the captures, and conversations of our own. There is no coverage
//! instrument; instead each target gives back a digest of what it saw happen ([`Trace`]), and an input that makes
//! something new happen becomes a seed itself. A failing input is shrunk and saved in `tests/regressions/<target>`,
//! which the ordinary tests replay.

mod call;
mod discovery;
mod driver;
mod input;
mod links;
mod mutate;
mod network;
mod pptp;
mod radius;
mod secrets;
mod seeds;
mod services;
mod text;

pub use driver::{Report, fuzz, regressions, replay};
pub use input::{Input, Trace};

/// Something that is given octets. It panics when they do harm.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, and that of its folder of regressions.
    pub name: &'static str,
    /// Runs it once.
    pub run: fn(&[u8]) -> Trace,
    /// Where mutation starts.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "pptp_decoder",
        run: pptp::decoder,
        seeds: seeds::streams,
    },
    Target {
        name: "pptp_server",
        run: pptp::server,
        seeds: seeds::server_scripts,
    },
    Target {
        name: "pptp_caller",
        run: pptp::caller,
        seeds: seeds::caller_scripts,
    },
    Target {
        name: "gre_header",
        run: network::gre_header,
        seeds: seeds::gre_packets,
    },
    Target {
        name: "gre_receiver",
        run: network::gre_receiver,
        seeds: seeds::scripts,
    },
    Target {
        name: "gre_reorder",
        run: network::gre_reorder,
        seeds: seeds::scripts,
    },
    Target {
        name: "ethernet_ip",
        run: network::ethernet_ip,
        seeds: seeds::ethernet_frames,
    },
    Target {
        name: "tcp_mss",
        run: network::tcp_mss,
        seeds: seeds::ip_packets,
    },
    Target {
        name: "icmp",
        run: network::icmp,
        seeds: seeds::ip_packets,
    },
    Target {
        name: "ppp_frame",
        run: links::frame,
        seeds: seeds::ppp_frames,
    },
    Target {
        name: "ppp_server_link",
        run: links::server,
        seeds: links::server_seeds,
    },
    Target {
        name: "ppp_client_link",
        run: links::client,
        seeds: links::client_seeds,
    },
    Target {
        name: "whole_call",
        run: call::call,
        seeds: call::seeds,
    },
    Target {
        name: "mppe",
        run: secrets::mppe,
        seeds: seeds::scripts,
    },
    Target {
        name: "mschap",
        run: secrets::mschap,
        seeds: seeds::ppp_frames,
    },
    Target {
        name: "dhcp_inform",
        run: services::dhcp_inform,
        seeds: services::dhcp_seeds,
    },
    Target {
        name: "dhcpv6",
        run: services::dhcpv6,
        seeds: services::dhcpv6_seeds,
    },
    Target {
        name: "radius_packet",
        run: radius::packet,
        seeds: radius::packet_seeds,
    },
    Target {
        name: "radius_hidden",
        run: radius::hidden,
        seeds: radius::hidden_seeds,
    },
    Target {
        name: "router",
        run: discovery::router,
        seeds: discovery::seeds,
    },
    Target {
        name: "chap_secrets",
        run: text::chap_secrets,
        seeds: text::chap_secrets_seeds,
    },
    Target {
        name: "configuration",
        run: text::configuration,
        seeds: text::configuration_seeds,
    },
    Target {
        name: "operator_request",
        run: text::operator_request,
        seeds: text::operator_request_seeds,
    },
];

/// The target of this name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().copied().find(|target| target.name == name)
}
