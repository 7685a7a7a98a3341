//! The turnpike server: control connections, negotiation, users, operator commands.
#![forbid(unsafe_code)]

pub mod aaa;
pub mod accounting;
pub mod admin;
pub mod admission;
pub mod applicants;
mod async_fd;
pub mod backend;
pub mod calls;
pub mod cause;
pub mod cli;
pub mod config;
pub mod counts;
pub mod dhcp6;
pub mod driver;
pub mod gre_socket;
pub mod inform;
pub mod listener;
pub mod lock;
pub mod log;
pub mod neighbours;
pub mod pcapng;
pub mod pool;
pub mod post;
pub mod prefixes;
pub mod radius;
pub mod rivals;
pub mod server;
pub mod sessions;
pub mod switchboard;
pub mod tunnel;
pub mod twins;
