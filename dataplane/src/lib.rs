//! Pinned workers that carry calls: GRE, MPPE, PPP and forwarding over AF_XDP sockets, or over memory in tests.
#![deny(unsafe_code)]

mod acks;
pub mod api;
pub mod cipher;
pub mod counters;
pub mod device;
pub mod mem;
pub mod netdev;
pub mod ports;
pub mod resident;
pub mod rings;
pub mod table;
pub mod thread;
pub mod wake;
pub mod worker;
pub mod xdp;
pub mod xsk;

mod bucket;
mod burst;
mod call;
mod calls;
mod ccp;
mod commands;
mod decap;
mod decap6;
mod decrypt;
mod echo;
mod encap;
mod forward;
mod fragment;
mod handoff;
mod locals;
mod next_hops;
mod path;
mod refusal;
mod reorder;
mod routes;
mod routes6;
mod send;
mod to_us;
mod version;
mod wheel;
