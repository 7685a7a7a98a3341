//! Comes with the first slice.

fn main() {}
