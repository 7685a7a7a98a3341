//! Chores of the project, and the laboratory that its demo and its tests share.
//!
//! `cargo xtask --help` lists the chores. [`lab`] makes network namespaces, starts guests with stock PPTP clients,
//! moves data with hashes at both ends and counts packets on a bridge; package `turnpike-tests` uses it as a library.
#![forbid(unsafe_code)]

pub mod bench;
pub mod console;
pub mod demo;
pub mod deploy;
pub mod ebpf;
pub mod fuzz;
pub mod lab;
pub mod table;
pub mod testing;
pub mod tidy;
