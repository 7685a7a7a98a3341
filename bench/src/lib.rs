//! The built-in client and the load generator: `protocol`'s client role over the same workers as the server's.
#![forbid(unsafe_code)]

pub mod compare;
pub mod dial;
pub mod faults;
pub mod fleet;
pub mod flood;
pub mod flow;
pub mod hold;
mod live;
pub mod monkey;
pub mod report;
pub mod road;
pub mod soak;
pub mod spread;
pub mod storm;
pub mod subscriber;
mod tcp;
pub mod traffic;
mod wake;
