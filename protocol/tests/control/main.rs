//! The control connection: server and caller together, and each alone.

mod alone;
mod pair;
mod window;
