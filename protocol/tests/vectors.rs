//! Everything on the wire against the vectors in `tests/vectors` at the root of the repository.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by panicking and say what they skip"
)]

#[path = "vectors/auth.rs"]
mod auth;
#[path = "vectors/control.rs"]
mod control;
#[path = "vectors/file.rs"]
mod file;
#[path = "vectors/frames.rs"]
mod frames;
#[path = "vectors/gre.rs"]
mod gre;
#[path = "vectors/link.rs"]
mod link;
#[path = "vectors/mppe.rs"]
mod mppe;
#[path = "vectors/mschap.rs"]
mod mschap;
#[path = "vectors/primitives.rs"]
mod primitives;
#[path = "vectors/radius.rs"]
mod radius;
