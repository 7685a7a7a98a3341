//! Comes with the first slice.
