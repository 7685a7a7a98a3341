//! Pinned workers that carry calls: GRE, MPPE, PPP and forwarding over AF_XDP sockets, or over memory in tests.
#![deny(unsafe_code)]

pub mod api;
pub mod device;
pub mod wake;
