//! MS-CHAPv2 and MPPE against the vectors in `tests/vectors` at the root of the repository.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by panicking and say what they skip"
)]

#[path = "vectors/file.rs"]
mod file;
#[path = "vectors/mppe.rs"]
mod mppe;
#[path = "vectors/mschap.rs"]
mod mschap;
#[path = "vectors/primitives.rs"]
mod primitives;
