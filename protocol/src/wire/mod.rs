//! Views over packet bytes: checked once, then read and written in place.

pub mod ethernet;
