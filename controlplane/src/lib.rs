//! The turnpike server: control connections, negotiation, users, operator commands.
#![forbid(unsafe_code)]

pub mod aaa;
pub mod admin;
pub mod cause;
pub mod cli;
pub mod config;
pub mod log;
pub mod pcapng;
pub mod pool;
